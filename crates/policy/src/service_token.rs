//! The CA's own token: how a policy server knows that it is the CA who asks.
//!
//! A JWT of one minute, signed with the CA key and bound to one request: to its method, its target and its body, and
//! good for one use. Wire-compatible with epithet 0.18 and 0.19, and stricter: the clocks may be a little apart in
//! either direction, the life is limited, the issuer is checked, and no token is accepted twice.

use crate::key_source::{Asking, KeySource};
use crate::replay::{Seen, Sight};
use arc_swap::ArcSwap;
use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use epithet_ssh::CaPublicKey;
use epithet_wire::limits::{SERVICE_CLOCK_LEEWAY, SERVICE_TOKEN_LIFE};
use serde::Deserialize;
use std::sync::Arc;

/// For whom the token is.
const AUDIENCE: &str = "epithet-policy";
/// A token has under 1 KiB with the largest key.
const TOKEN_MAX: usize = 8 * 1024;
/// Names remembered at once; a minute of fifty thousand requests a second.
const REMEMBERED_MAX: usize = 1 << 22;

/// A request as it was received, to be compared with what its token says.
#[derive(Debug, Clone, Copy)]
pub struct Received<'a> {
    /// The method: `GET` or `POST`.
    pub method: &'a str,
    /// Host, with its port if it was given, and path: `policy.example.com/`.
    pub target: &'a str,
    /// The body, byte for byte.
    pub body: &'a [u8],
}

/// Why a request is not from the CA.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ServiceTokenError {
    /// No `Authorization: Bearer ...`.
    #[error("missing or malformed Authorization header")]
    Missing,
    /// Not a JWT of the form that a CA makes.
    #[error("the service token is malformed: {0}")]
    Malformed(&'static str),
    /// Signed by a key, or with an algorithm, that is not configured here.
    #[error(
        "the service token is not signed by a CA that this policy server knows; compare --ca-pubkey with the CA's key"
    )]
    Signature,
    /// For somebody else.
    #[error("the service token is not for a policy server (aud)")]
    Audience,
    /// From another key than the one that signed it.
    #[error("the service token does not name the key that signed it (iss)")]
    Issuer,
    /// Ended.
    #[error("the service token has expired; compare the clocks of CA and policy server")]
    Expired,
    /// Not begun.
    #[error("the service token is from the future; compare the clocks of CA and policy server")]
    Early,
    /// Too long a life.
    #[error("the service token is valid for longer than {} s", SERVICE_TOKEN_LIFE.as_secs())]
    Span,
    /// For another method.
    #[error("the service token is for another method (htm)")]
    Method,
    /// For another address.
    #[error("the service token is for {0}, not for this address (htu); does a proxy change the Host header?")]
    Target(String),
    /// For another body.
    #[error("the service token is for another body (bh)")]
    Body,
    /// Used before.
    #[error("the service token was used before (jti)")]
    Replayed,
    /// So many requests that replays could not be told any more.
    #[error("too many requests to remember")]
    TooMany,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Header<'a> {
    alg: &'a str,
    #[serde(default)]
    #[expect(dead_code, reason = "allowed in the header, and of no importance")]
    typ: Option<&'a str>,
    #[serde(default)]
    #[expect(dead_code, reason = "allowed in the header, and of no importance")]
    kid: Option<&'a str>,
}

#[derive(Deserialize)]
struct Claims {
    iss: String,
    aud: String,
    iat: u64,
    exp: u64,
    jti: String,
    bh: String,
    htm: String,
    htu: String,
}

/// Keys with their fingerprints, which tokens name.
type Keys = ArcSwap<Vec<(CaPublicKey, String)>>;

/// Verifies service tokens of the CAs it knows, and remembers which were used.
#[derive(Debug)]
pub struct ServiceTokens {
    keys: Arc<Keys>,
    source: Option<KeySource>,
    targets: Vec<String>,
    seen: Seen,
}

impl ServiceTokens {
    /// Accepts tokens signed by any of these keys. Several are for the time of a key's rotation.
    pub fn new(keys: impl IntoIterator<Item = CaPublicKey>) -> Self {
        let keep = SERVICE_TOKEN_LIFE + SERVICE_CLOCK_LEEWAY * 2;
        Self {
            keys: Arc::new(ArcSwap::from_pointee(with_fingerprints(keys))),
            source: None,
            targets: Vec::new(),
            seen: Seen::new(keep.as_secs(), REMEMBERED_MAX),
        }
    }

    /// Accepts tokens signed by these keys from now on, and by no others. Which tokens were used is not forgotten.
    pub fn replace_keys(&self, keys: impl IntoIterator<Item = CaPublicKey>) {
        self.keys.store(Arc::new(with_fingerprints(keys)));
    }

