//! Names that came from outside, each parsed once into a type that cannot hold anything dangerous.

use crate::limits::{HOST_NAME_MAX, KEY_ID_MAX, PRINCIPAL_MAX, PROFILE_NAME_MAX};
use serde::{Deserialize, Serialize};
use std::fmt;

/// Why a name was refused: which one, and what it may be made of.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field} {problem}")]
pub struct NameError {
    field: &'static str,
    problem: String,
}

impl NameError {
    fn new(field: &'static str, problem: impl Into<String>) -> Self {
        Self {
            field,
            problem: problem.into(),
        }
    }
}

fn within(field: &'static str, value: &str, max: usize) -> Result<(), NameError> {
    match value.len() {
        0 => Err(NameError::new(field, "is empty")),
        length if length > max => Err(NameError::new(
            field,
            format!("is {length} bytes long; at most {max} are allowed"),
        )),
        _ => Ok(()),
    }
}

/// Writes the parts every string-like name has: access, display, and JSON as a checked string.
macro_rules! text_name {
    ($name:ident) => {
        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl std::str::FromStr for $name {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> {
                Self::parse(text)
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;
            fn try_from(text: String) -> Result<Self, NameError> {
                Self::parse(&text)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0.into()
            }
        }
    };
}

/// A host as ssh will dial it (`%h`): a DNS name, an address, or an IPv6 address with its scope.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HostName(Box<str>);

text_name!(HostName);

impl HostName {
    /// Accepts letters, digits and `. _ : % + , @ -`, not beginning with `-`, at most [`HOST_NAME_MAX`] bytes.
    ///
    /// International names must come in their ASCII form (`xn--...`), as ssh resolves them.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        within("the host name", text, HOST_NAME_MAX)?;
        if text.starts_with('-') {
            return Err(NameError::new("the host name", "begins with `-`"));
        }
        let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b"._:%+,@-".contains(byte);
        match text.bytes().find(|byte| !allowed(byte)) {
            None => Ok(Self(text.into())),
            Some(_) if !text.is_ascii() => Err(NameError::new(
                "the host name",
                "has characters outside ASCII; write international names as `xn--...`",
            )),
            Some(byte) => Err(NameError::new(
                "the host name",
                format!("has the character {:?}, which no host name has", char::from(byte)),
            )),
        }
    }

    /// The form that patterns are compared with: lower case, without the dot that ends an absolute DNS name, and an
    /// address in the one spelling that RFC 5952 gives it (`::FFFF:192.0.2.1` is `192.0.2.1`), also when it is written
    /// as only inet_aton(3) and therefore ssh reads it (`0xC0.2.513` is `192.0.2.1`).
    pub fn canonical(&self) -> String {
        let name = self.0.strip_suffix('.').unwrap_or(&self.0).to_ascii_lowercase();
        canonical_address(&name).unwrap_or(name)
    }
}

/// An address in its one spelling; `None` for a name.
pub(crate) fn canonical_address(name: &str) -> Option<String> {
    if let Some((address, scope)) = name.split_once('%') {
        let address: std::net::Ipv6Addr = address.parse().ok()?;
        // A scope tells apart only what each link has for itself; getaddrinfo(3) reads it with any address and forgets it.
        return Some(if is_of_one_link(address) {
            format!("{address}%{scope}")
        } else {
            address.to_canonical().to_string()
        });
    }
    match name.parse::<std::net::IpAddr>() {
        Ok(address) => Some(address.to_canonical().to_string()),
        Err(_) => inet_aton(name).map(|address| address.to_string()),
    }
}

/// Whether many links have this address, each for something else (RFC 4007 section 4): `fe80::/10` and multicast that stays
/// on its interface or link.
fn is_of_one_link(address: std::net::Ipv6Addr) -> bool {
    let head = address.segments()[0];
    head & 0xffc0 == 0xfe80 || matches!(head & 0xff0f, 0xff01 | 0xff02)
}

/// An IPv4 address as inet_aton(3) reads it, which ssh's resolver does: one to four numbers, decimal, octal (`0`) or
/// hexadecimal (`0x`), the last of which fills what is left.
fn inet_aton(text: &str) -> Option<std::net::Ipv4Addr> {
    let number = |part: &str| match part.strip_prefix("0x") {
        Some(digits) => digits_of(digits, 16),
        None if part.len() > 1 && part.starts_with('0') => digits_of(&part[1..], 8),
        None => digits_of(part, 10),
    };
    let parts: Vec<&str> = text.splitn(5, '.').collect();
    let (last, first) = parts.split_last().filter(|(_, first)| first.len() < 4)?;
    let mut address = 0;
    for (index, part) in first.iter().enumerate() {
        let byte = number(part).filter(|byte| *byte < 256)?;
        address |= byte << (24 - 8 * index);
    }
    let room = 32 - 8 * first.len();
    let rest = number(last).filter(|rest| *rest >> room == 0)?;
    u32::try_from(address | rest).ok().map(Into::into)
}

