//! Rules that never decide, because others that come first take every login that they would allow.

use crate::document::{Document, HostRule};
use epithet_wire::limits::RULES_COVER_STEPS;
use epithet_wire::{HostPattern, Principal};
use std::collections::{BTreeMap, BTreeSet};

/// A rule that never decides, and those that do in its place: one, or several that only together cover all its hosts.
#[derive(Debug)]
pub(crate) struct Unreachable<'d> {
    pub(crate) pattern: &'d HostPattern,
    pub(crate) instead: Vec<&'d HostPattern>,
}

/// The pairs of user and tag that an `allow` opens.
type Grants<'d> = BTreeSet<(&'d Principal, &'d str)>;

/// The most rules of which it is found out whether fewer of them would do, for a shorter message.
const SPARED_MAX: usize = 12;

/// The rules that never decide. Only what is certain is named, and what is found out within [`RULES_COVER_STEPS`].
pub(crate) fn unreachable(document: &Document) -> Vec<Unreachable<'_>> {
    let by_default = grants(&document.defaults.allow);
    let rules: Vec<(&HostPattern, Grants<'_>)> = document
        .hosts
        .iter()
        .map(|(pattern, rule): (_, &HostRule)| (pattern, grants(&rule.allow)))
        .collect();
    let mut left = RULES_COVER_STEPS;
    let mut found = Vec::new();
    for (index, (pattern, own)) in rules.iter().enumerate() {
        // A rule that grants nothing in any case is told of elsewhere.
        let open: Vec<_> = own.union(&by_default).collect();
        if open.is_empty() {
            continue;
        }
        let before: Vec<_> = rules[..index]
            .iter()
            .filter(|(first, _)| first.may_overlap(pattern))
            .collect();
        let examples = pattern.examples();
        let mut covers: BTreeMap<Vec<&HostPattern>, Vec<&HostPattern>> = BTreeMap::new();
        let all_taken = open.iter().all(|grant| {
            let taking = before
                .iter()
                .filter(|(_, first)| by_default.contains(*grant) || first.contains(*grant));
            let taking: Vec<&HostPattern> = taking.map(|(first, _)| *first).collect();
            if covers.contains_key(&taking) {
                return true;
            }
            let cover = cover(&taking, pattern, &examples, &mut left);
            cover.map(|cover| covers.insert(taking, cover)).is_some()
        });
        if all_taken {
            let instead: BTreeSet<&HostPattern> = covers.into_values().flatten().collect();
            let instead = instead.into_iter().collect();
            found.push(Unreachable { pattern, instead });
        }
    }
    found
}

/// Those of some patterns that together cover all of another one; `None` when they do not, or nobody can tell soon.
fn cover<'d>(
    these: &[&'d HostPattern],
    pattern: &HostPattern,
    examples: &[String],
    left: &mut usize,
) -> Option<Vec<&'d HostPattern>> {
    // What does not even cover two hosts of another pattern does not cover all, and that is soon found out.
    let covers = |these: &[&HostPattern], left: &mut usize| {
        let mut examples = examples.iter();
        examples.all(|name| these.iter().any(|one| one.matches(name)))
            && HostPattern::include(these, pattern, left)
    };
    if let Some(one) = these.iter().find(|one| covers(&[one], left)) {
        return Some(vec![*one]);
    }
    if these.len() < 2 || !covers(these, left) {
        return None;
    }
    let mut needed = these.to_vec();
    if needed.len() <= SPARED_MAX {
        for one in these {
            let others: Vec<_> = needed.iter().copied().filter(|other| other != one).collect();
            if covers(&others, left) {
                needed = others;
            }
        }
    }
    Some(needed)
}

fn grants(allow: &BTreeMap<Principal, Vec<String>>) -> Grants<'_> {
    let pairs = allow.iter();
    pairs
        .flat_map(|(principal, tags)| tags.iter().map(move |tag| (principal, tag.as_str())))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_unreachable_when_others_take_all_that_they_open() {
        const TAKE: &str = "{allow: {root: [x]}}";
        for (hosts, unreachable) in [
            (format!("'web1': {TAKE}, 'web2': {TAKE}, 'web[12]': {TAKE}"), "web[12] by web1, web2"),
            (format!("'web1': {TAKE}, 'web2': {TAKE}, 'web[123]': {TAKE}"), ""),
            // One of the two opens something else.
            (format!("'web1': {TAKE}, 'web2': {{allow: {{root: [y]}}}}, 'web[12]': {TAKE}"), ""),
            // Each user and tag may be taken by others.
            (
                "'*.a': {allow: {root: [x]}}, '*a': {allow: {root: [y]}}, '*.*.a': {allow: {root: [x, y]}}".into(),
                "*.*.a by *.a, *a",
            ),
            (
                "'a*.lan': {allow: {root: [x]}}, '[!a]*.lan': {allow: {root: [x]}}, '[!a-c]?*.lan': {allow: {root: [x]}}"
                    .into(),
                "[!a-c]?*.lan by [!a]*.lan",
            ),
            (
                format!("'a*.lan': {TAKE}, '[!a]*.lan': {TAKE}, '??*.lan': {TAKE}, 'b.lan': {TAKE}"),
                "??*.lan by a*.lan, [!a]*.lan",
            ),
            (format!("'{{a,b}}.lan': {TAKE}, 'c.lan': {TAKE}, '[a-c].lan': {TAKE}"), "[a-c].lan by c.lan, {a,b}.lan"),
            // A name that only looks like a pattern, and one in another spelling.
            (format!("'\\*': {TAKE}, '[ab]': {TAKE}"), ""),
            (format!("'0x7f.1': {TAKE}, '127.0.0.[1]': {TAKE}"), "127.0.0.[1] by 0x7f.1"),
            ("'web1': {}, 'web2': {}, 'web[12]': {}".into(), ""),
        ] {
            let text = format!("hosts: {{{hosts}}}");
            let document = Document::from_yaml("p", &text).unwrap();
            let found = super::unreachable(&document).into_iter().map(|one| {
                let instead: Vec<&str> = one.instead.iter().map(|pattern| pattern.as_str()).collect();
                format!("{} by {}", one.pattern, instead.join(", "))
            });
            assert_eq!(found.collect::<Vec<_>>().join("; "), unreachable, "{text}");
        }
        // What defaults open is taken by any rule.
        let text =
            "defaults: {allow: {root: [x]}}\nhosts: {web1: {}, web2: {}, 'web[12]': {}, 'web[23]': {}}";
        let document = Document::from_yaml("p", text).unwrap();
        let found = unreachable(&document);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].pattern.as_str(), "web[12]");
    }
}
