//! Why a decision is what it is: the same rules, looked at one by one.

use crate::decision::{Decision, Denial, Question};
use crate::rules::Rules;
use epithet_wire::HostPattern;
use std::fmt;

/// A decision and what every rule had to do with it.
#[derive(Debug)]
pub struct Explanation<'a> {
    /// The decision, exactly as [`Rules::evaluate`] makes it.
    pub decision: Decision<'a>,
    /// The person's tags, from `users` and from their groups.
    pub tags: Vec<&'a str>,
    /// Whether the defaults open the user to one of those tags, on hosts that have a rule.
    pub allowed_by_default: bool,
    /// Every rule, in the order in which they are tried.
    pub rules: Vec<(&'a HostPattern, Part)>,
}

/// What one rule had to do with a decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Its pattern does not cover the host.
    OtherHosts,
    /// It covers the host, and opens the user to none of the person's tags.
    GrantsNothing,
    /// It closes the user to one of the person's tags, and that is that.
    Denies,
    /// It opens the user, and its terms apply.
    Decides,
    /// It opens the user, but not to a login like this one.
    Requires,
    /// It opens the user, but something before it decided.
    TooLate,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OtherHosts => "does not cover this host",
            Self::GrantsNothing => "does not allow this user to any of their tags",
            Self::Denies => "denies this user to one of their tags",
            Self::Decides => "allows it, on its terms",
            Self::Requires => "would allow it, but not to this login: see why",
            Self::TooLate => "would allow it, but a rule before it or a denial decided",
        })
    }
}

impl Rules {
    /// Decides as [`Rules::evaluate`], and says what every rule had to do with it.
    pub fn explain(&self, question: &Question<'_>) -> Explanation<'_> {
        let decision = self.evaluate(question);
        let (name, user) = (question.host.canonical(), question.user);
        let tags = self.tags_of(question.person).unwrap_or_default();
        let allowed_by_default = self.default_allows(user, &tags);
        let decider = match &decision {
            Decision::Allowed(allowed) => Some((allowed.rule, Part::Decides)),
            Decision::Denied(
                Denial::Insufficient { rule, .. }
                | Denial::NoPrincipal(rule)
                | Denial::ForbiddenPrincipal { rule, .. },
            ) => Some((*rule, Part::Requires)),
            Decision::Denied(_) => None,
        };
        let parts = self.all().map(|rule| {
            let part = match rule {
                rule if !rule.pattern.matches(&name) => Part::OtherHosts,
                rule if rule.denies(user, &tags) => Part::Denies,
                rule if !allowed_by_default && !rule.allows(user, &tags) => Part::GrantsNothing,
                rule => match decider {
                    Some((decider, part)) if *decider == rule.pattern => part,
                    _ => Part::TooLate,
                },
            };
            (&rule.pattern, part)
        });
        let rules = parts.collect();
        let tags = tags.iter().map(|tag| self.tag_name(*tag)).collect();
        Explanation {
            decision,
            tags,
            allowed_by_default,
            rules,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Document, Person};

    #[test]
    fn every_rule_says_its_part() {
        let text = r#"
users: {alice: [admin], bob: [eng]}
groups: {out: [contractor]}
hosts:
  "a.example.com": {allow: {postgres: [dba]}}
  "a*.example.com": {allow: {root: [admin]}}
  "*.example.com": {allow: {root: [admin, eng]}, deny: {root: [contractor]}}
  "other": {}
"#;
        let rules = Rules::new(&Document::from_yaml("p", text).unwrap());
        let explain = |identity: &str, groups: &[&str]| {
            let groups = groups.iter().map(|group| (*group).to_owned()).collect();
            let person = Person {
                identity: identity.into(),
                groups,
                ..Person::default()
            };
            let explained = rules.explain(&Question {
                person: &person,
                host: &"A.example.com".parse().unwrap(),
                user: &"root".parse().unwrap(),
                now: 0,
            });
            let parts: Vec<Part> = explained.rules.iter().map(|(_, part)| *part).collect();
            (explained.tags.join(","), parts)
        };
        use Part::{Decides, Denies, GrantsNothing, OtherHosts, TooLate};
        // In the order: a.example.com, other, a*.example.com, *.example.com.
        for (identity, groups, tags, parts) in [
            (
                "alice",
                &[][..],
                "admin",
                [GrantsNothing, OtherHosts, Decides, TooLate],
            ),
            (
                "bob",
                &[],
                "eng",
                [GrantsNothing, OtherHosts, GrantsNothing, Decides],
            ),
            (
                "alice",
                &["out"],
                "admin,contractor",
                [GrantsNothing, OtherHosts, TooLate, Denies],
            ),
            (
                "carol",
                &[],
                "",
                [GrantsNothing, OtherHosts, GrantsNothing, GrantsNothing],
            ),
        ] {
            assert_eq!(
                explain(identity, groups),
                (tags.to_owned(), parts.to_vec()),
                "{identity}"
            );
        }
    }
}
