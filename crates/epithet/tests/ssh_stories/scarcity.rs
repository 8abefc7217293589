//! Too few descriptors, too many connections, certificates that end while somebody uses them.

use crate::fake_ca::FakeCa;
use crate::laptop::{Laptop, start};
use crate::support::{Story, ask};
use epithet_ssh::CaKey;
use epithet_testkit::{DEADLINE, Finished, Sshd, SshdSettings, plugin_script, wait_until};
use std::sync::Arc;
use std::time::Duration;

fn hash(number: usize) -> String {
    format!("{number:040x}")
}

#[test]
fn without_descriptors_the_broker_says_so_stays_calm_and_goes_on_afterwards() {
    let story = Story::begin();
    let mut command = story.laptop.home.command("sh");
    let agent = story.laptop.agent(story.site.url(), &story.plugin);
    command.args(["-c", "ulimit -n 64 && exec \"$@\"", "sh"]);
    command.arg(agent.get_program()).args(agent.get_args());
    command.args(["--match", "*"]);
    let mut broker = start(command);
    let user = story.laptop.home.user().name().to_owned();
    let mut refusals = Vec::new();
    for number in 0..80 {
        let answer = ask(broker.socket(), "127.0.0.1", &user, &hash(number));
        if answer["result"]["allow"] != true {
            refusals.push(answer["result"]["error"].as_str().unwrap_or_default().to_owned());
        }
    }
    assert!(!refusals.is_empty());
    for refusal in &refusals {
        assert!(
            refusal.contains("limit") || refusal.contains("open files") || refusal.contains("no CA"),
            "{refusal}"
        );
    }
    // Not spinning: what it burns while nothing is asked of it is next to nothing.
    let burnt = |pid: u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        let after = stat.rsplit(')').next().unwrap().to_owned();
        let ticks = after.split_whitespace().skip(11).take(2);
        ticks.map(|ticks| ticks.parse::<u64>().unwrap()).sum::<u64>()
    };
    let pid = broker.daemon().pid();
    let before = burnt(pid);
    std::thread::sleep(Duration::from_secs(2));
    assert!(burnt(pid) - before < 60, "less than 0.6 s of CPU in two seconds");
    // A host with a live agent is served as before.
    let answer = ask(broker.socket(), "127.0.0.1", &user, &hash(0));
    assert_eq!(answer["result"]["allow"], true, "{answer}");
}

#[test]
fn at_the_limit_of_agents_the_error_says_what_to_do_and_no_live_one_is_lost() {
    let story = Story::begin();
    let broker = story.broker_with(["--match", "*", "--max-agents", "3"]);
    let user = story.laptop.home.user().name().to_owned();
    for number in 0..3 {
        let answer = ask(broker.socket(), "127.0.0.1", &user, &hash(number));
        assert_eq!(answer["result"]["allow"], true, "{answer}");
    }
    let answer = ask(broker.socket(), "127.0.0.1", &user, &hash(3));
    let error = answer["result"]["error"].as_str().unwrap();
    assert!(
        error.contains("there are 3 live agents") && error.contains("max-agents"),
        "{error}"
    );
    assert_eq!(
        story.laptop.inspect(&broker)["agents"].as_array().unwrap().len(),
        3
    );
}

#[test]
fn a_certificate_in_use_is_renewed_before_its_end_when_that_is_asked_for() {
    let key = Arc::new(CaKey::generate_ed25519().unwrap());
    let ca = FakeCa::certifying(&key, Duration::from_secs(14));
    let laptop = Laptop::new();
    let sshd = Sshd::start(SshdSettings {
        ca_public_key: Some(key.public_line()),
        ..SshdSettings::default()
    });
    laptop.knows(&sshd, "");
    let plugin = plugin_script(laptop.home.path(), "plugin", "#!/bin/sh\necho token\n");
    let mut command = laptop.agent(&ca.url(), &plugin.display().to_string());
    command.args(["--match", "127.0.0.*", "--renew"]);
    let broker = start(command);
    laptop.log_in("127.0.0.1");
    let first = laptop.inspect(&broker)["agents"][0].clone();
    let renewed = wait_until(DEADLINE, || {
        let agent = laptop.inspect(&broker)["agents"][0].clone();
        (agent["state"] == "ready" && agent["expiresAt"] != first["expiresAt"]).then_some(agent)
    })
    .unwrap_or_else(|| panic!("{}", broker.log()));
    assert_ne!(renewed["requestId"], first["requestId"]);
    assert_eq!(renewed["socketPath"], first["socketPath"]);
    assert!(ca.asked().len() >= 2);
    laptop.log_in("127.0.0.1");
}

#[test]
fn a_certificate_that_nobody_logs_in_with_is_not_renewed_however_often_it_is_looked_at() {
    let key = Arc::new(CaKey::generate_ed25519().unwrap());
    let ca = FakeCa::certifying(&key, Duration::from_secs(14));
    let laptop = Laptop::new();
    let sshd = Sshd::start(SshdSettings::default());
    laptop.knows(&sshd, "");
    let plugin = plugin_script(laptop.home.path(), "plugin", "#!/bin/sh\necho token\n");
    let mut command = laptop.agent(&ca.url(), &plugin.display().to_string());
    command.args(["--match", "127.0.0.*", "--renew"]);
    let broker = start(command);
    laptop.run_ssh(["-G", "127.0.0.1"]).success();
    let agent = laptop.inspect(&broker)["agents"][0]["socketPath"].clone();
    let listed = || {
        let mut list = laptop.home.command("ssh-add");
        list.arg("-L").env("SSH_AUTH_SOCK", agent.as_str().unwrap());
        Finished::of(list, DEADLINE).stdout.contains("ed25519-cert-v01")
    };
    assert!(listed(), "{}", broker.log());
    wait_until(DEADLINE, || (!listed()).then_some(())).expect("it ends");
    assert_eq!(ca.asked().len(), 1);
}
