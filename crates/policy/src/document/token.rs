//! How a user's token is verified: the keys `token`, `introspection` and `command`.

use epithet_plugin::PluginCommand;
use epithet_wire::parse_duration;
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// Who says whether a token is good.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TokenKind {
    /// It is an OpenID Connect ID token, verified here with its issuer's keys.
    #[default]
    Oidc,
    /// Its provider is asked (RFC 7662).
    Introspection,
    /// A program of your own is asked.
    Command,
}

/// `introspection:`
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct IntrospectionSection {
    /// The provider's introspection endpoint.
    pub url: Option<String>,
    /// Who the policy server is there.
    pub client_id: Option<String>,
    /// Its secret.
    pub client_secret: Option<String>,
    /// A file with its secret; better than the secret itself.
    pub client_secret_file: Option<PathBuf>,
    /// The member that `users` are named by; `sub` unless set.
    pub identity_claim: Option<String>,
    /// The member that lists a person's groups.
    pub groups_claim: Option<String>,
    /// What `aud` must contain, if set.
    pub audience: Option<String>,
    /// What `iss` must be, if set.
    pub issuer: Option<String>,
    /// How long a token is good for of which the provider does not say when it ends; such a token is refused otherwise.
    pub max_age: Option<Span>,
    /// How long an answer may be used again; never longer than the token lives.
    pub cache: Option<Span>,
}

/// `command:` as text for `/bin/sh`, as a list of program and arguments, or as a map with more around it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CommandSection {
    /// The program.
    pub run: Option<PluginCommand>,
    /// How long it may take; 5s unless set.
    pub timeout: Option<Span>,
    /// How long an answer may be used again; never longer than it says that the token lives.
    pub cache: Option<Span>,
}

impl IntrospectionSection {
    pub(super) fn merge(self, later: Self) -> Self {
        // A secret and a file with one exclude each other, so the later one takes the place of both.
        let (client_secret, client_secret_file) = match (later.client_secret, later.client_secret_file) {
            (None, None) => (self.client_secret, self.client_secret_file),
            later => later,
        };
        Self {
            url: later.url.or(self.url),
            client_id: later.client_id.or(self.client_id),
            client_secret,
            client_secret_file,
            identity_claim: later.identity_claim.or(self.identity_claim),
            groups_claim: later.groups_claim.or(self.groups_claim),
            audience: later.audience.or(self.audience),
            issuer: later.issuer.or(self.issuer),
            max_age: later.max_age.or(self.max_age),
            cache: later.cache.or(self.cache),
        }
    }
}

impl CommandSection {
    pub(super) fn merge(self, later: Self) -> Self {
        Self {
            run: later.run.or(self.run),
            timeout: later.timeout.or(self.timeout),
            cache: later.cache.or(self.cache),
        }
    }
}

impl<'de> Deserialize<'de> for CommandSection {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(CommandForms)
    }
}

struct CommandForms;

impl CommandForms {
    fn alone(run: PluginCommand) -> CommandSection {
        CommandSection {
            run: Some(run),
            ..CommandSection::default()
        }
    }
}

impl<'de> Visitor<'de> for CommandForms {
    type Value = CommandSection;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "a command: a string for the shell, a list of program and arguments, or {run: ..., timeout: ...}",
        )
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<CommandSection, E> {
        Ok(Self::alone(PluginCommand::Shell(text.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, words: A) -> Result<CommandSection, A::Error> {
        Vec::deserialize(SeqAccessDeserializer::new(words))
            .map(|words| Self::alone(PluginCommand::Argv(words)))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<CommandSection, A::Error> {
        #[derive(Default, Deserialize)]
        #[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
        struct Map {
            run: Option<PluginCommand>,
            timeout: Option<Span>,
            cache: Option<Span>,
        }
        let Map { run, timeout, cache } = Map::deserialize(MapAccessDeserializer::new(map))?;
        Ok(CommandSection { run, timeout, cache })
    }
}

/// A duration like `5m`, zero allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span(pub Duration);

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        parse_duration(&String::deserialize(deserializer)?)
            .map(Self)
            .map_err(Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_text_or_a_list_or_a_map_with_more_around_it() {
        let read = |text| serde_saphyr::from_str::<CommandSection>(text).unwrap();
        let list = PluginCommand::Argv(vec!["./verify".to_owned(), "a b".to_owned()]);
        assert_eq!(read("[./verify, a b]").run, Some(list.clone()));
        assert_eq!(
            read("verify | jq .").run,
            Some(PluginCommand::Shell("verify | jq .".to_owned()))
        );
        let whole = read("{run: [./verify, a b], timeout: 2s, cache: 0s}");
        assert_eq!(whole.run, Some(list));
        assert_eq!(whole.timeout, Some(Span(Duration::from_secs(2))));
        assert_eq!(whole.cache, Some(Span(Duration::ZERO)));
        assert!(serde_saphyr::from_str::<CommandSection>("7").is_err());
        assert!(serde_saphyr::from_str::<CommandSection>("[{a: b}]").is_err());
    }
}
