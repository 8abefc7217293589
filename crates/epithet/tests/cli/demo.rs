//! `epithet demo`, from beginning to end and interrupted anywhere: whatever happens, nothing is left behind.

use crate::epithet;
use epithet_testkit::{DEADLINE, Daemon, Finished, Home, wait_until};
use rustix::process::{Pid, Signal, kill_process_group};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// `epithet demo` with its temporary directory in this home, in a process group of its own as a shell starts it.
fn demo(home: &Home, words: &[&str]) -> Command {
    let mut command = epithet(home, ["demo"]);
    command.args(words).env("TMPDIR", home.path()).process_group(0);
    command
}

/// The directory that the demo says it has.
fn directory(said: &str) -> PathBuf {
    let line = said.lines().find(|line| line.contains("(removed at the end)"));
    let words = line.expect("the demo says where it is").split_whitespace();
    words
        .skip_while(|word| *word != "directory")
        .nth(1)
        .map(PathBuf::from)
        .expect("a path")
}

/// The command lines of processes that have to do with this folder.
fn left_running(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir("/proc")
        .expect("/proc is mounted")
        .filter_map(Result::ok);
    let command_line = |entry: std::fs::DirEntry| {
        let bytes = std::fs::read(entry.path().join("cmdline")).ok()?;
        let text = String::from_utf8_lossy(&bytes).replace('\0', " ");
        text.contains(folder.to_str()?).then_some(text)
    };
    entries.filter_map(command_line).collect()
}

/// Asserts that no process, file or directory of the demo that said this is there any more.
#[track_caller]
fn nothing_is_left(home: &Home, said: &str) {
    let directory = directory(said);
    assert!(!directory.exists(), "{}", directory.display());
    // Sessions of sshd end a moment after it.
    let gone = wait_until(DEADLINE, || left_running(&directory).is_empty().then_some(()));
    assert!(gone.is_some(), "{:#?}", left_running(&directory));
    let own: Vec<_> = std::fs::read_dir(home.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(own, [".ssh"], "the demo does not touch the person's own files");
}

/// Presses Ctrl-C: the terminal signals everybody in the foreground.
fn press_ctrl_c(demo: &Daemon) {
    let group = Pid::from_raw(i32::try_from(demo.pid()).unwrap()).unwrap();
    kill_process_group(group, Signal::INT).unwrap();
}

#[test]
fn the_demo_shows_a_whole_login_and_leaves_nothing_behind() {
    let home = Home::new();
    let finished = Finished::of(demo(&home, &[]), DEADLINE * 2).success();
    let steps = [
        "directory",
        "identity provider",
        "CA and policy",
        "sshd",
        "broker",
        "ssh",
        "logged in",
        "logged in again",
    ];
    let mut rest = finished.stdout.as_str();
    for step in steps {
        let at = rest
            .find(step)
            .unwrap_or_else(|| panic!("{step} does not come in its turn:\n{}", finished.stdout));
        rest = &rest[at..];
    }
    for part in [
        "user certificate",
        "Key ID: \"alice@example.com",
        "\"decision\":\"issued\"",
        "Accepted publickey for",
        "for development only",
        "nothing was left behind",
    ] {
        assert!(
            finished.stdout.contains(part),
            "{part} is not in:\n{}",
            finished.stdout
        );
    }
    assert!(
        !finished.stdout.contains('\x1b'),
        "no colours where there is no terminal"
    );
    nothing_is_left(&home, &finished.stdout);
}

#[test]
fn a_temporary_directory_with_a_long_path_does_not_keep_the_demo_from_working() {
    let home = Home::new();
    let long = home.join("d".repeat(60));
    std::fs::create_dir(&long).unwrap();
    let mut command = demo(&home, &[]);
    command.env("TMPDIR", &long);
    let finished = Finished::of(command, DEADLINE * 2).success();
    assert!(
        directory(&finished.stdout).starts_with("/tmp"),
        "{}",
        finished.stdout
    );
    std::fs::remove_dir(&long).unwrap();
    nothing_is_left(&home, &finished.stdout);
}

#[test]
fn ctrl_c_ends_the_demo_cleanly_wherever_it_is() {
    for step in ["directory", "identity provider", "sshd", "ssh ", "logged in"] {
        let home = Home::new();
        let mut demo = Daemon::start("the demo", demo(&home, &[]), None);
        let said = demo.stdout().wait_for_line(step, DEADLINE);
        assert!(said.is_some(), "{step}: {}{}", demo.stdout(), demo.stderr());
        press_ctrl_c(&demo);
        let status = demo
            .wait(DEADLINE)
            .unwrap_or_else(|| panic!("after {step} it does not end"));
        let said = demo
            .stdout()
            .wait_for_end(DEADLINE)
            .expect("its output ends with it");
        // At its last steps it may have been done before it was told.
        let done = said.contains("nothing was left behind");
        assert!(
            status.code() == Some(130) && said.contains("interrupted") || status.success() && done,
            "after {step}: {status}\n{said}{}",
            demo.stderr()
        );
        nothing_is_left(&home, &said);
    }
}

#[test]
fn a_demo_that_stays_can_be_logged_in_to_until_ctrl_c() {
    let home = Home::new();
    let mut demo = Daemon::start("the demo", demo(&home, &["--stay"]), None);
    let stays = demo.stdout().wait_for_line("It stays until Ctrl-C", DEADLINE);
    assert!(stays.is_some(), "{}{}", demo.stdout(), demo.stderr());
    let line = demo.stdout().wait_for_line(" -F ", DEADLINE).unwrap();
    let config = line
        .split_whitespace()
        .skip_while(|word| *word != "-F")
        .nth(1)
        .unwrap()
        .to_owned();

    let finished = home
        .run(
            "ssh",
            ["-F", &config, "-o", "BatchMode=yes", "127.0.0.1", "echo in"],
        )
        .success();
    assert_eq!(finished.stdout, "in\n");

    press_ctrl_c(&demo);
    assert_eq!(demo.wait(DEADLINE).and_then(|status| status.code()), Some(0));
    nothing_is_left(&home, &demo.stdout().text());
}

#[test]
fn a_demo_whose_terminal_closes_or_that_is_killed_leaves_nothing_behind() {
    for signal in [Signal::HUP, Signal::QUIT, Signal::KILL] {
        let home = Home::new();
        let mut demo = Daemon::start("the demo", demo(&home, &["--stay"]), None);
        let stays = demo.stdout().wait_for_line("It stays until Ctrl-C", DEADLINE);
        assert!(stays.is_some(), "{}{}", demo.stdout(), demo.stderr());
        let folder = directory(&demo.stdout().text());
        assert!(left_running(&folder).len() > 3, "{:#?}", left_running(&folder));
        let group = Pid::from_raw(i32::try_from(demo.pid()).unwrap()).unwrap();
        kill_process_group(group, signal).unwrap();
        let status = demo
            .wait(DEADLINE)
            .unwrap_or_else(|| panic!("{signal:?} does not end it"));
        assert_eq!(status.code(), (signal != Signal::KILL).then_some(0), "{signal:?}");
        wait_until(DEADLINE, || (!folder.exists()).then_some(())).expect("the directory goes");
        nothing_is_left(&home, &demo.stdout().text());
    }
}
