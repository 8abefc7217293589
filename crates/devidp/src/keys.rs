//! The provider's signing keys: RSA 2048 bit, for RS256, made when they are needed and never written anywhere.

use aws_lc_rs::encoding::AsDer as _;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_SHA256};
use aws_lc_rs::{digest, error::Unspecified};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value, json};

/// One key pair with the name under which it is published.
struct SigningKey {
    kid: String,
    public: Value,
    pair: KeyPair,
}

impl SigningKey {
    fn generate() -> Result<Self, Unspecified> {
        let pair = KeyPair::generate(KeySize::Rsa2048)?;
        let n = URL_SAFE_NO_PAD.encode(pair.public_key().modulus().big_endian_without_leading_zero());
        let e = URL_SAFE_NO_PAD.encode(pair.public_key().exponent().big_endian_without_leading_zero());
        // The key's name is its thumbprint (RFC 7638): no two keys can share one.
        let thumbprint = digest::digest(
            &digest::SHA256,
            format!(r#"{{"e":"{e}","kty":"RSA","n":"{n}"}}"#).as_bytes(),
        );
        let kid = URL_SAFE_NO_PAD.encode(thumbprint.as_ref());
        let public = json!({ "kty": "RSA", "use": "sig", "alg": "RS256", "kid": kid, "n": n, "e": e });
        Ok(Self { kid, public, pair })
    }
}

/// The key that signs, and the public keys that are published: its own and those of its predecessors.
pub(crate) struct KeyRing {
    signing: SigningKey,
    earlier: Vec<Value>,
}

impl KeyRing {
    pub(crate) fn generate() -> Result<Self, Unspecified> {
        Ok(Self {
            signing: SigningKey::generate()?,
            earlier: Vec::new(),
        })
    }

    /// Signs with a new key from now on; the old one stays published, for the tokens that are still about.
    pub(crate) fn rotate(&mut self) -> Result<(), Unspecified> {
        let old = std::mem::replace(&mut self.signing, SigningKey::generate()?);
        self.earlier.push(old.public);
        Ok(())
    }

    /// Publishes nothing but the signing key's public half.
    pub(crate) fn retire_earlier(&mut self) {
        self.earlier.clear();
    }

    /// The name of the key that signs.
    pub(crate) fn kid(&self) -> &str {
        &self.signing.kid
    }

    /// The public half of the signing key as DER (`SubjectPublicKeyInfo`).
    pub(crate) fn public_der(&self) -> Result<Vec<u8>, Unspecified> {
        Ok(self.signing.pair.public_key().as_der()?.as_ref().to_vec())
    }

    /// The JSON Web Key Set (RFC 7517), newest key first.
    pub(crate) fn key_set(&self) -> Value {
        let keys: Vec<&Value> = std::iter::once(&self.signing.public)
            .chain(self.earlier.iter().rev())
            .collect();
        json!({ "keys": keys })
    }

    /// A signed token in compact form (RFC 7515). `header` is merged over `alg` and `kid`; null takes a member out.
    ///
    /// The signature is always made with RS256, whatever the header claims.
    pub(crate) fn sign(&self, header: &Map<String, Value>, claims: &Map<String, Value>) -> String {
        let mut full_header = Map::new();
        full_header.insert("alg".to_owned(), "RS256".into());
        full_header.insert("kid".to_owned(), self.kid().into());
        merge(&mut full_header, header);
        let encode = |map: &Map<String, Value>| {
            URL_SAFE_NO_PAD.encode(serde_json::to_vec(map).expect("a JSON object has a JSON form"))
        };
        let message = format!("{}.{}", encode(&full_header), encode(claims));
        let mut signature = vec![0; self.signing.pair.public_modulus_len()];
        self.signing
            .pair
            .sign(
                &RSA_PKCS1_SHA256,
                &SystemRandom::new(),
                message.as_bytes(),
                &mut signature,
            )
            .expect("a generated key signs, and the buffer has the modulus' length");
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

/// Puts the members of `changes` over those of `target`; null takes a member out.
pub(crate) fn merge(target: &mut Map<String, Value>, changes: &Map<String, Value>) {
    for (name, value) in changes {
        if value.is_null() {
            target.remove(name);
        } else {
            target.insert(name.clone(), value.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_lc_rs::signature::{RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents};

    #[test]
    fn a_token_verifies_with_the_published_key_and_its_header_names_it() {
        let ring = KeyRing::generate().unwrap();
        let mut claims = Map::new();
        claims.insert("sub".into(), "alice".into());
        let token = ring.sign(&Map::new(), &claims);

        let (message, signature) = token.rsplit_once('.').unwrap();
        let header: Value = serde_json::from_slice(
            &URL_SAFE_NO_PAD
                .decode(message.split('.').next().unwrap())
                .unwrap(),
        )
        .unwrap();
        let set = ring.key_set();
        let key = &set["keys"][0];
        assert_eq!(header, json!({ "alg": "RS256", "kid": key["kid"] }));
        let part = |name: &str| URL_SAFE_NO_PAD.decode(key[name].as_str().unwrap()).unwrap();
        RsaPublicKeyComponents {
            n: part("n"),
            e: part("e"),
        }
        .verify(
            &RSA_PKCS1_2048_8192_SHA256,
            message.as_bytes(),
            &URL_SAFE_NO_PAD.decode(signature).unwrap(),
        )
        .unwrap();
    }

    #[test]
    fn rotation_keeps_the_old_key_published_until_it_is_retired() {
        let mut ring = KeyRing::generate().unwrap();
        let first = ring.kid().to_owned();
        ring.rotate().unwrap();
        let set = ring.key_set();
        assert_eq!(set["keys"].as_array().unwrap().len(), 2);
        assert_ne!(set["keys"][0]["kid"], first.as_str());
        assert_eq!(set["keys"][1]["kid"], first.as_str());
        ring.retire_earlier();
        assert_eq!(ring.key_set()["keys"].as_array().unwrap().len(), 1);
    }

    #[test]
    fn a_header_can_be_made_to_lie() {
        let ring = KeyRing::generate().unwrap();
        let changes = json!({ "alg": "none", "kid": null });
        let token = ring.sign(changes.as_object().unwrap(), &Map::new());
        let header = URL_SAFE_NO_PAD.decode(token.split('.').next().unwrap()).unwrap();
        assert_eq!(
            serde_json::from_slice::<Value>(&header).unwrap(),
            json!({ "alg": "none" })
        );
    }
}
