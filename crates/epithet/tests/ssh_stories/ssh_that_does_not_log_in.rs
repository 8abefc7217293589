//! `ssh -G` and `ssh -O` log in nowhere: they cost nobody anything, until somebody uses the agent that they were told of.

use crate::support::Story;
use epithet_testkit::{DEADLINE, Finished};

/// The agent that `ssh -G` names.
fn printed_agent(story: &Story) -> String {
    let printed = story.laptop.run_ssh(["-G", "127.0.0.1"]).success().stdout;
    let agent = printed
        .lines()
        .find_map(|line| line.strip_prefix("identityagent "));
    let agent = agent.expect("ssh -G prints the agent");
    // Before 8.3 as it stands in the file.
    agent
        .replace("%r", story.laptop.home.user().name())
        .replace("%h", "127.0.0.1")
}

#[test]
fn printing_the_configuration_and_asking_a_master_run_no_plugin_and_ask_no_ca_cold_or_warm() {
    let story = Story::begin();
    let broker = story.broker();
    let control = story.laptop.home.join("control");
    let control = control.to_str().unwrap();
    for _ in 0..3 {
        printed_agent(&story);
        let checked = story.laptop.run_ssh(["-S", control, "-O", "check", "127.0.0.2"]);
        assert!(
            checked.stderr.contains("Control socket connect"),
            "{}",
            checked.stderr
        );
        assert!(!checked.stderr.contains("epithet"), "{}", checked.stderr);
    }
    assert_eq!((story.plugin_runs(), story.site.decisions().len()), (0, 0));

    // With a login at hand it is the same.
    story.laptop.log_in("127.0.0.3");
    story.laptop.run_ssh(["-G", "127.0.0.4"]).success();
    assert_eq!((story.plugin_runs(), story.site.decisions().len()), (1, 1));
    let agents = story.laptop.inspect(&broker)["agents"].clone();
    assert_eq!(agents.as_array().unwrap().len(), 4, "{agents}");
}

#[test]
fn an_agent_that_only_was_printed_gets_its_certificate_when_it_is_used() {
    let story = Story::begin();
    let _broker = story.broker();
    let agent = printed_agent(&story);
    assert_eq!(story.plugin_runs(), 0);
    let mut list = story.laptop.home.command("ssh-add");
    list.arg("-L").env("SSH_AUTH_SOCK", &agent);
    let listed = Finished::of(list, DEADLINE).success().stdout;
    assert!(
        listed.starts_with("ssh-ed25519-cert-v01@openssh.com "),
        "{listed}"
    );
    assert_eq!((story.plugin_runs(), story.site.decisions().len()), (1, 1));
    // And an ssh that logs in takes it as it is.
    story.laptop.log_in("127.0.0.1");
    assert_eq!((story.plugin_runs(), story.site.decisions().len()), (1, 1));
}

#[test]
fn an_ssh_that_logs_in_does_not_wait_for_an_agent_that_only_was_printed() {
    let story = Story::begin();
    let _broker = story.broker();
    printed_agent(&story);
    story.laptop.log_in("127.0.0.1");
    assert_eq!((story.plugin_runs(), story.site.decisions().len()), (1, 1));
}

#[test]
fn printing_the_configuration_of_many_hosts_takes_no_place_from_those_who_log_in() {
    let story = Story::begin();
    let broker = story.broker_with(["--match", "127.0.0.*", "--max-agents", "3"]);
    for host in 4..10 {
        story.laptop.run_ssh(["-G", &format!("127.0.0.{host}")]).success();
    }
    let agents = story.laptop.inspect(&broker)["agents"].clone();
    assert_eq!(agents.as_array().unwrap().len(), 3, "{agents}");
    for host in ["127.0.0.1", "127.0.0.2", "127.0.0.3"] {
        story.laptop.log_in(host);
    }
}
