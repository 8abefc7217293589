//! paramiko and russh. Neither reads ssh's configuration, so they ask the broker themselves; neither binds.

use crate::support::Story;
use epithet_testkit::{DEADLINE, Finished, PythonPackage, Sshd};
use serde_json::Value;
use std::path::Path;
use std::process::Command;

/// What `ssh -G` would call the connection; to the broker any such name will do.
const HASH: &str = "0123456789abcdef0123456789abcdef01234567";

/// Adds what both clients are told.
fn with_the_story(command: &mut Command, story: &Story, broker: &epithet_testkit::Broker, behind: &Sshd) {
    let home = &story.laptop.home;
    home.trust(behind);
    let user = home.user().name();
    let onward = format!(
        "ssh -F none -o IdentityAgent=SSH_AUTH_SOCK -o IdentityFile=none -o BatchMode=yes -o UserKnownHostsFile={} \
         -o GlobalKnownHostsFile=/dev/null -o HostKeyAlias=behind -p {} -l {user} 127.0.0.1 echo got further",
        known_as(story, "behind", behind),
        behind.port()
    );
    command
        .args([
            "--match",
            env!("CARGO_BIN_EXE_epithet-match"),
            "--host",
            "127.0.0.1",
        ])
        .args([
            "--port",
            &story.sshd.port().to_string(),
            "--user",
            user,
            "--hash",
            HASH,
        ])
        .args(["--elsewhere", &onward, "--known-hosts"])
        .arg(known_as(
            story,
            &format!("[127.0.0.1]:{}", story.sshd.port()),
            &story.sshd,
        ))
        .arg("--broker")
        .arg(broker.socket());
}

/// A file of known hosts with one name in it.
fn known_as(story: &Story, name: &str, sshd: &Sshd) -> String {
    let path = story.laptop.home.write(
        format!("known-{}", sshd.port()),
        format!("{name} {}\n", sshd.host_key()),
    );
    path.display().to_string()
}

/// The steps that the client printed, by name.
fn steps(finished: Finished) -> impl Fn(&str) -> Value {
    let finished = finished.success();
    move |name| {
        let lines = finished
            .stdout
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let mut found = lines.filter(|step| step["step"] == name);
        found
            .next()
            .unwrap_or_else(|| panic!("no step {name:?} in {}{}", finished.stdout, finished.stderr))
    }
}

#[track_caller]
fn assert_one_login_a_question(story: &Story, behind: &Sshd, step: &dyn Fn(&str) -> Value) {
    for asked in ["asked", "asked again"] {
        assert_eq!(step(asked)["said"], "logged in\n", "{asked}");
    }
    assert!(
        step("not asked again")["refused"].is_string(),
        "{}",
        step("not asked again")
    );
    let forwarded = step("forwarded");
    let said = forwarded["said"]
        .as_str()
        .unwrap_or_else(|| panic!("{forwarded}"));
    assert!(said.contains("The agent has no identities."), "{said}");
    assert!(said.contains("login 255"), "{said}");
    assert!(!behind.log().contains("Accepted"), "{}", behind.log());
    assert_eq!(story.plugin_runs(), 1);
}

#[test]
fn paramiko_logs_in_once_for_each_question_and_lends_the_host_nothing() {
    let package = PythonPackage::installed("paramiko");
    let story = Story::begin();
    let broker = story.broker();
    let behind = story.site.host(&story.laptop.other_key);
    let (python, script) = package.program("client.py");
    let mut client = story.laptop.home.command(python);
    client.arg(script);
    with_the_story(&mut client, &story, &broker, &behind);

    let step = steps(Finished::of(client, 3 * DEADLINE));

    assert_one_login_a_question(&story, &behind, &step);
}

#[test]
fn russh_logs_in_once_for_each_question_and_whenever_it_binds() {
    let package = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/russh");
    let mut build = Command::new(env!("CARGO"));
    build.args(["build", "--quiet", "--locked"]).current_dir(&package);
    // With settings of its own, not with those of the build that runs this test.
    build.env_remove("CARGO_TARGET_DIR").env_remove("RUSTFLAGS");
    Finished::of(build, 20 * DEADLINE).success();
    let story = Story::begin();
    let broker = story.broker();
    let behind = story.site.host(&story.laptop.other_key);
    let mut client = story
        .laptop
        .home
        .command(package.join("target/debug/russh-client"));
    with_the_story(&mut client, &story, &broker, &behind);

    let step = steps(Finished::of(client, 3 * DEADLINE));

    for asked in ["asked", "asked again", "bound"] {
        assert_eq!(step(asked)["said"], "logged in\n", "{asked}: {}", step(asked));
    }
    assert!(
        step("not asked again")["refused"].is_string(),
        "{}",
        step("not asked again")
    );
    assert_eq!(story.plugin_runs(), 1);
}
