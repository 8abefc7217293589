//! The keys of a configuration file, as they stand there: one section a command, keys named as the flags.

use super::changes::Files;
use crate::cli::{ChainChoice, LogFormat};
use crate::commands::KeyName;
use epithet_broker::{CaAddress, TagName};
use epithet_ca::PrincipalPattern;
use epithet_plugin::PluginCommand;
use epithet_serve::TrustedProxy;
use epithet_wire::{HostPattern, ProfileName, parse_duration};
use serde::de::{Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// A whole file, or all of them merged.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub(crate) struct Config {
    pub(crate) verbose: Option<u8>,
    pub(crate) log_file: Option<PathBuf>,
    pub(crate) log_format: Option<LogFormat>,
    pub(crate) tls_ca_cert: Option<PathBuf>,
    #[serde(deserialize_with = "refuse_insecure")]
    pub(crate) insecure: (),
    #[serde(deserialize_with = "empty_as_default")]
    pub(crate) agent: AgentSection,
    /// Further profiles, each of which stands alone: what `agent:` says is not theirs.
    #[serde(deserialize_with = "empty_as_default")]
    pub(crate) profiles: BTreeMap<ProfileKey, AgentSection>,
    #[serde(deserialize_with = "empty_as_default")]
    pub(crate) auth: AuthSection,
    #[serde(deserialize_with = "empty_as_default")]
    pub(crate) ca: CaSection,
    #[serde(deserialize_with = "empty_as_default")]
    pub(crate) policy: epithet_policy::Document,
    #[serde(deserialize_with = "empty_as_default")]
    pub(crate) server: ServerSection,
    /// The files as they were before they were read.
    #[serde(skip)]
    pub(crate) files: Files,
}

/// A profile's name as a key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct ProfileKey(String);

impl TryFrom<String> for ProfileKey {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        let name: ProfileName = text.parse().map_err(|error| format!("profiles: {error}"))?;
        Ok(Self(name.to_string()))
    }
}

/// The hosts that a forwarded agent may serve: all of them, none, or those of patterns.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub(crate) enum Forwarding {
    Any(bool),
    Named(OneOrMany<HostPattern>),
}

impl Forwarding {
    pub(crate) fn patterns(self) -> Vec<HostPattern> {
        match self {
            Self::Any(false) => Vec::new(),
            Self::Any(true) => HostPattern::parse("*").into_iter().collect(),
            Self::Named(patterns) => patterns.0,
        }
    }
}

/// What concerns every command.
#[derive(Debug, Clone, Default)]
pub(crate) struct Common {
    pub(crate) verbose: Option<u8>,
    pub(crate) log_file: Option<PathBuf>,
    pub(crate) log_format: Option<LogFormat>,
}

impl Config {
    /// The section of a profile: `profiles: NAME:` if it is there, else `agent:`.
    pub(crate) fn take_agent(&mut self, name: Option<&ProfileName>) -> AgentSection {
        let own = name.and_then(|name| self.profiles.remove(&ProfileKey(name.to_string())));
        own.unwrap_or_else(|| std::mem::take(&mut self.agent))
    }

    /// The section that is to be written for a profile: its own, which may not be there yet, or `agent:`. And whether it
    /// is below `profiles:`.
    pub(crate) fn take_own_agent(&mut self, name: &ProfileName) -> (AgentSection, bool) {
        let agents = self.agent.name.clone().unwrap_or_default();
        match self.profiles.remove(&ProfileKey(name.to_string())) {
            Some(own) => (own, true),
            None if *name == ProfileName::default() || *name == agents => {
                (std::mem::take(&mut self.agent), false)
            }
            None => (AgentSection::default(), true),
        }
    }

    /// The hosts that the files name for each profile whose section is still here.
    pub(crate) fn hosts_of_others(&self) -> impl Iterator<Item = (&str, &HostPattern)> {
        let default = self.agent.name.as_ref().map_or("default", ProfileName::as_str);
        let profiles = self
            .profiles
            .iter()
            .map(|(key, section)| (key.0.as_str(), section));
        let sections = profiles.chain([(default, &self.agent)]);
        sections.flat_map(|(name, section)| {
            let patterns = section.match_.iter().flat_map(|patterns| &patterns.0);
            patterns.map(move |pattern| (name, pattern))
        })
    }

    pub(crate) fn common(&self) -> Common {
        Common {
            verbose: self.verbose,
            log_file: self.log_file.clone(),
            log_format: self.log_format,
        }
    }
}

