//! JSON Web Signature in its compact form (RFC 7515), read strictly and without trusting a byte of it.
//!
//! Three base64url parts without padding, two dots, no stray bits. The header chooses nothing but which of the
//! provider's keys to try: `jku`, `x5u`, `jwk` and `x5c` are never looked at, `crit` is refused (RFC 8725).

use crate::json::{self, JsonError};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};
use std::fmt;

/// Longest key id. It is only ever compared, but it is repeated in messages and logs.
pub const KEY_ID_MAX: usize = 256;

/// The signature algorithms that Epithet accepts (RFC 7518 section 3.1, RFC 8037).
///
/// Never `none`, and never a symmetric one: with those, whoever can read the provider's public key can sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[expect(missing_docs, reason = "each name is the one of RFC 7518 section 3.1")]
pub enum Algorithm {
    RS256,
    RS384,
    RS512,
    PS256,
    PS384,
    PS512,
    ES256,
    ES384,
    ES512,
    EdDSA,
}

impl Algorithm {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::RS256,
        Self::RS384,
        Self::RS512,
        Self::PS256,
        Self::PS384,
        Self::PS512,
        Self::ES256,
        Self::ES384,
        Self::ES512,
        Self::EdDSA,
    ];

    /// The name as it stands in a header. `Ed25519` (RFC 9864) is the newer name of the only EdDSA we know.
    pub fn from_name(name: &str) -> Option<Self> {
        if name == "Ed25519" {
            return Some(Self::EdDSA);
        }
        Self::ALL.into_iter().find(|algorithm| algorithm.name() == name)
    }

    /// The name as it stands in a header.
    pub fn name(self) -> &'static str {
        match self {
            Self::RS256 => "RS256",
            Self::RS384 => "RS384",
            Self::RS512 => "RS512",
            Self::PS256 => "PS256",
            Self::PS384 => "PS384",
            Self::PS512 => "PS512",
            Self::ES256 => "ES256",
            Self::ES384 => "ES384",
            Self::ES512 => "ES512",
            Self::EdDSA => "EdDSA",
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why something is not a signed token that we would look at. One situation each.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JwsError {
    /// Longer than `wire::limits::TOKEN_MAX`.
    #[error("it has {0} bytes, more than a token may have")]
    TooLong(usize),
    /// Not three parts between two dots.
    #[error("it has {0} parts between dots, a signed token has three")]
    Parts(usize),
    /// Five parts: an encrypted token (JWE). There is no key here that could open it.
    #[error("it is encrypted; have the provider issue signed tokens for this client")]
    Encrypted,
    /// A part is not canonical base64url without padding.
    #[error("its {0} is not base64url")]
    Base64(&'static str),
    /// The header is not a strict JSON object.
    #[error("its header is unusable: {0}")]
    Header(JsonError),
    /// A header parameter has the wrong type or is missing.
    #[error("its header has no usable {0:?}")]
    HeaderParameter(&'static str),
    /// `alg: none`: nobody signed it.
    #[error("it is not signed (alg \"none\")")]
    Unsigned,
    /// `HS256` and its like: the key would be a shared secret, and the public key is none.
    #[error("it is signed with a shared secret (alg {0:?}); have the provider sign with RS256 or ES256")]
    Symmetric(String),
    /// An algorithm that we do not know.
    #[error("it is signed with an unknown algorithm ({0:?})")]
    UnknownAlgorithm(String),
    /// The header demands that extensions be understood (RFC 7515 section 4.1.11). We understand none.
    #[error("its header has critical extensions (\"crit\") that are not understood here")]
    Critical,
}

/// A token taken apart, nothing verified yet.
#[derive(Debug, Clone)]
pub struct Compact<'t> {
    /// How the header says it is signed.
    pub algorithm: Algorithm,
    /// Which key it says it is signed with.
    pub key_id: Option<String>,
    /// The header's `typ`, lower case and without `application/`.
    pub token_type: Option<String>,
    /// What is signed: the first two parts and the dot between them.
    pub signed: &'t [u8],
    /// The decoded signature.
    pub signature: Vec<u8>,
    payload: &'t [u8],
}

impl<'t> Compact<'t> {
    /// Takes a token apart. White space around it is forgiven (a plugin may have printed a line), within it is not.
    pub fn parse(token: &'t [u8]) -> Result<Self, JwsError> {
        let token = token.trim_ascii();
        if token.len() > epithet_wire::limits::TOKEN_MAX {
            return Err(JwsError::TooLong(token.len()));
        }
        let mut parts = token.split(|byte| *byte == b'.');
        let (Some(header), Some(payload), Some(signature), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(match token.split(|byte| *byte == b'.').count() {
                5 => JwsError::Encrypted,
                parts => JwsError::Parts(parts),
            });
        };
        let header_bytes = decode(header, "header")?;
        let (algorithm, key_id, token_type) =
            read_header(json::parse_object(&header_bytes).map_err(JwsError::Header)?)?;
        Ok(Self {
            algorithm,
            key_id,
            token_type,
            signed: &token[..header.len() + 1 + payload.len()],
            signature: decode(signature, "signature")?,
            payload,
        })
    }

    /// The decoded payload. It proves nothing before the signature has been verified.
    pub fn payload(&self) -> Result<Vec<u8>, JwsError> {
        decode(self.payload, "payload")
    }
}

/// base64url without padding, without white space, and with no bits set in the last character that are not used.
fn decode(part: &[u8], name: &'static str) -> Result<Vec<u8>, JwsError> {
    URL_SAFE_NO_PAD.decode(part).map_err(|_| JwsError::Base64(name))
}

fn read_header(
    mut header: Map<String, Value>,
) -> Result<(Algorithm, Option<String>, Option<String>), JwsError> {
    if header.contains_key("crit") {
        return Err(JwsError::Critical);
    }
    let algorithm = match header.get("alg") {
        Some(Value::String(name)) => match (Algorithm::from_name(name), name.as_str()) {
            (Some(algorithm), _) => algorithm,
            (None, name) if name.eq_ignore_ascii_case("none") => return Err(JwsError::Unsigned),
            (None, name) if name.starts_with("HS") => return Err(JwsError::Symmetric(shortened(name))),
            (None, name) => return Err(JwsError::UnknownAlgorithm(shortened(name))),
        },
        _ => return Err(JwsError::HeaderParameter("alg")),
    };
    let key_id = match header.remove("kid") {
        None => None,
        Some(Value::String(id)) if id.len() <= KEY_ID_MAX => Some(id),
        Some(_) => return Err(JwsError::HeaderParameter("kid")),
    };
    let token_type = match header.remove("typ") {
        None => None,
        Some(Value::String(name)) => {
            let name = name.to_ascii_lowercase();
            Some(
                name.strip_prefix("application/")
                    .map_or_else(|| name.clone(), str::to_owned),
            )
        }
        Some(_) => return Err(JwsError::HeaderParameter("typ")),
    };
    Ok((algorithm, key_id, token_type))
}

fn shortened(name: &str) -> String {
    name.chars().take(32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn token(header: &str) -> String {
        format!(
            "{}.{}.{}",
            URL_SAFE_NO_PAD.encode(header),
            URL_SAFE_NO_PAD.encode("{}"),
            "AAAA"
        )
    }

    #[test]
    fn a_header_is_read_for_what_it_may_say_and_nothing_else() {
        let text =
            token(r#"{"alg":"RS256","kid":"k1","typ":"application/JWT","jku":"https://evil.example"}"#);
        let compact = Compact::parse(text.as_bytes()).unwrap();
        assert_eq!(compact.algorithm, Algorithm::RS256);
        assert_eq!(compact.key_id.as_deref(), Some("k1"));
        assert_eq!(compact.token_type.as_deref(), Some("jwt"));
        assert_eq!(compact.payload().unwrap(), b"{}");
        assert_eq!(compact.signed, text.rsplit_once('.').unwrap().0.as_bytes());
        assert!(
            Compact::parse(format!(" \t{text}\r\n").as_bytes()).is_ok(),
            "white space around is forgiven"
        );
    }

    #[test]
    fn every_lie_in_a_header_has_its_own_reason() {
        let cases: &[(&str, JwsError)] = &[
            (r#"{"alg":"none"}"#, JwsError::Unsigned),
            (r#"{"alg":"nOnE"}"#, JwsError::Unsigned),
            (r#"{"alg":"HS256"}"#, JwsError::Symmetric("HS256".into())),
            (r#"{"alg":"RS1"}"#, JwsError::UnknownAlgorithm("RS1".into())),
            (r#"{"alg":"rs256"}"#, JwsError::UnknownAlgorithm("rs256".into())),
            (r#"{"alg":1}"#, JwsError::HeaderParameter("alg")),
            (r#"{}"#, JwsError::HeaderParameter("alg")),
            (r#"{"alg":"RS256","kid":7}"#, JwsError::HeaderParameter("kid")),
            (r#"{"alg":"RS256","typ":null}"#, JwsError::HeaderParameter("typ")),
            (r#"{"alg":"RS256","crit":["exp"]}"#, JwsError::Critical),
            (r#"{"alg":"RS256","crit":[]}"#, JwsError::Critical),
            (
                r#"{"alg":"RS256","alg":"none"}"#,
                JwsError::Header(JsonError::DuplicateName("alg".into())),
            ),
            ("[]", JwsError::Header(JsonError::NotAnObject)),
        ];
        for (header, reason) in cases {
            assert_eq!(
                &Compact::parse(token(header).as_bytes()).unwrap_err(),
                reason,
                "{header}"
            );
        }
        let long = format!(r#"{{"alg":"RS256","kid":"{}"}}"#, "k".repeat(KEY_ID_MAX + 1));
        assert_eq!(
            Compact::parse(token(&long).as_bytes()).unwrap_err(),
            JwsError::HeaderParameter("kid")
        );
    }

    #[test]
    fn the_form_is_exact() {
        let good = token(r#"{"alg":"RS256"}"#);
        let (head, signature) = good.rsplit_once('.').unwrap();
        for (bad, reason) in [
            (String::new(), JwsError::Parts(1)),
            (head.to_owned(), JwsError::Parts(2)),
            (format!("{good}."), JwsError::Parts(4)),
            (format!("{good}.AAAA.AAAA"), JwsError::Encrypted),
            (format!("{good}="), JwsError::Base64("signature")),
            (format!("{head}.{signature}B"), JwsError::Base64("signature")),
            (format!("{head}.AB"), JwsError::Base64("signature")),
            (format!("{head}.AA A"), JwsError::Base64("signature")),
            (format!("{head}.AA+A"), JwsError::Base64("signature")),
            (
                "x".repeat(epithet_wire::limits::TOKEN_MAX + 1),
                JwsError::TooLong(65_537),
            ),
        ] {
            assert_eq!(
                Compact::parse(bad.as_bytes()).unwrap_err(),
                reason,
                "{}",
                &bad[..bad.len().min(99)]
            );
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_parser_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            if let Ok(compact) = Compact::parse(&bytes) {
                let _ = compact.payload();
            }
        }

        #[test]
        fn no_header_makes_the_parser_panic(header in ".{0,200}", payload in ".{0,50}") {
            let text = format!("{}.{}.AAAA", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(payload));
            if let Ok(compact) = Compact::parse(text.as_bytes()) {
                let _ = compact.payload();
            }
        }
    }
}
