//! The broker as a service of a real systemd user manager: socket activation, restarts, and an end without traces.
//!
//! The manager runs as the ordinary account, in a mount namespace with a `/run` of its own and in control groups of its
//! own. Where that cannot be had (without root, without systemd, with control groups that cannot be written) there is
//! nothing to show; units and the words for `systemctl` are told in `laptop_stories/service.rs` all the same.

use crate::support::Story;
use epithet_testkit::{DEADLINE, Daemon, Finished, TestUser, search_path, wait_until};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where distributions put it.
const SYSTEMD: [&str; 2] = ["/lib/systemd/systemd", "/usr/lib/systemd/systemd"];

/// Becomes the manager: `$1` user id, `$2` group id, `$3` home, `$4` control group, `$5` systemd, `$6` path.
const BECOME_MANAGER: &str = r#"
set -e
mount --make-rprivate /
mount -t tmpfs tmpfs /run
# systemd looks here to find out whether it may be used.
mkdir -p /run/systemd/system /run/sshd "/run/user/$1"
chown "$1:$2" "/run/user/$1" && chmod 700 "/run/user/$1"
for root in /sys/fs/cgroup /sys/fs/cgroup/unified /sys/fs/cgroup/systemd; do
    if [ -w "$root/cgroup.procs" ] && mkdir -p "$root/$4/manager" 2>/dev/null; then
        chown -R "$1:$2" "$root/$4"
        echo $$ > "$root/$4/manager/cgroup.procs"
    fi
done
exec setpriv --reuid "$1" --regid "$2" --clear-groups env -i "HOME=$3" "PATH=$6" "XDG_RUNTIME_DIR=/run/user/$1" \
    SHELL=/bin/sh SYSTEMD_LOG_TARGET=console "$5" --user
"#;

/// A manager that runs.
struct Manager {
    daemon: Daemon,
    user: TestUser,
    home: PathBuf,
    control_group: String,
}

impl Manager {
    /// `None`, with a line that says so, where none can be had.
    fn start(user: &TestUser, home: &Path) -> Option<Self> {
        let systemd = SYSTEMD.into_iter().find(|path| Path::new(path).exists());
        let Some(systemd) = systemd else {
            eprintln!("systemd is not installed, so nothing was shown");
            return None;
        };
        let control_group = format!("epithet-test-{}", std::process::id());
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", BECOME_MANAGER, "sh"]);
        command.args([user.uid().to_string(), user.gid().to_string()]);
        command
            .arg(home)
            .args([control_group.as_str(), systemd])
            .arg(search_path());
        let mut manager = Self {
            daemon: Daemon::start("systemd --user", command, None),
            user: user.clone(),
            home: home.to_owned(),
            control_group,
        };
        let state = wait_until(DEADLINE, || {
            if manager.daemon.try_status().is_some() {
                return Some(String::new());
            }
            let state = manager.systemctl(&["is-system-running"]).stdout;
            ["running", "degraded"].contains(&state.trim()).then_some(state)
        });
        if state.is_none_or(|state| state.is_empty()) {
            eprintln!(
                "no user manager runs here, so nothing was shown: {}",
                manager.daemon.stderr()
            );
            return None;
        }
        Some(manager)
    }

