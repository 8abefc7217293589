//! Hosts that are none of ours: ssh must not notice that Epithet is there, nor Epithet that they were dialled.

use crate::support::{Story, lines};

/// The story's configuration, with the other key for every host.
fn with_another_key(story: &Story) {
    story.laptop.knows(&story.sshd, &story.laptop.other_identity());
}

/// Logs in at a host that is not ours, with the other key and without a word about Epithet.
#[track_caller]
fn unnoticed(story: &Story, host: &str) {
    let position = story.sshd.log_position();
    let said = story.laptop.log_in(host);
    assert!(!said.contains("epithet"), "{said}");
    let accepted = story.accepted(position);
    assert!(
        accepted.contains(&story.laptop.other_key.fingerprint()),
        "{accepted}"
    );
}

#[test]
fn with_patterns_in_the_file_ssh_does_not_even_start_match_for_another_host() {
    let mut story = Story::begin();
    let matches = story.watch_matches();
    let _broker = story.broker_with(["--match", "127.0.0.1", "--match", "*.example.com"]);
    with_another_key(&story);

    unnoticed(&story, "127.0.0.2");

    assert_eq!(lines(&matches), [""; 0]);
    assert_eq!((story.plugin_runs(), story.site.decisions().len()), (0, 0));
    story.laptop.log_in("127.0.0.1");
    assert_eq!(
        (
            lines(&matches).len(),
            story.plugin_runs(),
            story.site.decisions().len()
        ),
        (1, 1, 1),
        "and for ours it does all of it"
    );
}

#[test]
fn patterns_that_ssh_cannot_read_are_the_brokers_to_decide_and_it_asks_nobody() {
    let mut story = Story::begin();
    let matches = story.watch_matches();
    let _broker = story.broker_with(["--match", "127.0.0.{1,3}"]);
    with_another_key(&story);

    unnoticed(&story, "127.0.0.2");

    assert_eq!(lines(&matches).len(), 1, "ssh cannot know, so it asks");
    assert_eq!((story.plugin_runs(), story.site.decisions().len()), (0, 0));
    story.laptop.log_in("127.0.0.3");
    assert_eq!((story.plugin_runs(), story.site.decisions().len()), (1, 1));
}

#[test]
fn without_patterns_of_ones_own_the_hosts_that_the_ca_names_are_ours_and_no_others() {
    let mut story = Story::begin();
    let matches = story.watch_matches();
    let broker = story.broker_with([]);
    let config = std::fs::read_to_string(broker.run_dir().join("ssh-config.conf")).unwrap();
    let list = config
        .split_once("host \"!*'*,")
        .and_then(|(_, rest)| rest.split_once('"'));
    let mut hosts: Vec<_> = list.expect("the file has a host list").0.split(',').collect();
    hosts.sort_unstable();
    assert_eq!(hosts, ["127.0.0.*", "localhost", "localhost."]);
    story.laptop.home.trust(&story.sshd);
    story.laptop.ssh_config(&format!(
        "Host elsewhere\n  HostName {}\nHost *\n  Port {}\n  User {}\n  ConnectTimeout 5\n  KexAlgorithms curve25519-sha256\n",
        "elsewhere.invalid",
        story.sshd.port(),
        story.laptop.home.user().name(),
    ));

    let elsewhere = story.laptop.run_ssh(["elsewhere", "true"]);

    assert!(!elsewhere.stderr.contains("epithet"), "{}", elsewhere.stderr);
    assert_eq!(lines(&matches), [""; 0]);
    story.laptop.log_in("127.0.0.4");
    assert_eq!(story.site.decisions().len(), 1);
}
