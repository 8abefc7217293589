//! The rules as people write them: YAML with `users`, `defaults`, `hosts` and `oidc`.
//!
//! A file of epithet 0.19 is read as it is, whether the keys stand at the top or under `policy:`. Anything that would
//! be ignored there is an error here, with the line it is on: an unknown key, a key twice, a malformed pattern,
//! principal or duration.

mod error;
mod fields;
mod oidc;
mod principals;
mod requirement;
mod thorough;
mod token;

pub use error::DocumentError;

use crate::places::Places;
use epithet_wire::HostPattern;
use epithet_wire::{Principal, parse_duration};
use fields::{extensions, force_command, lists, networks, null_as_default, rules};
pub use oidc::{Issuers, Oidc};
pub use principals::{PrincipalTemplate, Principals};
pub use requirement::{Lacking, Requirement};
use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer};
use std::collections::BTreeMap;
use std::time::Duration;
pub use thorough::Reading;
pub use token::{CommandSection, IntrospectionSection, Span, TokenKind};

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
    /// Whose tokens are believed: one provider, or a list of them.
    #[serde(deserialize_with = "null_as_default")]
    pub oidc: Issuers,
    /// How a user's token is verified; `oidc` unless set.
    pub token: Option<TokenKind>,
    /// For `token: introspection`.
    #[serde(deserialize_with = "null_as_default")]
    pub introspection: IntrospectionSection,
    /// For `token: command`.
    #[serde(deserialize_with = "null_as_default")]
    pub command: CommandSection,
    /// Where the policy server listens; the same as its flag.
    pub listen: Option<String>,
    /// The CA that may ask; the same as its flag.
    pub ca_pubkey: Option<String>,
    /// Where the policy server shows its numbers; the same as its flag.
    pub metrics_listen: Option<String>,
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
    /// The certificate's life; `ttl` is the same.
    #[serde(alias = "ttl")]
    pub expiration: Option<Lifetime>,
    /// The certificate's extensions, all of them: `{}` means none.
    #[serde(deserialize_with = "extensions")]
    pub extensions: Option<BTreeMap<String, String>>,
    /// Networks to log in from (`source-address`).
    #[serde(deserialize_with = "networks")]
    pub source_address: Vec<String>,
    /// The only command to be run (`force-command`).
    #[serde(deserialize_with = "force_command")]
    pub force_command: Option<String>,
    /// What the login must have been like, all of it: `{}` means anything.
    pub require: Option<Requirement>,
    /// Principals beside the user, all of them: `[]` means none.
    pub principals: Option<Principals>,
}

/// How long a certificate lives: a second or more, for certificates have no smaller times; written like `5m` or `1h30m`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Lifetime(Duration);

impl Lifetime {
    /// `None` for less than a second.
    pub fn new(duration: Duration) -> Option<Self> {
        (duration >= Duration::from_secs(1)).then_some(Self(duration))
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
        Self::new(duration).ok_or_else(|| {
            serde::de::Error::custom(
                "a certificate lives for a second or more; leave the key out for the usual life",
            )
        })
    }
}

impl Document {
    /// Reads a file's text. `file` is only used to name it in errors.
    ///
    /// # Errors
    /// [`DocumentError`] for the first thing that is wrong.
    pub fn from_yaml(file: &str, text: &str) -> Result<Self, DocumentError> {
        let failed = |error: serde_saphyr::Error| DocumentError::new(file, &error);
        let keys = serde_saphyr::from_str::<Option<Keys>>(text);
        let keys = keys.map_err(failed)?.unwrap_or_default();
        if !keys.contains_key(SECTION) {
            let document = serde_saphyr::from_str::<Option<Self>>(text).map_err(failed)?;
            return Ok(document.unwrap_or_default());
        }
        if let Some(beside) = RULE_KEYS.iter().find(|key| keys.contains_key(**key)) {
            return Err(DocumentError::beside(
                file,
                Places::of(text).find(&[beside]),
                beside,
            ));
        }
        let section = serde_saphyr::from_str::<PolicySection>(text).map_err(failed)?;
        Ok(section.policy.unwrap_or_default())
    }

    /// How tokens are verified.
    pub fn token_kind(&self) -> TokenKind {
        self.token.unwrap_or_default()
    }

    /// This document with everything that `later` says put over it, key by key: how several files become one.
    #[must_use]
    pub fn merge(mut self, later: Self) -> Self {
        self.users.extend(later.users);
        self.groups.extend(later.groups);
        for (pattern, rule) in later.hosts {
            let before = self.hosts.remove(&pattern).unwrap_or_default();
            self.hosts.insert(pattern, before.merge(rule));
        }
        self.defaults = self.defaults.merge(later.defaults);
        self.oidc = self.oidc.merge(later.oidc);
        self.token = later.token.or(self.token);
        self.introspection = self.introspection.merge(later.introspection);
        self.command = self.command.merge(later.command);
        self.listen = later.listen.or(self.listen);
        self.ca_pubkey = later.ca_pubkey.or(self.ca_pubkey);
        self.metrics_listen = later.metrics_listen.or(self.metrics_listen);
        self.default_expiration = later.default_expiration.or(self.default_expiration);
        self
    }
}

