//! Fields that may be left empty, and fields with a form of their own.

use super::HostRule;
use epithet_wire::limits::OPTION_VALUE_MAX;
use epithet_wire::{HostPattern, check_network};
use serde::de::value::SeqAccessDeserializer;
use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use std::collections::BTreeMap;

pub(super) fn networks<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let networks: Vec<String> = null_as_default(deserializer)?;
    if networks.is_empty() {
        return Err(serde::de::Error::custom(
            "an empty list lifts no restriction of `defaults`; leave the key out, or write 0.0.0.0/0 and ::/0 for everywhere",
        ));
    }
    if networks.iter().map(|network| network.len() + 1).sum::<usize>() > OPTION_VALUE_MAX {
        return Err(serde::de::Error::custom(format!(
            "{} networks are more than fit into a certificate ({OPTION_VALUE_MAX} bytes)",
            networks.len()
        )));
    }
    for network in &networks {
        check_network(network).map_err(serde::de::Error::custom)?;
    }
    Ok(networks)
}

/// A command that sshd can be told to force: one line that says something.
pub(super) fn force_command<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let command: Option<String> = Option::deserialize(deserializer)?;
    match &command {
        None => Err(serde::de::Error::custom(
            "an empty command lifts none of `defaults`; leave the key out",
        )),
        Some(text) if text.trim().is_empty() => Err(serde::de::Error::custom(
            "an empty command would let nobody in; leave the key out",
        )),
        Some(text) if text.contains(char::is_control) => Err(serde::de::Error::custom(
            "a command is one line, without control characters",
        )),
        Some(text) if text.len() > OPTION_VALUE_MAX => Err(serde::de::Error::custom(format!(
            "a command of {} bytes is longer than {OPTION_VALUE_MAX}",
            text.len()
        ))),
        _ => Ok(command),
    }
}

/// A list, or its only entry alone.
pub(super) fn one_or_many<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    struct OneOrMany;
    impl<'de> Visitor<'de> for OneOrMany {
        type Value = Vec<String>;
        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("text, or a list of it")
        }
        fn visit_str<E: serde::de::Error>(self, one: &str) -> Result<Vec<String>, E> {
            Ok(vec![one.to_owned()])
        }
        fn visit_unit<E: serde::de::Error>(self) -> Result<Vec<String>, E> {
            Ok(Vec::new())
        }
        fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<Vec<String>, E> {
            Ok(vec![number.to_string()])
        }
        fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Vec<String>, A::Error> {
            Vec::deserialize(SeqAccessDeserializer::new(list))
        }
    }
    deserializer.deserialize_any(OneOrMany)
}

pub(super) fn null_as_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
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
    Ok(entries
        .map(|(key, value)| (key, value.unwrap_or_default()))
        .collect())
}

pub(super) fn lists<'de, D, K>(deserializer: D) -> Result<BTreeMap<K, Vec<String>>, D::Error>
where
    D: Deserializer<'de>,
    K: Deserialize<'de> + Ord,
{
    map(deserializer)
}

pub(super) fn rules<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<HostPattern, HostRule>, D::Error> {
    map(deserializer)
}

pub(super) fn extensions<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<BTreeMap<String, String>>, D::Error> {
    let map: Option<BTreeMap<String, Option<String>>> = Option::deserialize(deserializer)?;
    Ok(map.map(|map| {
        map.into_iter()
            .map(|(name, value)| (name, value.unwrap_or_default()))
            .collect()
    }))
}