fn digits_of(text: &str, radix: u32) -> Option<u64> {
    let is_number = !text.is_empty() && text.chars().all(|c| c.is_digit(radix));
    // Any number of zeros may stand before it.
    let text = text.trim_start_matches('0');
    match text.len() {
        _ if !is_number => None,
        0 => Some(0),
        1..=16 => u64::from_str_radix(text, radix).ok(),
        _ => None,
    }
}

/// A login name on the host, and the certificate's principal for it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Principal(Box<str>);

text_name!(Principal);

impl Principal {
    /// Accepts `[A-Za-z0-9_][A-Za-z0-9._@+-]{0,127}` with an optional `$` at the end.
    ///
    /// No comma (CVE-2026-35414: one principal read as two), no wildcard, no blank.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        within("the user name", text, PRINCIPAL_MAX)?;
        let body = text.strip_suffix('$').unwrap_or(text);
        let first = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        let later = |byte: u8| first(byte) || b".@+-".contains(&byte);
        let mut bytes = body.bytes();
        if bytes.next().is_some_and(first) && bytes.all(later) {
            Ok(Self(text.into()))
        } else {
            Err(NameError::new(
                "the user name",
                "must begin with a letter, digit or `_`, go on with those or `. @ + -`, and may end in `$`",
            ))
        }
    }
}

/// A certificate's key id: what sshd writes into its log for every login.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct KeyId(Box<str>);

text_name!(KeyId);

impl KeyId {
    /// Accepts 1 to [`KEY_ID_MAX`] bytes of visible ASCII and blanks, so that a log line stays a line.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        within("the key id", text, KEY_ID_MAX)?;
        if text.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic()) {
            Ok(Self(text.into()))
        } else {
            Err(NameError::new(
                "the key id",
                "has characters that are not printable ASCII",
            ))
        }
    }
}

/// ssh's `%C`: the name of one connection's agent socket.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ConnectionHash(Box<str>);

text_name!(ConnectionHash);

impl ConnectionHash {
    /// Accepts 40 (SHA-1) or 64 (SHA-256) lower-case hexadecimal digits and nothing else: it becomes a file name.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let is_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if matches!(text.len(), 40 | 64) && text.bytes().all(is_hex) {
            Ok(Self(text.into()))
        } else {
            Err(NameError::new(
                "the connection hash",
                "must be ssh's `%C`: 40 or 64 lower-case hexadecimal digits",
            ))
        }
    }
}

/// A broker's profile: one run directory, one CA, one way to log in.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ProfileName(Box<str>);

text_name!(ProfileName);

impl ProfileName {
    /// Accepts 1 to [`PROFILE_NAME_MAX`] letters, digits, `_` and `-`, beginning with a letter or digit.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        within("the profile name", text, PROFILE_NAME_MAX)?;
        let later = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
        if text.as_bytes()[0].is_ascii_alphanumeric() && text.bytes().all(later) {
            Ok(Self(text.into()))
        } else {
            Err(NameError::new(
                "the profile name",
                "may have letters, digits, `_` and `-`, and must begin with a letter or digit",
            ))
        }
    }
}

impl Default for ProfileName {
    fn default() -> Self {
        Self("default".into())
    }
}

/// One request's name in every log it touches: 16 lower-case hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RequestId(Box<str>);

text_name!(RequestId);

