//! The wire between broker and CA: JSON over HTTP, compatible with epithet 0.17 to 0.19.
//!
//! `POST /` with `Authorization: Bearer <token>` and a [`CertificateRequest`] answers a [`CertificateResponse`];
//! `GET /discovery` answers a [`Discovery`]. Errors are plain text for people; the status says what to do:
//! 401 log in again, 403 denied, 422 not this CA's host, other 4xx the client's fault, 5xx try another CA.

use crate::connection::{ConnectionFields, null_as_default};
use serde::{Deserialize, Serialize};

/// The link relation under which a CA announces its discovery document (epithet 0.19).
pub const AUTH_RELATION: &str = "https://epithet.dev/rel/auth";
/// The same under its older name (epithet 0.17).
pub const DISCOVERY_RELATION: &str = "discovery";
/// The header that carries a request's name to whoever has to look for it in a log.
pub const REQUEST_ID_HEADER: &str = "Epithet-Request-Id";

/// The header by which a CA knows a request that it has had before (the same request's other attempts, also at other CAs).
pub const IDEMPOTENCY_KEY_HEADER: &str = "Idempotency-Key";

/// What a broker asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CertificateRequest {
    /// The public key to certify: one line in authorized_keys form.
    #[serde(default, deserialize_with = "null_as_default")]
    pub public_key: String,
    /// The connection the certificate is for.
    #[serde(default, deserialize_with = "null_as_default")]
    pub connection: ConnectionFields,
}

/// What a CA answers with status 200. Older CAs add a `policy` object, which is ignored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateResponse {
    /// The certificate: one line in authorized_keys form, with a line end.
    pub certificate: String,
}

/// What a CA tells about itself to anybody.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Discovery {
    /// How to log in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth: Option<DiscoveryAuth>,
    /// Which hosts this CA certifies; empty when it does not say.
    #[serde(
        default,
        deserialize_with = "null_as_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub match_patterns: Vec<String>,
}

/// How to log in, as data. Never a command: a CA must not be able to run anything on a person's machine.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiscoveryAuth {
    /// `oidc`, or absent, which means the same.
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// The provider.
    #[serde(default, deserialize_with = "null_as_default")]
    pub issuer: String,
    /// The client id registered there.
    #[serde(default, deserialize_with = "null_as_default")]
    pub client_id: String,
    /// The client's not so secret secret, where a provider insists on one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_secret: Option<String>,
    /// The scopes to ask for.
    #[serde(
        default,
        deserialize_with = "null_as_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub scopes: Vec<String>,
    /// Set by CAs of epithet 0.17 with `type` = `command`; read only to be refused.
    #[serde(default, skip_serializing)]
    pub command: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_of_every_version_are_understood() {
        let old = r#"{"certificate":"ssh-ed25519-cert-v01@openssh.com AAAA\n","policy":{"hostUsers":{"a":["root"]}}}"#;
        assert!(serde_json::from_str::<CertificateResponse>(old).is_ok());
        let discovery: Discovery = serde_json::from_str(
            r#"{"auth":{"type":"oidc","issuer":"https://i","client_id":"c","scopes":["openid"]},"matchPatterns":["*.example.com"]}"#,
        )
        .unwrap();
        assert_eq!(discovery.match_patterns, ["*.example.com"]);
        let head: Discovery =
            serde_json::from_str(r#"{"auth":{"issuer":"https://i","client_id":"c"}}"#).unwrap();
        assert_eq!(
            serde_json::to_string(&head).unwrap(),
            r#"{"auth":{"issuer":"https://i","client_id":"c"}}"#
        );
    }

    #[test]
    fn a_request_has_the_bytes_of_the_other_implementation() {
        let request = CertificateRequest {
            public_key: "ssh-ed25519 AAAA\n".into(),
            connection: ConnectionFields::default(),
        };
        assert_eq!(
            serde_json::to_string(&request).unwrap(),
            r#"{"publicKey":"ssh-ed25519 AAAA\n","connection":{"remoteHost":"","remoteUser":"","port":0,"proxyJump":"","hash":""}}"#
        );
        assert!(serde_json::from_str::<CertificateRequest>("{}").is_ok());
    }
}
