//! The wire between CA and policy server: JSON over HTTPS or a Unix socket, compatible with epithet 0.18 and 0.19.

use crate::connection::{ConnectionFields, null_as_default};
use crate::limits::{AUDIT_GROUPS_MAX, AUDIT_LOGIN_WORD_MAX, AUDIT_LOGIN_WORDS_MAX, GROUNDS_MAX};
use crate::token::{Token, TokenError};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;
use zeroize::Zeroizing;

/// The header with the policy server's signature under its answer, when it has a key for that. Not known to epithet 0.19.
pub const REPLY_SIGNATURE_HEADER: &str = "epithet-reply-signature";
/// The `typ` of that signature, a JWT; no other token of ours has it.
pub const REPLY_TOKEN_TYPE: &str = "epithet-reply+jwt";
/// The `aud` of that signature.
pub const REPLY_AUDIENCE: &str = "epithet-ca";

/// What a policy server signs about its answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplyClaims {
    /// The fingerprint of the key that signs, `SHA256:...`.
    pub iss: String,
    /// [`REPLY_AUDIENCE`].
    pub aud: String,
    /// The `jti` of the CA's token: which question this answers.
    pub jti: String,
    /// When it was signed, in seconds since 1970.
    pub iat: u64,
    /// Until when it is good.
    pub exp: u64,
    /// The HTTP status of the answer.
    pub status: u16,
    /// SHA-256 of the answer's body, base64url without padding.
    pub bh: String,
}

/// What the CA asks: may the holder of this token make this connection?
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PolicyRequest {
    /// The user's token: as it is when it is UTF-8, else base64url as `token_encoding` says.
    #[serde(default, deserialize_with = "null_as_default")]
    pub token: Zeroizing<String>,
    /// `base64url` when `token` is encoded; absent otherwise, as in epithet 0.19.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_encoding: Option<String>,
    /// The connection.
    #[serde(default, deserialize_with = "null_as_default")]
    pub connection: ConnectionFields,
}

impl PolicyRequest {
    /// Builds a request, encoding the token only if JSON could not carry it.
    pub fn new(token: &Token, connection: ConnectionFields) -> Self {
        let (token, encoding) = match std::str::from_utf8(token.expose()) {
            Ok(text) => (Zeroizing::new(text.to_owned()), None),
            Err(_) => (
                Zeroizing::new(URL_SAFE_NO_PAD.encode(token.expose())),
                Some("base64url".to_owned()),
            ),
        };
        Self {
            token,
            token_encoding: encoding,
            connection,
        }
    }

    /// The token's bytes.
    pub fn token(&self) -> Result<Token, TokenError> {
        Token::from_header(
            self.token.as_bytes(),
            self.token_encoding.as_ref().map(String::as_bytes),
        )
    }
}

impl fmt::Debug for PolicyRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "PolicyRequest {{ token: [redacted], connection: {:?} }}",
            self.connection
        )
    }
}

/// A yes, and what the certificate shall say. A no is an HTTP status with a sentence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PolicyResponse {
    /// The certificate's contents. Older policy servers add a `policy` object, which is ignored.
    pub cert_params: CertParams,
}

/// The certificate's contents as policy wants them. The CA checks each of them again.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CertParams {
    /// Who this is; becomes the key id.
    #[serde(default, deserialize_with = "null_as_default")]
    pub identity: String,
    /// The users this certificate may log in as.
    #[serde(default, deserialize_with = "null_as_default")]
    pub principals: Vec<String>,
    /// The certificate's life in nanoseconds (`expiration` on the wire).
    #[serde(rename = "expiration", default, deserialize_with = "null_as_default")]
    pub expiration_ns: i64,
    /// Extensions such as `permit-pty`.
    #[serde(default, deserialize_with = "null_as_default")]
    pub extensions: BTreeMap<String, String>,
    /// Critical options such as `source-address`. Not known to epithet 0.19; left out when there are none.
    #[serde(
        default,
        deserialize_with = "null_as_default",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub critical_options: BTreeMap<String, String>,
    /// When the token that paid for it ends. The year 1, which epithet 0.19 writes for "never", is read as none.
    #[serde(default, deserialize_with = "read_time", serialize_with = "write_time")]
    pub not_after: Option<Timestamp>,
    /// The rule that said yes, for the audit log. Ours only; left out when unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// Those of the person's groups that the rules know, for the audit log. Ours only; left out when there are none.
    #[serde(
        default,
        deserialize_with = "null_as_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub groups: Vec<String>,
    /// How many more of these there are than fit into an audit line. Ours only.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub groups_left_out: u32,
    /// How they logged in, for the audit log. Ours only; left out when unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub login: Option<LoginFacts>,
}

