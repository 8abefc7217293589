//! Patterns of host names, as the keys of `hosts` have them: `web-?.example.com`, `*.prod.example.com`, `db{1,2}{,.lan}`.
//!
//! Wire-compatible in meaning with the files of epithet 0.19, except that a malformed pattern is an error when the
//! file is read (there it silently matches nothing), that case does not matter, and that of two patterns the one
//! that says more wins (there the longer text does).

mod examples;
mod inclusion;
mod matcher;
mod overlap;
mod places;
mod program;
mod rank;
mod relations;
mod sketch;
mod syntax;

use crate::limits::PATTERN_MAX;
use matcher::Matcher;
use program::{Step, compile, run};
use rank::Rank;
use serde::{Deserialize, Deserializer};
pub use sketch::{HostSketch, PatternSketch};
use std::cmp::Ordering;
use std::fmt;
use syntax::{Node, Parser};

/// A pattern of host names.
///
/// `*` stands for any characters, dots among them, or none; `?` for one; `[a-z]`, `[!x]` and `[^x]` for one of a
/// set; `{a,b}` for either, nested if need be, one of them may be empty; `\` takes the meaning from what follows.
/// Matching takes time in proportion to the lengths of pattern and name, whatever the pattern.
///
/// Patterns are ordered by how much they say, most first: names without any wildcard; then by the number of wildcards
/// (of `{...}`, that of the alternative with most); then by the number of plain characters, more first; then single
/// characters before `*`; then by text, so that the order never depends on chance.
#[derive(Debug, Clone)]
pub struct HostPattern {
    text: Box<str>,
    rank: Rank,
    sketch: PatternSketch,
    matcher: Matcher,
}

/// Why text is not a pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the host pattern {pattern:?} {problem}")]
pub struct PatternError {
    pattern: String,
    problem: &'static str,
}

impl HostPattern {
    /// Reads a pattern of at most [`PATTERN_MAX`] bytes.
    ///
    /// # Errors
    /// [`PatternError`] for brackets that do not close, empty sets, ranges that run backwards, and anything that no
    /// host name can contain.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        let error = |problem| PatternError {
            pattern: text.chars().take(64).collect(),
            problem,
        };
        if text.is_empty() {
            return Err(error("is empty; `*` stands for every host"));
        }
        if text.len() > PATTERN_MAX {
            return Err(error("is longer than 256 bytes"));
        }
        if !text.is_ascii() {
            return Err(error(
                "has characters outside ASCII; write international names as `xn--...`",
            ));
        }
        if text
            .bytes()
            .any(|byte| byte <= b' ' || byte == 0x7f || byte == b'/')
        {
            return Err(error(
                "has a blank, a control character or a `/`, which no host name has",
            ));
        }
        let bracketed = text.strip_prefix('[').and_then(|rest| rest.split_once(']'));
        if bracketed.is_some_and(|(inner, _)| inner.parse::<std::net::Ipv6Addr>().is_ok()) {
            return Err(error(
                "has an address in brackets, which ssh's host names never have; leave them out",
            ));
        }
        let nodes = nodes(text).map_err(error)?;
        let matcher = Matcher::of(&nodes);
        let sketch = match &matcher {
            // An address has one spelling for all.
            Matcher::Name(name) => PatternSketch::of(&literals(name)),
            _ => PatternSketch::of(&nodes),
        };
        Ok(Self {
            text: text.into(),
            rank: Rank::of(&nodes),
            sketch,
            matcher,
        })
    }

    /// Whether a name is covered. `host` must be in the form that [`crate::HostName::canonical`] gives.
    pub fn matches(&self, host: &str) -> bool {
        let host = host.as_bytes();
        (self.matcher.matches(host)).unwrap_or_else(|| self.matches_step_by_step(host))
    }

    /// The same for a text that is no host name.
    fn matches_step_by_step(&self, text: &[u8]) -> bool {
        nodes(&self.text).is_ok_and(|nodes| run(&whole_program(&nodes), text))
    }

    /// What every name that is covered has, to be seen without matching.
    pub fn sketch(&self) -> PatternSketch {
        self.sketch
    }

    /// The one name this pattern stands for, when it has no wildcard.
    pub fn exact_name(&self) -> Option<&str> {
        match &self.matcher {
            Matcher::Name(name) => Some(name),
            _ => None,
        }
    }

    /// Whether ssh's own patterns (ssh_config(5)) mean the same by this text: only plain characters, `*` and `?`.
    pub fn is_ssh_pattern(&self) -> bool {
        self.text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"._:-*?".contains(&byte))
    }

    /// The pattern as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

fn nodes(text: &str) -> Result<Vec<Node>, &'static str> {
    let mut nodes = Parser::new(text).sequence()?;
    // Names are compared without the dot that ends an absolute DNS name.
    if nodes.len() > 1 && nodes.last() == Some(&Node::Literal(b'.')) {
        nodes.pop();
    }
    Ok(nodes)
}

fn literals(name: &str) -> Vec<Node> {
    name.bytes().map(Node::Literal).collect()
}

