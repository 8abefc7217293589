//! `epithet host setup --apply --reload` where systemd runs sshd: by its `systemctl`, which here is a program of the story
//! that does to a real sshd what the real one does.

use crate::other_worlds::World;
use crate::stage::{EtcSsh, Stage};
use epithet_testkit::{Finished, Sshd, SshdSettings};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

const CONFIG: &str = "Include /etc/ssh/sshd_config.d/*.conf\nPidFile /etc/ssh/pid\n";

/// What `systemctl reload ssh` does; files beside it say that it fails, or that the unit does not run.
const SYSTEMCTL: &str = r#"#!/bin/sh
here=$(dirname "$0")
echo "$*" >> "$here/asked"
case "$1 $2" in
"reload ssh")
  [ ! -e "$here/fails" ] || { echo "Job for ssh.service failed because of a story." >&2; exit 1; }
  [ ! -e "$here/inactive" ] || { echo "ssh.service is not active, cannot reload." >&2; exit 1; }
  kill -HUP "$(cat /etc/ssh/pid)" ;;
"is-active ssh")
  [ ! -e "$here/inactive" ] || { echo inactive; exit 3; }
  echo active ;;
*) exit 5 ;;
esac
"#;

/// A machine that systemd runs, whose `/etc/ssh` is a folder of the story.
struct Machine {
    stage: Stage,
    etc: EtcSsh,
    world: World,
    programs: PathBuf,
}

impl Machine {
    /// `None` where the tests may not make one.
    fn new() -> Option<Self> {
        let (stage, etc) = (Stage::new(), EtcSsh::new(CONFIG));
        std::fs::create_dir(etc.path().join("sshd_config.d")).unwrap();
        let units = stage.home.join("units");
        std::fs::create_dir(&units).unwrap();
        std::fs::write(units.join("ssh.service"), "[Unit]\n").unwrap();
        let programs = stage.home.join("programs");
        std::fs::create_dir(&programs).unwrap();
        let systemctl = programs.join("systemctl");
        std::fs::write(&systemctl, SYSTEMCTL).unwrap();
        std::fs::set_permissions(&systemctl, std::fs::Permissions::from_mode(0o755)).unwrap();
        let lines = format!(
            "mount --bind {} /etc/ssh\nmount --bind {} /etc/systemd/system\nmount -t tmpfs tmpfs /run\nmkdir -p /run/sshd /run/systemd/system",
            etc.path().display(),
            units.display()
        );
        let world = World::new(&stage.home, &lines)?;
        Some(Self {
            stage,
            etc,
            world,
            programs,
        })
    }

    fn sshd(&self) -> Sshd {
        self.world.start(SshdSettings {
            more: format!("Include {}\n", self.etc.config().display()),
            ..SshdSettings::default()
        })
    }

    fn setup(&self, more: &[&str]) -> Finished {
        let public = self.stage.ca.public_path().display().to_string();
        let mut arguments = vec!["host", "setup"];
        if !more.contains(&"--undo") {
            arguments.extend(["--ca-pubkey", &public]);
        }
        self.world
            .run_with(&self.stage, &self.programs, &[&arguments, more].concat())
    }

    fn is(&self, state: &str) {
        std::fs::write(self.programs.join(state), "").unwrap();
    }

    fn is_no_more(&self, state: &str) {
        std::fs::remove_file(self.programs.join(state)).unwrap();
    }

    fn asked(&self) -> String {
        std::fs::read_to_string(self.programs.join("asked")).unwrap_or_default()
    }
}