/// How a person logged in, as far as rules ask for it: for the audit log, so that it can be asked later what other rules
/// would have said. Empty when the token says nothing of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoginFacts {
    /// How strongly (`acr`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acr: Option<String>,
    /// By what means (`amr`).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub amr: Vec<String>,
    /// How many seconds before the decision (`auth_time`); less than 0 when the provider's clock is ahead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub age: Option<i64>,
}

impl LoginFacts {
    /// These if they fit into an audit line. Half of them could be mistaken for all, so they are left out whole.
    pub fn within_limits(self) -> Option<Self> {
        let fits = |word: &String| word.len() <= AUDIT_LOGIN_WORD_MAX;
        (self.acr.iter().chain(&self.amr).all(fits) && self.amr.len() <= AUDIT_LOGIN_WORDS_MAX)
            .then_some(self)
    }
}

/// As many groups as fit into an audit line, and how many do not.
pub fn groups_within_limits<'a>(groups: impl IntoIterator<Item = &'a str>) -> (Vec<String>, u32) {
    let (mut kept, mut left_out, mut length) = (Vec::new(), 0_u32, 0);
    for group in groups {
        length += group.len();
        if length <= AUDIT_GROUPS_MAX {
            kept.push(group.to_owned());
        } else {
            left_out = left_out.saturating_add(1);
        }
    }
    (kept, left_out)
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// The header in which a refusal says on what [`Grounds`] it was made. Ours only.
pub const GROUNDS_HEADER: &str = "epithet-grounds";

/// On what grounds a login was allowed or refused, for the audit log: whom policy took the person for, and which rule
/// decided. Without it nobody could ask later what other rules would have said.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grounds {
    /// Who policy says it is.
    pub identity: String,
    /// Those of the person's groups that the rules know.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
    /// The rule that decided, when it was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// How many more groups there are than fit.
    #[serde(default, rename = "groupsLeftOut", skip_serializing_if = "is_zero")]
    pub groups_left_out: u32,
    /// How they logged in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub login: Option<LoginFacts>,
}

impl Grounds {
    /// These within the limits of an audit line.
    #[must_use]
    pub fn within_limits(self) -> Self {
        let (groups, left_out) = groups_within_limits(self.groups.iter().map(String::as_str));
        Self {
            groups,
            groups_left_out: self.groups_left_out.saturating_add(left_out),
            login: self.login.and_then(LoginFacts::within_limits),
            ..self
        }
    }

    /// The header's value: JSON, base64url-encoded. Beyond [`GROUNDS_MAX`] the groups are left out, which it says; `None`
    /// when even that is too long.
    pub fn to_header(&self) -> Option<String> {
        let encoded = |grounds: &Self| {
            let text = URL_SAFE_NO_PAD.encode(serde_json::to_vec(grounds).ok()?);
            (text.len() <= GROUNDS_MAX).then_some(text)
        };
        encoded(self).or_else(|| {
            let left_out = u32::try_from(self.groups.len()).unwrap_or(u32::MAX);
            encoded(&Self {
                groups: Vec::new(),
                groups_left_out: self.groups_left_out.saturating_add(left_out),
                ..self.clone()
            })
        })
    }

    /// Reads a header's value; `None` for anything else.
    pub fn from_header(value: &[u8]) -> Option<Self> {
        if value.len() > GROUNDS_MAX {
            return None;
        }
        crate::read_document(&URL_SAFE_NO_PAD.decode(value).ok()?).ok()
    }
}

impl CertParams {
    /// The certificate's life; `None` when the wire said zero or less.
    pub fn expiration(&self) -> Option<Duration> {
        u64::try_from(self.expiration_ns)
            .ok()
            .filter(|ns| *ns > 0)
            .map(Duration::from_nanos)
    }
}

fn read_time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Timestamp>, D::Error> {
    let Some(text) = Option::<String>::deserialize(deserializer)? else {
        return Ok(None);
    };
    if text.starts_with("0001-01-01T") {
        return Ok(None);
    }
    crate::parse_time(&text)
        .map(Some)
        .ok_or_else(|| serde::de::Error::custom("notAfter must be an RFC 3339 time"))
}

