//! Connections through other connections: jump hosts, and masters that several ssh share.

use crate::support::{Story, lines};
use epithet_testkit::{Broker, DEADLINE, Daemon, Finished, SshdSettings, TestUser, wait_until};
use std::path::PathBuf;

#[test]
fn a_jump_host_and_the_host_behind_it_each_get_a_certificate_of_their_own() {
    let mut story = Story::begin();
    let matches = story.watch_matches();
    let _broker = story.broker();
    let behind = story.site.host(&story.laptop.other_key);
    story.laptop.home.trust(&behind);
    let user = story.laptop.home.user().name().to_owned();
    story.laptop.ssh_config(&format!(
        "Host jump\n  HostName 127.0.0.1\n  Port {}\nHost target\n  HostName 127.0.0.2\n  Port {}\n\
         Host *\n  User {user}\n  KexAlgorithms curve25519-sha256\n",
        story.sshd.port(),
        behind.port(),
    ));

    let finished = story
        .laptop
        .run_ssh(["-J", "jump", "target", "echo behind"])
        .success();

    assert_eq!(finished.stdout, "behind\n");
    let at_jump = story.accepted(0);
    let at_target = behind.wait_for_log("Accepted publickey");
    let serial = |line: &str| line.split_once("(serial ").map(|(_, after)| after.to_owned());
    assert_ne!(serial(&at_jump), serial(&at_target));
    let mut hosts: Vec<_> = story
        .site
        .decisions()
        .iter()
        .map(|decision| decision["host"].clone())
        .collect();
    hosts.sort_by_key(ToString::to_string);
    assert_eq!(hosts, ["127.0.0.1", "127.0.0.2"]);
    assert_eq!(lines(&matches).len(), 2, "{:#?}", lines(&matches));
    assert_eq!(story.plugin_runs(), 1);
}

#[test]
fn a_shared_connection_is_made_once_and_can_be_asked_about_and_ended() {
    let story = Story::begin();
    let _broker = story.broker();
    let control = story.laptop.home.join("control");
    story.laptop.knows(
        &story.sshd,
        &format!(
            "  ControlMaster auto\n  ControlPath {}\n  ControlPersist yes\n",
            control.display()
        ),
    );

    story.laptop.log_in("127.0.0.1");
    wait_until(DEADLINE, || control.exists().then_some(())).expect("the master stays");
    let position = story.sshd.log_position();
    story.laptop.log_in("127.0.0.1");
    let check = story.laptop.run_ssh(["-O", "check", "127.0.0.1"]).success();
    assert!(check.stderr.contains("Master running"), "{}", check.stderr);
    let exit = story.laptop.run_ssh(["-O", "exit", "127.0.0.1"]).success();
    assert!(exit.stderr.contains("Exit request sent"), "{}", exit.stderr);
    wait_until(DEADLINE, || (!control.exists()).then_some(())).expect("the master ends");

    assert_eq!(story.site.decisions().len(), 1);
    assert_eq!(story.plugin_runs(), 1);
    let again = &story.sshd.log()[position..];
    assert!(
        !again.contains("Accepted publickey"),
        "the second ssh went through the first one's connection: {again}"
    );
}

/// A life of a certificate that ssh can use at once, and whose end a story can wait for.
const SHORT: &str = "15s";

/// A story with a master that is there, and whose certificate has ended.
fn with_a_master() -> (Story, Broker, PathBuf) {
    let story = Story::with_life(&TestUser::current(), SHORT);
    let broker = story.broker();
    let control = story.laptop.home.join("a folder").join("control");
    story.laptop.home.write("a folder/here", "");
    let config = format!(
        "  ControlMaster auto\n  ControlPath \"{}-%n-%r\"\n  ControlPersist yes\n",
        control.display()
    );
    story.laptop.knows(&story.sshd, &config);
    story.laptop.log_in("127.0.0.1");
    let user = story.laptop.home.user().name();
    let control = control.with_file_name(format!("control-127.0.0.1-{user}"));
    wait_until(DEADLINE, || control.exists().then_some(())).expect("the master stays");
    story.wait_for_expiry(&broker);
    assert_eq!((story.plugin_runs(), story.site.decisions().len()), (1, 1));
    (story, broker, control)
}