    /// Asks for the keys again when a token is signed by none of them, at most once in
    /// [`CA_KEYS_ASK_PAUSE`](epithet_wire::limits::CA_KEYS_ASK_PAUSE): the CA may have begun to sign with another.
    #[must_use]
    pub fn asking(self, ask: impl Fn() -> Asking + Send + Sync + 'static) -> Self {
        let source = Some(KeySource::new(ask));
        Self { source, ..self }
    }

    /// Accepts tokens for these targets too (`policy.example.com/`): the names by which a CA reaches this server
    /// through a proxy that changes the `Host` header.
    #[must_use]
    pub fn with_targets(mut self, targets: impl IntoIterator<Item = String>) -> Self {
        self.targets.extend(targets);
        self
    }

    /// Verifies the token of a request as of `now`, in seconds since 1970, and returns its name (`jti`).
    ///
    /// # Errors
    /// [`ServiceTokenError`]: the request is then not to be answered but with 401.
    pub fn verify(
        &self,
        authorization: Option<&[u8]>,
        received: Received<'_>,
        now: u64,
    ) -> Result<String, ServiceTokenError> {
        let token = authorization
            .and_then(|value| value.strip_prefix(b"Bearer "))
            .and_then(|token| std::str::from_utf8(token).ok())
            .ok_or(ServiceTokenError::Missing)?;
        let claims = self.authentic(token)?;
        let leeway = SERVICE_CLOCK_LEEWAY.as_secs();
        if claims.aud != AUDIENCE {
            return Err(ServiceTokenError::Audience);
        }
        if claims.exp.saturating_add(leeway) <= now {
            return Err(ServiceTokenError::Expired);
        }
        if claims.iat > now + leeway {
            return Err(ServiceTokenError::Early);
        }
        if claims
            .exp
            .checked_sub(claims.iat)
            .is_none_or(|span| span > SERVICE_TOKEN_LIFE.as_secs())
        {
            return Err(ServiceTokenError::Span);
        }
        if claims.htm != received.method {
            return Err(ServiceTokenError::Method);
        }
        let names = |target: &str| same_target(&claims.htu, target);
        if !names(received.target) && !self.targets.iter().any(|target| names(target)) {
            return Err(ServiceTokenError::Target(epithet_wire::display::sanitize_line(
                &claims.htu,
                200,
            )));
        }
        let hash = URL_SAFE_NO_PAD.encode(digest(&SHA256, received.body));
        verify_slices_are_equal(claims.bh.as_bytes(), hash.as_bytes())
            .map_err(|_| ServiceTokenError::Body)?;
        match self.seen.see(&claims.jti, now) {
            Sight::First => Ok(claims.jti),
            Sight::Again => Err(ServiceTokenError::Replayed),
            Sight::TooMany => Err(ServiceTokenError::TooMany),
        }
    }

    /// The same; where the keys can be asked for, a token that is signed by none of them is verified again with those that
    /// there are then.
    ///
    /// # Errors
    /// As [`verify`](Self::verify).
    pub async fn verify_or_ask(
        &self,
        authorization: Option<&[u8]>,
        received: Received<'_>,
        now: u64,
    ) -> Result<String, ServiceTokenError> {
        let before = self.keys.load_full();
        let verified = self.verify(authorization, received, now);
        let Some(source) = self
            .source
            .as_ref()
            .filter(|_| verified == Err(ServiceTokenError::Signature))
        else {
            return verified;
        };
        let keys = Arc::clone(&self.keys);
        source
            .ask(move |learned| keys.store(Arc::new(with_fingerprints(learned))))
            .await;
        if Arc::ptr_eq(&before, &self.keys.load()) {
            return verified;
        }
        self.verify(authorization, received, now)
    }

    /// The claims of a token, signed by a key that is configured here and that the token names as its issuer.
    fn authentic(&self, token: &str) -> Result<Claims, ServiceTokenError> {
        let malformed = ServiceTokenError::Malformed;
        if token.len() > TOKEN_MAX {
            return Err(malformed("it is too large"));
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(malformed("it has no signature"))?;
        let (header, payload) = signed.split_once('.').ok_or(malformed("it has no payload"))?;
        let decode = |part: &str| {
            URL_SAFE_NO_PAD
                .decode(part)
                .map_err(|_| malformed("it is not base64url"))
        };
        let header = decode(header)?;
        let header: Header<'_> =
            epithet_wire::read_document(&header).map_err(|_| malformed("its header is not that of a CA"))?;
        let signature = decode(signature)?;
        let keys = self.keys.load();
        let (_, fingerprint) = keys
            .iter()
            .find(|(key, _)| {
                key.jws_algorithm_named(header.alg)
                    .is_some_and(|algorithm| key.verify_jws(algorithm, signed.as_bytes(), &signature))
            })
            .ok_or(ServiceTokenError::Signature)?;
        let claims: Claims = epithet_wire::read_document(&decode(payload)?)
            .map_err(|_| malformed("its claims are not those of a CA"))?;
        if claims.iss != *fingerprint {
            return Err(ServiceTokenError::Issuer);
        }
        if claims.jti.is_empty() {
            return Err(malformed("it has no jti"));
        }
        Ok(claims)
    }
}

fn with_fingerprints(keys: impl IntoIterator<Item = CaPublicKey>) -> Vec<(CaPublicKey, String)> {
    let keys = keys.into_iter().map(|key| {
        let fingerprint = key.fingerprint();
        (key, fingerprint)
    });
    keys.collect()
}

/// Hosts are the same in either case, paths are not.
fn same_target(one: &str, other: &str) -> bool {
    let split = |target: &str| target.find('/').unwrap_or(target.len());
    let ((host, path), (other_host, other_path)) = (one.split_at(split(one)), other.split_at(split(other)));
    host.eq_ignore_ascii_case(other_host) && path == other_path
}

#[cfg(test)]
mod tests {
    use super::*;
    use epithet_ssh::CaKey;

