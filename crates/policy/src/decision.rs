//! What the rules are asked, and what they answer.

use crate::rules::Terms;
use epithet_wire::HostPattern;
use std::fmt;

/// Who asks, as the token said and the provider vouched for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Person {
    /// The name that `users` has them by.
    pub identity: String,
    /// The groups they are in.
    pub groups: Vec<String>,
}

/// Yes or no.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub enum Decision<'a> {
    /// Yes.
    Allowed(Allowed<'a>),
    /// No.
    Denied(Denial<'a>),
}

/// A yes: by which rule, and on what terms. Only [`Rules::evaluate`](crate::Rules::evaluate) makes one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Allowed<'a> {
    /// The rule's pattern.
    pub rule: &'a HostPattern,
    /// The rule's terms.
    pub terms: &'a Terms,
}

/// A no, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denial<'a> {
    /// Neither in `users` nor in a group that has tags.
    UnknownUser,
    /// No pattern covers the host. Defaults alone grant nothing.
    NoRule,
    /// Patterns cover the host, and none of them opens the user to this person.
    NotAllowed,
    /// Closed to this person, by this rule or (when there is none) by the defaults.
    Forbidden(Option<&'a HostPattern>),
}

impl fmt::Display for Denial<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownUser => f.write_str("not in users, and in no group that has tags"),
            Self::NoRule => f.write_str("no host pattern covers this host"),
            Self::NotAllowed => f.write_str("no rule for this host allows this user to any of their tags"),
            Self::Forbidden(Some(rule)) => write!(f, "denied by the rule for {rule}"),
            Self::Forbidden(None) => f.write_str("denied by the defaults"),
        }
    }
}