impl RequestId {
    /// Accepts 16 lower-case hexadecimal digits.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let is_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if text.len() == 16 && text.bytes().all(is_hex) {
            Ok(Self(text.into()))
        } else {
            Err(NameError::new(
                "the request id",
                "must be 16 lower-case hexadecimal digits",
            ))
        }
    }

    /// A request id out of eight random bytes.
    pub fn from_random(bytes: [u8; 8]) -> Self {
        Self(format!("{:016x}", u64::from_be_bytes(bytes)).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_names_that_ssh_dials_are_accepted_and_shell_text_is_not() {
        for good in [
            "h",
            "web.example.com",
            "WEB.example.com.",
            "10.0.0.1",
            "::1",
            "fe80::1%lo",
            "xn--bcher-kva.example",
        ] {
            assert!(HostName::parse(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "-oProxyCommand=x",
            "a b",
            "a;b",
            "$(id)",
            "`id`",
            "a'b",
            "a\"b",
            "a\nb",
            "b\u{fc}cher",
            "a\0b",
            "a|b",
            "a*",
        ] {
            assert!(HostName::parse(bad).is_err(), "{bad:?}");
        }
        assert!(HostName::parse(&"h".repeat(255)).is_ok());
        assert!(HostName::parse(&"h".repeat(256)).is_err());
    }

    #[test]
    fn an_address_has_one_spelling_however_ssh_would_read_it() {
        for (written, canonical) in [
            ("192.0.2.1", "192.0.2.1"),
            ("::FFFF:192.0.2.1", "192.0.2.1"),
            ("::ffff:c000:201", "192.0.2.1"),
            ("0xC0.0.02.1", "192.0.2.1"),
            ("192.0.513", "192.0.2.1"),
            ("192.513", "192.0.2.1"),
            ("3221225985", "192.0.2.1"),
            ("0xc0000201", "192.0.2.1"),
            ("0300.0.2.1", "192.0.2.1"),
            ("192.0.2.1.", "192.0.2.1"),
            ("0", "0.0.0.0"),
            ("127.1", "127.0.0.1"),
            ("0:0:0:0:0:0:0:1", "::1"),
            ("FE80:0:0::1%Eth0", "fe80::1%eth0"),
            ("ff02::1%2", "ff02::1%2"),
            // A scope means nothing where only one host has the address.
            ("::1%0", "::1"),
            ("0:0::1%lo", "::1"),
            ("::ffff:127.0.0.1%0", "127.0.0.1"),
            ("ff0e::1%2", "ff0e::1"),
            ("00000000000000000177.0.0.1", "127.0.0.1"),
            ("0x00000000000000000000c0000201", "192.0.2.1"),
            ("127.0.0.000000000000000000000000001", "127.0.0.1"),
            // No addresses, so they stay as they are.
            ("256.0.0.1", "256.0.0.1"),
            ("192.0.2.256", "192.0.2.256"),
            ("192.0.2.1.5", "192.0.2.1.5"),
            ("4294967296", "4294967296"),
            ("36893488147419103233", "36893488147419103233"),
            ("0x", "0x"),
            ("08", "08"),
            ("1.2.", "1.0.0.2"),
            ("1..2", "1..2"),
            ("web%lo", "web%lo"),
            ("192.0.2.1a", "192.0.2.1a"),
        ] {
            assert_eq!(
                HostName::parse(written).unwrap().canonical(),
                canonical,
                "{written}"
            );
        }
    }

    /// A rule for an address must not be walked around by a spelling that ssh's resolver reads as the same address.
    #[test]
    fn whatever_the_resolver_reads_as_an_address_has_that_addresss_spelling() {
        use std::net::ToSocketAddrs;
        for written in [
            "127.1",
            "0x7f.1",
            "0177.0.0.1",
            "00000000000000000177.0.0.1",
            "2130706433",
            "0x7f000001",
            "0x0000000000000000007f000001",
            "127.0.0.0001",
            "::1",
            "0::1",
            "::1%0",
            "::ffff:127.0.0.1",
            "::FFFF:7f00:1",
            "::ffff:127.0.0.1%0",
            "127.0.1",
        ] {
            let read = (written, 22).to_socket_addrs().unwrap().next().unwrap().ip();
            assert_eq!(
                HostName::parse(written).unwrap().canonical(),
                read.to_canonical().to_string(),
                "{written}"
            );
        }
    }

    #[test]
    fn principals_follow_the_rule_that_no_sshd_misreads() {
        for good in [
            "root",
            "a",
            "_apt",
            "alice@example.com",
            "svc+x",
            "machine$",
            "0x",
        ] {
            assert!(Principal::parse(good).is_ok(), "{good}");
        }
        for bad in [
            "", "*", "a,b", "a\nb", "a\"b", "-x", ".x", "$", "a b", "\u{e4}", "a$b",
        ] {
            assert!(Principal::parse(bad).is_err(), "{bad:?}");
        }
        assert!(Principal::parse(&"u".repeat(128)).is_ok());
        assert!(Principal::parse(&"u".repeat(129)).is_err());
    }

    #[test]
    fn a_connection_hash_is_never_a_path() {
        assert!(ConnectionHash::parse(&"a1".repeat(20)).is_ok());
        assert!(ConnectionHash::parse(&"a1".repeat(32)).is_ok());
        for bad in [
            "",
            "../x",
            "a/b",
            &"A1".repeat(20),
            &"a".repeat(39),
            &"a".repeat(41),
            &"g".repeat(40),
        ] {
            assert!(ConnectionHash::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn profile_names_are_short_and_plain() {
        for good in ["default", "work-2", "A_b"] {
            assert!(ProfileName::parse(good).is_ok(), "{good}");
        }
        for bad in ["", "-x", "_x", "a/b", "..", &"p".repeat(33)] {
            assert!(ProfileName::parse(bad).is_err(), "{bad:?}");
        }
    }
}
