//! `principals:` names that a certificate carries beside the user who was asked for, for hosts that map principals to
//! users themselves (`AuthorizedPrincipalsFile`).

use epithet_wire::limits::PRINCIPALS_MAX;
use epithet_wire::{NameError, Principal};
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use std::collections::BTreeMap;
use std::fmt;

/// A principal in which `{user}` and `{host}` stand for those of the login.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PrincipalTemplate(String);

impl PrincipalTemplate {
    /// Reads one. `{host}` only stands after an `@`: what a host is called is said by whoever asks, and a host called
    /// `root` must not make the principal `root`.
    ///
    /// # Errors
    /// In words, when no user and host make it a principal, or it has braces around anything else.
    pub fn parse(text: &str) -> Result<Self, String> {
        let template = Self(text.to_owned());
        template.fill("u", "h").map_err(|error| {
            format!("`{text}` is not a principal ({error}); `{{user}}` and `{{host}}` stand for those of the login")
        })?;
        if text.replace("@{host}", "@").contains("{host}") {
            return Err(format!(
                "`{text}`: `{{host}}` only stands after an `@`, as in `{{user}}@{{host}}`, so that no host's name is a user's"
            ));
        }
        Ok(template)
    }

    /// The principal for one login.
    ///
    /// # Errors
    /// When it is none: an IPv6 address has characters that no principal has, and a long host name is too long.
    pub fn fill(&self, user: &str, host: &str) -> Result<Principal, NameError> {
        // Neither a user nor a host has braces, so what is put in is never taken for a placeholder.
        Principal::parse(&self.0.replace("{user}", user).replace("{host}", host))
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<'de> Deserialize<'de> for PrincipalTemplate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(deserializer)?).map_err(Error::custom)
    }
}

/// The principals of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Principals {
    /// The same for every user.
    Everybody(Vec<PrincipalTemplate>),
    /// By the user who is asked for; others have none.
    ByUser(BTreeMap<Principal, Vec<PrincipalTemplate>>),
}

impl Principals {
    /// Those for a login as `user`.
    pub fn of(&self, user: &Principal) -> &[PrincipalTemplate] {
        match self {
            Self::Everybody(templates) => templates,
            Self::ByUser(map) => map.get(user).map_or(&[], Vec::as_slice),
        }
    }
}

impl<'de> Deserialize<'de> for Principals {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Forms)
    }
}

/// The user is one of the principals, so this many may be added.
const ADDED_MAX: usize = PRINCIPALS_MAX - 1;

fn few<E: Error>(templates: Vec<PrincipalTemplate>) -> Result<Vec<PrincipalTemplate>, E> {
    match templates.len() {
        0..=ADDED_MAX => Ok(templates),
        count => Err(E::custom(format!(
            "{count} principals; at most {ADDED_MAX} fit beside the user"
        ))),
    }
}

struct Forms;

impl<'de> Visitor<'de> for Forms {
    type Value = Principals;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of principals, or such lists by user ({root: [...]})")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Principals, A::Error> {
        few(Vec::deserialize(SeqAccessDeserializer::new(list))?).map(Principals::Everybody)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Principals, A::Error> {
        let map: BTreeMap<Principal, Option<Vec<PrincipalTemplate>>> =
            Deserialize::deserialize(MapAccessDeserializer::new(map))?;
        let lists = map
            .into_iter()
            .map(|(user, list)| Ok((user, few(list.unwrap_or_default())?)));
        lists.collect::<Result<_, _>>().map(Principals::ByUser)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_is_filled_with_the_login() {
        let fill = |text: &str, host: &str| {
            let template = PrincipalTemplate::parse(text).ok()?;
            template
                .fill("root", host)
                .ok()
                .map(|principal| principal.to_string())
        };
        for (text, host, expected) in [
            ("prod-root", "h", Some("prod-root")),
            ("{user}@{host}", "web.example.com", Some("root@web.example.com")),
            ("prod@{host}", "10.0.0.1", Some("prod@10.0.0.1")),
            ("{host}", "root", None),
            ("x-{host}", "h", None),
            ("{user}{host}", "h", None),
            ("a@{host}{host}", "h", None),
            ("{user}@{host}", "fe80::1", None),
            ("{user}{user}", "h", Some("rootroot")),
            ("{group}", "h", None),
            ("{user", "h", None),
            ("a,b", "h", None),
            ("*", "h", None),
            ("", "h", None),
        ] {
            assert_eq!(fill(text, host).as_deref(), expected, "{text} {host}");
        }
        let long = "h".repeat(126);
        assert_eq!(fill("x@{host}", &long), Some(format!("x@{long}")));
        assert_eq!(fill("x@{host}", &"h".repeat(127)), None);
    }

    #[test]
    fn principals_are_a_list_or_lists_by_user_and_few() {
        let read = |text: &str| serde_saphyr::from_str::<Principals>(text);
        let list = |count: usize| format!("[{}]", vec!["a"; count].join(","));
        let root = "root".parse().unwrap();
        assert_eq!(read("[a, b]").unwrap().of(&root).len(), 2);
        let by_user = read("{root: [a], deploy: [b, c], backup: }").unwrap();
        assert_eq!(by_user.of(&root).len(), 1);
        assert!(by_user.of(&"other".parse().unwrap()).is_empty());
        assert!(read(&list(15)).is_ok());
        for wrong in [
            list(16),
            format!("{{root: {}}}", list(16)),
            "7".into(),
            "{'a b': [x]}".into(),
            "['a b']".into(),
        ] {
            assert!(read(&wrong).is_err(), "{wrong}");
        }
    }
}
