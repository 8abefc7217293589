//! The CA's own token: how it proves to a policy server that it is the CA who asks.
//!
//! One minute, one request: bound to the method, the target and the body. Wire-compatible with epithet 0.18 and 0.19.

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use epithet_ssh::{CaSigner, SignerError, SigningError};
use epithet_wire::limits::SERVICE_TOKEN_LIFE;

/// Makes service tokens for one policy server.
#[derive(Debug)]
pub(crate) struct ServiceTokens {
    signer: CaSigner,
    header: String,
    fingerprint: String,
    /// As JSON, quotes included.
    target: String,
}

impl ServiceTokens {
    /// `target` is the policy server's host, with its port if it has one, and path: `policy.example.com/`.
    pub(crate) fn new(signer: CaSigner, target: &str) -> Self {
        let header = URL_SAFE_NO_PAD.encode(format!(r#"{{"alg":"{}"}}"#, signer.jws_algorithm()));
        let target = serde_json::Value::from(target).to_string();
        Self {
            fingerprint: signer.fingerprint(),
            signer,
            header,
            target,
        }
    }

    /// A token, and its name, for one request with this method and body, made at `now`, in seconds since 1970.
    pub(crate) async fn mint(
        &self,
        method: &str,
        body: &[u8],
        now: u64,
    ) -> Result<(String, String), SignerError> {
        let mut id = [0; 16];
        SystemRandom::new()
            .fill(&mut id)
            .map_err(|_| SignerError::Here(SigningError))?;
        let id = format!("{:032x}", u128::from_be_bytes(id));
        let token = self.mint_as(&id, method, body, now).await?;
        Ok((token, id))
    }

    async fn mint_as(&self, id: &str, method: &str, body: &[u8], now: u64) -> Result<String, SignerError> {
        let (issuer, target, end) = (
            &self.fingerprint,
            &self.target,
            now + SERVICE_TOKEN_LIFE.as_secs(),
        );
        let hash = URL_SAFE_NO_PAD.encode(digest(&SHA256, body));
        let claims = format!(
            r#"{{"iss":"{issuer}","aud":"epithet-policy","iat":{now},"exp":{end},"jti":"{id}","bh":"{hash}","htm":"{method}","htu":{target}}}"#
        );
        let mut token = format!("{}.{}", self.header, URL_SAFE_NO_PAD.encode(claims));
        let signature = self.signer.sign_jws(token.as_bytes()).await?;
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut token);
        Ok(token)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use epithet_ssh::CaKey;

    /// The key of the worked example: its seed is the bytes 0 to 31.
    const KEY: &str = "-----BEGIN OPENSSH PRIVATE KEY-----
b3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAEbm9uZQAAAAAAAAABAAAAMwAAAAtzc2gtZWQyNTUx
OQAAACADoQe/884Qvh1w3RjnS8CZZ+TWMJulDV8d3IZkElUxuAAAAIiyOPXAsjj1wAAAAAtzc2gt
ZWQyNTUxOQAAACADoQe/884Qvh1w3RjnS8CZZ+TWMJulDV8d3IZkElUxuAAAAEAAAQIDBAUGBwgJ
CgsMDQ4PEBESExQVFhcYGRobHB0eHwOhB7/zzhC+HXDdGOdLwJln5NYwm6UNXx3chmQSVTG4AAAA
AAECAwQF
-----END OPENSSH PRIVATE KEY-----
";
    const BODY: &str = r#"{"token":"tok","connection":{"localHost":"","remoteHost":"h","remoteUser":"u","port":22,"proxyJump":"","hash":"x"}}"#;
    const TOKEN: &str = "eyJhbGciOiJFZERTQSJ9.eyJpc3MiOiJTSEEyNTY6bGJtc29BMHlJRWNFaVZEUm5NV3V6bStuViszWkVFcFZJVVJxRm9lU3NwZyIsImF1ZCI6ImVwaXRoZXQtcG9saWN5IiwiaWF0IjoxNzY3MjI1NjAwLCJleHAiOjE3NjcyMjU2NjAsImp0aSI6IjAwMDEwMjAzMDQwNTA2MDcwODA5MGEwYjBjMGQwZTBmIiwiYmgiOiJwSVRGckpjN3dnZDFYZlhBd0I4Q0FzWkgwanB3NnRZczNjc0dTNDFodXZBIiwiaHRtIjoiUE9TVCIsImh0dSI6InBvbGljeS5leGFtcGxlLmNvbS8ifQ.kv8VeXk1IYSAGt8ZTffrs0TeHyDNDlA35W2AsWSqgB0seTUewBPCY6fRXNQq52ab5U5jONjlzi50y2V27picAA";

    #[tokio::test]
    async fn a_token_has_the_bytes_of_the_worked_example() {
        let key = CaKey::from_openssh(KEY, || None).unwrap();
        let tokens = ServiceTokens::new(key.into(), "policy.example.com/");
        let token = tokens.mint_as(
            "000102030405060708090a0b0c0d0e0f",
            "POST",
            BODY.as_bytes(),
            1_767_225_600,
        );
        assert_eq!(token.await.unwrap(), TOKEN);
    }

    #[tokio::test]
    async fn the_hash_of_no_body_is_the_documented_one_and_no_two_tokens_are_alike() {
        let tokens = ServiceTokens::new(CaKey::generate_ed25519().unwrap().into(), "localhost/");
        let (one, other) = (
            tokens.mint("GET", b"", 1).await.unwrap().0,
            tokens.mint("GET", b"", 1).await.unwrap().0,
        );
        assert_ne!(one, other);
        let claims = URL_SAFE_NO_PAD.decode(one.split('.').nth(1).unwrap()).unwrap();
        let claims: serde_json::Value = serde_json::from_slice(&claims).unwrap();
        assert_eq!(claims["bh"], "47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU");
        assert_eq!(claims["jti"].as_str().unwrap().len(), 32);
        assert_eq!(claims["exp"], 61);
    }
}
