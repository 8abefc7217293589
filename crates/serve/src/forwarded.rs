//! Who a request is from when proxies stand in front: `X-Forwarded-For`, believed only from those that were named.
//!
//! Each proxy adds the address it was asked from at the right end. So the client is the rightmost address that is none
//! of the trusted proxies; whatever stands left of it was written by the client itself.

use crate::request::ClientAddress;
use http::HeaderMap;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// The header that proxies write.
const FORWARDED_FOR: &str = "x-forwarded-for";
/// Addresses that are looked at, from the right: no chain of proxies is longer.
const HOPS_MAX: usize = 32;

/// The bits before the IPv4 address in an IPv6 address that holds one (RFC 4291 section 2.5.5.2).
const MAPPED: u8 = 96;

/// Proxies whose `X-Forwarded-For` is believed: a network, or everybody who reaches the Unix socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TrustedProxy {
    /// An address with the length of its prefix.
    Network(IpAddr, u8),
    /// `unix`: whoever can connect to the Unix socket, which is this user and root.
    Unix,
}

/// Why a text names no proxies.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a network: write an address as 10.1.2.3, 10.0.0.0/8 or 2001:db8::/32, or `unix` for the Unix socket"
)]
pub struct TrustedProxyError(String);

impl FromStr for TrustedProxy {
    type Err = TrustedProxyError;

    fn from_str(text: &str) -> Result<Self, TrustedProxyError> {
        let malformed = || TrustedProxyError(text.to_owned());
        if text == "unix" {
            return Ok(Self::Unix);
        }
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| malformed())?;
        let longest = if address.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            None => longest,
            Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                digits.parse().map_err(|_| malformed())?
            }
            Some(_) => return Err(malformed()),
        };
        if prefix > longest {
            return Err(malformed());
        }
        // Peers are compared in their own form, so `::ffff:192.0.2.1` is 192.0.2.1 here as it is there.
        match address.to_canonical() {
            IpAddr::V4(inner) if address.is_ipv6() && prefix >= MAPPED => {
                Ok(Self::Network(IpAddr::V4(inner), prefix - MAPPED))
            }
            _ => Ok(Self::Network(address, prefix)),
        }
    }
}

impl fmt::Display for TrustedProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Network(address, prefix) => write!(f, "{address}/{prefix}"),
            Self::Unix => f.write_str("unix"),
        }
    }
}

impl TrustedProxy {
    fn covers(&self, client: ClientAddress) -> bool {
        match (self, client) {
            (Self::Unix, ClientAddress::Unix { .. }) => true,
            (Self::Network(IpAddr::V4(network), prefix), ClientAddress::Ip(IpAddr::V4(address))) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(*prefix)).unwrap_or(0);
                (network.to_bits() ^ address.to_bits()) & mask == 0
            }
            (Self::Network(IpAddr::V6(network), prefix), ClientAddress::Ip(IpAddr::V6(address))) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(*prefix)).unwrap_or(0);
                (network.to_bits() ^ address.to_bits()) & mask == 0
            }
            _ => false,
        }
    }
}

/// Whether the peer of a connection is one of the proxies.
pub(crate) fn is_trusted(peer: ClientAddress, proxies: &[TrustedProxy]) -> bool {
    proxies.iter().any(|proxy| proxy.covers(peer))
}

/// Who sent a request that came from `peer`.
///
/// What is no address ends the search: the proxy next to it could not tell who asked, so it is taken for the client.
pub(crate) fn client(peer: ClientAddress, headers: &HeaderMap, proxies: &[TrustedProxy]) -> ClientAddress {
    let mut client = peer;
    // Several headers of this name are one list, in their order.
    let values: Vec<_> = headers
        .get_all(FORWARDED_FOR)
        .iter()
        // What the client wrote may be no text at all; what proxies added to it is.
        .map(|value| String::from_utf8_lossy(value.as_bytes()))
        .collect();
    let hops = values
        .iter()
        .rev()
        .flat_map(|value| value.rsplit(','))
        .map(str::trim)
        .take(HOPS_MAX);
    for hop in hops {
        if !is_trusted(client, proxies) {
            break;
        }
        let Some(address) = address(hop) else { break };
        client = ClientAddress::Ip(address.to_canonical());
    }
    client
}

