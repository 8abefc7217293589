//! Rules that never decide, because others that come first take every login that they would allow.

use crate::document::{Document, HostRule};
use epithet_wire::{HostPattern, Principal};
use std::collections::{BTreeMap, BTreeSet};

/// The patterns of rules that never decide, each with the first of those that do in its place.
///
/// Only what is certain is named: a rule that is covered by several others together, none of which covers all of its
/// hosts, is not.
pub(crate) fn unreachable(document: &Document) -> Vec<(&HostPattern, &HostPattern)> {
    let rules: Vec<(&HostPattern, &HostRule)> = document.hosts.iter().collect();
    // What does not even cover two hosts of another pattern does not cover all, and that is soon found out.
    let covers = |wide: &HostPattern, narrow: &HostPattern, examples: &[String]| {
        examples.iter().all(|name| wide.matches(name)) && wide.includes(narrow)
    };
    let by_default = grants(&document.defaults.allow);
    let mut found = Vec::new();
    for (index, (pattern, rule)) in rules.iter().enumerate() {
        let own = grants(&rule.allow);
        if own.is_empty() && by_default.is_empty() {
            // It grants nothing in any case, which is told elsewhere.
            continue;
        }
        let examples = pattern.examples();
        let mut covering = rules[..index]
            .iter()
            .filter(|(first, _)| covers(first, pattern, &examples));
        let Some((first, first_rule)) = covering.next() else {
            continue;
        };
        let mut taken = grants(&first_rule.allow);
        covering.for_each(|(_, rule)| taken.extend(grants(&rule.allow)));
        if own.difference(&by_default).all(|grant| taken.contains(grant)) {
            found.push((*pattern, *first));
        }
    }
    found
}

/// The pairs of user and tag that an `allow` opens.
fn grants(allow: &BTreeMap<Principal, Vec<String>>) -> BTreeSet<(&Principal, &str)> {
    let pairs = allow.iter();
    pairs
        .flat_map(|(principal, tags)| tags.iter().map(move |tag| (principal, tag.as_str())))
        .collect()
}
