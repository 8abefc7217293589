//! A host that two patterns both cover.

use super::program::{Step, closure};
use super::sketch::ALPHABET;
use std::collections::{HashMap, VecDeque};

/// Where two programs are after some beginning of a name, and whether a label begins there: no host name has an empty one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Place {
    one: usize,
    other: usize,
    begins_label: bool,
}

/// The shortest name that both programs accept; of several, one of letters if there is one.
///
/// Walks both at once, one position of each at a time, so that there are at most as many places as the product of the
/// programs' lengths, twice.
pub(super) fn common(one: &[Step], other: &[Step]) -> Option<String> {
    let reached = |steps: &[Step]| -> Vec<Vec<usize>> {
        (0..steps.len()).map(|place| closure(steps, [place])).collect()
    };
    let (ones, others) = (reached(one), reached(other));
    // How each place was come to: from where, and by which character.
    let mut came: HashMap<Place, Option<(Place, u8)>> = HashMap::new();
    let mut to_do = VecDeque::new();
    for place in pairs(&ones[0], &others[0], true) {
        came.insert(place, None);
        to_do.push_back(place);
    }
    while let Some(place) = to_do.pop_front() {
        if let (Step::Accept, Step::Accept, false) = (one[place.one], other[place.other], place.begins_label)
        {
            return Some(name(&came, place));
        }
        for byte in ALPHABET.iter().copied() {
            let begins_label = byte == b'.';
            if begins_label && place.begins_label
                || !takes(one[place.one], byte)
                || !takes(other[place.other], byte)
            {
                continue;
            }
            for next in pairs(&ones[place.one + 1], &others[place.other + 1], begins_label) {
                if let std::collections::hash_map::Entry::Vacant(new) = came.entry(next) {
                    new.insert(Some((place, byte)));
                    to_do.push_back(next);
                }
            }
        }
    }
    None
}

fn pairs(ones: &[usize], others: &[usize], begins_label: bool) -> impl Iterator<Item = Place> {
    let each = ones.iter().copied();
    each.flat_map(move |one| {
        others.iter().copied().map(move |other| Place {
            one,
            other,
            begins_label,
        })
    })
}

fn takes(step: Step, byte: u8) -> bool {
    match step {
        Step::Byte(wanted) => wanted == byte,
        Step::One(set) => set.has(byte),
        Step::Fork(..) | Step::Jump(_) | Step::Accept => false,
    }
}

/// The characters on the way to a place.
fn name(came: &HashMap<Place, Option<(Place, u8)>>, end: Place) -> String {
    let mut characters = Vec::new();
    let mut place = end;
    while let Some(Some((before, byte))) = came.get(&place) {
        characters.push(char::from(*byte));
        place = *before;
    }
    characters.iter().rev().collect()
}

#[cfg(test)]
mod tests {
    use super::super::HostPattern;
    use proptest::prelude::*;

    fn parse(text: &str) -> HostPattern {
        HostPattern::parse(text).expect(text)
    }

    #[test]
    fn patterns_that_cross_have_a_host_in_common_and_others_have_none() {
        for (one, other, expected) in [
            ("*.example.com", "*.example.com", Some("a.example.com")),
            ("*.example.com", "db.*", Some("db.example.com")),
            ("*.example.com", "*.a.com", None),
            ("web-?", "web-[0-9]", Some("web-0")),
            ("web-[a-c]", "web-[d-f]", None),
            ("web-[!a]", "web-{a,b}", Some("web-b")),
            ("{db,web}.lan", "{web,mail}.*", Some("web.lan")),
            ("{db,web}.lan", "{mail,news}.*", None),
            ("DB.Example.com", "db.*", Some("db.example.com")),
            ("db.example.com", "*.example.org", None),
            ("db.example.com.", "db.example.com", Some("db.example.com")),
            ("a*", "*b", Some("ab")),
            ("a*b", "?", None),
            ("*", "*", Some("a")),
            ("*", "*.*", Some("a.a")),
            // No host name has an empty label.
            ("{,*.}example.com", ".example.?om", None),
            ("::1", "0:0:0:0:0:0:0:1", Some("::1")),
            ("10.0.*", "*.7", Some("10.0.7")),
            ("*.a", "*.b", None),
        ] {
            for (one, other) in [(one, other), (other, one)] {
                let found = parse(one).common_host(&parse(other));
                let name = found.as_deref();
                assert_eq!(name.is_some(), expected.is_some(), "{one} {other} {found:?}");
                assert_eq!(
                    name.map(str::len),
                    expected.map(str::len),
                    "{one} {other} {found:?}"
                );
            }
            assert_eq!(
                parse(one).common_host(&parse(other)).as_deref(),
                expected,
                "{one} {other}"
            );
        }
    }

    #[test]
    fn the_longest_patterns_are_compared_soon() {
        let begun = std::time::Instant::now();
        for one in [
            "?".repeat(256),
            "*a".repeat(128),
            format!("{}b", "{a,aa}".repeat(40)),
        ] {
            let _ = parse(&one).common_host(&parse(&format!("{}c", "*a".repeat(127))));
        }
        assert!(
            begun.elapsed() < std::time::Duration::from_secs(20),
            "{:?}",
            begun.elapsed()
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 5_000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn the_host_is_covered_by_both_and_none_is_missed(
            one in "[ab*?{},.]{1,8}",
            other in "[ab*?{},.]{1,8}",
            hosts in proptest::collection::vec("[ab]{1,4}(\\.[ab]{1,2})?", 1..20),
        ) {
            if let (Ok(one), Ok(other)) = (HostPattern::parse(&one), HostPattern::parse(&other)) {
                let common = one.common_host(&other);
                if let Some(host) = &common {
                    prop_assert!(one.matches(host) && other.matches(host), "{host}");
                }
                for host in hosts {
                    prop_assert!(common.is_some() || !(one.matches(&host) && other.matches(&host)), "{host}");
                }
            }
        }
    }
}
