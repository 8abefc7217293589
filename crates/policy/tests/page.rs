//! The page about rules: every example on it is read, and decides what the page says.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use epithet_policy::{CaLimits, Document, Expectations, HostRule, Rules};
use std::time::Duration;

const PAGE: &str = include_str!("../../../docs/policy.md");

/// The fenced blocks: the words after the fence, and the text.
fn blocks() -> Vec<(&'static str, &'static str)> {
    let parts: Vec<&str> = PAGE.split("```").skip(1).step_by(2).collect();
    parts.iter().map(|part| part.split_once('\n').unwrap()).collect()
}

#[test]
fn every_example_is_read_and_decides_what_the_page_says() {
    let mut rules: Option<Rules> = None;
    let (mut examples, mut decisions) = (0, 0);
    for (kind, text) in blocks() {
        match kind {
            "yaml" | "yaml rules" => {
                examples += 1;
                let document =
                    Document::from_yaml("page", text).unwrap_or_else(|error| panic!("{error}\n{text}"));
                rules = Some(Rules::new(&document));
            }
            "yaml decisions" => {
                let table =
                    Expectations::from_yaml("page", text).unwrap_or_else(|error| panic!("{error}\n{text}"));
                // The one with a file of its own is about the form, not about the example before it.
                if table.rules.0.is_empty() {
                    decisions += table.logins();
                    let unexpected = table.check(rules.as_ref().unwrap(), 1_000_000);
                    assert!(unexpected.is_empty(), "{unexpected:#?}\n{text}");
                }
            }
            _ => {}
        }
    }
    assert!(
        examples >= 9 && decisions >= 20,
        "{examples} examples, {decisions} decisions"
    );
}

#[test]
fn the_examples_are_such_that_nothing_looks_wrong_with_them() {
    let limits = CaLimits {
        allows_principal: std::sync::Arc::new(|_| true),
        max_ttl: Duration::from_secs(600),
        extensions: ["permit-pty", "permit-port-forwarding"].map(str::to_owned).into(),
    };
    for (kind, text) in blocks() {
        if kind == "yaml rules" {
            let document = Document::from_yaml("page", text).unwrap();
            assert_eq!(document.warnings(text, &limits), [], "{text}");
        }
    }
}

#[test]
fn every_key_is_on_the_page() {
    // What the reader of rules itself names when it meets one that it does not know.
    let keys = |text: &str| {
        let error = Document::from_yaml("p", text).unwrap_err().to_string();
        let (_, known) = error.split_once("expected one of ").unwrap();
        known
            .lines()
            .next()
            .unwrap()
            .split(", ")
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let of_rules = keys("hosts: {h: {no-such-key: x}}");
    assert!(
        of_rules.len() > HostRule::default().extensions.map_or(7, |some| some.len()),
        "{of_rules:?}"
    );
    for key in keys("no-such-key: x")
        .iter()
        .chain(&of_rules)
        .chain(&keys("defaults: {require: {x: y}}"))
    {
        let is_named = PAGE.contains(&format!("`{key}`"))
            || PAGE.contains(&format!("`{key}:"))
            || PAGE.contains(&format!("{key},"))
            || PAGE.contains(&format!("{key}}}"));
        assert!(is_named, "{key} is not on docs/policy.md");
    }
}
