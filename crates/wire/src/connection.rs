//! One ssh connection: who wants to log in where.

use crate::names::{ConnectionHash, HostName, NameError, Principal};
use serde::{Deserialize, Deserializer, Serialize};

/// A connection as ssh described it to `epithet match`, checked.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Connection {
    /// The host ssh will dial (`%h` of the final pass).
    pub remote_host: HostName,
    /// The user to log in as (`%r`).
    pub remote_user: Principal,
    /// The port (`%p`).
    pub port: u16,
    /// The jump hosts (`%j`) where ssh tells them; empty otherwise. Only ever logged.
    pub proxy_jump: String,
    /// ssh's name for this connection (`%C`).
    pub hash: ConnectionHash,
}

/// Why a connection's description was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConnectionError {
    /// One of the names in it.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The port.
    #[error("the port must be 1 to 65535, not {0}")]
    Port(u32),
    /// The list of jump hosts.
    #[error("the jump host list has control characters or is longer than 1024 bytes")]
    ProxyJump,
}

/// A connection as it stands in JSON on the CA's and the policy server's wire: every field a plain value.
///
/// Wire-compatible with epithet 0.17 to 0.19: `localHost` is accepted and ignored, unknown keys are ignored,
/// and a missing or null field is empty.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConnectionFields {
    /// The host; required.
    #[serde(deserialize_with = "null_as_default")]
    pub remote_host: String,
    /// The user.
    #[serde(deserialize_with = "null_as_default")]
    pub remote_user: String,
    /// The port.
    #[serde(deserialize_with = "null_as_default")]
    pub port: u32,
    /// The jump hosts, only logged.
    #[serde(deserialize_with = "null_as_default")]
    pub proxy_jump: String,
    /// ssh's `%C`.
    #[serde(deserialize_with = "null_as_default")]
    pub hash: String,
}

/// Reads JSON `null` as the empty value, as the wire's other implementation writes it.
pub(crate) fn null_as_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

impl ConnectionFields {
    /// Checks every field.
    pub fn check(&self) -> Result<Connection, ConnectionError> {
        if self.proxy_jump.len() > 1024 || self.proxy_jump.chars().any(char::is_control) {
            return Err(ConnectionError::ProxyJump);
        }
        let port = u16::try_from(self.port).ok().filter(|port| *port != 0);
        Ok(Connection {
            remote_host: HostName::parse(&self.remote_host)?,
            remote_user: Principal::parse(&self.remote_user)?,
            port: port.ok_or(ConnectionError::Port(self.port))?,
            proxy_jump: self.proxy_jump.clone(),
            hash: ConnectionHash::parse(&self.hash)?,
        })
    }
}

impl From<&Connection> for ConnectionFields {
    fn from(connection: &Connection) -> Self {
        Self {
            remote_host: connection.remote_host.to_string(),
            remote_user: connection.remote_user.to_string(),
            port: connection.port.into(),
            proxy_jump: connection.proxy_jump.clone(),
            hash: connection.hash.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wire_form_is_the_one_the_go_clients_send() {
        let json = r#"{"localHost":"laptop","remoteHost":"server.example.com","remoteUser":"root","port":22,"proxyJump":null,"hash":"x","new":1}"#;
        let fields: ConnectionFields = serde_json::from_str(json).unwrap();
        assert_eq!(fields.remote_host, "server.example.com");
        assert_eq!(
            serde_json::to_string(&fields).unwrap(),
            r#"{"remoteHost":"server.example.com","remoteUser":"root","port":22,"proxyJump":"","hash":"x"}"#
        );
    }

    #[test]
    fn every_field_is_checked_by_name() {
        let good = ConnectionFields {
            remote_host: "h".into(),
            remote_user: "root".into(),
            port: 22,
            proxy_jump: String::new(),
            hash: "ab".repeat(20),
        };
        assert!(good.check().is_ok());
        let cases = [
            (
                ConnectionFields {
                    remote_host: "a b".into(),
                    ..good.clone()
                },
                "host name",
            ),
            (
                ConnectionFields {
                    remote_user: "*".into(),
                    ..good.clone()
                },
                "user name",
            ),
            (
                ConnectionFields {
                    port: 0,
                    ..good.clone()
                },
                "port",
            ),
            (
                ConnectionFields {
                    port: 65_536,
                    ..good.clone()
                },
                "port",
            ),
            (
                ConnectionFields {
                    proxy_jump: "a\nb".into(),
                    ..good.clone()
                },
                "jump host",
            ),
            (
                ConnectionFields {
                    hash: "../x".into(),
                    ..good
                },
                "connection hash",
            ),
        ];
        for (fields, word) in cases {
            let error = fields.check().unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
    }
}