/// `agent:`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub(crate) struct AgentSection {
    pub(crate) ca_url: Option<OneOrMany<CaAddress>>,
    pub(crate) auth: Option<PluginCommand>,
    pub(crate) name: Option<ProfileName>,
    #[serde(rename = "match")]
    pub(crate) match_: Option<OneOrMany<HostPattern>>,
    pub(crate) ca_timeout: Option<Text<DurationText>>,
    pub(crate) ca_cooldown: Option<Text<DurationText>>,
    pub(crate) auth_timeout: Option<Text<DurationText>>,
    pub(crate) token_reuse: Option<Text<DurationText>>,
    pub(crate) tag: Option<Text<TagName>>,
    pub(crate) allow_forwarding: Option<Forwarding>,
    pub(crate) chain: Option<ChainChoice>,
    pub(crate) renew: Option<bool>,
    pub(crate) max_agents: Option<usize>,
}

/// `auth:`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub(crate) struct AuthSection {
    #[serde(deserialize_with = "empty_as_default")]
    pub(crate) oidc: OidcSection,
}

/// `auth: oidc:`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub(crate) struct OidcSection {
    pub(crate) issuer: Option<String>,
    pub(crate) client_id: Option<String>,
    pub(crate) client_secret: Option<String>,
    pub(crate) client_secret_file: Option<PathBuf>,
    pub(crate) scopes: Option<OneOrMany<String>>,
    pub(crate) flow: Option<String>,
    pub(crate) port: Option<OneOrMany<String>>,
    pub(crate) redirect_host: Option<String>,
    pub(crate) redirect_path: Option<String>,
    pub(crate) redirect_uri: Option<String>,
    pub(crate) browser: Option<String>,
    pub(crate) no_browser: Option<bool>,
    pub(crate) token: Option<String>,
    pub(crate) audience: Option<String>,
    pub(crate) resource: Option<String>,
    pub(crate) prompt: Option<String>,
    pub(crate) login_hint: Option<String>,
    pub(crate) max_age: Option<u64>,
    pub(crate) acr_values: Option<String>,
    pub(crate) extra_param: Option<OneOrMany<String>>,
    pub(crate) client_auth: Option<String>,
    pub(crate) client_key_file: Option<PathBuf>,
    pub(crate) client_key_id: Option<String>,
    pub(crate) timeout: Option<Text<DurationText>>,
}

/// `ca:`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub(crate) struct CaSection {
    pub(crate) key: Option<OneOrMany<KeyName>>,
    pub(crate) policy: Option<String>,
    pub(crate) policy_timeout: Option<Text<DurationText>>,
    pub(crate) policy_key: Option<OneOrMany<String>>,
    pub(crate) listen: Option<String>,
    pub(crate) max_ttl: Option<Text<DurationText>>,
    pub(crate) allow_principal: Option<OneOrMany<PrincipalPattern>>,
    pub(crate) allow_extension: Option<OneOrMany<String>>,
    pub(crate) audit_file: Option<PathBuf>,
    pub(crate) audit_syslog: Option<PathBuf>,
    pub(crate) trusted_proxy: Option<OneOrMany<TrustedProxy>>,
    pub(crate) metrics_listen: Option<String>,
    pub(crate) tls_cert: Option<PathBuf>,
    pub(crate) tls_key: Option<PathBuf>,
}

/// `server:`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub(crate) struct ServerSection {
    pub(crate) listen: Option<String>,
    pub(crate) ca_key: Option<OneOrMany<KeyName>>,
    pub(crate) max_ttl: Option<Text<DurationText>>,
    pub(crate) allow_principal: Option<OneOrMany<PrincipalPattern>>,
    pub(crate) allow_extension: Option<OneOrMany<String>>,
    pub(crate) audit_file: Option<PathBuf>,
    pub(crate) audit_syslog: Option<PathBuf>,
    pub(crate) trusted_proxy: Option<OneOrMany<TrustedProxy>>,
    pub(crate) metrics_listen: Option<String>,
    pub(crate) tls_cert: Option<PathBuf>,
    pub(crate) tls_key: Option<PathBuf>,
}

/// A section with nothing below it (`agent:`) says as little as one that is not there.
fn empty_as_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// What the sections of CA and combined server have in common.
#[derive(Debug, Clone, Default)]
pub(crate) struct IssuingSection {
    pub(crate) max_ttl: Option<Duration>,
    pub(crate) allow_principal: Option<Vec<PrincipalPattern>>,
    pub(crate) allow_extension: Option<Vec<String>>,
    pub(crate) audit_file: Option<PathBuf>,
    pub(crate) audit_syslog: Option<PathBuf>,
    pub(crate) trusted_proxy: Option<Vec<TrustedProxy>>,
    pub(crate) metrics_listen: Option<String>,
    pub(crate) tls_cert: Option<PathBuf>,
    pub(crate) tls_key: Option<PathBuf>,
}

