//! Where to listen, as people write it in a flag or a file.

use std::fmt;
use std::io;
use std::path::PathBuf;

/// Where a server listens: a TCP address, or a Unix socket.
///
/// Accepted forms: `127.0.0.1:8080`, `[::1]:8080`, `localhost:8080`, `:8080` and `8080` (every address of this
/// machine), and `unix:///run/epithet/policy.sock`. Port 0 lets the system choose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listen {
    /// A TCP port. No host means every address of this machine, IPv6 and IPv4.
    Tcp {
        /// The host to bind, when one was named.
        host: Option<String>,
        /// The port; 0 for one that is free.
        port: u16,
    },
    /// A Unix socket at this absolute path, for this user only.
    Unix(PathBuf),
}

/// Why a server cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The address is none.
    #[error(
        "cannot listen on `{0}`: write an address as 127.0.0.1:8080, :8080, 8080 or unix:///run/epithet.sock"
    )]
    Malformed(String),
    /// The system refused the address.
    #[error("cannot listen on {address}: {source}")]
    Bind {
        /// The address, as it was written.
        address: String,
        /// The system's reason.
        source: io::Error,
    },
    /// Another process answers on the Unix socket.
    #[error("cannot listen on {}: a running process answers there; stop it first", .0.display())]
    InUse(PathBuf),
    /// What stands at the Unix socket's path is no socket, or somebody else's.
    #[error("cannot listen on {}: {problem}; remove it or choose another path", path.display())]
    Occupied {
        /// The socket's path.
        path: PathBuf,
        /// What is wrong with what is there.
        problem: &'static str,
    },
}

impl Listen {
    /// Reads an address. White space around it is forgiven.
    pub fn parse(text: &str) -> Result<Self, ListenError> {
        let text = text.trim();
        let malformed = || ListenError::Malformed(text.to_owned());
        if let Some(path) = text.strip_prefix("unix://") {
            return if path.starts_with('/') && path.len() > 1 && !path.contains('\0') {
                Ok(Self::Unix(PathBuf::from(path)))
            } else {
                Err(malformed())
            };
        }
        let (host, port) = text.rsplit_once(':').unwrap_or(("", text));
        let digits = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
        let port = port.parse().ok().filter(|_| digits).ok_or_else(malformed)?;
        let host = match host {
            "" => None,
            bracketed if bracketed.starts_with('[') => Some(
                bracketed
                    .strip_prefix('[')
                    .and_then(|rest| rest.strip_suffix(']'))
                    .filter(|address| address.parse::<std::net::Ipv6Addr>().is_ok())
                    .ok_or_else(malformed)?,
            ),
            name if name
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte)) =>
            {
                Some(name)
            }
            _ => return Err(malformed()),
        };
        Ok(Self::Tcp {
            host: host.map(str::to_owned),
            port,
        })
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host: None, port } => write!(f, ":{port}"),
            Self::Tcp {
                host: Some(host),
                port,
            } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp {
                host: Some(host),
                port,
            } => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
        }
    }
}

impl std::str::FromStr for Listen {
    type Err = ListenError;
    fn from_str(text: &str) -> Result<Self, ListenError> {
        Self::parse(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_people_write_them() {
        for (text, shown) in [
            ("127.0.0.1:8080", "127.0.0.1:8080"),
            (":8080", ":8080"),
            ("8080", ":8080"),
            (" 0.0.0.0:80 ", "0.0.0.0:80"),
            ("localhost:0", "localhost:0"),
            ("[::1]:8443", "[::1]:8443"),
            ("[::]:1", "[::]:1"),
            ("unix:///run/a b.sock", "unix:///run/a b.sock"),
        ] {
            assert_eq!(Listen::parse(text).expect(text).to_string(), shown);
        }
        for bad in [
            "",
            " ",
            ":",
            "localhost",
            "127.0.0.1",
            "1.2.3.4:65536",
            "1.2.3.4:-1",
            "1.2.3.4:+1",
            "::1:80",
            "[::1]",
            "[x]:80",
            "http://127.0.0.1:80",
            "unix://relative.sock",
            "unix://",
            "unix:///",
            "a b:80",
        ] {
            let error = Listen::parse(bad).expect_err(bad).to_string();
            assert!(error.contains("127.0.0.1:8080"), "{error}");
        }
    }
}
