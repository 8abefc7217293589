//! What the rules are asked, and what they answer.

use crate::document::Lacking;
use crate::terms::Terms;
use epithet_wire::{HostName, HostPattern, Principal};
use std::fmt;

/// Who asks, as the token said and the provider vouched for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Person {
    /// The name that `users` has them by.
    pub identity: String,
    /// The groups they are in.
    pub groups: Vec<String>,
    /// How they logged in.
    pub login: Login,
    /// An address that the token has and its provider does not vouch for: they are known by something else, and may
    /// wonder why.
    pub unverified_email: Option<String>,
}

/// How a person logged in, as far as the token says (OpenID Connect Core section 2).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Login {
    /// How strongly (`acr`).
    pub acr: Option<String>,
    /// By what means (`amr`).
    pub amr: Vec<String>,
    /// When (`auth_time`), in seconds since 1970.
    pub at: Option<u64>,
}

/// What is asked: may this person log in there?
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// Who.
    pub person: &'a Person,
    /// To which host.
    pub host: &'a HostName,
    /// As which of its users.
    pub user: &'a Principal,
    /// When, in seconds since 1970.
    pub now: u64,
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
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Allowed<'a> {
    /// The rule's pattern.
    pub rule: &'a HostPattern,
    /// The rule's terms.
    pub terms: &'a Terms,
    /// The user who was asked for, and what the rule adds to them; no name twice.
    pub principals: Vec<Principal>,
}

/// A no, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Denial<'a> {
    /// Neither in `users` nor in a group that has tags.
    UnknownUser,
    /// No pattern covers the host. Defaults alone grant nothing.
    NoRule,
    /// Patterns cover the host, and none of them opens the user to this person.
    NotAllowed,
    /// Closed to this person, by this rule or (when there is none) by the defaults.
    Forbidden(Option<&'a HostPattern>),
    /// This rule opens the user, and adds a principal that is closed to this person.
    ForbiddenPrincipal {
        /// The rule.
        rule: &'a HostPattern,
        /// What it adds.
        principal: Principal,
        /// The rule that closes it, or (when there is none) the defaults do.
        by: Option<&'a HostPattern>,
    },
    /// This rule opens the user, to a login that this one is not. No other rule is asked: it would be less precise.
    Insufficient {
        /// The rule.
        rule: &'a HostPattern,
        /// What it requires.
        lacking: Lacking<'a>,
    },
    /// This rule opens the user, and its `principals` make none for this host.
    NoPrincipal(&'a HostPattern),
}

impl<'a> Denial<'a> {
    /// The rule that said no, when it was one.
    pub fn rule(&self) -> Option<&'a HostPattern> {
        match self {
            Self::UnknownUser | Self::NoRule | Self::NotAllowed => None,
            Self::Forbidden(rule) => *rule,
            Self::ForbiddenPrincipal { rule, .. }
            | Self::Insufficient { rule, .. }
            | Self::NoPrincipal(rule) => Some(rule),
        }
    }
}

impl fmt::Display for Denial<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownUser => f.write_str("not in users, and in no group that has tags"),
            Self::NoRule => f.write_str("no host pattern covers this host"),
            Self::NotAllowed => f.write_str("no rule for this host allows this user to any of their tags"),
            Self::Forbidden(Some(rule)) => write!(f, "denied by the rule for {rule}"),
            Self::Forbidden(None) => f.write_str("denied by the defaults"),
            Self::ForbiddenPrincipal { rule, principal, by } => {
                write!(
                    f,
                    "the rule for {rule} adds the principal {principal}, which is denied by "
                )?;
                match by {
                    Some(by) => write!(f, "the rule for {by}"),
                    None => f.write_str("the defaults"),
                }
            }
            Self::Insufficient { rule, lacking } => write!(f, "the rule for {rule} requires {lacking}"),
            Self::NoPrincipal(rule) => {
                write!(
                    f,
                    "the principals of the rule for {rule} cannot be made for this host"
                )
            }
        }
    }
}
