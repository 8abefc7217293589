//! The rules as people write them: YAML with `users`, `defaults`, `hosts` and `oidc`.
//!
//! A file of epithet 0.19 is read as it is, whether the keys stand at the top or under `policy:`. Anything that would
//! be ignored there is an error here, with the line it is on: an unknown key, a key twice, a malformed pattern,
//! principal or duration.

use crate::pattern::HostPattern;
use epithet_wire::{Principal, parse_duration};
use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer};
use std::collections::BTreeMap;
use std::time::Duration;

/// The `policy` section of a configuration file.
///
/// ```
/// # use epithet_policy::Document;
/// let document = Document::from_yaml("policy.yaml", r#"
/// oidc: {issuer: "https://accounts.google.com", client-id: "x.apps.googleusercontent.com"}
/// users:
///   alice@example.com: [admin, eng]
/// defaults:
///   allow: {root: [admin]}
///   expiration: 5m
/// hosts:
///   "*.prod.example.com": {expiration: 2m}
///   "dev-*{,.example.com}": {allow: {ubuntu: [eng]}}
/// "#)?;
/// assert_eq!(document.hosts.len(), 2);
/// # Ok::<(), epithet_policy::DocumentError>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Document {
    /// Who there is, by identity, and the tags of each. Nobody else gets in.
    #[serde(deserialize_with = "lists")]
    pub users: BTreeMap<String, Vec<String>>,
    /// Groups of the identity provider (`oidc.groups-claim`), and the tags their members have.
    #[serde(deserialize_with = "lists")]
    pub groups: BTreeMap<String, Vec<String>>,
    /// What holds for every host that has a rule, where the rule says nothing else. Alone it grants nothing.
    #[serde(deserialize_with = "null_as_default")]
    pub defaults: HostRule,
    /// The rules, by host pattern. A host that none of them covers is nobody's.
    #[serde(deserialize_with = "rules")]
    pub hosts: BTreeMap<HostPattern, HostRule>,
    /// Whose tokens are believed.
    #[serde(deserialize_with = "null_as_default")]
    pub oidc: Oidc,
    /// Where the policy server listens; the same as its flag.
    pub listen: Option<String>,
    /// The CA that may ask; the same as its flag.
    pub ca_pubkey: Option<String>,
    /// A certificate's life where no rule says otherwise; wins over `defaults.expiration`, as its flag does.
    pub default_expiration: Option<Lifetime>,
}

/// What one pattern of hosts grants.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct HostRule {
    /// Which users of the host are open to holders of which tags.
    #[serde(deserialize_with = "lists")]
    pub allow: BTreeMap<Principal, Vec<String>>,
    /// Which users of the host are closed to holders of which tags, whatever any other rule allows.
    #[serde(deserialize_with = "lists")]
    pub deny: BTreeMap<Principal, Vec<String>>,
    /// The certificate's life.
    pub expiration: Option<Lifetime>,
    /// The certificate's extensions, all of them: `{}` means none.
    #[serde(deserialize_with = "extensions")]
    pub extensions: Option<BTreeMap<String, String>>,
    /// Networks to log in from (`source-address`).
    #[serde(deserialize_with = "null_as_default")]
    pub source_address: Vec<String>,
    /// The only command to be run (`force-command`).
    pub force_command: Option<String>,
}

/// The identity provider, and how it names people.
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
}

/// How long a certificate lives: more than nothing, written like `5m` or `1h30m`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Lifetime(Duration);

impl Lifetime {
    /// `None` for no time at all.
    pub fn new(duration: Duration) -> Option<Self> {
        (!duration.is_zero()).then_some(Self(duration))
    }

    /// The time.
    pub fn get(self) -> Duration {
        self.0
    }
}

impl<'de> Deserialize<'de> for Lifetime {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let duration =
            parse_duration(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)?;
        Self::new(duration)
            .ok_or_else(|| serde::de::Error::custom("a certificate cannot have a life of 0; leave the key out"))
    }
}

