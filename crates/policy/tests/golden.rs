//! The files of epithet 0.19, and what it decides by them. Where we decide otherwise the line says so, and
//! `docs/differences-from-0.19.md` says why.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use epithet_policy::{Decision, Document, Person, Question, Rules};
use epithet_wire::HostPattern;

/// The configuration of a whole server, as its documentation has it.
const WHOLE: &str = r#"
verbose: 1
server: {listen: "127.0.0.1:8080", ca-key: /etc/epithet/ca.key}
agent:
  ca-url: ["https://ca1.example.com", "priority=50:https://ca2.example.com"]
policy:
  oidc: {issuer: "https://accounts.google.com", client-id: "X.apps.googleusercontent.com"}
  users: {alice@example.com: [admin, eng], bob@example.com: [eng], carol@example.com: []}
  defaults: {allow: {root: [admin]}, expiration: 5m, extensions: {permit-pty: ""}}
  hosts:
    "*.prod.example.com": {expiration: 2m}
    "dev-*{,.example.com}": {allow: {ubuntu: [eng]}}
"#;

/// Rules in which patterns overlap.
const OVERLAPPING: &str = r#"
users: {alice: [admin], bob: [eng], dba: [dba]}
hosts:
  "*": {allow: {root: [admin]}, expiration: 10m}
  "{prod,dev,stage,qa}-*.example.com": {allow: {root: [admin], deploy: [eng]}, expiration: 9m}
  "prod-1.example.com": {allow: {root: [admin], deploy: [eng]}, expiration: 1m}
  "prod-db-*": {allow: {postgres: [dba]}, expiration: 2m, extensions: {}}
"#;

/// Everything at its built-in value.
const BARE: &str = "users: {alice: [t]}\nhosts: {h: {allow: {root: [t]}}, empty: {}}\n";

/// What is decided, in a line: seconds and extensions of a yes, the answer's text of a no.
fn decide(rules: &str, who: &str, login: &str) -> String {
    let rules = Rules::new(&Document::from_yaml("golden", rules).unwrap());
    let (user, host) = login.split_once('@').unwrap();
    let person = Person {
        identity: who.to_owned(),
        ..Person::default()
    };
    let question = Question {
        person: &person,
        host: &host.parse().unwrap(),
        user: &user.parse().unwrap(),
        now: 0,
    };
    match rules.evaluate(&question) {
        Decision::Allowed(allowed) => {
            let extensions: Vec<&str> = allowed.terms.extensions.keys().map(String::as_str).collect();
            let names: Vec<String> = allowed.principals.iter().map(ToString::to_string).collect();
            assert_eq!(names, [user], "exactly the user who was asked for");
            format!("{}s {}", allowed.terms.expiration.as_secs(), extensions.join(","))
        }
        Decision::Denied(_) => "403".to_owned(),
    }
}

#[test]
fn decisions_are_those_of_epithet_0_19_but_for_those_that_are_listed() {
    const ALL: &str = "300s permit-agent-forwarding,permit-pty,permit-user-rc";
    for (rules, who, login, there, here) in [
        (
            WHOLE,
            "alice@example.com",
            "root@web.prod.example.com",
            "120s permit-pty",
            None,
        ),
        (
            WHOLE,
            "alice@example.com",
            "root@a.b.prod.example.com",
            "120s permit-pty",
            None,
        ),
        (WHOLE, "alice@example.com", "root@dev-1", "300s permit-pty", None),
        (
            WHOLE,
            "alice@example.com",
            "ubuntu@dev-1.example.com",
            "300s permit-pty",
            None,
        ),
        (WHOLE, "bob@example.com", "ubuntu@dev-", "300s permit-pty", None),
        (WHOLE, "bob@example.com", "root@dev-1", "403", None),
        (
            WHOLE,
            "bob@example.com",
            "ubuntu@web.prod.example.com",
            "403",
            None,
        ),
        // `*` takes dots too.
        (
            WHOLE,
            "bob@example.com",
            "ubuntu@dev-1.example.org",
            "300s permit-pty",
            None,
        ),
        (WHOLE, "alice@example.com", "root@prod.example.com", "403", None),
        (
            WHOLE,
            "alice@example.com",
            "root@web.prod.example.com.evil",
            "403",
            None,
        ),
        // Defaults alone grant nothing.
        (WHOLE, "alice@example.com", "root@github.com", "403", None),
        (WHOLE, "carol@example.com", "root@dev-1", "403", None),
        (WHOLE, "mallory@example.com", "root@dev-1", "403", None),
        // Identities are compared with their case there and here.
        (WHOLE, "Alice@example.com", "root@dev-1", "403", None),
        (BARE, "alice", "root@h", ALL, None),
        (BARE, "alice", "root@empty", "403", None),
        (
            OVERLAPPING,
            "alice",
            "root@web",
            "600s permit-agent-forwarding,permit-pty,permit-user-rc",
            None,
        ),
        (
            OVERLAPPING,
            "bob",
            "deploy@dev-7.example.com",
            "540s permit-agent-forwarding,permit-pty,permit-user-rc",
            None,
        ),
        // There hosts are compared with their case, and the dot at the end counts.
        (
            WHOLE,
            "alice@example.com",
            "root@WEB.prod.example.com",
            "403",
            Some("120s permit-pty"),
        ),
        (
            WHOLE,
            "alice@example.com",
            "root@web.prod.example.com.",
            "403",
            Some("120s permit-pty"),
        ),
        // There the longest text comes first, so the long pattern beats the plain name.
        (
            OVERLAPPING,
            "bob",
            "deploy@prod-1.example.com",
            "540s permit-agent-forwarding,permit-pty,permit-user-rc",
            Some("60s permit-agent-forwarding,permit-pty,permit-user-rc"),
        ),
        (
            OVERLAPPING,
            "alice",
            "root@prod-1.example.com",
            "540s permit-agent-forwarding,permit-pty,permit-user-rc",
            Some("60s permit-agent-forwarding,permit-pty,permit-user-rc"),
        ),
    ] {
        let found = decide(rules, who, login);
        assert_eq!(found, here.unwrap_or(there), "{who} {login}");
        assert_ne!(here, Some(there), "{who} {login}: a difference that is none");
    }
}

