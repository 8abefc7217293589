//! Stories of whoever keeps a server running: new rules, bad rules, rotated logs, and questions about all of them.

#![cfg(test)]

#[path = "shared/operated.rs"]
mod operated;

use epithet_testkit::{DEADLINE, Home, KeyPair, Server};
use operated::{EPITHET, Operated, epithet, rules};
use rustix::process::Signal;
use serde_json::Value;
use std::path::Path;

impl Operated {
    /// Replaces the rules and says so; returns the line of the log that tells what became of it.
    fn reload(&mut self, rules: &str, becomes: &str) -> String {
        std::fs::write(&self.rules, rules).unwrap();
        self.hang_up(becomes)
    }

    fn hang_up(&mut self, becomes: &str) -> String {
        let before = self.server.log().position();
        self.server.daemon().signal(Signal::HUP);
        self.server.daemon().expect_line_after(before, becomes, DEADLINE)
    }
}

#[test]
fn new_rules_apply_on_sighup_and_bad_ones_leave_the_old_in_force() {
    let mut operated = Operated::begin();
    assert_eq!((operated.ask("alice"), operated.ask("bob")), (200, 403));
    operated.reload(&rules("bob"), "the rules were read again");
    assert_eq!((operated.ask("alice"), operated.ask("bob")), (403, 200));

    for (bad, place) in [
        (
            rules("carol").replace("expiration: 2m", "experation: 2m"),
            "server.yaml:5:38: unknown field `experation`",
        ),
        (rules("carol").replace("hosts:", "hosts: ["), ":"),
    ] {
        let line = operated.reload(&bad, "the rules cannot be used");
        assert!(line.contains("server.yaml") && line.contains(place), "{line}");
        assert_eq!((operated.ask("carol"), operated.ask("bob")), (403, 200));
        let (status, ready) = operated.http("GET", "/readyz", &[], "");
        assert_eq!(status, 200, "the old rules serve");
        assert!(ready.contains("the last reload failed"), "{ready}");
    }
    let line = operated.reload("policy: {token: command}\n", "the rules cannot be used");
    assert!(line.contains("command is required"), "{line}");

    operated.reload(&rules("carol"), "the rules were read again");
    assert_eq!((operated.ask("carol"), operated.ask("bob")), (200, 403));
    assert_eq!(operated.http("GET", "/readyz", &[], "").1, "ready\n");
}

#[test]
fn a_rotated_audit_log_is_whole_and_a_changed_line_is_found() {
    let mut operated = Operated::begin();
    assert_eq!(operated.ask("alice"), 200);
    let old = operated.home.join("audit.jsonl.1");
    std::fs::rename(&operated.audit, &old).unwrap();
    operated.hang_up("the audit log was opened again");
    assert_eq!((operated.ask("alice"), operated.ask("mallory")), (200, 403));

    let path = |path: &Path| path.display().to_string();
    let verify = |file: &Path| epithet(&operated.home, &["audit", "verify", &path(file)]);
    assert!(
        verify(&old)
            .success()
            .stdout
            .contains("1 line, the chain holds\n")
    );
    assert!(
        verify(&operated.audit)
            .success()
            .stdout
            .contains("2 lines, the chain holds\n")
    );

    let both = [
        std::fs::read(&old).unwrap(),
        std::fs::read(&operated.audit).unwrap(),
    ]
    .concat();
    let both = operated.home.write("both", both);
    let mut command = operated.home.command(EPITHET);
    command
        .args(["audit", "verify", "-"])
        .stdin(std::fs::File::open(&both).unwrap());
    let piped = command.output().unwrap();
    assert!(String::from_utf8_lossy(&piped.stdout).starts_with("standard input: 3 lines, the chain holds\n"));

    let changed = std::fs::read_to_string(&both)
        .unwrap()
        .replacen("\"issued\"", "\"denied\"", 1);
    let changed = operated.home.write("changed", changed);
    let found = verify(&changed);
    assert_eq!(found.code(), Some(1));
    assert!(
        found.stderr.contains("line 2 does not follow"),
        "{}",
        found.stderr
    );
    assert_eq!(verify(Path::new("/no/such/log")).code(), Some(1));
}