/// Why a file is not a policy: where, what, and what would be right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct DocumentError {
    /// The file's name as the caller gave it.
    pub file: String,
    /// Line and column, both from 1, where they are known.
    pub place: Option<(u64, u64)>,
    /// What is wrong there.
    pub problem: String,
}

impl std::fmt::Display for DocumentError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.place {
            Some((line, column)) => write!(f, "{}:{line}:{column}: {}", self.file, self.problem),
            None => write!(f, "{}: {}", self.file, self.problem),
        }
    }
}

impl Document {
    /// Reads a file's text. `file` is only used to name it in errors.
    ///
    /// # Errors
    /// [`DocumentError`] for the first thing that is wrong.
    pub fn from_yaml(file: &str, text: &str) -> Result<Self, DocumentError> {
        #[derive(Deserialize)]
        struct Probe {
            policy: Option<IgnoredAny>,
        }
        #[derive(Deserialize)]
        struct Sections {
            policy: Self_,
        }
        type Self_ = Document;
        let failed = |error: serde_saphyr::Error| DocumentError::new(file, &error);
        let nested = serde_saphyr::from_str::<Option<Probe>>(text).map_err(failed)?;
        if nested.is_some_and(|probe| probe.policy.is_some()) {
            return serde_saphyr::from_str::<Sections>(text).map(|file| file.policy).map_err(failed);
        }
        Ok(serde_saphyr::from_str::<Option<Self>>(text).map_err(failed)?.unwrap_or_default())
    }
}

impl DocumentError {
    fn new(file: &str, error: &serde_saphyr::Error) -> Self {
        let place = error.location().map(|location| (location.line(), location.column()));
        eprintln!("{error}\n====\n{}\n==={:?}", error.without_snippet(), place);
        Self { file: file.to_owned(), place, problem: error.without_snippet().to_string() }
    }
}

fn null_as_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// A map whose values may be left empty.
fn map<'de, D, K, V>(deserializer: D) -> Result<BTreeMap<K, V>, D::Error>
where
    D: Deserializer<'de>,
    K: Deserialize<'de> + Ord,
    V: Deserialize<'de> + Default,
{
    let map: Option<BTreeMap<K, Option<V>>> = Option::deserialize(deserializer)?;
    let entries = map.unwrap_or_default().into_iter();
    Ok(entries.map(|(key, value)| (key, value.unwrap_or_default())).collect())
}

fn lists<'de, D, K>(deserializer: D) -> Result<BTreeMap<K, Vec<String>>, D::Error>
where
    D: Deserializer<'de>,
    K: Deserialize<'de> + Ord,
{
    map(deserializer)
}

fn rules<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<HostPattern, HostRule>, D::Error> {
    map(deserializer)
}

fn extensions<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<BTreeMap<String, String>>, D::Error> {
    let map: Option<BTreeMap<String, Option<String>>> = Option::deserialize(deserializer)?;
    Ok(map.map(|map| map.into_iter().map(|(name, value)| (name, value.unwrap_or_default())).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_show() {
        for text in [
            "users:\n  a: [b]\n  a: [c]\n",
            "users:\n  a: [b]\nhosts:\n  \"[z-a]\": {}\n",
            "users:\n  a: [b]\nhosts:\n  \"a\": {allow: {\"a,b\": [x]}}\n",
            "users:\n  a: [b]\nhosts:\n  \"a\": {expiration: 5}\n",
            "users:\n  a: [b]\nhosts:\n  \"a\":\n    expiration: -5m\n",
            "users:\n  a: [b]\nhosts:\n  \"a\":\n    experation: -5m\n",
            "policy:\n users:\n  a: [b]\n host: x\n",
            "policy:\n users:\n  a: [b\n host: x\n",
            "policy:\n users: [a]",
            "oidc: {client_id: x}",
        ] {
            println!("RESULT {}", Document::from_yaml("p.yaml", text).unwrap_err());
        }
        println!("{:?}", Document::from_yaml("p", ""));
        println!("{:?}", Document::from_yaml("p", "# x\nusers:\nhosts:\n  a:\n  b: {}\n  c: {allow: {root: }, extensions: {permit-pty: }}\ndefaults:\n"));
        panic!();
    }
}
