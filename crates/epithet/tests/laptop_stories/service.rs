//! Units of a service manager, and a broker that is started by whoever connects to its socket.

use crate::support::{Story, program};
use epithet_testkit::{DEADLINE, Daemon, Finished, plugin_script, wait_until};
use std::path::{Path, PathBuf};
use std::process::Command;

fn unit(story: &Story, name: &str) -> PathBuf {
    story.laptop.home.join(".config/systemd/user").join(name)
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Puts a `systemctl` into the home that writes down what it is told, and answers as a manager that runs.
fn with_manager(story: &Story) -> (PathBuf, PathBuf) {
    let told = story.laptop.home.join("told");
    let script = format!("#!/bin/sh\necho \"$*\" >> '{}'\n", told.display());
    let systemctl = plugin_script(story.laptop.home.path(), "systemctl", &script);
    (systemctl, told)
}

/// `epithet agent WORDS` where that `systemctl` is found first.
fn managed<'a>(story: &Story, words: impl IntoIterator<Item = &'a str>) -> Finished {
    let mut command = story.laptop.epithet();
    let path = std::env::var("PATH").expect("a PATH");
    command.env("PATH", format!("{}:{path}", story.laptop.home.path().display()));
    command.arg("agent").args(words);
    Finished::of(command, DEADLINE)
}

#[test]
fn installing_writes_units_that_systemd_accepts_and_running_it_again_changes_nothing() {
    let story = Story::begin();
    let said = story.epithet(["agent", "install"]).success().stdout;
    assert!(
        said.contains("wrote ~/.config/systemd/user/epithet-agent.socket"),
        "{said}"
    );
    assert!(
        said.contains("systemctl --user enable --now epithet-agent.socket epithet-agent.service"),
        "{said}"
    );
    let socket = read(&unit(&story, "epithet-agent.socket"));
    let listens = format!("ListenStream={}\n", story.run_dir("broker.sock").display());
    assert!(socket.contains(&listens), "{socket}");
    let service = read(&unit(&story, "epithet-agent.service"));
    assert!(service.contains("WantedBy=default.target"), "{service}");

    let again = story.epithet(["agent", "install"]).success().stdout;
    assert!(
        again.contains("unchanged: ~/.config/systemd/user/epithet-agent.service"),
        "{again}"
    );
    assert_eq!(read(&unit(&story, "epithet-agent.service")), service);

    let verify = Command::new("systemd-analyze")
        .args(["--user", "--man=no", "verify"])
        .arg(unit(&story, "epithet-agent.socket"))
        .arg(unit(&story, "epithet-agent.service"))
        .env("XDG_RUNTIME_DIR", story.laptop.home.path())
        .output();
    match verify {
        Ok(verified) => {
            let said = String::from_utf8_lossy(&verified.stderr);
            assert!(
                verified.status.success() && !said.contains("epithet-agent"),
                "{said}"
            );
        }
        Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::NotFound, "systemd is not here"),
    }
}

#[test]
fn uninstalling_removes_what_was_written_and_nothing_else() {
    let story = Story::begin();
    story.epithet(["agent", "install", "--name", "work"]).success();
    let mine = story
        .laptop
        .home
        .write(".config/systemd/user/mine.service", "[Unit]\n");
    let nothing = story.epithet(["agent", "uninstall"]).success().stdout;
    assert!(nothing.contains("nothing of profile \"default\""), "{nothing}");
    let said = story
        .epithet(["agent", "uninstall", "--name", "work"])
        .success()
        .stdout;
    assert!(
        said.contains("removed ~/.config/systemd/user/epithet-agent-work.service"),
        "{said}"
    );
    assert!(!unit(&story, "epithet-agent-work.service").exists());
    assert!(!unit(&story, "epithet-agent-work.socket").exists());
    assert_eq!(read(&mine), "[Unit]\n");

    // A unit of that name that somebody wrote by hand is theirs.
    let theirs = story
        .laptop
        .home
        .write(".config/systemd/user/epithet-agent.service", "[Unit]\n");
    let refused = story.epithet(["agent", "install"]);
    assert_eq!(refused.code(), Some(1));
    assert!(
        refused.stderr.contains("nothing was changed"),
        "{}",
        refused.stderr
    );
    story.epithet(["agent", "uninstall"]).success();
    assert_eq!(read(&theirs), "[Unit]\n");
}