    const CA: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAOhB7/zzhC+HXDdGOdLwJln5NYwm6UNXx3chmQSVTG4";
    const BODY: &str = r#"{"token":"tok","connection":{"localHost":"","remoteHost":"h","remoteUser":"u","port":22,"proxyJump":"","hash":"x"}}"#;
    const TOKEN: &str = "eyJhbGciOiJFZERTQSJ9.eyJpc3MiOiJTSEEyNTY6bGJtc29BMHlJRWNFaVZEUm5NV3V6bStuViszWkVFcFZJVVJxRm9lU3NwZyIsImF1ZCI6ImVwaXRoZXQtcG9saWN5IiwiaWF0IjoxNzY3MjI1NjAwLCJleHAiOjE3NjcyMjU2NjAsImp0aSI6IjAwMDEwMjAzMDQwNTA2MDcwODA5MGEwYjBjMGQwZTBmIiwiYmgiOiJwSVRGckpjN3dnZDFYZlhBd0I4Q0FzWkgwanB3NnRZczNjc0dTNDFodXZBIiwiaHRtIjoiUE9TVCIsImh0dSI6InBvbGljeS5leGFtcGxlLmNvbS8ifQ.kv8VeXk1IYSAGt8ZTffrs0TeHyDNDlA35W2AsWSqgB0seTUewBPCY6fRXNQq52ab5U5jONjlzi50y2V27picAA";
    const IAT: u64 = 1_767_225_600;

    fn received() -> Received<'static> {
        Received {
            method: "POST",
            target: "policy.example.com/",
            body: BODY.as_bytes(),
        }
    }

    fn verify(token: &str, received: Received<'_>, now: u64) -> Result<(), ServiceTokenError> {
        let tokens = ServiceTokens::new([CaPublicKey::parse(CA).unwrap()]);
        let verified = tokens.verify(Some(format!("Bearer {token}").as_bytes()), received, now);
        verified.map(|_| ())
    }

    #[test]
    fn the_token_of_the_other_implementation_is_accepted() {
        assert_eq!(verify(TOKEN, received(), IAT), Ok(()));
        let cased = Received {
            target: "Policy.Example.com/",
            ..received()
        };
        assert_eq!(verify(TOKEN, cased, IAT), Ok(()));
    }

    #[test]
    fn a_token_is_good_for_one_request_once() {
        let tokens = ServiceTokens::new([CaPublicKey::parse(CA).unwrap()]);
        let bearer = format!("Bearer {TOKEN}");
        let name = tokens.verify(Some(bearer.as_bytes()), received(), IAT);
        assert_eq!(name.as_deref(), Ok("000102030405060708090a0b0c0d0e0f"));
        assert_eq!(
            tokens.verify(Some(bearer.as_bytes()), received(), IAT + 5),
            Err(ServiceTokenError::Replayed)
        );
    }

    #[test]
    fn clocks_may_be_five_seconds_apart_in_either_direction() {
        for (now, expected) in [
            (IAT - 6, Err(ServiceTokenError::Early)),
            (IAT - 5, Ok(())),
            (IAT + 64, Ok(())),
            (IAT + 65, Err(ServiceTokenError::Expired)),
            (IAT + 300, Err(ServiceTokenError::Expired)),
        ] {
            assert_eq!(verify(TOKEN, received(), now), expected, "{now}");
        }
    }