fn write_time<S: Serializer>(time: &Option<Timestamp>, serializer: S) -> Result<S::Ok, S::Error> {
    match time {
        Some(time) => serializer.collect_str(&time.strftime("%Y-%m-%dT%H:%M:%SZ")),
        None => serializer.serialize_str("0001-01-01T00:00:00Z"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_of_the_other_implementation_is_understood() {
        let json = r#"{"certParams":{"identity":"alice@example.com","principals":["root"],"expiration":300000000000,
            "extensions":{"permit-pty":""},"notAfter":"2026-08-13T18:30:00Z"},"policy":{"hostUsers":{}}}"#;
        let params = serde_json::from_str::<PolicyResponse>(json).unwrap().cert_params;
        assert_eq!(params.expiration(), Some(Duration::from_secs(300)));
        assert_eq!(params.not_after.unwrap().as_second(), 1_786_645_800);
        let never = r#"{"certParams":{"identity":"a","principals":null,"expiration":1,"extensions":null,"notAfter":"0001-01-01T00:00:00Z"}}"#;
        assert_eq!(
            serde_json::from_str::<PolicyResponse>(never)
                .unwrap()
                .cert_params
                .not_after,
            None
        );
    }

    #[test]
    fn a_reply_reads_as_it_was_written() {
        let params = CertParams {
            identity: "a".into(),
            principals: vec!["root".into()],
            expiration_ns: 1,
            not_after: Some("2026-08-13T18:30:00Z".parse().unwrap()),
            ..CertParams::default()
        };
        let json = serde_json::to_string(&PolicyResponse {
            cert_params: params.clone(),
        })
        .unwrap();
        assert_eq!(
            json,
            r#"{"certParams":{"identity":"a","principals":["root"],"expiration":1,"extensions":{},"notAfter":"2026-08-13T18:30:00Z"}}"#
        );
        assert_eq!(
            serde_json::from_str::<PolicyResponse>(&json).unwrap().cert_params,
            params
        );
    }

    #[test]
    fn grounds_travel_in_a_header_of_bounded_length() {
        let grounds = |groups: usize| Grounds {
            identity: "\u{e4}lice\n".into(),
            groups: (0..groups).map(|n| format!("{n:09}")).collect(),
            rule: Some("*.example.com".into()),
            ..Grounds::default()
        };
        let header = grounds(3).to_header().unwrap();
        assert!(header.bytes().all(|byte| byte.is_ascii_graphic()));
        assert_eq!(Grounds::from_header(header.as_bytes()), Some(grounds(3)));
        // As many groups as fit, and one more: then there are none.
        let kept = |n: usize| Grounds::from_header(grounds(n).to_header().unwrap().as_bytes()).unwrap();
        let fits = (1..).take_while(|n| !kept(*n).groups.is_empty()).last().unwrap();
        assert!(grounds(fits).to_header().unwrap().len() <= GROUNDS_MAX);
        let left_out = u32::try_from(fits + 1).unwrap();
        let without = Grounds {
            groups_left_out: left_out,
            ..grounds(0)
        };
        assert_eq!(kept(fits + 1), without);
        let long = Grounds {
            identity: "x".repeat(GROUNDS_MAX),
            ..Grounds::default()
        };
        assert_eq!(long.to_header(), None);
        for wrong in [&b""[..], b"e30", b"!", &[b'A'; GROUNDS_MAX + 1]] {
            assert_eq!(Grounds::from_header(wrong), None);
        }
    }

    #[test]
    fn what_an_audit_line_says_of_a_person_is_bounded_and_says_what_is_missing() {
        let word = |length: usize| "w".repeat(length);
        let facts = |acr: usize, amr: usize, words: usize| {
            let facts = LoginFacts {
                acr: Some(word(acr)),
                amr: vec![word(amr); words],
                age: Some(-3),
            };
            facts.within_limits().is_some()
        };
        let (length, words) = (AUDIT_LOGIN_WORD_MAX, AUDIT_LOGIN_WORDS_MAX);
        assert!(facts(length, length, words));
        assert!(!facts(length + 1, 1, 1) && !facts(1, length + 1, 1) && !facts(1, 1, words + 1));
        let half = word(AUDIT_GROUPS_MAX / 2);
        let count = |groups: &[&str]| {
            let (kept, left_out) = groups_within_limits(groups.iter().copied());
            (kept.len(), left_out)
        };
        assert_eq!(count(&[&half, &half]), (2, 0));
        assert_eq!(count(&[&half, &half, "x"]), (2, 1));
        let grounds = Grounds {
            groups: vec![half.clone(), half, "x".into()],
            groups_left_out: 2,
            login: Some(LoginFacts {
                amr: vec![word(length + 1)],
                ..LoginFacts::default()
            }),
            ..Grounds::default()
        };
        let bounded = grounds.within_limits();
        assert_eq!(
            (bounded.groups.len(), bounded.groups_left_out, bounded.login),
            (2, 3, None)
        );
    }

    #[test]
    fn a_token_that_json_cannot_carry_is_encoded_and_said_to_be() {
        for bytes in [&b"plain"[..], b"\xff\x00"] {
            let token = Token::new(bytes.to_vec()).unwrap();
            let request = PolicyRequest::new(&token, ConnectionFields::default());
            let json = serde_json::to_string(&request).unwrap();
            let back: PolicyRequest = serde_json::from_str(&json).unwrap();
            assert_eq!(back.token().unwrap(), token);
        }
    }
}