/// There, life and extensions may come from a pattern that grants the person something else: here from the one that
/// allowed.
#[test]
fn terms_come_from_the_rule_that_allowed_and_not_from_one_that_grants_something_else() {
    let rules = r#"
users: {alice: [admin, dba]}
hosts:
  "db-*.example.com": {allow: {postgres: [dba]}, expiration: 9m, extensions: {}}
  "*": {allow: {root: [admin]}, expiration: 1m, extensions: {permit-pty: ""}}
"#;
    assert_eq!(decide(rules, "alice", "root@db-1.example.com"), "60s permit-pty");
    assert_eq!(decide(rules, "alice", "postgres@db-1.example.com"), "540s ");
}

#[test]
fn patterns_mean_what_they_mean_there() {
    for (pattern, host, expected) in [
        ("*.example.com", "a.example.com", true),
        ("*.example.com", "a.b.example.com", true),
        ("*.example.com", "example.com", false),
        ("*.example.com", "example.com.evil", false),
        ("badb{,.home}", "badb", true),
        ("badb{,.home}", "badb.home", true),
        ("badb{,.home}", "badb.other", false),
        ("badb{,.home}", "badbx", false),
        ("badb{,.home}", "xbadb", false),
        ("*", "", true),
        ("v*", "v", true),
        ("ab[c-e]", "abd", true),
        ("[-x]", "-", true),
        ("\\*", "*", true),
        ("**", "a.b", true),
        ("{a,b{c,d}}", "bd", true),
        ("[!x]", "a", true),
        ("[^x]", "x", false),
    ] {
        assert_eq!(
            HostPattern::parse(pattern).unwrap().matches(host),
            expected,
            "{pattern} {host}"
        );
    }
    // There these silently match nothing.
    for malformed in ["[]a]", "a[", "{a", "a\\"] {
        assert!(HostPattern::parse(malformed).is_err(), "{malformed}");
    }
}

#[test]
fn configurations_are_judged_as_there_or_refused_with_a_reason() {
    for (text, error) in [
        // There a missing `users` is an empty list that denies everybody.
        ("hosts: {h: {allow: {root: [a]}}}", None),
        ("users: {a: [b]}", None),
        ("users: {a: [b]}\nhosts: {h: }", None),
        ("users: {a: [b]}\nhosts: {h: {extensions: {}}}", None),
        ("defaults: {expiration: 1h30m}", None),
        ("defaults: {expiration: 1.5h}", None),
        ("defaults: {expiration: 300s}", None),
        ("defaults: {expiration: invalid}", Some("not a duration")),
        ("defaults: {expiration: ''}", Some("not a duration")),
        ("hosts: {h: {expiration: soon}}", Some("not a duration")),
        // There such lives are accepted.
        ("defaults: {expiration: -5m}", Some("not a duration")),
        ("defaults: {expiration: 0s}", Some("a second or more")),
        ("defaults: {expiration: 999ms}", Some("a second or more")),
        ("defaults: {expiration: 1s}", None),
        // What a rule leaves empty would not lift what `defaults` say, so it is no way to write that.
        ("hosts: {h: {source-address: []}}", Some("0.0.0.0/0")),
        ("hosts: {h: {source-address: }}", Some("0.0.0.0/0")),
        (
            "hosts: {h: {source-address: ['::ffff:192.0.2.1']}}",
            Some("write it as 192.0.2.1"),
        ),
        ("hosts: {h: {force-command: ~}}", Some("leave the key out")),
        // There unknown keys are ignored.
        ("oidc: {client_id: x}", Some("unknown field `client_id`")),
        ("oidc: {audience: x}", Some("unknown field `audience`")),
        ("users: {a: b}", Some("expected")),
    ] {
        let found = Document::from_yaml("golden", text).map_err(|error| error.to_string());
        match (found, error) {
            (Ok(_), None) => {}
            (Err(found), Some(words)) => assert!(found.contains(words), "{text}: {found}"),
            (found, _) => panic!("{text}: {found:?}"),
        }
    }
}