/// The same fields of two sections, which serde cannot share and refuse unknown keys too.
macro_rules! issuing {
    ($section:ty) => {
        impl $section {
            pub(crate) fn issuing(&self) -> IssuingSection {
                IssuingSection {
                    max_ttl: self.max_ttl.as_ref().map(|text| text.0.0),
                    allow_principal: self.allow_principal.as_ref().map(|names| names.0.clone()),
                    allow_extension: self.allow_extension.as_ref().map(|names| names.0.clone()),
                    audit_file: self.audit_file.clone(),
                    audit_syslog: self.audit_syslog.clone(),
                    trusted_proxy: self.trusted_proxy.as_ref().map(|list| list.0.clone()),
                    metrics_listen: self.metrics_listen.clone(),
                    tls_cert: self.tls_cert.clone(),
                    tls_key: self.tls_key.clone(),
                }
            }
        }
    };
}
issuing!(CaSection);
issuing!(ServerSection);

/// `insecure:` was a switch of epithet 0.19 that turned off TLS verification; nothing here does.
fn refuse_insecure<'de, D: Deserializer<'de>>(deserializer: D) -> Result<(), D::Error> {
    match Option::<bool>::deserialize(deserializer)? {
        Some(true) => Err(D::Error::custom(
            "`insecure` does not exist: TLS is always verified; trust a private CA with `tls-ca-cert` instead",
        )),
        _ => Ok(()),
    }
}

/// Text that becomes something else: `FromStr` with its error message kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Text<T>(pub(crate) T);

impl<'de, T> Deserialize<'de> for Text<T>
where
    T: FromStr,
    T::Err: fmt::Display,
{
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map(Self)
            .map_err(D::Error::custom)
    }
}

/// A duration like `5m`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DurationText(pub(crate) Duration);

impl FromStr for DurationText {
    type Err = epithet_wire::DurationError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse_duration(text).map(Self)
    }
}

/// One value, several joined by commas, or a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OneOrMany<T>(pub(crate) Vec<T>);

