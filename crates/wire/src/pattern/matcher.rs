//! Whether a name is covered, as fast as the pattern's kind allows.

use super::places::Places;
use super::program::{Step, run};
use super::syntax::Node;
use super::whole_program;

/// A pattern made ready to be held against names.
#[derive(Debug, Clone)]
pub(super) enum Matcher {
    /// No wildcard: this name.
    Name(Box<str>),
    /// One `*`, with this before and that after it: the usual case.
    Around(Box<[u8]>, Box<[u8]>),
    /// Several wildcards, with this before the first and that after the last of them.
    Between {
        before: Box<[u8]>,
        after: Box<[u8]>,
        middle: Middle,
    },
}

/// What stands from the first wildcard to the last.
#[derive(Debug, Clone)]
pub(super) enum Middle {
    /// As many places as a word has bits.
    Few(Places),
    /// More, after a look for what every name must have within.
    Many { within: Box<[u8]>, steps: Box<[Step]> },
}

impl Matcher {
    /// That of a pattern of these parts.
    pub(super) fn of(nodes: &[Node]) -> Self {
        let before = run_of_literals(nodes.iter());
        if before.len() == nodes.len() {
            let name = String::from_utf8_lossy(&before).into_owned();
            return Self::Name(crate::names::canonical_address(&name).unwrap_or(name).into());
        }
        let wild = &nodes[before.len()..];
        let mut after = run_of_literals(wild.iter().rev());
        after.reverse();
        let (before, after) = (before.into(), after.into_boxed_slice());
        match &wild[..wild.len() - after.len()] {
            [Node::Star] => Self::Around(before, after),
            middle => Self::Between {
                middle: Middle::of(middle),
                before,
                after,
            },
        }
    }

    /// Whether `host` is covered; `None` for a text that is no host name.
    pub(super) fn matches(&self, host: &[u8]) -> Option<bool> {
        let (before, after) = match self {
            Self::Name(name) => return Some(name.as_bytes() == host),
            Self::Around(before, after) | Self::Between { before, after, .. } => (before, after),
        };
        let is_around =
            host.len() >= before.len() + after.len() && host.starts_with(before) && host.ends_with(after);
        match self {
            _ if !is_around => Some(false),
            Self::Between { middle, .. } => middle.covers(&host[before.len()..host.len() - after.len()]),
            _ => Some(!host.contains(&b'/')),
        }
    }
}

fn literal(node: &Node) -> Option<u8> {
    match node {
        Node::Literal(byte) => Some(*byte),
        _ => None,
    }
}

/// The plain characters up to the first part that is something else.
fn run_of_literals<'a>(nodes: impl Iterator<Item = &'a Node>) -> Vec<u8> {
    nodes.map_while(literal).collect()
}

/// The longest run of plain characters that is not within a choice: every name that is covered has it.
fn longest_literal(nodes: &[Node]) -> Vec<u8> {
    let runs = nodes.split(|node| literal(node).is_none());
    let longest = runs.max_by_key(|run| run.len()).unwrap_or_default();
    longest.iter().filter_map(literal).collect()
}

impl Middle {
    fn of(nodes: &[Node]) -> Self {
        match Places::of(nodes) {
            Some(places) => Self::Few(places),
            None => Self::Many {
                within: longest_literal(nodes).into(),
                steps: whole_program(nodes).into(),
            },
        }
    }

    fn covers(&self, text: &[u8]) -> Option<bool> {
        match self {
            Self::Few(places) => places.cover(text),
            Self::Many { within, steps } => Some(contains(text, within) && run(steps, text)),
        }
    }
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    part.is_empty()
        || text
            .windows(part.len())
            .any(|window| window[0] == part[0] && window == part)
}
