//! Fields that may be left empty, and fields with a form of their own.

use super::HostRule;
use epithet_wire::HostPattern;
use serde::{Deserialize, Deserializer};
use std::collections::BTreeMap;

/// A network as `source-address` may have it: an address, or an address and the length of its prefix.
fn is_network(text: &str) -> bool {
    let (address, prefix) = text
        .split_once('/')
        .map_or((text, None), |(address, prefix)| (address, Some(prefix)));
    let Ok(address) = address.parse::<std::net::IpAddr>() else {
        return false;
    };
    let longest = if address.is_ipv4() { 32 } else { 128 };
    prefix.is_none_or(|prefix| prefix.parse::<u8>().is_ok_and(|length| length <= longest))
}

pub(super) fn networks<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let networks: Vec<String> = null_as_default(deserializer)?;
    match networks.iter().find(|network| !is_network(network)) {
        None => Ok(networks),
        Some(wrong) => Err(serde::de::Error::custom(format!(
            "`{wrong}` is not a network: write it like 192.0.2.0/24 or 2001:db8::/32"
        ))),
    }
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