#[test]
fn rules_are_checked_and_explained_without_a_server() {
    let home = Home::new();
    let good = home.write("good.yaml", rules("alice")).display().to_string();
    let checked = epithet(&home, &["policy", "check", &good]).success().stdout;
    assert!(
        checked.ends_with("1 user, 0 groups, 1 host pattern, tokens by command; nothing wrong\n"),
        "{checked}"
    );

    let odd = home.write(
        "odd.yaml",
        "users: {alice: [admin], bob: []}\nhosts: {h: {allow: {root: [admin]}}}\n",
    );
    let odd = odd.display().to_string();
    let warned = epithet(&home, &["policy", "check", &odd]).success().stdout;
    assert!(warned.contains("warning: users: bob has no tags"), "{warned}");
    assert!(
        warned.contains("warning: not in this file: oidc.issuer"),
        "{warned}"
    );
    assert_eq!(
        epithet(&home, &["policy", "check", "--strict", &odd]).code(),
        Some(1)
    );

    let bad = home
        .write("bad.yaml", "users:\n  a: [b]\n  a: [c]\n")
        .display()
        .to_string();
    let refused = epithet(&home, &["policy", "check", &bad]);
    assert_eq!(refused.code(), Some(1));
    assert!(
        refused
            .stdout
            .contains("bad.yaml:3:3: error: duplicate mapping key"),
        "{}",
        refused.stdout
    );

    let explain = |user: &str, host: &str| {
        epithet(
            &home,
            &[
                "policy", "explain", "--user", user, "--host", host, "--as", "root", &good,
            ],
        )
    };
    let yes = explain("alice", "WEB.example.com").success().stdout;
    for words in [
        "allowed: alice as root@",
        "rule        *.example.com",
        "life        2m",
        "tags        admin",
    ] {
        assert!(yes.contains(words), "{words}: {yes}");
    }
    for (user, host, why) in [
        ("mallory", "web.example.com", "not in users"),
        ("alice", "elsewhere", "no host pattern covers this host"),
    ] {
        let no = explain(user, host);
        assert_eq!(no.code(), Some(1));
        assert!(
            no.stdout.starts_with("denied: ") && no.stdout.contains(why),
            "{}",
            no.stdout
        );
    }
    let configured = epithet(
        &home,
        &[
            "--config",
            &good,
            "policy",
            "explain",
            "--user=alice",
            "--host=a.example.com",
            "--as=root",
        ],
    );
    assert!(configured.success().stdout.starts_with("allowed"));
    assert_eq!(explain("alice", "a b").code(), Some(80));
}

#[test]
fn a_policy_server_reads_its_rules_again_too() {
    let home = Home::new();
    let key = KeyPair::generate(home.path(), "ca.key");
    let file = home.write("policy.yaml", rules("alice"));
    let mut server = Server::start(
        Path::new(EPITHET),
        &home,
        [
            "policy".to_owned(),
            "-v".to_owned(),
            "--listen=127.0.0.1:0".to_owned(),
            format!("--config={}", file.display()),
            format!("--ca-pubkey={}", key.public_path().display()),
        ],
    );
    std::fs::write(&file, "policy: {users: [a]}\n").unwrap();
    server.daemon().signal(Signal::HUP);
    let line = server.wait_for_log("the rules cannot be used");
    assert!(line.contains("policy.yaml"), "{line}");
    std::fs::write(&file, rules("bob")).unwrap();
    server.daemon().signal(Signal::HUP);
    server.wait_for_log("the rules were read again");
    assert_eq!(server.daemon().try_status(), None);
}

/// The audit log's lines name who asked, so that a story can say what was decided.
#[test]
fn what_was_decided_is_in_the_audit_log_with_the_name_that_the_program_gave() {
    let operated = Operated::begin();
    assert_eq!(operated.ask("alice"), 200);
    let text = std::fs::read_to_string(&operated.audit).unwrap();
    let line: Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    assert_eq!(
        (line["decision"].as_str(), line["identity"].as_str()),
        (Some("issued"), Some("alice"))
    );
    assert_eq!(line["rule"], "*.example.com");
}
