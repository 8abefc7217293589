//! A home whose path leaves no room for a socket's.

use crate::laptop::start;
use crate::support::Story;
use epithet_testkit::{Broker, DEADLINE, Finished};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Command;

/// A story in a home with a path of over a hundred bytes, and a runtime directory as login managers make one.
struct Long {
    story: Story,
    home: PathBuf,
    runtime: PathBuf,
}

impl Long {
    fn begin() -> Self {
        let story = Story::begin();
        let home = story.laptop.home.join("d".repeat(90));
        let runtime = story.laptop.home.join("rt");
        for folder in [&home, &runtime] {
            std::fs::create_dir(folder).unwrap();
            std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o700)).unwrap();
        }
        Self { story, home, runtime }
    }

    fn agent(&self) -> Command {
        let story = &self.story;
        let mut command = story.laptop.agent(story.site.url(), &story.plugin);
        command.args(["--match", "127.0.0.*"]).env("HOME", &self.home);
        command
    }
}

#[test]
fn the_sockets_of_a_long_home_are_in_the_runtime_directory_and_ssh_finds_them() {
    let long = Long::begin();
    let mut command = long.agent();
    command.env("XDG_RUNTIME_DIR", &long.runtime);
    let broker = start(command);
    assert!(
        broker.socket().starts_with(long.runtime.join("epithet/default")),
        "{}",
        broker.socket().display()
    );

    let include = long.home.join(".epithet/run/*/ssh-config.conf");
    long.story.laptop.home.trust(&long.story.sshd);
    long.story.laptop.home.ssh_config(&format!(
        "Include {}\nHost 127.0.0.*\n  Port {}\n  User {}\n  KexAlgorithms curve25519-sha256\n",
        include.display(),
        long.story.sshd.port(),
        long.story.laptop.home.user().name()
    ));
    long.story.laptop.log_in("127.0.0.1");

    let mut inspect = long.story.laptop.epithet();
    inspect
        .arg("inspect")
        .env("HOME", &long.home)
        .env("XDG_RUNTIME_DIR", &long.runtime);
    let page = Finished::of(inspect, DEADLINE).success().stdout;
    assert!(page.contains("Key ID: alice@example.com"), "{page}");

    broker.stop(DEADLINE);
    assert!(!long.runtime.join("epithet/default").exists());
    assert!(!long.home.join(".epithet/run/default").exists());
}

#[test]
fn without_a_runtime_directory_a_long_home_is_told_what_to_do() {
    let long = Long::begin();
    let error = Broker::try_start(long.agent()).unwrap_err();
    assert_eq!(error.status.and_then(|status| status.code()), Some(1));
    for words in ["too long", "XDG_RUNTIME_DIR"] {
        assert!(error.stderr.contains(words), "{}", error.stderr);
    }
    // One that others could reach into is no better than none.
    std::fs::set_permissions(&long.runtime, std::fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = long.agent();
    command.env("XDG_RUNTIME_DIR", &long.runtime);
    let error = Broker::try_start(command).unwrap_err();
    assert!(error.stderr.contains("0755"), "{}", error.stderr);
}

#[test]
fn a_broker_is_found_and_ended_from_a_shell_without_a_runtime_directory_even_when_that_is_gone() {
    let long = Long::begin();
    let mut command = long.agent();
    command.env("XDG_RUNTIME_DIR", &long.runtime);
    let mut broker = start(command);
    let ask = |words: &[&str]| {
        let mut command = long.story.laptop.epithet();
        command
            .args(words)
            .env("HOME", &long.home)
            .env_remove("XDG_RUNTIME_DIR");
        Finished::of(command, DEADLINE)
    };
    let status = ask(&["agent", "status"]).success();
    assert!(status.stdout.contains("is running"), "{}", status.stdout);
    let page = ask(&["inspect"]).success().stdout;
    assert!(page.contains(&broker.socket().display().to_string()), "{page}");

    // As at the last logout; at the next login the directory is there again.
    std::fs::remove_dir_all(&long.runtime).unwrap();
    broker.wait_for_log("cannot be asked for now");
    std::fs::create_dir(&long.runtime).unwrap();
    std::fs::set_permissions(&long.runtime, std::fs::Permissions::from_mode(0o700)).unwrap();
    broker.wait_for_log("socket had been removed, and was opened again");
    ask(&["agent", "status"]).success();

    std::fs::remove_dir_all(&long.runtime).unwrap();
    let stopped = ask(&["agent", "stop"]).success();
    assert!(stopped.stderr.contains("has ended"), "{}", stopped.stderr);
    assert!(broker.daemon().wait(DEADLINE).expect("it ends").success());
}
