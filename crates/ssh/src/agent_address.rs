//! How people name a key that an ssh-agent holds.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// What such a name begins with.
const SCHEME: &str = "agent:";
/// What a fingerprint begins with.
const FINGERPRINT: &str = "SHA256:";

/// A key in an ssh-agent: `agent:SHA256:...` in the agent of `SSH_AUTH_SOCK`, or `agent:/path/sock#comment` and
/// `agent:/path/sock#SHA256:...` in the one at that socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentAddress {
    /// The agent's socket; none for that of `SSH_AUTH_SOCK`.
    pub socket: Option<PathBuf>,
    /// Which of its keys.
    pub key: AgentKeyName,
}

/// Which of an agent's keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AgentKeyName {
    /// `SHA256:...`, as `ssh-add -l` shows it.
    Fingerprint(String),
    /// Its comment, the whole of it.
    Comment(String),
}

/// Why a name is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` does not name a key in an agent: write agent:SHA256:... (see `ssh-add -l`), agent:/path/to/socket#SHA256:... or agent:/path/to/socket#comment"
)]
pub struct AgentAddressError(String);

impl AgentAddress {
    /// Whether a text means a key in an agent and no file.
    pub fn is_meant(text: &str) -> bool {
        text.starts_with(SCHEME)
    }
}

impl FromStr for AgentAddress {
    type Err = AgentAddressError;

    fn from_str(text: &str) -> Result<Self, AgentAddressError> {
        let malformed = || AgentAddressError(text.to_owned());
        let rest = text.strip_prefix(SCHEME).ok_or_else(malformed)?;
        let (socket, key) = match rest.strip_prefix('/') {
            Some(_) => rest.split_once('#').ok_or_else(malformed)?,
            None => ("", rest.strip_prefix('#').unwrap_or(rest)),
        };
        let key = match key.strip_prefix(FINGERPRINT) {
            Some(digest) if is_digest(digest) => AgentKeyName::Fingerprint(key.to_owned()),
            // Without a socket and without `#` it could be anything, a misspelt path too.
            None if !key.is_empty() && (!socket.is_empty() || rest.starts_with('#')) => {
                AgentKeyName::Comment(key.to_owned())
            }
            _ => return Err(malformed()),
        };
        Ok(Self {
            socket: (!socket.is_empty()).then(|| PathBuf::from(socket)),
            key,
        })
    }
}

/// 32 bytes in base64 without padding.
fn is_digest(text: &str) -> bool {
    text.len() == 43
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'+' || byte == b'/')
}

impl fmt::Display for AgentAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.socket {
            Some(socket) => write!(f, "{SCHEME}{}#{}", socket.display(), self.key),
            None => match &self.key {
                AgentKeyName::Fingerprint(fingerprint) => write!(f, "{SCHEME}{fingerprint}"),
                AgentKeyName::Comment(comment) => write!(f, "{SCHEME}#{comment}"),
            },
        }
    }
}

impl fmt::Display for AgentKeyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fingerprint(text) | Self::Comment(text) => f.write_str(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRINT: &str = "SHA256:lbmsoA0yIEcEiVDRnMWuzm+uV+3ZEEpVIURqFoeSspg";

    #[test]
    fn names_are_read_as_they_are_shown() {
        let comment = |text: &str| AgentKeyName::Comment(text.into());
        let print = || AgentKeyName::Fingerprint(PRINT.into());
        for (text, socket, key) in [
            (format!("agent:{PRINT}"), None, print()),
            (format!("agent:/run/a.sock#{PRINT}"), Some("/run/a.sock"), print()),
            (
                "agent:/run/a.sock#ca key #2".into(),
                Some("/run/a.sock"),
                comment("ca key #2"),
            ),
            ("agent:#ca".into(), None, comment("ca")),
        ] {
            let address: AgentAddress = text.parse().unwrap();
            assert_eq!(
                (address.socket.as_deref(), &address.key),
                (socket.map(std::path::Path::new), &key)
            );
            assert_eq!(address.to_string(), text);
        }
    }

    #[test]
    fn what_could_be_something_else_is_refused() {
        for text in [
            "agent:",
            "agent:#",
            "agent:/run/a.sock",
            "agent:/run/a.sock#",
            "agent:ca",
            "agent:run/a.sock#ca",
            "agent:SHA256:short",
            "agent:/run/a.sock#SHA256:",
            "/etc/epithet/ca.key",
        ] {
            assert!(text.parse::<AgentAddress>().is_err(), "{text}");
        }
    }
}