    #[test]
    fn a_request_that_differs_in_anything_is_not_the_one_that_was_signed() {
        let changed = |received: Received<'_>| verify(TOKEN, received, IAT);
        assert_eq!(
            changed(Received {
                method: "GET",
                ..received()
            }),
            Err(ServiceTokenError::Method)
        );
        assert_eq!(
            changed(Received {
                body: b"{}",
                ..received()
            }),
            Err(ServiceTokenError::Body)
        );
        for target in [
            "policy.example.com/x",
            "policy.example.com",
            "policy.example.com:443/",
            "evil/",
        ] {
            assert!(matches!(
                changed(Received { target, ..received() }),
                Err(ServiceTokenError::Target(_))
            ));
        }
        let behind_a_proxy = ServiceTokens::new([CaPublicKey::parse(CA).unwrap()])
            .with_targets(["policy.example.com/".to_owned()]);
        let inside = Received {
            target: "10.0.0.7:9999/",
            ..received()
        };
        let verified = behind_a_proxy.verify(Some(format!("Bearer {TOKEN}").as_bytes()), inside, IAT);
        assert!(verified.is_ok(), "{verified:?}");
    }

    #[test]
    fn what_is_no_token_of_this_ca_is_refused() {
        let other = ServiceTokens::new([CaKey::generate_ed25519().unwrap().public().clone()]);
        let bearer = format!("Bearer {TOKEN}");
        assert_eq!(
            other.verify(Some(bearer.as_bytes()), received(), IAT),
            Err(ServiceTokenError::Signature)
        );
        let tokens = ServiceTokens::new([CaPublicKey::parse(CA).unwrap()]);
        for missing in [
            None,
            Some(&b""[..]),
            Some(b"Basic x"),
            Some(b"bearer x"),
            Some(b"Bearer \xff"),
        ] {
            assert_eq!(
                tokens.verify(missing, received(), IAT),
                Err(ServiceTokenError::Missing)
            );
        }
        let (signed, signature) = TOKEN.rsplit_once('.').unwrap();
        let payload = signed.split_once('.').unwrap().1;
        let none = URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#);
        let crit = URL_SAFE_NO_PAD.encode(r#"{"alg":"EdDSA","crit":["b64"]}"#);
        for (token, expected) in [
            (String::new(), "malformed"),
            ("a.b".to_owned(), "malformed"),
            ("a.b.c.d".to_owned(), "malformed"),
            (format!("{signed}."), "not signed"),
            (format!("{signed}.{}", signature.replace('k', "l")), "not signed"),
            (format!("{none}.{payload}."), "not signed"),
            (format!("{crit}.{payload}.{signature}"), "malformed"),
            (format!("{signed}.{}", "A".repeat(TOKEN_MAX)), "too large"),
        ] {
            let error = verify(&token, received(), IAT).unwrap_err().to_string();
            assert!(error.contains(expected), "{token}: {error}");
        }
    }

    /// A token with these claims, properly signed.
    fn signed(key: &CaKey, claims: &serde_json::Value) -> String {
        let header = format!(r#"{{"alg":"{}"}}"#, key.jws_algorithm());
        let input = format!(
            "{}.{}",
            URL_SAFE_NO_PAD.encode(header),
            URL_SAFE_NO_PAD.encode(claims.to_string())
        );
        let signature = key.sign_jws(input.as_bytes()).unwrap();
        format!("{input}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    #[test]
    fn every_claim_is_needed_and_checked() {
        let key = CaKey::generate_ed25519().unwrap();
        let claims = serde_json::json!({
            "iss": key.fingerprint(), "aud": "epithet-policy", "iat": IAT, "exp": IAT + 60, "jti": "1",
            "bh": URL_SAFE_NO_PAD.encode(digest(&SHA256, BODY.as_bytes())), "htm": "POST", "htu": "policy.example.com/"
        });
        let check = |claims: &serde_json::Value| {
            let tokens = ServiceTokens::new([key.public().clone()]);
            let bearer = format!("Bearer {}", signed(&key, claims));
            tokens.verify(Some(bearer.as_bytes()), received(), IAT)
        };
        assert_eq!(check(&claims).as_deref(), Ok("1"));
        for name in claims.as_object().unwrap().keys() {
            let mut without = claims.clone();
            without.as_object_mut().unwrap().remove(name);
            assert!(
                matches!(check(&without), Err(ServiceTokenError::Malformed(_))),
                "{name}"
            );
        }
        for (name, value, expected) in [
            ("iss", "SHA256:other".into(), ServiceTokenError::Issuer),
            ("aud", "somebody-else".into(), ServiceTokenError::Audience),
            ("exp", (IAT + 61).into(), ServiceTokenError::Span),
            ("exp", (IAT - 1).into(), ServiceTokenError::Span),
            ("iat", (IAT + 300).into(), ServiceTokenError::Early),
            ("jti", "".into(), ServiceTokenError::Malformed("it has no jti")),
        ] {
            let mut changed: serde_json::Value = claims.clone();
            changed[name] = value;
            assert_eq!(check(&changed), Err(expected), "{name}");
        }
    }
}
