//! A broker in the background whose socket is gone, that hangs, or that somebody else listens for.

use crate::support::Story;
use epithet_testkit::{DEADLINE, Finished, wait_until};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixListener;

impl Story {
    /// The background broker's process.
    fn pid(&self) -> u64 {
        self.status()["pid"].as_u64().expect("it runs")
    }

    fn signal(&self, name: &str, pid: u64) {
        let mut command = self.laptop.home.command("kill");
        command.args([name, &pid.to_string()]);
        Finished::of(command, DEADLINE).success();
    }
}

#[test]
fn a_broker_whose_socket_was_removed_opens_it_again() {
    let story = Story::begin();
    story.in_background();
    let pid = story.pid();
    let wait = || {
        let well = wait_until(DEADLINE, || (story.status()["pid"] == pid).then_some(()));
        assert!(well.is_some(), "{}", story.status());
    };
    std::fs::remove_file(story.run_dir("broker.sock")).unwrap();
    let again = story.in_background();
    assert!(again.stderr.contains("is running already"), "{}", again.stderr);
    wait();
    story.laptop.log_in("127.0.0.1");

    // The whole directory, lock and all.
    std::fs::remove_dir_all(story.run_dir("")).unwrap();
    wait();
    story.laptop.log_in("127.0.0.1");
    let log = story.laptop.home.join(".local/state/epithet/default.log");
    let logged = std::fs::read_to_string(log).unwrap();
    for words in ["socket had been removed", "run directory had been removed"] {
        assert!(logged.contains(words), "{words} is not in:\n{logged}");
    }
    story.epithet(["agent", "stop"]).success();
    assert!(!story.run_dir("").exists());
}

#[test]
fn a_broker_that_hangs_is_not_said_to_be_running_and_can_be_ended() {
    let story = Story::begin();
    story.in_background();
    let pid = story.pid();
    story.signal("-STOP", pid);

    let again = story.epithet(["agent", "--background"]);
    assert_eq!(again.code(), Some(1), "{}", again.stderr);
    for words in [
        &format!("process {pid}") as &str,
        "does not answer",
        "epithet agent stop && epithet agent --background",
    ] {
        assert!(
            again.stderr.contains(words),
            "{words} is not in:\n{}",
            again.stderr
        );
    }
    let stopped = story.epithet(["agent", "stop"]).success();
    assert!(stopped.stderr.contains("has ended"), "{}", stopped.stderr);
    assert!(!story.run_dir("").exists());
}

#[test]
fn a_broker_whose_socket_is_gone_is_ended_by_what_its_lock_says() {
    let story = Story::begin();
    story.in_background();
    let pid = story.pid();
    // Stopped, it cannot open the socket again first.
    story.signal("-STOP", pid);
    std::fs::remove_file(story.run_dir("broker.sock")).unwrap();
    let stopped = story.epithet(["agent", "stop"]).success();
    assert!(
        stopped.stderr.contains(&format!("process {pid}")),
        "{}",
        stopped.stderr
    );
    assert!(!story.run_dir("").exists());
    story.in_background();
    story.laptop.log_in("127.0.0.1");
}

#[test]
fn a_socket_that_a_service_manager_listens_at_is_neither_removed_nor_said_to_be_nothing() {
    let story = Story::begin();
    std::fs::create_dir_all(story.run_dir("")).unwrap();
    for folder in [".epithet/run", ".epithet/run/default"] {
        let folder = story.laptop.home.join(folder);
        std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o700)).unwrap();
    }
    let socket = story.run_dir("broker.sock");
    let manager = UnixListener::bind(&socket).unwrap();
    manager.set_nonblocking(true).unwrap();
    let inode = socket.metadata().unwrap().ino();

    let status = story.epithet(["agent", "status"]);
    assert_eq!(status.code(), Some(1), "it is not running yet");
    assert!(status.stdout.contains("with the next ssh"), "{}", status.stdout);
    assert!(!status.stdout.contains("--background"), "{}", status.stdout);
    assert_eq!(story.status()["startsOnDemand"], true);
    let started = story.in_background();
    assert!(started.stderr.contains("with the next ssh"), "{}", started.stderr);
    let by_hand = story.epithet(["agent"]);
    assert_eq!(by_hand.code(), Some(1));
    assert!(
        by_hand.stderr.contains("epithet agent stop"),
        "{}",
        by_hand.stderr
    );

    assert_eq!(socket.metadata().unwrap().ino(), inode);
    assert_eq!(
        manager.accept().unwrap_err().kind(),
        std::io::ErrorKind::WouldBlock,
        "nobody was asked"
    );
    assert_eq!(story.status()["running"], false);
    // What a dead one left is no listener.
    drop(manager);
    assert!(story.in_background().stderr.contains("serves"));
}

#[test]
fn what_is_said_after_a_start_names_the_profile() {
    let story = Story::begin();
    let said = story
        .epithet(["agent", "--background", "--name", "work"])
        .success()
        .stderr;
    for words in [
        "epithet agent status --name work",
        "epithet agent stop --name work",
    ] {
        assert!(said.contains(words), "{said}");
    }
    story.epithet(["agent", "stop", "--name", "work"]).success();
}

#[test]
fn doctor_sees_that_the_agents_have_nowhere_to_be() {
    let story = Story::begin();
    story.in_background();
    let pid = story.pid();
    let agents = story.run_dir("agent");
    std::fs::remove_dir(&agents).unwrap();
    // In its place is what the broker cannot make way for by itself.
    std::fs::write(&agents, "").unwrap();
    let doctor = story.epithet(["doctor"]);
    assert!(doctor.stdout.contains("agent is not there"), "{}", doctor.stdout);
    assert_eq!(story.pid(), pid);
}
