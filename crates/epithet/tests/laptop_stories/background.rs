//! `epithet agent --background`, `status` and `stop`.

use crate::support::Story;
use epithet_testkit::{DEADLINE, Daemon, Finished, wait_until};
use serde_json::json;
use std::process::Stdio;

#[test]
fn a_broker_in_the_background_serves_when_its_start_returns_and_leaves_nothing_when_stopped() {
    let story = Story::begin();

    let said = story.in_background().stderr;

    assert!(said.contains("epithet agent stop"), "{said}");
    assert!(story.run_dir("ssh-config.conf").exists());
    story.laptop.log_in("127.0.0.1");
    let status = story.status();
    assert_eq!((&status["running"], &status["agents"]), (&true.into(), &1.into()));
    assert_eq!(status["token"], "fresh");
    assert_eq!(status["cas"][0]["healthy"], true);
    assert!(status["since"].is_string(), "{status}");
    let page = story.epithet(["agent", "status"]).success().stdout;
    for part in [
        "is running (process ",
        "  hosts  127.0.0.*, localhost",
        "  agents 1",
    ] {
        assert!(page.contains(part), "{part} is not in:\n{page}");
    }

    // What it has to say goes to a file of its own, for its owner only.
    let log = story.laptop.home.join(".local/state/epithet/default.log");
    let logged = std::fs::read_to_string(&log).expect("it logs to a file");
    assert!(logged.contains("certificate received"), "{logged}");
    let mode = std::os::unix::fs::PermissionsExt::mode(&log.metadata().unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);

    let stopped = story.epithet(["agent", "stop"]).success();
    assert!(stopped.stderr.contains("has ended"), "{}", stopped.stderr);
    assert!(!story.run_dir("").exists());
    let status = story.epithet(["agent", "status"]);
    assert_eq!(status.code(), Some(1));
    assert!(
        status.stdout.contains("epithet agent --background"),
        "{}",
        status.stdout
    );
    let again = story.epithet(["agent", "stop"]).success();
    assert!(again.stderr.contains("no broker"), "{}", again.stderr);
}

#[test]
fn starting_it_twice_is_no_error_and_one_broker() {
    let story = Story::begin();
    story.in_background();
    let first = story.status()["pid"].clone();
    let again = story.in_background();
    assert!(again.stderr.contains("is running already"), "{}", again.stderr);
    assert_eq!(story.status()["pid"], first);
}

#[test]
fn a_start_that_fails_says_why_where_it_was_typed() {
    let story = Story::begin();
    let cases = [
        ("agent: {ca-url: 'http://ca.example.com'}", "in the clear", 1),
        ("agent: {auth: x}", "--ca-url is required", 1),
    ];
    for (config, reason, code) in cases {
        story.laptop.home.write(".epithet/config.yaml", config);
        let finished = story.epithet(["agent", "--background"]);
        assert_eq!(finished.code(), Some(code));
        assert!(finished.stderr.contains(reason), "{}", finished.stderr);
        assert!(!finished.stderr.contains("serves"), "{}", finished.stderr);
    }
    // What only the broker itself can find out.
    story.configure(story.site.url(), "./plugin");
    let run = story.laptop.home.join(".epithet/run");
    std::fs::create_dir_all(&run).unwrap();
    std::fs::set_permissions(&run, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    let finished = story.epithet(["agent", "--background"]);
    assert_eq!(finished.code(), Some(1));
    assert!(finished.stderr.contains("chmod go-rwx"), "{}", finished.stderr);
    std::fs::set_permissions(&run, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
}

#[test]
fn it_outlives_the_terminal_it_was_started_from() {
    let story = Story::begin();
    let program = crate::support::program().display();
    let mut command = story.laptop.home.command("script");
    let line = format!("'{program}' agent --background; echo returned");
    command.args(["-qefc", &line, "/dev/null"]).stdin(Stdio::piped());
    let mut terminal = Daemon::start("a terminal", command, None);
    let line = terminal.stdout().wait_for_line("returned", DEADLINE);
    assert!(line.is_some(), "{}", terminal.stdout());
    terminal.wait(DEADLINE).expect("nothing holds the terminal");
    story.laptop.log_in("127.0.0.1");
    let pid = story.status()["pid"].as_u64().expect("it runs");
    let session = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let terminal = session
        .rsplit(')')
        .next()
        .unwrap()
        .split_whitespace()
        .nth(4)
        .unwrap();
    assert_eq!(terminal, "0", "it has no controlling terminal");
}

#[test]
fn a_broker_that_does_not_answer_is_said_to_be_there_all_the_same() {
    let story = Story::begin();
    story.in_background();
    let pid = story.status()["pid"].as_u64().expect("it runs").to_string();
    let signal = |name: &str| {
        let mut command = story.laptop.home.command("kill");
        command.args([name, &pid]);
        Finished::of(command, DEADLINE).success();
    };
    signal("-STOP");
    let status = story.status();
    let finished = story.epithet(["agent", "status"]);
    signal("-CONT");
    assert_eq!((&status["running"], finished.code()), (&true.into(), Some(1)));
    assert!(finished.stdout.contains("does not answer"), "{}", finished.stdout);
    let well = wait_until(DEADLINE, || story.status()["pid"].is_u64().then_some(()));
    assert!(well.is_some());
}

#[test]
fn a_token_that_pays_for_nothing_more_is_not_called_fresh_however_young_it_is() {
    let story = Story::begin();
    let config = json!({"agent": {
        "ca-url": story.site.url(), "auth": story.plugin, "match": "127.0.0.*", "token-reuse": "0s",
    }});
    story
        .laptop
        .home
        .write(".epithet/config.yaml", config.to_string());
    story.in_background();
    assert_eq!(story.status()["token"], "none");
    story.laptop.log_in("127.0.0.1");
    assert_eq!(story.status()["token"], "spent");
}