#[test]
fn systemctl_makes_a_running_sshd_accept_what_it_refused_and_refuse_it_again() {
    let Some(machine) = Machine::new() else { return };
    let sshd = machine.sshd();
    assert!(!machine.stage.logs_in(&sshd));
    let shown = machine.setup(&[]).success();
    assert!(
        shown.stdout.ends_with("systemctl reload ssh\n"),
        "{}",
        shown.stdout
    );
    assert_eq!(machine.asked(), "", "to show is not to do");

    let position = sshd.log_position();
    let applied = machine.setup(&["--apply", "--reload"]).success();
    assert!(
        applied.stderr.contains("reloaded sshd: systemctl reload ssh"),
        "{}",
        applied.stderr
    );
    assert_eq!(machine.asked(), "reload ssh\n");
    sshd.wait_for_log_after(position, "Server listening");
    assert!(machine.stage.logs_in(&sshd), "{}", sshd.log());

    let position = sshd.log_position();
    machine.setup(&["--undo", "--apply", "--reload"]).success();
    sshd.wait_for_log_after(position, "Server listening");
    assert!(!machine.stage.logs_in(&sshd));
}

#[test]
fn a_reload_that_fails_is_said_with_the_way_on_and_the_way_back() {
    let Some(machine) = Machine::new() else { return };
    let sshd = machine.sshd();
    machine.is("fails");
    let failed = machine.setup(&["--apply", "--reload"]);
    assert_eq!(failed.code(), Some(1));
    for words in [
        "wrote /etc/ssh/epithet-ca.pub",
        "sshd was not reloaded: `systemctl reload ssh` failed: Job for ssh.service failed because of a story.",
        "goes on with its old configuration",
        "epithet host setup --undo --apply",
    ] {
        assert!(failed.stderr.contains(words), "{words}: {}", failed.stderr);
    }
    assert!(!machine.stage.logs_in(&sshd), "sshd runs as before");

    // The way on: what is written stays, and the next run tells sshd.
    machine.is_no_more("fails");
    let position = sshd.log_position();
    let again = machine.setup(&["--apply", "--reload"]).success();
    assert!(again.stderr.contains("nothing to do"), "{}", again.stderr);
    sshd.wait_for_log_after(position, "Server listening");
    assert!(machine.stage.logs_in(&sshd));

    // The way back.
    machine.is("fails");
    assert_eq!(machine.setup(&["--undo", "--apply", "--reload"]).code(), Some(1));
    assert!(!machine.etc.path().join("sshd_config.d/10-epithet.conf").exists());
}

#[test]
fn an_sshd_that_runs_only_when_it_is_called_needs_no_reload() {
    let Some(machine) = Machine::new() else { return };
    machine.is("inactive");
    let applied = machine.setup(&["--apply", "--reload"]).success();
    assert!(
        applied.stderr.contains("sshd does not run now"),
        "{}",
        applied.stderr
    );
    assert_eq!(machine.asked(), "reload ssh\nis-active ssh\n");
    assert!(machine.stage.logs_in(&machine.sshd()));
}

#[test]
fn without_a_systemctl_the_missing_program_is_named() {
    let Some(machine) = Machine::new() else { return };
    std::fs::remove_file(machine.programs.join("systemctl")).unwrap();
    let mut command = machine
        .world
        .epithet(&machine.stage, &["host", "setup", "--apply", "--reload"]);
    command.arg("--ca-pubkey").arg(machine.stage.ca.public_path());
    // Where unshare and mount are, and systemctl is not.
    let few = machine.stage.home.join("few");
    std::fs::create_dir(&few).unwrap();
    for program in ["unshare", "mount", "mkdir", "getent", "id"] {
        let there = ["/usr/bin", "/bin", "/usr/sbin", "/sbin"]
            .iter()
            .map(|folder| Path::new(folder).join(program))
            .find(|path| path.exists());
        std::os::unix::fs::symlink(there.unwrap(), few.join(program)).unwrap();
    }
    command.env("PATH", &few);
    let failed = Finished::of(command, epithet_testkit::DEADLINE);
    assert_eq!(failed.code(), Some(1));
    assert!(
        failed.stderr.contains("cannot run systemctl"),
        "{}",
        failed.stderr
    );
}