impl<'de, T> Deserialize<'de> for OneOrMany<T>
where
    T: FromStr,
    T::Err: fmt::Display,
{
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let values = deserializer.deserialize_any(Words)?;
        values
            .iter()
            .map(|value| value.trim().parse().map_err(D::Error::custom))
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

/// Reads a string (split at commas), a number or a list of them as words.
struct Words;

impl<'de> Visitor<'de> for Words {
    type Value = Vec<String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string or a list of strings")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Vec<String>, E> {
        Ok(split_outside_braces(text))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Vec<String>, E> {
        Ok(vec![number.to_string()])
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Vec<String>, A::Error> {
        let mut words = Vec::new();
        while let Some(word) = sequence.next_element::<Word>()? {
            words.push(word.0);
        }
        Ok(words)
    }
}

/// Splits at commas, but not within braces, where a host pattern has its own.
pub(crate) fn split_outside_braces(text: &str) -> Vec<String> {
    let mut depth = 0_usize;
    let parts = text.split(|c| {
        match c {
            '{' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        c == ',' && depth == 0
    });
    parts
        .map(|part| part.trim().to_owned())
        .filter(|part| !part.is_empty())
        .collect()
}

/// A word in a list: a string, or a number where a string would look like one.
struct Word(String);

impl<'de> Deserialize<'de> for Word {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct One;
        impl Visitor<'_> for One {
            type Value = Word;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Word, E> {
                Ok(Word(text.to_owned()))
            }
            fn visit_u64<E: Error>(self, number: u64) -> Result<Word, E> {
                Ok(Word(number.to_string()))
            }
        }
        deserializer.deserialize_any(One)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documented_configuration_is_understood() {
        let text = r#"
verbose: 1
tls-ca-cert: /etc/ssl/own.pem
agent:
  ca-url: ["https://ca1.example.com", "priority=50:https://ca2.example.com"]
  auth: "epithet auth oidc --issuer https://accounts.google.com --client-id X"
  match: "*.example.com,web{1,2}"
  ca-timeout: 10s
auth: {oidc: {issuer: "https://i", scopes: [openid, email], port: 8080}}
"#;
        let config: Config = serde_saphyr::from_str(text).unwrap();
        let agent = config.agent;
        assert_eq!(agent.ca_url.unwrap().0.len(), 2);
        assert!(matches!(agent.auth, Some(PluginCommand::Shell(_))));
        let patterns: Vec<_> = agent.match_.unwrap().0.iter().map(ToString::to_string).collect();
        assert_eq!(patterns, ["*.example.com", "web{1,2}"]);
        assert_eq!(
            agent.ca_timeout,
            Some(Text(DurationText(Duration::from_secs(10))))
        );
        assert_eq!(config.auth.oidc.port.unwrap().0, ["8080"]);
    }

    #[test]
    fn a_section_with_nothing_below_it_is_as_good_as_none() {
        let text = "agent:\nauth:\n  oidc:\nca: # later\npolicy: ~\nserver: null\n";
        let config: Config = serde_saphyr::from_str(text).unwrap();
        assert!(config.agent.ca_url.is_none() && config.auth.oidc.issuer.is_none());
        let config: Config = serde_json::from_str(r#"{"agent": null, "auth": {"oidc": null}}"#).unwrap();
        assert!(config.agent.auth.is_none());
    }

    #[test]
    fn what_is_wrong_is_named() {
        let cases = [
            ("agent: {ca-url: 'http://ca.example.com'}", "in the clear"),
            ("agent: {ca-timeout: soon}", "not a duration"),
            ("agent: {name: a/b}", "profile name"),
            ("profiles: {a/b: {}}", "profile name"),
            ("profiles: {work: {ca-urls: 'https://ca'}}", "ca-url"),
            ("agent: {tag: 'a b'}", "cannot be a tag"),
            ("agent: {chain: sometimes}", "always"),
            ("agent: {match: 'a['}", "host pattern"),
            ("insecure: true", "tls-ca-cert"),
            ("auth: {oidc: {client_id: x}}", "client-id"),
        ];
        for (text, word) in cases {
            let error = serde_saphyr::from_str::<Config>(text).unwrap_err().to_string();
            assert!(error.contains(word), "{text}: {error}");
        }
    }

    #[test]
    fn forwarding_is_for_all_none_or_some_hosts() {
        for (text, expected) in [
            ("true", &["*"][..]),
            ("false", &[]),
            ("'*.example.com, db{1,2}'", &["*.example.com", "db{1,2}"]),
            ("[jump, bastion]", &["jump", "bastion"]),
        ] {
            let config: Config =
                serde_saphyr::from_str(&format!("agent: {{allow-forwarding: {text}}}")).unwrap();
            let patterns = config.agent.allow_forwarding.unwrap().patterns();
            let patterns: Vec<_> = patterns.iter().map(ToString::to_string).collect();
            assert_eq!(patterns, expected, "{text}");
        }
    }

    #[test]
    fn a_profile_of_its_own_stands_alone() {
        let text = "agent: {auth: a, match: home}\nprofiles: {work: {auth: b}}";
        let section = |name: Option<&str>| {
            let mut config: Config = serde_saphyr::from_str(text).unwrap();
            let name = name.map(|name| name.parse().unwrap());
            config.take_agent(name.as_ref())
        };
        let work = section(Some("work"));
        assert_eq!(work.auth, Some(PluginCommand::Shell("b".into())));
        assert!(work.match_.is_none());
        for name in [None, Some("default"), Some("other")] {
            assert_eq!(section(name).auth, Some(PluginCommand::Shell("a".into())));
        }
    }

    #[test]
    fn a_profile_that_is_to_be_written_begins_with_nothing_of_another_one_s() {
        let text = "agent: {match: home, name: own}\nprofiles: {work: {match: [a, b]}}";
        let section = |name: &str| {
            let mut config: Config = serde_saphyr::from_str(text).unwrap();
            let (section, _) = config.take_own_agent(&name.parse().unwrap());
            let others: Vec<_> = config
                .hosts_of_others()
                .map(|(name, pattern)| format!("{name} {pattern}"))
                .collect();
            (section.match_.map(|patterns| patterns.0.len()), others)
        };
        assert_eq!(section("work"), (Some(2), vec!["own home".to_owned()]));
        assert_eq!(
            section("own"),
            (Some(1), vec!["work a".to_owned(), "work b".to_owned()])
        );
        assert_eq!(section("new").0, None);
        assert_eq!(section("new").1.len(), 3);
    }

    #[test]
    fn a_list_is_a_command_without_a_shell() {
        let config: Config = serde_saphyr::from_str("agent: {auth: [./login, '$(id)']}").unwrap();
        assert_eq!(
            config.agent.auth,
            Some(PluginCommand::Argv(vec!["./login".into(), "$(id)".into()]))
        );
    }
}
