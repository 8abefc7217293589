//! Rules written in the strangest ways that YAML allows: each is read as it is meant, or refused with its place.

use epithet_policy::Document;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

fn read(text: &str) -> Result<Document, String> {
    Document::from_yaml("p.yaml", text).map_err(|error| error.to_string())
}

fn refused(text: &str, expected: &str) {
    let error = read(text).expect_err(text);
    assert!(error.contains(expected), "{text:?}: {error}");
    assert!(error.starts_with("p.yaml:"), "{error}");
}

#[test]
fn anchors_and_merge_keys_are_what_they_stand_for() {
    let text = "
users:
  alice: &team [admin, eng]
  bob: *team
hosts:
  a: &prod {allow: {root: [admin]}, ttl: 2m}
  b: *prod
  c:
    <<: *prod
    ttl: 1m
";
    let document = read(text).unwrap();
    assert_eq!(document.users["bob"], ["admin", "eng"]);
    let lives: Vec<u64> = document
        .hosts
        .values()
        .map(|rule| rule.expiration.unwrap().get().as_secs())
        .collect();
    assert_eq!(lives, [120, 120, 60]);
    assert!(document.hosts.values().all(|rule| rule.allow.len() == 1));
    refused(
        "users: {a: *nobody}",
        "p.yaml:1:12: alias references unknown anchor",
    );
}

/// An alias that stands for aliases that stand for aliases: a billion tags in a few lines.
#[test]
fn a_billion_laughs_are_refused() {
    let mut text = "users:\n  a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..10 {
        let before = vec![format!("*a{}", level - 1); 10].join(", ");
        writeln!(text, "  a{level}: &a{level} [{before}]").unwrap();
    }
    let begun = Instant::now();
    assert!(read(&text).is_err());
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
}

#[test]
fn a_key_twice_is_refused_however_it_is_written() {
    for text in [
        "users:\n  a: [b]\n  a: [c]\n",
        "users:\n  a: [b]\n  \"a\": [c]\n",
        "users: {a: [b]}\nusers: {c: [d]}\n",
        "hosts:\n  h: {allow: {root: [a]}, allow: {root: [b]}}\n",
        "hosts:\n  h: {allow: {root: [a], root: [b]}}\n",
    ] {
        let error = read(text).expect_err(text);
        assert!(error.contains("duplicate"), "{error}");
    }
}

#[test]
fn marks_of_other_systems_are_no_obstacle() {
    let good = "users: {alice: [admin]}\nhosts: {h: {allow: {root: [admin]}}}\n";
    for text in [
        format!("\u{feff}{good}"),
        good.replace('\n', "\r\n"),
        format!("---\n{good}"),
        format!("%YAML 1.2\n---\n{good}"),
        format!("# comment\n\n{good}...\n"),
        good.trim_end().to_owned(),
    ] {
        let document = read(&text).unwrap_or_else(|error| panic!("{text:?}: {error}"));
        assert_eq!((document.users.len(), document.hosts.len()), (1, 1), "{text:?}");
    }
}

#[test]
fn what_is_no_yaml_or_more_than_one_is_refused() {
    refused("users:\n\talice: [admin]\n", "p.yaml:2:");
    refused("users: {a: [b]}\n---\nusers: {c: [d]}\n", "");
    refused("users: {a: [b\u{0}]}\n", "");
    refused("users: \"\u{1}\"\n", "");
    refused("just text\n", "");
    refused("- users\n", "");
    refused("users: !!binary aGVsbG8=\n", "");
    refused("7\n", "");
}

#[test]
fn deep_nesting_is_refused_and_does_not_end_the_program() {
    for (open, close) in [("[", "]"), ("{a: ", "}")] {
        for depth in [300, 100_000] {
            let text = format!("users: {}{}", open.repeat(depth), close.repeat(depth));
            assert!(read(&text).is_err());
        }
    }
    let indented: String = (0..3_000)
        .map(|level| format!("{}a:\n", " ".repeat(level)))
        .collect();
    assert!(read(&indented).is_err());
}

#[test]
fn names_that_look_like_something_else_are_names() {
    let text = "users: {0123: [yes, on, 7, 1.5, ~x], 'null': [a], true: [b], 2026-01-01: [c], 'a b': ['d e']}\n\
                groups: {'My Team': [x], /staff/ops: [y], 12345: [z], \"Domain Admins\": [x]}\n";
    let document = read(text).unwrap();
    let users: Vec<&str> = document.users.keys().map(String::as_str).collect();
    assert_eq!(users, ["0123", "2026-01-01", "a b", "null", "true"]);
    assert_eq!(document.users["0123"], ["yes", "on", "7", "1.5", "~x"]);
    assert_eq!(document.groups.len(), 4);
    // What YAML takes for nothing is no tag.
    for text in [
        "users: {a: [~]}",
        "users: {a: [null]}",
        "users: {null: [a]}",
        "users: {a: [b, ]}\ngroups: {~: [c]}",
    ] {
        refused(text, "quote it if it is meant as text");
    }
}

#[test]
fn ten_megabytes_are_read_or_refused_in_good_time() {
    let mut text = String::from("users:\n");
    for number in 0..150_000 {
        writeln!(
            text,
            "  somebody-with-a-long-name-{number:06}@department.example.com: [eng, ops]"
        )
        .unwrap();
    }
    assert!(text.len() > 10_000_000);
    let begun = Instant::now();
    match read(&text) {
        Ok(document) => assert_eq!(document.users.len(), 150_000),
        Err(error) => assert!(error.contains("more than is read of one file"), "{error}"),
    }
    assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", begun.elapsed());
}

#[test]
fn hosts_are_named_in_every_way_that_ssh_dials_them() {
    let text = "
users: {a: [t]}
hosts:
  \"2001:db8::*\": {allow: {root: [t]}}
  \"::1\": {allow: {root: [t]}}
  10.0.0.1: {allow: {root: [t]}}
  xn--bcher-kva.example: {allow: {root: [t]}}
  *.example.com: {allow: {root: [t]}}
";
    // A `*` at the beginning is an alias to YAML: it wants quotes.
    refused(text, "p.yaml:8:3");
    let document = read(&text.replace("*.example.com", "\"*.example.com\"")).unwrap();
    assert_eq!(document.hosts.len(), 5);
    refused("hosts: {\"b\u{fc}cher.example\": {}}", "xn--");
    refused("hosts: {\"[::1]\": {}}", "in brackets");
    refused("hosts: {http://web: {}}", "`/`");
}
