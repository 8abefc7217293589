//! How a user's token is verified: the keys `token`, `introspection`, `command` and `further-oidc`.

use epithet_plugin::PluginCommand;
use epithet_wire::parse_duration;
use serde::{Deserialize, Deserializer};
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
    /// How long an answer may be used again; never longer than the token lives.
    pub cache: Option<Span>,
}

/// `command:` as text for `/bin/sh` or as a list, or with more around it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct CommandSection {
    /// The program.
    pub run: Option<PluginCommand>,
    /// How long it may take; 5s unless set.
    pub timeout: Option<Span>,
    /// How long an answer may be used again; never longer than it says that the token lives.
    pub cache: Option<Span>,
}

/// A duration like `5m`, zero allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span(pub Duration);

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        parse_duration(&String::deserialize(deserializer)?)
            .map(Self)
            .map_err(serde::de::Error::custom)
    }
}
