//! An address on this very machine, at which a waiting program can be reached by plain HTTP.

use std::fmt;
use std::str::FromStr;

/// The longest such address, in bytes; real ones have fewer than a hundred.
const ADDRESS_MAX: usize = 1024;
/// The only hosts there are. Names are not resolved to find out where they lead.
const HOSTS: [&str; 3] = ["127.0.0.1", "[::1]", "localhost"];

/// `http://127.0.0.1:PORT/path`, or the same with `[::1]` or `localhost`: no user, no query, no fragment.
///
/// A plugin names one to say where an address that a person pastes can be delivered. It comes from the plugin, so
/// whoever connects to it must know that it leads nowhere but here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoopbackAddress {
    host: &'static str,
    port: u16,
    path: String,
}

/// Why an address was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "not an address on this machine: it must be like http://127.0.0.1:PORT/path (or [::1], or localhost)"
)]
pub struct LoopbackAddressError;

impl LoopbackAddress {
    /// The host as it stands in an address: `127.0.0.1`, `[::1]` or `localhost`.
    pub fn host(&self) -> &'static str {
        self.host
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Host and port, as in a `Host` header.
    pub fn authority(&self) -> String {
        match self.port {
            80 => self.host.to_owned(),
            port => format!("{}:{port}", self.host),
        }
    }

    /// The path; begins with a slash.
    pub fn path(&self) -> &str {
        &self.path
    }
}

impl FromStr for LoopbackAddress {
    type Err = LoopbackAddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_plain = |byte: u8| byte.is_ascii_graphic() && !b"\"<>\\^`{|}?#".contains(&byte);
        if text.len() > ADDRESS_MAX || !text.bytes().all(is_plain) {
            return Err(LoopbackAddressError);
        }
        let rest = text.strip_prefix("http://").ok_or(LoopbackAddressError)?;
        let (authority, path) = rest.find('/').map_or((rest, "/"), |slash| rest.split_at(slash));
        let after = |host: &&'static str| authority.strip_prefix(*host);
        let host = HOSTS
            .into_iter()
            .find(|host| after(host).is_some_and(|rest| rest.is_empty() || rest.starts_with(':')));
        let host = host.ok_or(LoopbackAddressError)?;
        let port = match &authority[host.len()..] {
            "" => 80,
            port => number(&port[1..]).ok_or(LoopbackAddressError)?,
        };
        Ok(Self {
            host,
            port,
            path: path.to_owned(),
        })
    }
}

/// A port in digits, without the sign that numbers may have elsewhere.
fn number(text: &str) -> Option<u16> {
    let is_digits = text.bytes().all(|byte| byte.is_ascii_digit());
    (text.parse().ok()).filter(|port| is_digits && *port != 0)
}

impl fmt::Display for LoopbackAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}{}", self.authority(), self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn addresses_on_this_machine_are_read_and_written_back() {
        for (text, host, port, path) in [
            ("http://127.0.0.1:40123/callback", "127.0.0.1", 40123, "/callback"),
            ("http://[::1]:7/", "[::1]", 7, "/"),
            ("http://localhost:65535/a/b;c=1", "localhost", 65535, "/a/b;c=1"),
            ("http://localhost/x", "localhost", 80, "/x"),
        ] {
            let address: LoopbackAddress = text.parse().unwrap();
            assert_eq!(
                (address.host(), address.port(), address.path()),
                (host, port, path)
            );
            assert_eq!(address.to_string(), text);
        }
        let bare: LoopbackAddress = "http://127.0.0.1:9".parse().unwrap();
        assert_eq!(bare.to_string(), "http://127.0.0.1:9/");
    }

    #[test]
    fn what_leads_elsewhere_or_says_more_is_refused() {
        for text in [
            "",
            "http://",
            "https://127.0.0.1:1/",
            "http://127.0.0.2:1/",
            "http://127.0.0.1.example.com/",
            "http://localhost.example.com:1/",
            "http://localhost@example.com/",
            "http://127.0.0.1:1@example.com/",
            "http://user@127.0.0.1:1/",
            "http://127.0.0.1:0/",
            "http://127.0.0.1:+1/",
            "http://127.0.0.1:65536/",
            "http://127.0.0.1:/",
            "http://127.0.0.1:1\\@example.com/",
            "http://127.0.0.1:1/a?b=c",
            "http://127.0.0.1:1/a#b",
            "http://127.0.0.1:1/a b",
            "http://127.0.0.1:1/\r\nHost: x",
            "HTTP://127.0.0.1:1/",
        ] {
            assert!(text.parse::<LoopbackAddress>().is_err(), "{text:?}");
        }
        let long = format!("http://127.0.0.1:1/{}", "x".repeat(ADDRESS_MAX));
        assert!(long.parse::<LoopbackAddress>().is_err());
    }

    proptest! {
        #[test]
        fn nothing_is_a_panic_and_what_is_read_is_written_back_the_same(text in "(http://(127\\.0\\.0\\.1|\\[::1\\]|localhost))?(:[0-9]{1,6})?[ -~]{0,20}") {
            if let Ok(address) = text.parse::<LoopbackAddress>() {
                prop_assert_eq!(address.to_string().parse::<LoopbackAddress>().unwrap(), address);
            }
        }
    }
}
