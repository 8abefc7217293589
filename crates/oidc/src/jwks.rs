//! A provider's public keys (JSON Web Key Set, RFC 7517), ready to verify with.
//!
//! A key that we cannot use (unknown type, meant for encryption, malformed) is left out and never spoils the set.
//! Symmetric keys are never used. Weak ones stay, marked, so that a token signed with one is refused by that reason.

use crate::json::{self, JsonError};
use crate::jws::Algorithm;
use aws_lc_rs::signature as aws;
use aws_lc_rs::signature::{ParsedPublicKey, RsaParameters, RsaPublicKeyComponents, VerificationAlgorithm};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use epithet_wire::limits;
use serde_json::{Map, Value};
use std::sync::OnceLock;

/// Why a key set could not be used at all.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeySetError {
    /// Not a strict JSON object.
    #[error("the key set is unusable: {0}")]
    Json(JsonError),
    /// There is no `keys` array in it.
    #[error("the key set has no \"keys\" array")]
    NoKeys,
    /// More keys than `wire::limits::OIDC_KEYS_MAX`.
    #[error("the key set has {0} keys, more than {max}", max = limits::OIDC_KEYS_MAX)]
    TooManyKeys(usize),
}

/// Why no key of the set verifies a token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The provider publishes no key of that id (or, for a token without one, no key that fits).
    #[error("the provider publishes no key {}", shown_key_id(.0.as_deref()))]
    Unknown(Option<String>),
    /// Two keys share the id, or a token without a key id could have been signed by several.
    #[error("the provider publishes several keys that fit {}; it cannot be told which one counts", shown_key_id(.0.as_deref()))]
    Ambiguous(Option<String>),
    /// The token's algorithm is not the one its key is for.
    #[error("key {key_id:?} is not a key for {algorithm}")]
    AlgorithmMismatch {
        /// The key's id.
        key_id: String,
        /// What the token's header claims.
        algorithm: Algorithm,
    },
    /// The key is too short, or its exponent is not one a sound key has.
    #[error("key {key_id:?} of the provider is weak: {reason}")]
    Weak {
        /// The key's id.
        key_id: String,
        /// In words.
        reason: &'static str,
    },
    /// The signature is not this key's over these bytes.
    #[error("the signature is wrong")]
    Signature,
}

fn shown_key_id(key_id: Option<&str>) -> String {
    key_id.map_or_else(
        || "that fits a token without a key id".to_owned(),
        |id| format!("with the id {id:?}"),
    )
}

/// A provider's keys.
#[derive(Debug, Default)]
pub struct KeySet {
    keys: Vec<Key>,
}

#[derive(Debug)]
struct Key {
    id: Option<String>,
    /// What the key is for, when it says so itself (`alg`).
    only: Option<Algorithm>,
    material: Material,
    weakness: Option<&'static str>,
}

#[derive(Debug)]
enum Material {
    /// One parsed key per RSA algorithm, made when first needed: parsing costs as much as verifying.
    Rsa {
        components: RsaPublicKeyComponents<Vec<u8>>,
        parsed: Box<[OnceLock<Option<ParsedPublicKey>>; 6]>,
    },
    /// A point on a curve: one curve, one algorithm.
    Point {
        algorithm: Algorithm,
        parsed: ParsedPublicKey,
    },
}

impl KeySet {
    /// Reads a key set document.
    pub fn parse(document: &[u8]) -> Result<Self, KeySetError> {
        let mut document = json::parse_object(document).map_err(KeySetError::Json)?;
        let Some(Value::Array(keys)) = document.remove("keys") else {
            return Err(KeySetError::NoKeys);
        };
        if keys.len() > limits::OIDC_KEYS_MAX {
            return Err(KeySetError::TooManyKeys(keys.len()));
        }
        let keys = keys
            .iter()
            .filter_map(|key| Key::parse(key.as_object()?))
            .collect();
        Ok(Self { keys })
    }

    /// How many usable keys there are.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether there is no usable key.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The ids of the usable keys, for people.
    pub fn key_ids(&self) -> impl Iterator<Item = &str> {
        self.keys.iter().filter_map(|key| key.id.as_deref())
    }

    /// Verifies a signature with the key of that id; without an id, with the only key that fits the algorithm.
    pub fn verify(
        &self,
        algorithm: Algorithm,
        key_id: Option<&str>,
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), KeyError> {
        let key = self.select(algorithm, key_id)?;
        let named = || key.id.clone().unwrap_or_default();
        if !key.is_for(algorithm) {
            return Err(KeyError::AlgorithmMismatch {
                key_id: named(),
                algorithm,
            });
        }
        if let Some(reason) = key.weakness {
            return Err(KeyError::Weak {
                key_id: named(),
                reason,
            });
        }
        let Some(parsed) = key.parsed(algorithm) else {
            return Err(KeyError::Weak {
                key_id: named(),
                reason: "it is not a valid key",
            });
        };
        parsed
            .verify_sig(message, signature)
            .map_err(|_| KeyError::Signature)
    }

    fn select(&self, algorithm: Algorithm, key_id: Option<&str>) -> Result<&Key, KeyError> {
        let mut fitting = self.keys.iter().filter(|key| match key_id {
            Some(wanted) => key.id.as_deref() == Some(wanted),
            None => key.is_for(algorithm),
        });
        match (fitting.next(), fitting.next()) {
            (Some(key), None) => Ok(key),
            (None, _) => Err(KeyError::Unknown(key_id.map(str::to_owned))),
            (Some(_), Some(_)) => Err(KeyError::Ambiguous(key_id.map(str::to_owned))),
        }
    }
}

