//! How the CA proves to the policy server that a request is its own: a JWT signed with the CA key, good for a minute
//! and for one method, target and body (wire-compatible with epithet 0.18 and 0.19).

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use epithet_ssh::{CaKey, SigningError};
use epithet_wire::limits::SERVICE_TOKEN_LIFE;
use serde::Serialize;

/// The audience of every such token.
const AUDIENCE: &str = "epithet-policy";

/// The claims, in the order in which they are written.
#[derive(Serialize)]
struct Claims<'a> {
    iss: &'a str,
    aud: &'a str,
    iat: i64,
    exp: i64,
    jti: &'a str,
    bh: &'a str,
    htm: &'a str,
    htu: &'a str,
}

/// Signs a token for one request at `now` (seconds since 1970).
///
/// `target` is host and path without scheme and query, as in `policy.example.com/`; `jti` is 16 random bytes.
///
/// # Errors
/// When the key cannot sign, which no input can cause.
pub fn service_token(
    key: &CaKey,
    method: &str,
    target: &str,
    body: &[u8],
    now: i64,
    jti: [u8; 16],
) -> Result<String, SigningError> {
    let header = format!("{{\"alg\":\"{}\"}}", key.jws_algorithm().name());
    let body_hash = URL_SAFE_NO_PAD.encode(digest(&SHA256, body));
    let jti: String = jti.iter().map(|byte| format!("{byte:02x}")).collect();
    let fingerprint = key.fingerprint();
    let life = i64::try_from(SERVICE_TOKEN_LIFE.as_secs()).unwrap_or(60);
    let claims = Claims {
        iss: &fingerprint,
        aud: AUDIENCE,
        iat: now,
        exp: now + life,
        jti: &jti,
        bh: &body_hash,
        htm: method,
        htu: target,
    };
    let claims = serde_json::to_vec(&claims).unwrap_or_default();
    let mut token = format!(
        "{}.{}",
        URL_SAFE_NO_PAD.encode(header),
        URL_SAFE_NO_PAD.encode(claims)
    );
    let signature = key.sign_jws(token.as_bytes())?;
    token.push('.');
    token.push_str(&URL_SAFE_NO_PAD.encode(signature));
    Ok(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_claims_are_those_of_the_worked_example() {
        let key = CaKey::generate_ed25519().unwrap();
        let body = br#"{"token":"tok","connection":{"localHost":"","remoteHost":"h","remoteUser":"u","port":22,"proxyJump":"","hash":"x"}}"#;
        let jti: [u8; 16] = std::array::from_fn(|n| u8::try_from(n).unwrap());
        let token = service_token(&key, "POST", "policy.example.com/", body, 1_767_225_600, jti).unwrap();
        let parts: Vec<_> = token.split('.').collect();
        assert_eq!(parts[0], "eyJhbGciOiJFZERTQSJ9");
        let claims = String::from_utf8(URL_SAFE_NO_PAD.decode(parts[1]).unwrap()).unwrap();
        assert_eq!(
            claims,
            format!(
                r#"{{"iss":"{}","aud":"epithet-policy","iat":1767225600,"exp":1767225660,"jti":"000102030405060708090a0b0c0d0e0f","bh":"pITFrJc7wgd1XfXAwB8CAsZH0jpw6tYs3csGS41huvA","htm":"POST","htu":"policy.example.com/"}}"#,
                key.fingerprint()
            )
        );
        assert!(key.public().verify_jws(
            format!("{}.{}", parts[0], parts[1]).as_bytes(),
            &URL_SAFE_NO_PAD.decode(parts[2]).unwrap()
        ));
    }
}
