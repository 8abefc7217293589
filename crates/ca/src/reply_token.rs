//! The policy server's signature under its answer: that it is the answer of this policy server to this very question.
//!
//! The counterpart of the CA's own token. It names the question by that token's `jti`, and the answer by its status and
//! the hash of its body, so an answer can be neither forged, nor changed, nor given to another question.

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use epithet_ssh::CaPublicKey;
use epithet_wire::limits::SERVICE_CLOCK_LEEWAY;
use epithet_wire::policy::{REPLY_AUDIENCE, REPLY_TOKEN_TYPE, ReplyClaims};
use serde::Deserialize;

/// Such a token has under 1 KiB with the largest key.
const TOKEN_MAX: usize = 8 * 1024;

/// Why an answer is not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ReplyTokenError {
    #[error("it is not signed; does the policy server have --reply-key?")]
    Missing,
    #[error("its signature is malformed")]
    Malformed,
    #[error("it is not signed by a key that --policy-key names")]
    Signature,
    #[error("its signature is for another question, another answer or another time")]
    Other,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Header<'a> {
    alg: &'a str,
    typ: &'a str,
}

/// An answer, and the question it should be to.
pub(crate) struct Received<'a> {
    pub(crate) question: &'a str,
    pub(crate) status: u16,
    pub(crate) body: &'a [u8],
}

/// Verifies the token of an answer as of `now`, in seconds since 1970.
pub(crate) fn verify(
    keys: &[CaPublicKey],
    token: Option<&[u8]>,
    received: &Received<'_>,
    now: u64,
) -> Result<(), ReplyTokenError> {
    let token = token.ok_or(ReplyTokenError::Missing)?;
    let claims = authentic(keys, token)?;
    let leeway = SERVICE_CLOCK_LEEWAY.as_secs();
    let is_this = claims.aud == REPLY_AUDIENCE
        && claims.jti == received.question
        && claims.status == received.status
        && claims.bh == URL_SAFE_NO_PAD.encode(digest(&SHA256, received.body))
        && claims.iat <= now + leeway
        && now < claims.exp.saturating_add(leeway);
    is_this.then_some(()).ok_or(ReplyTokenError::Other)
}

fn authentic(keys: &[CaPublicKey], token: &[u8]) -> Result<ReplyClaims, ReplyTokenError> {
    let malformed = || ReplyTokenError::Malformed;
    let token = std::str::from_utf8(token)
        .ok()
        .filter(|token| token.len() <= TOKEN_MAX)
        .ok_or_else(malformed)?;
    let (signed, signature) = token.rsplit_once('.').ok_or_else(malformed)?;
    let (header, payload) = signed.split_once('.').ok_or_else(malformed)?;
    let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| malformed());
    let (header, payload, signature) = (decode(header)?, decode(payload)?, decode(signature)?);
    let header: Header<'_> = epithet_wire::read_document(&header).map_err(|_| malformed())?;
    if header.typ != REPLY_TOKEN_TYPE {
        return Err(malformed());
    }
    let key = keys.iter().find(|key| {
        key.jws_algorithm_named(header.alg)
            .is_some_and(|algorithm| key.verify_jws(algorithm, signed.as_bytes(), &signature))
    });
    let key = key.ok_or(ReplyTokenError::Signature)?;
    let claims: ReplyClaims = epithet_wire::read_document(&payload).map_err(|_| malformed())?;
    if claims.iss == key.fingerprint() {
        Ok(claims)
    } else {
        Err(ReplyTokenError::Signature)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use epithet_ssh::CaKey;
    use serde_json::{Value, json};

    const NOW: u64 = 1_767_225_600;
    const BODY: &[u8] = b"{}";

    fn received(question: &str) -> Received<'_> {
        Received {
            question,
            status: 200,
            body: BODY,
        }
    }

    fn signed(key: &CaKey, header: &Value, claims: &Value) -> String {
        let input = [header, claims]
            .map(|part| URL_SAFE_NO_PAD.encode(part.to_string()))
            .join(".");
        let signature = key.sign_jws(input.as_bytes()).unwrap();
        format!("{input}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    #[test]
    fn a_token_is_good_for_one_answer_to_one_question() {
        let (key, other) = (
            CaKey::generate_ed25519().unwrap(),
            CaKey::generate_ed25519().unwrap(),
        );
        let keys = [other.public().clone(), key.public().clone()];
        let header = json!({"alg": "EdDSA", "typ": REPLY_TOKEN_TYPE});
        let claims = json!({
            "iss": key.fingerprint(), "aud": REPLY_AUDIENCE, "jti": "q", "status": 200, "iat": NOW, "exp": NOW + 60,
            "bh": URL_SAFE_NO_PAD.encode(digest(&SHA256, BODY)),
        });
        let check =
            |token: &str, received: Received<'_>, now| verify(&keys, Some(token.as_bytes()), &received, now);
        let good = signed(&key, &header, &claims);
        assert_eq!(check(&good, received("q"), NOW), Ok(()));
        assert_eq!(check(&good, received("q"), NOW + 64), Ok(()));
        for (received, now) in [
            (received("other"), NOW),
            (
                Received {
                    status: 403,
                    ..received("q")
                },
                NOW,
            ),
            (
                Received {
                    body: b"{ }",
                    ..received("q")
                },
                NOW,
            ),
            (received("q"), NOW + 65),
            (received("q"), NOW - 6),
        ] {
            assert_eq!(check(&good, received, now), Err(ReplyTokenError::Other));
        }
        for (field, value) in [
            ("aud", json!("epithet-policy")),
            ("status", json!(201)),
            ("jti", json!("")),
        ] {
            let mut changed = claims.clone();
            changed[field] = value;
            let token = signed(&key, &header, &changed);
            assert_eq!(
                check(&token, received("q"), NOW),
                Err(ReplyTokenError::Other),
                "{field}"
            );
        }
        let stranger = CaKey::generate_ed25519().unwrap();
        for (token, expected) in [
            (signed(&stranger, &header, &claims), ReplyTokenError::Signature),
            (signed(&other, &header, &claims), ReplyTokenError::Signature),
            (
                signed(&key, &json!({"alg": "none", "typ": REPLY_TOKEN_TYPE}), &claims),
                ReplyTokenError::Signature,
            ),
            (
                signed(&key, &json!({"alg": "EdDSA", "typ": "JWT"}), &claims),
                ReplyTokenError::Malformed,
            ),
            (
                signed(&key, &json!({"alg": "EdDSA"}), &claims),
                ReplyTokenError::Malformed,
            ),
            (format!("{good}.x"), ReplyTokenError::Malformed),
            ("x".repeat(TOKEN_MAX + 1), ReplyTokenError::Malformed),
            (String::new(), ReplyTokenError::Malformed),
        ] {
            assert_eq!(check(&token, received("q"), NOW), Err(expected), "{token}");
        }
        assert_eq!(
            verify(&keys, None, &received("q"), NOW),
            Err(ReplyTokenError::Missing)
        );
    }
}