fn whole_program(nodes: &[Node]) -> Vec<Step> {
    let mut steps = Vec::new();
    compile(nodes, &mut steps);
    steps.push(Step::Accept);
    steps
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::str::FromStr for HostPattern {
    type Err = PatternError;
    fn from_str(text: &str) -> Result<Self, PatternError> {
        Self::parse(text)
    }
}

impl<'de> Deserialize<'de> for HostPattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

impl PartialEq for HostPattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for HostPattern {}

impl PartialOrd for HostPattern {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for HostPattern {
    fn cmp(&self, other: &Self) -> Ordering {
        self.rank
            .cmp(&other.rank)
            .then_with(|| self.text.cmp(&other.text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn matches(pattern: &str, host: &str) -> bool {
        HostPattern::parse(pattern).expect(pattern).matches(host)
    }

    #[test]
    fn patterns_match_as_the_files_of_the_other_implementation_mean_them() {
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
            ("*", "a.b", true),
            ("v*", "v", true),
            ("ab[c-e]", "abd", true),
            ("ab[c-e]", "abf", false),
            ("ab[!c-e]", "abf", true),
            ("ab[^c-e]", "abd", false),
            ("[-x]", "-", true),
            ("[x-]", "-", true),
            ("[x-]", "y", false),
            ("\\*", "*", true),
            ("\\*", "a", false),
            ("[\\]]", "]", true),
            ("web?", "web1", true),
            ("web?", "web", false),
            ("web?", "web12", false),
            ("{a,b{c,d*}}x", "bdzzx", true),
            ("{a,b{c,d*}}x", "bcx", true),
            ("{a,b{c,d*}}x", "bx", false),
            ("{a}", "a", true),
            ("a,b}", "a,b}", true),
            ("a**b", "ab", true),
            ("*a*b*", "xaxbx", true),
            ("WEB-*.Example.com", "web-1.example.com", true),
            ("[A-C]1", "b1", true),
            ("[!A]1", "a1", false),
            ("host.", "host", true),
            ("*.lan.", "a.lan", true),
            ("::FFFF:192.0.2.1", "192.0.2.1", true),
            ("0:0:0:0:0:0:0:1", "::1", true),
            ("*", "a/b", false),
            ("a?b", "a/b", false),
        ] {
            assert_eq!(matches(pattern, host), expected, "{pattern} {host}");
        }
    }

    #[test]
    fn what_is_no_pattern_says_why() {
        for (pattern, word) in [
            ("", "empty"),
            ("[]a]", "empty `[]`"),
            ("a[", "without its `]`"),
            ("a[b", "without its `]`"),
            ("a[b\\", "without its `]`"),
            ("{a,b", "without its `}`"),
            ("a\\", "nothing to protect"),
            ("[z-a]", "backwards"),
            ("a b", "blank"),
            ("a/b", "`/`"),
            ("[::1]", "in brackets"),
            ("[2001:db8::1]:22", "in brackets"),
            ("b\u{fc}cher.example", "xn--"),
        ] {
            let error = HostPattern::parse(pattern).expect_err(pattern).to_string();
            assert!(error.contains(word), "{error}");
        }
        assert!(HostPattern::parse(&"a".repeat(PATTERN_MAX)).is_ok());
        assert!(HostPattern::parse(&"a".repeat(PATTERN_MAX + 1)).is_err());
        assert!(HostPattern::parse(&"{".repeat(PATTERN_MAX)).is_err());
        assert!(matches(&format!("{}{}", "{".repeat(128), "}".repeat(128)), ""));
    }

    /// With a way of matching that goes back and tries again, these would take years.
    #[test]
    fn no_pattern_is_slow() {
        let host = "a".repeat(255);
        for pattern in [
            "*a".repeat(128),
            format!("{}b", "*a".repeat(120)),
            format!("{}b", "{a,aa}".repeat(40)),
            format!("{}b", "{*,a}".repeat(50)),
        ] {
            let covers = pattern.ends_with('a');
            assert_eq!(matches(&pattern, &host), covers, "{pattern}");
        }
    }

    /// What a pattern means, by trying everything.
    fn slow(nodes: &[Node], text: &[u8]) -> bool {
        match nodes {
            [] => text.is_empty(),
            [Node::Literal(byte), rest @ ..] => text.first() == Some(byte) && slow(rest, &text[1..]),
            [Node::One(set), rest @ ..] => {
                text.first().is_some_and(|byte| set.has(*byte)) && slow(rest, &text[1..])
            }
            [Node::Star, rest @ ..] => (0..=text.len()).any(|taken| slow(rest, &text[taken..])),
            [Node::Choice(alternatives), rest @ ..] => alternatives
                .iter()
                .any(|one| slow(&one.iter().chain(rest).cloned().collect::<Vec<_>>(), text)),
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 20_000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn anything_may_be_parsed_and_matched(pattern in ".{0,40}", host in "[ -~]{0,20}") {
            if let Ok(pattern) = HostPattern::parse(&pattern) {
                let _ = pattern.matches(&host);
            }
        }

        #[test]
        fn the_fast_way_agrees_with_the_obvious_one(
            pattern in "[ab*?{},\\[\\]!-]{1,12}",
            host in "[ab]{0,8}",
        ) {
            if let Ok(parsed) = HostPattern::parse(&pattern) {
                let nodes = Parser::new(&pattern).sequence().unwrap();
                prop_assert_eq!(parsed.matches(&host), slow(&nodes, host.as_bytes()));
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 20_000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn all_ways_to_match_agree_and_no_glance_is_wrong(
            pattern in "[ab*?.{},\\[\\]!-]{1,16}",
            hosts in proptest::collection::vec("[ab.-]{0,9}|[ab~]{1,5}", 1..6),
            other in "[ab*?.]{1,6}",
        ) {
            if let (Ok(pattern), Ok(other)) = (HostPattern::parse(&pattern), HostPattern::parse(&other)) {
                for host in hosts {
                    let covers = pattern.matches(&host);
                    if pattern.exact_name().is_none() {
                        prop_assert_eq!(covers, pattern.matches_step_by_step(host.as_bytes()), "{} {}", pattern, host);
                    }
                    prop_assert!(!covers || pattern.sketch().admits(&HostSketch::of(&host)), "{pattern} {host}");
                    let both = covers && other.matches(&host);
                    prop_assert!(!both || pattern.may_overlap(&other), "{pattern} {other} {host}");
                }
            }
        }
    }
}
