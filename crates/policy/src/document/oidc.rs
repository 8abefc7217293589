//! `oidc:` whose ID tokens are believed: one provider as in epithet 0.19, or a list of them.

use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use std::fmt;

/// An identity provider, and how it names people.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Oidc {
    /// The provider's issuer URL.
    pub issuer: Option<String>,
    /// The client that tokens must be for.
    pub client_id: Option<String>,
    /// Handed to clients that log in, for providers that insist on one; the policy server does not use it.
    pub client_secret: Option<String>,
    /// What clients shall ask for; `openid profile email` unless set.
    pub scopes: Option<Vec<String>>,
    /// The claim that `users` are named by. Unset: `email` if the provider vouches for it, else `sub`.
    pub identity_claim: Option<String>,
    /// The claim that lists a person's groups, such as `groups` or `realm_access.roles`.
    pub groups_claim: Option<String>,
    /// What stands before every identity of this issuer, so that no other issuer can name the same people. Required of
    /// every issuer of a list but the first; `''` says that this one may name anybody.
    pub identity_prefix: Option<String>,
    /// The same for groups; the identity's prefix unless set.
    pub groups_prefix: Option<String>,
}

/// The providers whose tokens are believed. Which of them verifies a token is the token's own `iss`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Issuers {
    /// The one that clients are told of, and that flags change.
    pub first: Oidc,
    /// The others.
    pub further: Vec<Oidc>,
}

impl Issuers {
    /// All of them, the first one first.
    pub fn all(&self) -> impl Iterator<Item = &Oidc> {
        std::iter::once(&self.first).chain(&self.further)
    }

    /// These with everything that `later` says put over them; a longer list replaces the others.
    pub(super) fn merge(self, later: Self) -> Self {
        Self {
            first: self.first.merge(later.first),
            further: match later.further.is_empty() {
                true => self.further,
                false => later.further,
            },
        }
    }
}

impl Oidc {
    fn merge(self, later: Self) -> Self {
        Self {
            issuer: later.issuer.or(self.issuer),
            client_id: later.client_id.or(self.client_id),
            client_secret: later.client_secret.or(self.client_secret),
            scopes: later.scopes.or(self.scopes),
            identity_claim: later.identity_claim.or(self.identity_claim),
            groups_claim: later.groups_claim.or(self.groups_claim),
            identity_prefix: later.identity_prefix.or(self.identity_prefix),
            groups_prefix: later.groups_prefix.or(self.groups_prefix),
        }
    }
}

impl<'de> Deserialize<'de> for Issuers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(OneOrSeveral)
    }
}

struct OneOrSeveral;

impl<'de> Visitor<'de> for OneOrSeveral {
    type Value = Issuers;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a provider ({issuer: ..., client-id: ...}) or a list of them")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Issuers, A::Error> {
        Ok(Issuers {
            first: Oidc::deserialize(MapAccessDeserializer::new(map))?,
            further: Vec::new(),
        })
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Issuers, A::Error> {
        let mut issuers = Issuers {
            first: list.next_element()?.unwrap_or_default(),
            further: Vec::new(),
        };
        while let Some(next) = list.next_element()? {
            issuers.further.push(next);
        }
        Ok(issuers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_provider_is_a_map_and_several_are_a_list() {
        let read = |text| serde_saphyr::from_str::<Issuers>(text).unwrap();
        let named = |issuers: &Issuers| -> Vec<String> {
            issuers.all().filter_map(|oidc| oidc.issuer.clone()).collect()
        };
        assert_eq!(named(&read("{issuer: a}")), ["a"]);
        assert_eq!(
            named(&read("[{issuer: a}, {issuer: b}, {issuer: c}]")),
            ["a", "b", "c"]
        );
        assert_eq!(read("[{issuer: a}]"), read("{issuer: a}"));
        assert_eq!(read("[]"), Issuers::default());
        let merged = read("[{issuer: a}, {issuer: b}]").merge(read("{client-id: c}"));
        assert_eq!(
            (named(&merged).join(","), merged.first.client_id.as_deref()),
            ("a,b".to_owned(), Some("c"))
        );
    }
}