/// Ends the master, as a network that went away does in the end.
fn end_master(story: &Story, control: &std::path::Path) {
    story.laptop.run_ssh(["-O", "exit", "127.0.0.1"]).success();
    wait_until(DEADLINE, || (!control.exists()).then_some(())).expect("the master ends");
}

#[test]
fn over_a_master_whose_certificate_has_ended_nobody_logs_in_and_no_ca_is_asked_until_it_is_gone() {
    let (story, broker, control) = with_a_master();

    // No token is at hand: the only one paid for a certificate that has ended.
    for _ in 0..2 {
        story.laptop.log_in("127.0.0.1");
        story.laptop.run_ssh(["-O", "check", "127.0.0.1"]).success();
        story.laptop.run_ssh(["-G", "127.0.0.1"]).success();
    }
    assert_eq!((story.plugin_runs(), story.site.decisions().len()), (1, 1));

    // With a login at hand it is the same, whether the reason could be said later or not.
    story.laptop.log_in("127.0.0.2");
    assert_eq!((story.plugin_runs(), story.site.decisions().len()), (2, 2));
    story.laptop.log_in("127.0.0.1");
    let said = story.laptop.home.join("said");
    let ssh = story.laptop.ssh(["127.0.0.1", "echo logged in"]);
    let mut command = story.laptop.home.command("sh");
    command
        .args(["-c", "exec \"$@\" 2>\"$SAID\"", "sh"])
        .env("SAID", &said);
    command.arg(ssh.get_program()).args(ssh.get_args());
    assert_eq!(Finished::of(command, DEADLINE).success().stdout, "logged in\n");
    assert_eq!(std::fs::read_to_string(said).unwrap(), "");
    // It was found out while ssh went on.
    let found_out = wait_until(DEADLINE, || {
        let mut trace = story.laptop.epithet();
        trace.args(["trace", "last", "--broker"]).arg(broker.socket());
        let shown = Finished::of(trace, DEADLINE).success().stdout;
        shown.contains("nothing was needed yet").then_some(())
    });
    found_out.expect("the trace says so");
    assert_eq!((story.plugin_runs(), story.site.decisions().len()), (2, 2));

    end_master(&story, &control);
    let position = story.sshd.log_position();
    story.laptop.log_in("127.0.0.1");
    assert!(story.accepted(position).contains("ID alice@example.com"));
    assert_eq!(story.site.decisions().len(), 3);
}

#[test]
fn a_master_that_takes_no_more_sessions_leaves_an_ssh_that_gets_its_certificate_when_it_asks() {
    let mut story = Story::with_life(&TestUser::current(), SHORT);
    story.sshd = story.site.host_with(
        &story.laptop.other_key,
        SshdSettings {
            more: "MaxSessions 1\n".to_owned(),
            ..SshdSettings::default()
        },
    );
    let broker = story.broker();
    let control = story.laptop.home.join("control");
    let config = format!("  ControlMaster auto\n  ControlPath {}\n", control.display());
    story.laptop.knows(&story.sshd, &config);
    let master = Daemon::start(
        "ssh",
        story.laptop.ssh(["127.0.0.1", "echo there; exec sleep 600"]),
        None,
    );
    wait_until(DEADLINE, || {
        master.stdout().text().contains("there").then_some(())
    })
    .expect("a session");
    story.wait_for_expiry(&broker);

    let position = story.sshd.log_position();
    let finished = story.laptop.run_ssh(["127.0.0.1", "echo logged in"]).success();

    assert_eq!(finished.stdout, "logged in\n", "{}", finished.stderr);
    assert!(
        finished.stderr.contains("ession open refused"),
        "{}",
        finished.stderr
    );
    assert!(story.accepted(position).contains("ID alice@example.com"));
    assert_eq!((story.plugin_runs(), story.site.decisions().len()), (2, 2));
    end_master(&story, &control);
}