impl Key {
    /// A key that can verify signatures, or `None` (RFC 7517 section 5: what is not understood is ignored).
    fn parse(jwk: &Map<String, Value>) -> Option<Self> {
        let text = |name: &str| jwk.get(name).and_then(Value::as_str);
        if jwk.get("use").is_some_and(|purpose| purpose != "sig") {
            return None;
        }
        if let Some(operations) = jwk.get("key_ops")
            && !operations
                .as_array()
                .is_some_and(|all| all.iter().any(|operation| operation == "verify"))
        {
            return None;
        }
        let only = match jwk.get("alg") {
            None => None,
            Some(name) => Some(Algorithm::from_name(name.as_str()?)?),
        };
        let id = match jwk.get("kid") {
            None => None,
            Some(id) => Some(id.as_str()?.to_owned()),
        };
        let bytes = |name: &str| URL_SAFE_NO_PAD.decode(text(name)?.trim_end_matches('=')).ok();
        let (material, weakness) = match (text("kty")?, text("crv")) {
            ("RSA", _) => {
                let components = RsaPublicKeyComponents {
                    n: without_leading_zeros(bytes("n")?),
                    e: without_leading_zeros(bytes("e")?),
                };
                let weakness = rsa_weakness(&components);
                (
                    Material::Rsa {
                        components,
                        parsed: Default::default(),
                    },
                    weakness,
                )
            }
            ("EC", Some(curve)) => {
                let (algorithm, verification, size): (_, &'static dyn VerificationAlgorithm, _) = match curve
                {
                    "P-256" => (Algorithm::ES256, &aws::ECDSA_P256_SHA256_FIXED, 32),
                    "P-384" => (Algorithm::ES384, &aws::ECDSA_P384_SHA384_FIXED, 48),
                    "P-521" => (Algorithm::ES512, &aws::ECDSA_P521_SHA512_FIXED, 66),
                    _ => return None,
                };
                let (x, y) = (bytes("x")?, bytes("y")?);
                if x.len() != size || y.len() != size {
                    return None;
                }
                let point = [&[0x04][..], &x, &y].concat();
                let parsed = ParsedPublicKey::new(verification, point).ok()?;
                (Material::Point { algorithm, parsed }, None)
            }
            ("OKP", Some("Ed25519")) => {
                let parsed = ParsedPublicKey::new(&aws::ED25519, bytes("x")?).ok()?;
                (
                    Material::Point {
                        algorithm: Algorithm::EdDSA,
                        parsed,
                    },
                    None,
                )
            }
            _ => return None,
        };
        Some(Self {
            id,
            only,
            material,
            weakness,
        })
    }

    /// Whether type, curve and `alg` of the key agree with the algorithm (RFC 8725 section 3.1).
    fn is_for(&self, algorithm: Algorithm) -> bool {
        let by_type = match &self.material {
            Material::Rsa { .. } => rsa_parameters(algorithm).is_some(),
            Material::Point { algorithm: own, .. } => *own == algorithm,
        };
        by_type && self.only.is_none_or(|only| only == algorithm)
    }

    fn parsed(&self, algorithm: Algorithm) -> Option<&ParsedPublicKey> {
        match &self.material {
            Material::Point { parsed, .. } => Some(parsed),
            Material::Rsa { components, parsed } => {
                let (slot, parameters) = rsa_parameters(algorithm)?;
                parsed[slot]
                    .get_or_init(|| components.to_parsed_public_key(parameters).ok())
                    .as_ref()
            }
        }
    }
}

/// Where an RSA key keeps its parsed form for an algorithm, and what to parse it for.
fn rsa_parameters(algorithm: Algorithm) -> Option<(usize, &'static RsaParameters)> {
    Some(match algorithm {
        Algorithm::RS256 => (0, &aws::RSA_PKCS1_2048_8192_SHA256),
        Algorithm::RS384 => (1, &aws::RSA_PKCS1_2048_8192_SHA384),
        Algorithm::RS512 => (2, &aws::RSA_PKCS1_2048_8192_SHA512),
        Algorithm::PS256 => (3, &aws::RSA_PSS_2048_8192_SHA256),
        Algorithm::PS384 => (4, &aws::RSA_PSS_2048_8192_SHA384),
        Algorithm::PS512 => (5, &aws::RSA_PSS_2048_8192_SHA512),
        _ => return None,
    })
}

/// RFC 8725 sections 3.2 and 3.5: 2048 to 8192 bits, an odd exponent of at least 3.
fn rsa_weakness(components: &RsaPublicKeyComponents<Vec<u8>>) -> Option<&'static str> {
    let bits = components.n.len() * 8
        - components
            .n
            .first()
            .map_or(0, |byte| byte.leading_zeros() as usize);
    if bits < 2048 {
        return Some("an RSA key needs at least 2048 bits");
    }
    if bits > 8192 {
        return Some("an RSA key of more than 8192 bits costs more than it protects");
    }
    let is_odd = components.e.last().is_some_and(|byte| byte & 1 == 1);
    let is_out_of_range = components.e.len() > 4 || components.e == [1];
    (!is_odd || is_out_of_range).then_some("its exponent is not a sound one (65537 is usual)")
}

fn without_leading_zeros(bytes: Vec<u8>) -> Vec<u8> {
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    if zeros == 0 {
        bytes
    } else {
        bytes[zeros..].to_vec()
    }
}
