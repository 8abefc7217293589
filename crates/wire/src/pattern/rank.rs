//! Which of two patterns says more.

use super::syntax::Node;
use std::cmp::Reverse;

/// What makes one pattern more specific than another, smaller being more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank {
    has_choice: bool,
    wildcards: usize,
    literals: Reverse<usize>,
    stars: usize,
}

impl Rank {
    /// That of a pattern of these parts.
    pub(super) fn of(nodes: &[Node]) -> Self {
        let mut rank = Self {
            has_choice: false,
            wildcards: 0,
            literals: Reverse(0),
            stars: 0,
        };
        for node in nodes {
            match node {
                Node::Literal(_) => rank.literals.0 += 1,
                Node::One(_) => rank.wildcards += 1,
                Node::Star => {
                    rank.wildcards += 1;
                    rank.stars += 1;
                }
                Node::Choice(alternatives) => {
                    let ranks: Vec<_> = alternatives.iter().map(|one| Self::of(one)).collect();
                    rank.has_choice = true;
                    rank.wildcards += ranks.iter().map(|one| one.wildcards).max().unwrap_or(0);
                    rank.stars += ranks.iter().map(|one| one.stars).max().unwrap_or(0);
                    rank.literals.0 += ranks.iter().map(|one| one.literals.0).min().unwrap_or(0);
                }
            }
        }
        // A wildcard outweighs whether there is a choice; a name without either comes first of all.
        rank.has_choice |= rank.wildcards > 0;
        rank
    }
}

#[cfg(test)]
mod tests {
    use crate::HostPattern;

    #[test]
    fn what_says_more_comes_first() {
        let ordered = [
            "db.example.com",
            "db",
            "{prod-1,prod-2}.example.com",
            "db{,.lan}",
            "prod-?.example.com",
            "prod-*.example.com",
            "{prod,dev,stage,qa}-*.example.com",
            "*.example.com",
            "*",
            "*.*.example.com",
        ];
        let mut sorted: Vec<_> = ordered
            .iter()
            .rev()
            .map(|text| HostPattern::parse(text).unwrap())
            .collect();
        sorted.sort();
        assert_eq!(
            sorted.iter().map(HostPattern::as_str).collect::<Vec<_>>(),
            ordered
        );
    }
}
