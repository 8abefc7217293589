//! Connections through other connections: jump hosts, and masters that several ssh share.

use crate::support::{Story, lines};
use epithet_testkit::{DEADLINE, wait_until};

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
