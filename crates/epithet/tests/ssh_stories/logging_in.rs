//! The main story: `ssh host` logs in with a certificate for exactly this user at exactly this host.

use crate::laptop::Laptop;
use crate::support::Story;
use epithet_testkit::{DEADLINE, Daemon, TestUser};

#[test]
fn sshd_the_audit_log_and_inspect_name_the_same_certificate_for_the_user_asked_for_and_nobody_else() {
    let story = Story::begin();
    let broker = story.broker();
    let user = story.laptop.home.user().name();

    story.laptop.log_in("127.0.0.1");

    let decisions = story.site.decisions();
    let [issued] = decisions.as_slice() else {
        panic!("one certificate was asked for, but the audit log has {decisions:#?}")
    };
    assert_eq!(
        (&issued["decision"], &issued["principals"]),
        (&"issued".into(), &serde_json::json!([user]))
    );
    let text = |name: &str| issued[name].as_str().expect(name);
    let (key_id, serial) = (text("key_id"), text("serial"));
    assert!(key_id.starts_with("alice@example.com"), "{key_id}");

    let accepted = story.accepted(0);
    for part in [
        format!("Accepted publickey for {user} from 127.0.0.1"),
        format!("ID {key_id} (serial {serial})"),
        format!("CA ED25519 {}", story.site.fingerprint()),
    ] {
        assert!(accepted.contains(&part), "{part:?} is not in: {accepted}");
    }

    let certificates = story.laptop.certificates(&broker);
    let [certificate] = certificates.as_slice() else {
        panic!("the broker has {certificates:#?}")
    };
    let valid = format!(
        "from {} to {}",
        text("valid_after").trim_end_matches('Z'),
        text("valid_before").trim_end_matches('Z')
    );
    for part in [
        "user certificate",
        key_id,
        serial,
        &valid,
        &format!("Principals: \n                {user}\n        Critical Options: (none)"),
    ] {
        assert!(certificate.contains(part), "{part:?} is not in: {certificate}");
    }
    assert_eq!(story.plugin_runs(), 1);
}

#[test]
fn an_ordinary_user_with_a_broker_of_their_own_logs_in_as_themselves_and_as_root() {
    // Where the tests do not run as root, every other story is this one.
    let Some(user) = TestUser::ordinary() else { return };
    let story = Story::of(&user);
    let broker = story.broker();
    let config = std::fs::read_to_string(broker.run_dir().join("ssh-config.conf")).unwrap();
    assert!(
        config.contains("/epithet' 'match' --host"),
        "without the small program beside it the big one is asked: {config}"
    );

    let themselves = story.laptop.run_ssh(["127.0.0.1", "id -un"]).success();
    let position = story.sshd.log_position();
    let root = story
        .laptop
        .run_ssh(["-l", "root", "127.0.0.1", "id -un"])
        .success();

    assert_eq!(
        (themselves.stdout.trim(), root.stdout.trim()),
        (user.name(), "root")
    );
    story.accepted(position);
    let decisions = story.site.decisions();
    let principals: Vec<_> = decisions
        .iter()
        .map(|decision| decision["principals"].clone())
        .collect();
    assert_eq!(
        principals,
        [serde_json::json!([user.name()]), serde_json::json!(["root"])]
    );
    assert_eq!(
        story.plugin_runs(),
        1,
        "one login's token paid for both certificates"
    );
}

#[test]
fn a_second_ssh_to_the_same_host_is_served_by_the_agent_that_is_there() {
    let story = Story::begin();
    let _broker = story.broker();
    story.laptop.log_in("127.0.0.1");
    let first = story.accepted(0);
    // Whatever is asked from now on, nobody would answer.
    let site_is_gone = story.sshd.log_position();
    let decisions = story.site.decisions().len();
    let Story {
        laptop, site, sshd, ..
    } = story;
    site.server.stop(DEADLINE);

    let said = laptop.log_in("127.0.0.1");

    let second = sshd.wait_for_log_after(site_is_gone, "Accepted publickey");
    let certificate = |line: &str| line.split_once(" ssh2: ").map(|(_, after)| after.to_owned());
    assert_eq!(certificate(&first), certificate(&second));
    assert_eq!(decisions, 1);
    assert!(!said.contains("epithet"), "{said}");
}

#[test]
fn two_hosts_at_once_share_the_login_and_get_a_certificate_each() {
    let story = Story::begin();
    let broker = story.broker();
    let begin = |host| Daemon::start("ssh", story.laptop.ssh([host, "echo logged in"]), None);

    let mut both = [begin("127.0.0.1"), begin("127.0.0.2")];

    for ssh in &mut both {
        let status = ssh.wait(DEADLINE).expect("ssh ends");
        assert!(status.success(), "{}", ssh.stderr());
    }
    let decisions = story.site.decisions();
    assert_eq!(decisions.len(), 2, "{decisions:#?}");
    assert_ne!(decisions[0]["serial"], decisions[1]["serial"]);
    assert_ne!(
        decisions[0]["key"], decisions[1]["key"],
        "every connection has a key of its own"
    );
    assert_eq!(story.plugin_runs(), 1);
    assert_eq!(story.laptop.certificates(&broker).len(), 2);
}

#[test]
fn when_policy_says_no_ssh_goes_on_to_the_persons_other_keys() {
    let story = Story::begin();
    let _broker = story.broker();
    let Laptop { home, .. } = &story.laptop;
    story.laptop.ssh_config(&format!(
        "Host 127.0.0.*\n  Port {}\n  KexAlgorithms curve25519-sha256\n{}",
        story.sshd.port(),
        story.laptop.other_identity()
    ));

    // Nobody allows this user; sshd takes the other key for every account that exists.
    let refused = story.laptop.run_ssh(["-l", "nobody-at-all", "127.0.0.1", "true"]);
    assert_eq!(refused.code(), Some(255));
    assert!(
        refused.stderr.contains("access denied by policy"),
        "{}",
        refused.stderr
    );
    assert!(refused.stderr.contains("Permission denied"), "{}", refused.stderr);

    assert_eq!(story.site.decisions()[0]["decision"], "refused");
    let user = home.user().name();
    let certified = story.laptop.run_ssh(["-l", user, "127.0.0.1", "true"]).success();
    assert!(!certified.stderr.contains("denied"), "{}", certified.stderr);
    let accepted = story.accepted(0);
    assert!(
        accepted.contains("ID alice@example.com"),
        "the certificate comes before the other keys: {accepted}"
    );
}
