//! `require:` how a person must have logged in for a rule to let them in.

use super::fields::{null_as_default, one_or_many};
use super::token::Span;
use crate::decision::Login;
use epithet_wire::format_duration;
use epithet_wire::limits::OIDC_LEEWAY;
use serde::Deserialize;
use std::fmt;

/// What a login must have been like. Every key that is set must hold; of a list any one suffices.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Requirement {
    /// How strongly (`acr`, OpenID Connect Core section 2): one of these.
    #[serde(deserialize_with = "one_or_many")]
    pub acr: Vec<String>,
    /// By what means (`amr`, RFC 8176): one of these among them.
    #[serde(deserialize_with = "one_or_many")]
    pub amr: Vec<String>,
    /// How long ago at most (`auth_time`).
    #[serde(deserialize_with = "null_as_default")]
    pub max_age: Option<Span>,
}

/// What a login lacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lacking<'a> {
    /// It was not as strong as one of these.
    Acr(&'a [String]),
    /// None of these means was used.
    Amr(&'a [String]),
    /// It was longer ago, or the token does not say when.
    Age(Span),
}

impl Requirement {
    /// Whether nothing is required.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The first thing that a login lacks at `now`, in seconds since 1970.
    pub fn lacking(&self, login: &Login, now: u64) -> Option<Lacking<'_>> {
        let is_one_of = |list: &[String], said: &str| list.iter().any(|one| one == said);
        if !self.acr.is_empty() && !login.acr.as_deref().is_some_and(|acr| is_one_of(&self.acr, acr)) {
            return Some(Lacking::Acr(&self.acr));
        }
        if !self.amr.is_empty() && !login.amr.iter().any(|means| is_one_of(&self.amr, means)) {
            return Some(Lacking::Amr(&self.amr));
        }
        let age = self.max_age?;
        let is_recent = login.at.is_some_and(|at| {
            let latest = now.saturating_add(OIDC_LEEWAY.as_secs());
            (now.saturating_sub(age.0.as_secs())..=latest).contains(&at)
        });
        (!is_recent).then_some(Lacking::Age(age))
    }
}

impl fmt::Display for Lacking<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Acr(list) => write!(f, "a login with acr {}", list.join(" or ")),
            Self::Amr(list) => write!(f, "a login with amr {}", list.join(" or ")),
            Self::Age(age) => write!(f, "a login of the last {}", format_duration(age.0)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_lacks_what_the_table_says() {
        let read = |text: &str| serde_saphyr::from_str::<Requirement>(text).unwrap();
        let login = |acr: Option<&str>, amr: &[&str], at: Option<u64>| Login {
            acr: acr.map(str::to_owned),
            amr: amr.iter().map(|means| (*means).to_owned()).collect(),
            at,
        };
        const NOW: u64 = 10_000;
        for (requirement, login, lacking) in [
            ("{}", login(None, &[], None), None),
            ("{acr: phr}", login(Some("phr"), &[], None), None),
            ("{acr: [a, phr]}", login(Some("phr"), &[], None), None),
            ("{acr: [a, phr]}", login(None, &[], None), Some("acr a or phr")),
            ("{acr: phr}", login(Some("PHR"), &[], None), Some("acr phr")),
            ("{acr: phr}", login(None, &["phr"], None), Some("acr phr")),
            ("{amr: [hwk, otp]}", login(None, &["pwd", "otp"], None), None),
            ("{amr: hwk}", login(None, &["pwd"], None), Some("amr hwk")),
            ("{amr: hwk}", login(None, &[], None), Some("amr hwk")),
            ("{max-age: 15m}", login(None, &[], Some(NOW - 900)), None),
            (
                "{max-age: 15m}",
                login(None, &[], Some(NOW - 901)),
                Some("last 15m"),
            ),
            ("{max-age: 15m}", login(None, &[], Some(NOW + 60)), None),
            (
                "{max-age: 15m}",
                login(None, &[], Some(NOW + 61)),
                Some("last 15m"),
            ),
            ("{max-age: 15m}", login(None, &[], None), Some("last 15m")),
            ("{acr: a, amr: b}", login(Some("a"), &[], None), Some("amr b")),
            ("{acr: , amr: , max-age: }", login(None, &[], None), None),
        ] {
            let found = read(requirement);
            let found = found.lacking(&login, NOW).map(|lacking| lacking.to_string());
            match (&found, lacking) {
                (Some(found), Some(words)) => assert!(found.contains(words), "{requirement}: {found}"),
                _ => assert_eq!(found.as_deref(), lacking, "{requirement} {login:?}"),
            }
        }
        assert!(serde_saphyr::from_str::<Requirement>("{age: 5m}").is_err());
    }
}
