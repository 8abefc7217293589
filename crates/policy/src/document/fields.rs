//! Fields that may be left empty, and fields with a form of their own.

use super::HostRule;
use epithet_wire::HostPattern;
use epithet_wire::limits::OPTION_VALUE_MAX;
use serde::de::value::SeqAccessDeserializer;
use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Whether text is a network as sshd reads `source-address`: an address, or an address and the length of its prefix,
/// with nothing set beyond it (addrmatch.c refuses the certificate otherwise).
fn check_network(text: &str) -> Result<(), String> {
    let wrong = || format!("`{text}` is not a network: write it like 192.0.2.0/24 or 2001:db8::/32");
    let Some((address, prefix)) = text.split_once('/') else {
        return text.parse::<IpAddr>().map(|_| ()).map_err(|_| wrong());
    };
    let address: IpAddr = address.parse().map_err(|_| wrong())?;
    let prefix: u32 = prefix
        .parse::<u8>()
        .ok()
        .filter(|_| prefix.bytes().all(|byte| byte.is_ascii_digit()))
        .ok_or_else(wrong)?
        .into();
    let (bits, width) = match address {
        IpAddr::V4(address) => (u128::from(address.to_bits()) << 96, 32),
        IpAddr::V6(address) => (address.to_bits(), 128),
    };
    if prefix > width {
        return Err(wrong());
    }
    let kept = bits
        .checked_shr(128 - prefix)
        .map_or(0, |kept| kept << (128 - prefix));
    if kept == bits {
        return Ok(());
    }
    let network = match address {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::from_bits(u32::try_from(kept >> 96).unwrap_or(0))),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::from_bits(kept)),
    };
    Err(format!(
        "`{text}` has bits set beyond its prefix, for which sshd refuses everybody: write {network}/{prefix}"
    ))
}

pub(super) fn networks<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let networks: Vec<String> = null_as_default(deserializer)?;
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

#[cfg(test)]
mod tests {
    use super::check_network;

    #[test]
    fn networks_are_those_that_sshd_reads() {
        for (text, wrong) in [
            ("192.0.2.1", None),
            ("10.0.0.0/8", None),
            ("0.0.0.0/0", None),
            ("192.0.2.1/32", None),
            ("2001:db8::/32", None),
            ("::/0", None),
            ("::1/128", None),
            ("10.0.0.0/33", Some("not a network")),
            ("::/129", Some("not a network")),
            ("10.0.0.0/", Some("not a network")),
            ("10.0.0.0/+8", Some("not a network")),
            ("10.0.0.0/-1", Some("not a network")),
            ("10.0.0", Some("not a network")),
            ("example.com", Some("not a network")),
            ("!10.0.0.0/8", Some("not a network")),
            ("10.1.2.3/8", Some("write 10.0.0.0/8")),
            ("10.0.0.0/0", Some("write 0.0.0.0/0")),
            ("2001:db8::1/32", Some("write 2001:db8::/32")),
        ] {
            match (check_network(text), wrong) {
                (Ok(()), None) => {}
                (Err(found), Some(words)) => assert!(found.contains(words), "{text}: {found}"),
                (found, _) => panic!("{text}: {found:?}"),
            }
        }
    }
}