impl HostRule {
    fn merge(mut self, later: Self) -> Self {
        self.allow.extend(later.allow);
        self.deny.extend(later.deny);
        if !later.source_address.is_empty() {
            self.source_address = later.source_address;
        }
        Self {
            expiration: later.expiration.or(self.expiration),
            extensions: later.extensions.or(self.extensions),
            force_command: later.force_command.or(self.force_command),
            require: later.require.or(self.require),
            principals: later.principals.or(self.principals),
            ..self
        }
    }
}

/// The key under which a configuration file has the rules.
const SECTION: &str = "policy";
/// Keys that only mean something under it.
const RULE_KEYS: [&str; 8] = [
    "users",
    "groups",
    "defaults",
    "hosts",
    "oidc",
    "token",
    "introspection",
    "default-expiration",
];

/// The keys at the top of a file.
type Keys = BTreeMap<String, IgnoredAny>;

/// Whether a line of a text begins with this key: for a text that is not wholly YAML.
fn lines_begin_with(text: &str, key: &str) -> bool {
    let mut lines = text.lines().filter_map(|line| line.strip_prefix(key));
    lines.any(|rest| rest.starts_with(':'))
}

/// A configuration file of several sections, of which only this one is ours.
#[derive(Default, Deserialize)]
struct PolicySection {
    policy: Option<Document>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        Document::from_yaml("p.yaml", text).expect_err(text).to_string()
    }

    #[test]
    fn every_mistake_is_named_with_its_line() {
        for (text, expected) in [
            (
                "users:\n  a: [b]\n  a: [c]\n",
                "p.yaml:3:3: duplicate mapping key: a",
            ),
            (
                "hosts:\n  \"[z-a]\": {}\n",
                "p.yaml:2:3: the host pattern \"[z-a]\" has a range",
            ),
            (
                "hosts:\n  a: {allow: {\"a,b\": [x]}}\n",
                "p.yaml:2:15: the user name must begin",
            ),
            (
                "hosts:\n  a:\n    expiration: 5\n",
                "p.yaml:3:17: `5` is not a duration",
            ),
            (
                "hosts:\n  a:\n    expiration: -5m\n",
                "p.yaml:3:17: `-5m` is not a duration",
            ),
            (
                "defaults:\n  expiration: invalid\n",
                "p.yaml:2:15: `invalid` is not a duration",
            ),
            (
                "defaults:\n  expiration: 0s\n",
                "p.yaml:2:15: a certificate lives for a second or more",
            ),
            (
                "hosts:\n  a:\n    experation: 5m\n",
                "p.yaml:3:5: unknown field `experation`, expected one of allow",
            ),
            (
                "hosts:\n  a: {source-address: [10.0.0.0/33]}\n",
                "`10.0.0.0/33` is not a network",
            ),
            (
                "hosts:\n  a: {ttl: 5m, expiration: 4m}\n",
                "p.yaml:2:6: duplicate field `expiration`",
            ),
            (
                "hosts:\n  a: {require: {acr: [x], age: 5m}}\n",
                "unknown field `age`, expected one of acr, amr, max-age",
            ),
            (
                "hosts:\n  a: {principals: [\"{group}\"]}\n",
                "`{group}` is not a principal",
            ),
            (
                "hosts:\n  a: {force-command: ''}\n",
                "p.yaml:2:22: an empty command",
            ),
            (
                "policy: {token: oidc}\nusers: {a: [b]}\n",
                "p.yaml:2:1: `users` stands beside `policy:`",
            ),
            (
                "oidc: {client_id: x}\n",
                "p.yaml:1:8: unknown field `client_id`, expected one of issuer, client-id",
            ),
            (
                "oidc:\n  - {issuer: x}\n  - {isuer: y}\n",
                "p.yaml:3:6: unknown field `isuer`, expected one of issuer",
            ),
            (
                "oidc: https://i.example.com\n",
                "p.yaml:1:1: invalid type: string \"https://i.example.com\", expected a provider",
            ),
            (
                "command:\n  rum: x\n",
                "p.yaml:2:3: unknown field `rum`, expected one of run, timeout, cache",
            ),
            (
                "command: {run: x, timeout: soon}\n",
                "p.yaml:1:28: `soon` is not a duration",
            ),
            (
                "token: saml\n",
                "p.yaml:1:8: unknown variant `saml`, expected one of oidc",
            ),
            (
                "policy:\n  users: {a: [b]}\n  host: {}\n",
                "p.yaml:3:3: unknown field `host`",
            ),
            ("users: [a]\n", "p.yaml:1:8: expected a map here"),
            ("users:\n  a: [b\n  c: d\n", "p.yaml:3:"),
        ] {
            let error = error(text);
            assert!(
                error.starts_with("p.yaml:") && error.contains(expected),
                "{error}"
            );
            assert!(!error.contains(" at line "), "{error}");
        }
    }

    #[test]
    fn what_is_left_empty_is_empty() {
        for text in [
            "",
            "# nothing yet\n",
            "users:\nhosts:\ndefaults:\noidc:\n",
            "policy: {}\n",
        ] {
            assert_eq!(Document::from_yaml("p", text).expect(text), Document::default());
        }
        let text = "users: {a: }\nhosts: {h: , i: {allow: {root: }, extensions: {permit-pty: }}, j: {extensions: {}}}";
        let document = Document::from_yaml("p", text).unwrap();
        assert_eq!(document.users["a"], [""; 0]);
        let rules: Vec<_> = document.hosts.values().collect();
        assert_eq!(rules[0], &HostRule::default());
        assert_eq!(
            rules[1].extensions,
            Some([("permit-pty".to_owned(), String::new())].into())
        );
        assert_eq!(rules[2].extensions, Some(BTreeMap::new()));
    }

    #[test]
    fn a_whole_configuration_file_is_read_for_its_policy() {
        let text = r#"
verbose: 1
server: {listen: "127.0.0.1:8080", ca-key: /etc/epithet/ca.key}
policy:
  listen: 0.0.0.0:9999
  ca-pubkey: "ssh-ed25519 AAAA"
  default-expiration: 10m
  oidc: {issuer: "https://accounts.google.com", client-id: "X.apps.googleusercontent.com"}
  users: {alice@example.com: [admin, eng]}
  defaults: {allow: {root: [admin]}, expiration: 5m, extensions: {permit-pty: ""}}
  hosts:
    "*.prod.example.com": {expiration: 1h30m}
    "dev-*{,.example.com}": {allow: {ubuntu: [eng]}}
"#;
        let document = Document::from_yaml("server.yaml", text).unwrap();
        assert_eq!(
            document.oidc.first.issuer.as_deref(),
            Some("https://accounts.google.com")
        );
        assert_eq!(document.users["alice@example.com"], ["admin", "eng"]);
        assert_eq!(
            document.hosts.keys().map(HostPattern::as_str).collect::<Vec<_>>(),
            ["dev-*{,.example.com}", "*.prod.example.com"]
                .into_iter()
                .rev()
                .collect::<Vec<_>>()
        );
        assert_eq!(
            document.default_expiration.map(Lifetime::get),
            Some(Duration::from_secs(600))
        );
    }

    #[test]
    fn json_is_yaml_too_and_large_files_are_read() {
        let users: String = (0..10_000)
            .map(|n| format!("\"user{n}@example.com\":[\"t{}\",\"eng\"],", n % 100))
            .collect();
        let hosts: String = (0..1_000)
            .map(|n| {
                format!(
                    "\"h{n}-*.example.com\":{{\"allow\":{{\"root\":[\"t{}\"]}}}},",
                    n % 100
                )
            })
            .collect();
        let text = format!(
            "{{\"users\":{{{}}},\"hosts\":{{{}}}}}",
            users.trim_end_matches(','),
            hosts.trim_end_matches(',')
        );
        let document = Document::from_yaml("p.json", &text).unwrap();
        assert_eq!((document.users.len(), document.hosts.len()), (10_000, 1_000));
    }

    #[test]
    fn a_later_file_wins_key_by_key() {
        let read = |text| Document::from_yaml("p", text).unwrap();
        let merged = read("users: {a: [x], b: [y]}\noidc: {issuer: i}\ndefaults: {expiration: 1m}").merge(
            read("users: {b: [z]}\noidc: {client-id: c}\ndefaults: {allow: {root: [x]}}"),
        );
        assert_eq!(
            (merged.users["a"].as_slice(), merged.users["b"].as_slice()),
            (&["x".to_owned()][..], &["z".to_owned()][..])
        );
        assert_eq!(
            (
                merged.oidc.first.issuer.as_deref(),
                merged.oidc.first.client_id.as_deref()
            ),
            (Some("i"), Some("c"))
        );
        assert_eq!(
            merged.defaults.expiration.map(Lifetime::get),
            Some(Duration::from_secs(60))
        );
        assert_eq!(merged.defaults.allow.len(), 1);
    }
}
