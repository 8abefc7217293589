//! What two patterns have to do with each other: whether one covers what the other does, or some of it.

use super::matcher::Matcher;
use super::syntax::Node;
use super::{HostPattern, inclusion, literals, nodes, overlap, whole_program};

impl HostPattern {
    /// Whether some host may be covered by both. `false` is certain.
    pub fn may_overlap(&self, other: &Self) -> bool {
        if let Some(name) = self.exact_name() {
            return other.matches(name);
        }
        if let Some(name) = other.exact_name() {
            return self.matches(name);
        }
        let ((before, after), (other_before, other_after)) = (self.ends(), other.ends());
        (before.starts_with(other_before) || other_before.starts_with(before))
            && (after.ends_with(other_after) || other_after.ends_with(after))
            && self.sketch.may_overlap(&other.sketch)
    }

    /// The plain characters before the first wildcard and after the last.
    fn ends(&self) -> (&[u8], &[u8]) {
        match &self.matcher {
            Matcher::Name(name) => (name.as_bytes(), name.as_bytes()),
            Matcher::Around(before, after) | Matcher::Between { before, after, .. } => (before, after),
        }
    }

    /// Whether this pattern covers every host that `other` covers. `false` also when that would take long to find out.
    pub fn includes(&self, other: &Self) -> bool {
        Self::include(&[self], other, &mut { usize::MAX })
    }

    /// Whether these patterns together cover every host that `other` covers. `false` also when that would take long to
    /// find out: more steps than are `left`, from which those that were made are taken.
    pub fn include(these: &[&Self], other: &Self, left: &mut usize) -> bool {
        if let Some(name) = other.exact_name() {
            return these.iter().any(|one| one.matches(name));
        }
        if these.is_empty() {
            return false;
        }
        let alternatives: Result<Vec<_>, _> = these.iter().map(|one| one.canonical_nodes()).collect();
        let wide = alternatives.map(|alternatives| whole_program(&[Node::Choice(alternatives)]));
        match (wide, nodes(&other.text)) {
            (Ok(wide), Ok(narrow)) => inclusion::includes(&wide, &whole_program(&narrow), left),
            _ => false,
        }
    }

    /// A host that both patterns cover: the shortest one. `None` when there is none.
    pub fn common_host(&self, other: &Self) -> Option<String> {
        for (exact, pattern) in [(self, other), (other, self)] {
            if let Some(name) = exact.exact_name() {
                return pattern.matches(name).then(|| name.to_owned());
            }
        }
        let steps = |pattern: &Self| nodes(&pattern.text).map(|nodes| whole_program(&nodes));
        overlap::common(&steps(self).ok()?, &steps(other).ok()?)
    }

    /// A name in the form that hosts are compared in; a pattern as it is.
    fn canonical_nodes(&self) -> Result<Vec<Node>, &'static str> {
        match self.exact_name() {
            Some(name) => Ok(literals(name)),
            None => nodes(&self.text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_pattern_includes_what_the_table_says() {
        for (wide, narrow, expected) in [
            ("*", "*.*", true),
            ("*.*", "*", false),
            ("*.example.com", "*.*.example.com", true),
            ("*.example.com", "web-?.example.com", true),
            ("web-?.example.com", "*.example.com", false),
            ("{a,b}*", "a*", true),
            ("a*", "{a,b}*", false),
            ("[a-c]x", "{ax,bx,cx}", true),
            ("[a-b]x", "{ax,bx,cx}", false),
            ("*", "web.example.com", true),
            ("WEB*", "web1", true),
            ("web", "web.", true),
            ("a**b", "a*b", true),
            ("*a*", "*b*", false),
            ("db*", "web*", false),
            // Certain, but too far to see: said to be no.
            (
                &format!("*a{}", "?".repeat(20)),
                &format!("*a{}", "?".repeat(20)),
                false,
            ),
        ] {
            let parse = |text: &str| HostPattern::parse(text).unwrap();
            assert_eq!(parse(wide).includes(&parse(narrow)), expected, "{wide} {narrow}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn a_pattern_that_includes_another_matches_what_it_matches(
            wide in "[ab*?{},]{1,8}",
            narrow in "[ab*?{},]{1,8}",
            hosts in proptest::collection::vec("[ab]{0,6}", 1..20),
        ) {
            if let (Ok(wide), Ok(narrow)) = (HostPattern::parse(&wide), HostPattern::parse(&narrow)) {
                let includes = wide.includes(&narrow);
                for host in hosts {
                    prop_assert!(!includes || !narrow.matches(&host) || wide.matches(&host), "{host}");
                }
            }
        }
    }
}