/// An address as proxies write it: bare, in brackets, or with a port.
fn address(text: &str) -> Option<IpAddr> {
    let bare = text
        .strip_prefix('[')
        .and_then(|rest| rest.split_once(']'))
        .map_or(text, |(inside, _)| inside);
    bare.parse().ok().or_else(|| {
        let with_port: std::net::SocketAddr = text.parse().ok()?;
        Some(with_port.ip())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn ip(text: &str) -> ClientAddress {
        ClientAddress::Ip(text.parse().unwrap())
    }

    fn trusted(names: &[&str]) -> Vec<TrustedProxy> {
        names.iter().map(|name| name.parse().unwrap()).collect()
    }

    #[test]
    fn networks_are_read_and_cover_what_they_should() {
        for (network, inside, outside) in [
            ("10.0.0.0/8", "10.255.0.1", "11.0.0.1"),
            ("10.1.2.3", "10.1.2.3", "10.1.2.4"),
            ("192.0.2.128/25", "192.0.2.129", "192.0.2.127"),
            ("2001:db8::/32", "2001:db8:ffff::1", "2001:db9::1"),
            ("::1", "::1", "::2"),
            ("::ffff:10.1.2.3", "10.1.2.3", "10.1.2.4"),
            ("::ffff:10.0.0.0/104", "10.255.0.1", "11.0.0.1"),
            ("0.0.0.0/0", "203.0.113.1", "2001:db8::1"),
        ] {
            let network: TrustedProxy = network.parse().unwrap();
            assert!(network.covers(ip(inside)), "{network}");
            assert!(!network.covers(ip(outside)), "{network}");
        }
        for bad in [
            "",
            "10.0.0.0/33",
            "10.0.0.0/",
            "10.0.0.0/+8",
            "::/129",
            "example.com",
            "10.0.0/8",
            "/8",
        ] {
            assert!(bad.parse::<TrustedProxy>().is_err(), "{bad}");
        }
    }

    #[test]
    fn the_client_is_the_rightmost_address_that_is_no_trusted_proxy() {
        let proxies = trusted(&["10.0.0.0/8", "127.0.0.1"]);
        for (peer, headers, expected) in [
            // Nobody in front.
            ("203.0.113.9", vec![], "203.0.113.9"),
            // Not one of ours: what it says is its own invention.
            ("203.0.113.9", vec!["1.2.3.4"], "203.0.113.9"),
            ("127.0.0.1", vec!["203.0.113.9"], "203.0.113.9"),
            // What the client wrote stands left.
            ("127.0.0.1", vec!["1.2.3.4, 203.0.113.9"], "203.0.113.9"),
            ("127.0.0.1", vec!["1.2.3.4, 203.0.113.9, 10.0.0.7"], "203.0.113.9"),
            (
                "127.0.0.1",
                vec!["1.2.3.4", "203.0.113.9", "10.0.0.7"],
                "203.0.113.9",
            ),
            // A client inside.
            ("127.0.0.1", vec!["10.0.0.9"], "10.0.0.9"),
            ("127.0.0.1", vec!["10.0.0.9,10.0.0.8"], "10.0.0.9"),
            // Forms.
            ("127.0.0.1", vec!["[2001:db8::1]:4711"], "2001:db8::1"),
            ("127.0.0.1", vec!["2001:db8::1"], "2001:db8::1"),
            ("127.0.0.1", vec!["203.0.113.9:4711"], "203.0.113.9"),
            ("127.0.0.1", vec!["::ffff:203.0.113.9"], "203.0.113.9"),
            // Nonsense tells nothing.
            ("127.0.0.1", vec!["unknown"], "127.0.0.1"),
            ("127.0.0.1", vec![""], "127.0.0.1"),
            ("127.0.0.1", vec!["1.2.3.4, \u{ff}, 10.0.0.7"], "10.0.0.7"),
        ] {
            let mut map = HeaderMap::new();
            for value in &headers {
                map.append(FORWARDED_FOR, HeaderValue::from_bytes(value.as_bytes()).unwrap());
            }
            assert_eq!(
                client(ip(peer), &map, &proxies),
                ip(expected),
                "{peer} {headers:?}"
            );
        }
        let mut map = HeaderMap::new();
        map.append(FORWARDED_FOR, HeaderValue::from_static("203.0.113.9"));
        let unix = ClientAddress::Unix { uid: 0 };
        assert_eq!(client(unix, &map, &proxies), unix);
        assert_eq!(client(unix, &map, &trusted(&["unix"])), ip("203.0.113.9"));
    }

    #[test]
    fn no_header_makes_the_search_long() {
        let proxies = trusted(&["10.0.0.0/8"]);
        let mut map = HeaderMap::new();
        let chain = vec!["10.0.0.1"; 10_000].join(",");
        map.append(
            FORWARDED_FOR,
            HeaderValue::from_str(&format!("203.0.113.9,{chain}")).unwrap(),
        );
        assert_eq!(client(ip("10.0.0.2"), &map, &proxies), ip("10.0.0.1"));
    }
}