#[test]
fn a_manager_is_told_to_enable_and_to_disable() {
    let story = Story::begin();
    let (_, told) = with_manager(&story);
    let said = managed(&story, ["install", "--enable"]).success().stdout;
    assert!(
        said.contains("the broker serves, now and after each login"),
        "{said}"
    );
    managed(&story, ["uninstall"]).success();
    let units = "epithet-agent.socket epithet-agent.service";
    let expected = [
        "--user show-environment",
        "--user daemon-reload",
        &format!("--user enable --now {units}"),
        "--user show-environment",
        &format!("--user disable --now {units}"),
        "--user daemon-reload",
    ];
    assert_eq!(read(&told).lines().collect::<Vec<_>>(), expected);
}

#[test]
fn what_could_not_start_is_not_installed() {
    let story = Story::begin();
    story
        .laptop
        .home
        .write(".epithet/config.yaml", "agent: {auth: ./plugin}");
    let finished = story.epithet(["agent", "install"]);
    assert_eq!(finished.code(), Some(1));
    assert!(finished.stderr.contains("epithet setup"), "{}", finished.stderr);
    assert!(!unit(&story, "epithet-agent.service").exists());
}

#[test]
fn without_a_manager_enabling_is_refused_with_what_to_do() {
    let story = Story::begin();
    let finished = story.epithet(["agent", "install", "--enable"]);
    assert_eq!(finished.code(), Some(1));
    assert!(
        finished.stderr.contains("no systemd user manager answers"),
        "{}",
        finished.stderr
    );
    assert!(
        finished.stderr.contains("epithet agent --background"),
        "{}",
        finished.stderr
    );
}

/// A real activator of systemd's, listening where the socket unit does.
fn activator(story: &Story) -> Option<Daemon> {
    let socket = story.run_dir("broker.sock");
    let folder = socket.parent().expect("a folder");
    story.laptop.home.write(".epithet/run/default/kept", "");
    std::fs::remove_file(folder.join("kept")).unwrap();
    let mut command = story.laptop.home.command("systemd-socket-activate");
    command.arg("-l").arg(&socket);
    for name in ["HOME", "PATH", "USER"] {
        command.arg("-E").arg(name);
    }
    command.arg(program()).args(["agent", "-v"]);
    if Command::new("systemd-socket-activate")
        .arg("--version")
        .output()
        .is_err()
    {
        return None;
    }
    let activator = Daemon::start("systemd-socket-activate", command, None);
    wait_until(DEADLINE, || socket.exists().then_some(())).expect("it listens");
    Some(activator)
}

#[test]
fn the_first_question_of_ssh_starts_a_broker_that_systemd_listens_for() {
    let story = Story::begin();
    // What a broker under the same socket left in an earlier session, or `agent install --enable` made.
    story.in_background();
    let generated = read(&story.run_dir("ssh-config.conf"));
    story.epithet(["agent", "stop"]).success();
    let Some(mut activator) = activator(&story) else {
        return;
    };
    story
        .laptop
        .home
        .write(".epithet/run/default/ssh-config.conf", generated);
    let idle = story.epithet(["agent", "status"]);
    assert_eq!(idle.code(), Some(1), "looking does not start it");

    story.laptop.log_in("127.0.0.1");

    let status = story.status();
    assert_eq!(
        status["pid"],
        u64::from(activator.pid()),
        "the activator became the broker"
    );
    let mode = std::os::unix::fs::PermissionsExt::mode(
        &story.run_dir("broker.sock").metadata().unwrap().permissions(),
    );
    assert_eq!(mode & 0o777, 0o600);
    let ended = activator.terminate(DEADLINE).expect("it ends");
    assert!(ended.success());
    // The next question can start the next one.
    assert!(story.run_dir("broker.sock").exists() && story.run_dir("ssh-config.conf").exists());
    assert!(!story.run_dir("agent").exists());
}

#[test]
fn a_socket_that_is_not_the_profiles_is_refused_by_name() {
    let story = Story::begin();
    let socket = story.laptop.home.join("elsewhere.sock");
    let mut command = story.laptop.home.command("systemd-socket-activate");
    command.arg("-l").arg(&socket).args(["-E", "HOME", "-E", "PATH"]);
    command.arg(program()).arg("agent");
    if Command::new("systemd-socket-activate")
        .arg("--version")
        .output()
        .is_err()
    {
        return;
    }
    let mut activator = Daemon::start("systemd-socket-activate", command, None);
    let connected = wait_until(DEADLINE, || std::os::unix::net::UnixStream::connect(&socket).ok());
    assert!(connected.is_some());
    activator.expect_line("epithet agent install", DEADLINE);
    assert_eq!(activator.wait(DEADLINE).and_then(|status| status.code()), Some(1));
}
