//! Keys of a provider, and tokens signed with them.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    self as aws, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RsaKeyPair, RsaPublicKeyComponents,
};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use std::sync::LazyLock;

pub(crate) fn b64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

pub(crate) enum SigningKey {
    Rsa {
        id: &'static str,
        pair: RsaKeyPair,
    },
    Ec {
        id: &'static str,
        pair: EcdsaKeyPair,
        algorithm: &'static str,
        curve: &'static str,
    },
    Ed {
        id: &'static str,
        pair: Ed25519KeyPair,
    },
}

static RSA: LazyLock<SigningKey> = LazyLock::new(|| SigningKey::rsa("rsa-1"));
static OTHER_RSA: LazyLock<SigningKey> = LazyLock::new(|| SigningKey::rsa("rsa-2"));

/// Made once per test program: RSA keys take long.
pub(crate) fn rsa() -> &'static SigningKey {
    &RSA
}

pub(crate) fn other_rsa() -> &'static SigningKey {
    &OTHER_RSA
}

impl SigningKey {
    pub(crate) fn rsa(id: &'static str) -> Self {
        Self::Rsa {
            id,
            pair: RsaKeyPair::generate(KeySize::Rsa2048).unwrap(),
        }
    }

    pub(crate) fn p256(id: &'static str) -> Self {
        let pair = EcdsaKeyPair::generate(&aws::ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        Self::Ec {
            id,
            pair,
            algorithm: "ES256",
            curve: "P-256",
        }
    }

    pub(crate) fn p384(id: &'static str) -> Self {
        let pair = EcdsaKeyPair::generate(&aws::ECDSA_P384_SHA384_FIXED_SIGNING).unwrap();
        Self::Ec {
            id,
            pair,
            algorithm: "ES384",
            curve: "P-384",
        }
    }

    pub(crate) fn p521(id: &'static str) -> Self {
        let pair = EcdsaKeyPair::generate(&aws::ECDSA_P521_SHA512_FIXED_SIGNING).unwrap();
        Self::Ec {
            id,
            pair,
            algorithm: "ES512",
            curve: "P-521",
        }
    }

    pub(crate) fn ed25519(id: &'static str) -> Self {
        Self::Ed {
            id,
            pair: Ed25519KeyPair::generate().unwrap(),
        }
    }

    pub(crate) fn id(&self) -> &'static str {
        match self {
            Self::Rsa { id, .. } | Self::Ec { id, .. } | Self::Ed { id, .. } => id,
        }
    }

    pub(crate) fn algorithm(&self) -> &'static str {
        match self {
            Self::Rsa { .. } => "RS256",
            Self::Ec { algorithm, .. } => algorithm,
            Self::Ed { .. } => "EdDSA",
        }
    }

    /// As it stands in a key set.
    pub(crate) fn jwk(&self) -> Value {
        match self {
            Self::Rsa { id, pair } => {
                let public = RsaPublicKeyComponents::<Vec<u8>>::from(pair.public_key());
                json!({"kty": "RSA", "kid": id, "use": "sig", "alg": "RS256", "n": b64(public.n), "e": b64(public.e)})
            }
            Self::Ec {
                id,
                pair,
                algorithm,
                curve,
            } => {
                let point = &pair.public_key().as_ref()[1..];
                let (x, y) = point.split_at(point.len() / 2);
                json!({"kty": "EC", "kid": id, "use": "sig", "alg": algorithm, "crv": curve, "x": b64(x), "y": b64(y)})
            }
            Self::Ed { id, pair } => {
                json!({"kty": "OKP", "kid": id, "use": "sig", "alg": "EdDSA", "crv": "Ed25519", "x": b64(pair.public_key())})
            }
        }
    }

    pub(crate) fn header(&self) -> Value {
        json!({"alg": self.algorithm(), "kid": self.id(), "typ": "JWT"})
    }

    /// A token with this key's own header.
    pub(crate) fn token(&self, claims: &Value) -> String {
        self.token_with(&self.header().to_string(), &claims.to_string())
    }

    /// Any header over any payload; the signature is of the algorithm that the header names, if this key can.
    pub(crate) fn token_with(&self, header: &str, payload: &str) -> String {
        let signed = format!("{}.{}", b64(header), b64(payload));
        let algorithm = serde_json::from_str::<Value>(header)
            .ok()
            .and_then(|header| header["alg"].as_str().map(str::to_owned));
        let signature = self.sign(algorithm.as_deref().unwrap_or_default(), signed.as_bytes());
        format!("{signed}.{}", b64(signature))
    }

    fn sign(&self, algorithm: &str, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match self {
            Self::Rsa { pair, .. } => {
                let padding: &'static dyn aws::RsaEncoding = match algorithm {
                    "RS384" => &aws::RSA_PKCS1_SHA384,
                    "RS512" => &aws::RSA_PKCS1_SHA512,
                    "PS256" => &aws::RSA_PSS_SHA256,
                    "PS384" => &aws::RSA_PSS_SHA384,
                    "PS512" => &aws::RSA_PSS_SHA512,
                    _ => &aws::RSA_PKCS1_SHA256,
                };
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(padding, &random, message, &mut signature).unwrap();
                signature
            }
            Self::Ec { pair, .. } => pair.sign(&random, message).unwrap().as_ref().to_vec(),
            Self::Ed { pair, .. } => pair.sign(message).as_ref().to_vec(),
        }
    }
}

/// A key set document.
pub(crate) fn key_set(keys: &[Value]) -> String {
    json!({ "keys": keys }).to_string()
}