    /// A program in the manager's session.
    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--mount", "--target", &self.daemon.pid().to_string()]);
        command.args(["setpriv", "--reuid", &self.user.uid().to_string()]);
        command.args(["--regid", &self.user.gid().to_string(), "--clear-groups"]);
        command
            .env_clear()
            .env("PATH", search_path())
            .env("HOME", &self.home);
        command.env("XDG_RUNTIME_DIR", format!("/run/user/{}", self.user.uid()));
        command.env("USER", self.user.name()).env("SHELL", "/bin/sh");
        command.arg(program).current_dir("/");
        command
    }

    fn run(&self, program: &Path, words: &[&str]) -> Finished {
        let mut command = self.command(program);
        command.args(words);
        Finished::of(command, DEADLINE)
    }

    fn systemctl(&self, words: &[&str]) -> Finished {
        let words: Vec<_> = ["--user"].iter().chain(words).copied().collect();
        self.run(Path::new("systemctl"), &words)
    }

    fn is_active(&self, unit: &str) -> bool {
        self.systemctl(&["is-active", unit]).stdout.trim() == "active"
    }

    fn main_process(&self) -> Option<u32> {
        let shown = self.systemctl(&["show", "-P", "MainPID", "epithet-agent.service"]);
        shown.stdout.trim().parse().ok().filter(|process| *process != 0)
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        // Its units end with it.
        self.daemon.terminate(DEADLINE);
        for root in [
            "/sys/fs/cgroup",
            "/sys/fs/cgroup/unified",
            "/sys/fs/cgroup/systemd",
        ] {
            let group = Path::new(root).join(&self.control_group);
            if group.exists() {
                let mut remove = Command::new("find");
                remove
                    .arg(group)
                    .args(["-depth", "-type", "d", "-exec", "rmdir", "{}", ";"]);
                Finished::of(remove, DEADLINE);
            }
        }
    }
}

#[test]
fn a_user_manager_starts_the_broker_when_ssh_asks_and_uninstalling_leaves_nothing() {
    let Some(user) = TestUser::ordinary() else {
        eprintln!("only root can make a session of its own here, so nothing was shown");
        return;
    };
    let story = Story::of(&user);
    let home = story.laptop.home.path().to_owned();
    let config = serde_json::json!({"agent": {"ca-url": story.site.url(), "auth": story.plugin, "match": ["127.0.0.*"]}});
    story
        .laptop
        .home
        .write(".epithet/config.yaml", config.to_string());
    let Some(manager) = Manager::start(&user, &home) else {
        return;
    };
    let agent = |words: &[&str]| {
        let words: Vec<_> = ["agent"].iter().chain(words).copied().collect();
        manager.run(&story.laptop.program, &words)
    };
    let log_in = |when: &str| {
        let config = home.join(".ssh/config").display().to_string();
        let words = ["--wait", "ssh", "-F", &config, "127.0.0.1", "echo logged in"];
        let finished = manager.run(Path::new("setsid"), &words).success();
        assert_eq!(finished.stdout, "logged in\n", "{when}: {}", finished.stderr);
    };
    let units = ["epithet-agent.socket", "epithet-agent.service"];

    let said = agent(&["install", "--enable"]).success().stdout;
    assert!(
        said.contains("the broker serves, now and after each login"),
        "{said}"
    );
    assert!(units.iter().all(|unit| manager.is_active(unit)));
    let status = agent(&["status"]).success().stdout;
    assert!(status.contains("is running"), "{status}");
    log_in("as a service");

    manager.systemctl(&["stop", "epithet-agent.service"]).success();
    assert!(!manager.is_active("epithet-agent.service"));
    log_in("started by the socket");
    assert!(manager.is_active("epithet-agent.service"));

    let killed = manager.main_process().expect("it runs");
    manager
        .systemctl(&["kill", "--signal=KILL", "epithet-agent.service"])
        .success();
    let next = wait_until(DEADLINE, || {
        manager.main_process().filter(|process| *process != killed)
    });
    assert!(next.is_some(), "the manager starts it again");
    log_in("after it was killed");
    manager.systemctl(&["reload", "epithet-agent.service"]).success();
    assert_eq!(manager.main_process(), next, "a reload is no restart");

    agent(&["stop"]).success();
    assert!(!units.iter().any(|unit| manager.is_active(unit)));
    agent(&["install", "--enable"]).success();
    log_in("enabled again");

    agent(&["uninstall"]).success();
    let left = manager
        .systemctl(&["list-unit-files", "--no-legend", "epithet*"])
        .stdout;
    assert_eq!(left.trim(), "");
    assert!(!home.join(".epithet/run/default").exists());
}
