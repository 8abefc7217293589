//! Public keys as the SSH protocol has them (RFC 4253 section 6.6, RFC 5656, RFC 8709, OpenSSH `PROTOCOL.u2f`), borrowed
//! from their blob.
//!
//! Certificates are not keys here: no function of this module accepts one where a key is wanted (CVE-2025-49825 is
//! what happens otherwise). [`PublicKey::of_host`] is the one place that looks into a certificate, for hosts that
//! have one.

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ECDSA_P521_SHA512_FIXED, ED25519,
    EcdsaVerificationAlgorithm, ParsedPublicKey, RSA_PKCS1_1024_8192_SHA256_FOR_LEGACY_USE_ONLY,
    RSA_PKCS1_1024_8192_SHA512_FOR_LEGACY_USE_ONLY, RSA_PKCS1_2048_8192_SHA256, RSA_PSS_2048_8192_SHA256,
    RsaPublicKeyComponents,
};

use crate::encoding::{Malformed, Put, Reader};
use crate::jws::JwsAlgorithm;
use ed25519_dalek::VerifyingKey;

/// The curves of RFC 5656 section 10.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Curve {
    P256,
    P384,
    P521,
}

impl Curve {
    /// The curve's name inside keys.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::P256 => "nistp256",
            Self::P384 => "nistp384",
            Self::P521 => "nistp521",
        }
    }

    /// The name of a key or signature on the curve.
    pub(crate) fn algorithm(self) -> &'static str {
        match self {
            Self::P256 => "ecdsa-sha2-nistp256",
            Self::P384 => "ecdsa-sha2-nistp384",
            Self::P521 => "ecdsa-sha2-nistp521",
        }
    }

    /// Bytes of a coordinate.
    pub(crate) fn size(self) -> usize {
        match self {
            Self::P256 => 32,
            Self::P384 => 48,
            Self::P521 => 66,
        }
    }

    /// What a JWS by a key on the curve is signed with (RFC 7518 section 3.4).
    pub(crate) fn jws_algorithm(self) -> JwsAlgorithm {
        match self {
            Self::P256 => JwsAlgorithm::Es256,
            Self::P384 => JwsAlgorithm::Es384,
            Self::P521 => JwsAlgorithm::Es512,
        }
    }

    /// ECDSA with the hash that RFC 5656 section 6.2.1 joins to the curve.
    fn ecdsa(self) -> &'static EcdsaVerificationAlgorithm {
        match self {
            Self::P256 => &ECDSA_P256_SHA256_FIXED,
            Self::P384 => &ECDSA_P384_SHA384_FIXED,
            Self::P521 => &ECDSA_P521_SHA512_FIXED,
        }
    }
}

/// A public key's parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PublicKey<'a> {
    Ed25519 {
        point: &'a [u8],
    },
    Ecdsa {
        curve: Curve,
        point: &'a [u8],
    },
    Rsa {
        exponent: &'a [u8],
        modulus: &'a [u8],
    },
    /// Ed25519 in a FIDO token.
    SkEd25519 {
        point: &'a [u8],
        application: &'a str,
    },
    /// ECDSA on P-256 in a FIDO token.
    SkEcdsa {
        point: &'a [u8],
        application: &'a str,
    },
}

/// Why a blob is not a key that we know.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyFormatError {
    /// The blob does not follow its format.
    #[error("is damaged: {0}")]
    Malformed(#[from] Malformed),
    /// An algorithm that we do not know or do not allow.
    #[error(
        "is of type {0:?}, which is not allowed; use ed25519, ecdsa (nistp256, nistp384, nistp521), rsa, or a FIDO key of type ed25519-sk or ecdsa-sk"
    )]
    Algorithm(String),
    /// A certificate where a key is wanted.
    #[error("is a certificate; give the plain public key")]
    Certificate,
}

/// How the name of every certificate type ends.
pub(crate) const CERTIFICATE_SUFFIX: &str = "-cert-v01@openssh.com";

impl<'a> PublicKey<'a> {
    /// Reads a whole key blob.
    pub(crate) fn parse(blob: &'a [u8]) -> Result<Self, KeyFormatError> {
        let mut reader = Reader::new(blob);
        let algorithm = reader.text()?;
        let key = Self::parse_parts(algorithm, &mut reader)?;
        reader.finish()?;
        Ok(key)
    }

    /// Reads the parts that follow a key's algorithm, in a key blob or in a certificate.
    pub(crate) fn parse_parts(algorithm: &str, reader: &mut Reader<'a>) -> Result<Self, KeyFormatError> {
        let key = match algorithm {
            "ssh-ed25519" => Self::Ed25519 {
                point: exactly(32, reader.string()?)?,
            },
            "ecdsa-sha2-nistp256" => ecdsa(Curve::P256, reader)?,
            "ecdsa-sha2-nistp384" => ecdsa(Curve::P384, reader)?,
            "ecdsa-sha2-nistp521" => ecdsa(Curve::P521, reader)?,
            "ssh-rsa" => Self::Rsa {
                exponent: reader.positive()?,
                modulus: reader.positive()?,
            },
            "sk-ssh-ed25519@openssh.com" => Self::SkEd25519 {
                point: exactly(32, reader.string()?)?,
                application: reader.text()?,
            },
            "sk-ecdsa-sha2-nistp256@openssh.com" => match ecdsa(Curve::P256, reader)? {
                Self::Ecdsa { point, .. } => Self::SkEcdsa {
                    point,
                    application: reader.text()?,
                },
                _ => return Err(Malformed::Value.into()),
            },
            other if other.ends_with(CERTIFICATE_SUFFIX) => return Err(KeyFormatError::Certificate),
            other => return Err(KeyFormatError::Algorithm(other.chars().take(64).collect())),
        };
        Ok(key)
    }

    /// The key of a host: of a plain host key, or the one inside a host certificate.
    ///
    /// sshd signs the key exchange with that inner key, so it is the one that a session-bind must be checked with.
    pub(crate) fn of_host(blob: &'a [u8]) -> Result<Self, KeyFormatError> {
        let mut reader = Reader::new(blob);
        match reader.text()?.strip_suffix(CERTIFICATE_SUFFIX) {
            None => Self::parse(blob),
            Some(prefix) => {
                let _nonce = reader.string()?;
                Self::parse_parts(plain_algorithm(prefix), &mut reader)
            }
        }
    }

    /// The algorithm that names the key.
    pub(crate) fn algorithm(&self) -> &'static str {
        match self {
            Self::Ed25519 { .. } => "ssh-ed25519",
            Self::Ecdsa { curve, .. } => curve.algorithm(),
            Self::Rsa { .. } => "ssh-rsa",
            Self::SkEd25519 { .. } => "sk-ssh-ed25519@openssh.com",
            Self::SkEcdsa { .. } => "sk-ecdsa-sha2-nistp256@openssh.com",
        }
    }

    /// The type of a certificate for the key.
    pub(crate) fn certificate_algorithm(&self) -> &'static str {
        match self {
            Self::Ed25519 { .. } => "ssh-ed25519-cert-v01@openssh.com",
            Self::Ecdsa {
                curve: Curve::P256, ..
            } => "ecdsa-sha2-nistp256-cert-v01@openssh.com",
            Self::Ecdsa {
                curve: Curve::P384, ..
            } => "ecdsa-sha2-nistp384-cert-v01@openssh.com",
            Self::Ecdsa {
                curve: Curve::P521, ..
            } => "ecdsa-sha2-nistp521-cert-v01@openssh.com",
            Self::Rsa { .. } => "ssh-rsa-cert-v01@openssh.com",
            Self::SkEd25519 { .. } => "sk-ssh-ed25519-cert-v01@openssh.com",
            Self::SkEcdsa { .. } => "sk-ecdsa-sha2-nistp256-cert-v01@openssh.com",
        }
    }

    /// Writes the parts after the algorithm.
    pub(crate) fn put_parts(&self, blob: &mut Vec<u8>) {
        match self {
            Self::Ed25519 { point } => blob.put_string(point),
            Self::Ecdsa { curve, point } => {
                blob.put_string(curve.name());
                blob.put_string(point);
            }
            Self::Rsa { exponent, modulus } => {
                blob.put_positive(exponent);
                blob.put_positive(modulus);
            }
            Self::SkEd25519 { point, application } => {
                blob.put_string(point);
                blob.put_string(application);
            }
            Self::SkEcdsa { point, application } => {
                blob.put_string(Curve::P256.name());
                blob.put_string(point);
                blob.put_string(application);
            }
        }
    }

    /// The whole key blob.
    pub(crate) fn to_blob(self) -> Vec<u8> {
        let mut blob = Vec::with_capacity(64);
        blob.put_string(self.algorithm());
        self.put_parts(&mut blob);
        blob
    }

    /// The size of an RSA modulus in bits.
    pub(crate) fn rsa_bits(modulus: &[u8]) -> usize {
        let leading = modulus
            .first()
            .map_or(0, |byte| usize::try_from(byte.leading_zeros()).unwrap_or(0));
        (modulus.len() * 8).saturating_sub(leading)
    }

    /// Whether an elliptic curve's point is on its curve; other keys have no such question.
    pub(crate) fn is_on_curve(&self) -> bool {
        match self {
            Self::Ecdsa { curve, point } => ParsedPublicKey::new(curve.ecdsa(), point).is_ok(),
            Self::SkEcdsa { point, .. } => ParsedPublicKey::new(Curve::P256.ecdsa(), point).is_ok(),
            Self::Ed25519 { point } | Self::SkEd25519 { point, .. } => is_ed25519_key(point),
            Self::Rsa { .. } => true,
        }
    }

    /// Verifies an SSH signature (`string algorithm, string signature`) over `message`.
    ///
    /// RSA is accepted with SHA-2 only (RFC 8332); `ssh-rsa` signatures are SHA-1. FIDO keys sign more than the
    /// message and are not verified here.
    pub(crate) fn verify(&self, message: &[u8], signature: &[u8]) -> Result<(), SignatureError> {
        let mut reader = Reader::new(signature);
        let algorithm = reader.text()?;
        let raw = reader.string()?;
        reader.finish()?;
        let verified = match (self, algorithm) {
            (Self::Ed25519 { point }, "ssh-ed25519") => verify_ed25519(point, message, raw),
            (Self::Ecdsa { curve, point }, name) if name == curve.algorithm() => {
                verify_ecdsa(*curve, point, message, &ecdsa_fixed(*curve, raw)?)
            }
            (Self::Rsa { exponent, modulus }, "rsa-sha2-256" | "rsa-sha2-512") => {
                let scheme = match algorithm {
                    "rsa-sha2-256" => &RSA_PKCS1_1024_8192_SHA256_FOR_LEGACY_USE_ONLY,
                    _ => &RSA_PKCS1_1024_8192_SHA512_FOR_LEGACY_USE_ONLY,
                };
                RsaPublicKeyComponents {
                    n: modulus,
                    e: exponent,
                }
                .verify(scheme, message, raw)
                .is_ok()
            }
            _ => {
                return Err(SignatureError::Algorithm {
                    key: self.algorithm(),
                    signature: algorithm.chars().take(64).collect(),
                });
            }
        };
        if verified {
            Ok(())
        } else {
            Err(SignatureError::Wrong)
        }
    }

    /// Verifies a signature in the form of JWS (RFC 7518 section 3, RFC 8037), of an algorithm that goes with the key.
    pub(crate) fn verify_jws(&self, algorithm: JwsAlgorithm, message: &[u8], signature: &[u8]) -> bool {
        match (self, algorithm) {
            (Self::Ed25519 { point }, JwsAlgorithm::EdDsa) => verify_ed25519(point, message, signature),
            (Self::Ecdsa { curve, point }, algorithm) if algorithm == curve.jws_algorithm() => {
                verify_ecdsa(*curve, point, message, signature)
            }
            (Self::Rsa { exponent, modulus }, JwsAlgorithm::Ps256 | JwsAlgorithm::Rs256) => {
                let scheme = match algorithm {
                    JwsAlgorithm::Ps256 => &RSA_PSS_2048_8192_SHA256,
                    _ => &RSA_PKCS1_2048_8192_SHA256,
                };
                RsaPublicKeyComponents {
                    n: modulus,
                    e: exponent,
                }
                .verify(scheme, message, signature)
                .is_ok()
            }
            _ => false,
        }
    }

    /// From an SSH signature of this key (`string algorithm, string signature`) to the same one as JWS has it.
    pub(crate) fn jws_form(&self, signature: &[u8]) -> Result<Vec<u8>, Malformed> {
        let mut reader = Reader::new(signature);
        let _algorithm = reader.string()?;
        let raw = reader.string()?;
        match self {
            Self::Ecdsa { curve, .. } => ecdsa_fixed(*curve, raw),
            _ => Ok(raw.to_vec()),
        }
    }
}

/// Why a signature does not hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// The signature blob does not follow its format.
    #[error("the signature is damaged: {0}")]
    Malformed(#[from] Malformed),
    /// The key does not.
    #[error("the key {0}")]
    Key(#[from] KeyFormatError),
    /// A signature that such a key does not make, or one that is not accepted (`ssh-rsa`, which is SHA-1).
    #[error("a key of type {key} and a signature of type {signature:?} do not go together")]
    Algorithm {
        /// The key's algorithm.
        key: &'static str,
        /// The signature's algorithm.
        signature: String,
    },
    /// It is not a signature of this message by this key.
    #[error("the signature is not one of this message by this key")]
    Wrong,
}

/// `rsa-sha2-512` and `ssh-rsa` name the same key; so do their certificates.
fn plain_algorithm(prefix: &str) -> &str {
    match prefix {
        "sk-ssh-ed25519" => "sk-ssh-ed25519@openssh.com",
        "sk-ecdsa-sha2-nistp256" => "sk-ecdsa-sha2-nistp256@openssh.com",
        other => other,
    }
}

/// The algorithm of the key that a certificate type is for.
pub(crate) fn certified_algorithm(certificate_algorithm: &str) -> Option<&str> {
    certificate_algorithm
        .strip_suffix(CERTIFICATE_SUFFIX)
        .map(plain_algorithm)
}

fn exactly(size: usize, bytes: &[u8]) -> Result<&[u8], Malformed> {
    if bytes.len() == size {
        Ok(bytes)
    } else {
        Err(Malformed::Value)
    }
}

/// Reads the curve's name and the point, which RFC 5656 section 3.1 lets be compressed and nobody compresses.
fn ecdsa<'a>(curve: Curve, reader: &mut Reader<'a>) -> Result<PublicKey<'a>, Malformed> {
    if reader.text()? != curve.name() {
        return Err(Malformed::Value);
    }
    let point = exactly(1 + 2 * curve.size(), reader.string()?)?;
    if point.first() != Some(&4) {
        return Err(Malformed::Value);
    }
    Ok(PublicKey::Ecdsa { curve, point })
}

fn verify_ed25519(point: &[u8], message: &[u8], signature: &[u8]) -> bool {
    ParsedPublicKey::new(&ED25519, point).is_ok_and(|key| key.verify_sig(message, signature).is_ok())
}

/// Whether these 32 bytes are a point of the curve in its only form (RFC 8032 section 5.1.3), and none of the few for which
/// anybody can make signatures that verify.
fn is_ed25519_key(point: &[u8]) -> bool {
    <[u8; 32]>::try_from(point)
        .ok()
        .and_then(|point| Some((point, VerifyingKey::from_bytes(&point).ok()?)))
        .is_some_and(|(point, key)| key.to_edwards().compress().to_bytes() == point && !key.is_weak())
}

fn verify_ecdsa(curve: Curve, point: &[u8], message: &[u8], signature: &[u8]) -> bool {
    ParsedPublicKey::new(curve.ecdsa(), point).is_ok_and(|key| key.verify_sig(message, signature).is_ok())
}

/// From SSH's `mpint r, mpint s` to two numbers of the curve's size, one after the other.
fn ecdsa_fixed(curve: Curve, raw: &[u8]) -> Result<Vec<u8>, Malformed> {
    let mut reader = Reader::new(raw);
    let mut fixed = Vec::with_capacity(2 * curve.size());
    for _ in 0..2 {
        let number = reader.positive()?;
        let padding = curve.size().checked_sub(number.len()).ok_or(Malformed::Value)?;
        fixed.resize(fixed.len() + padding, 0);
        fixed.extend_from_slice(number);
    }
    reader.finish()?;
    Ok(fixed)
}

/// From two numbers of the curve's size to SSH's `mpint r, mpint s`.
pub(crate) fn ecdsa_mpints(fixed: &[u8]) -> Vec<u8> {
    let (r, s) = fixed.split_at(fixed.len() / 2);
    let mut raw = Vec::with_capacity(fixed.len() + 10);
    raw.put_positive(r);
    raw.put_positive(s);
    raw
}

/// Verifies a host's signature, as `session-bind@openssh.com` carries it (OpenSSH `PROTOCOL.agent` section 1).
///
/// `host_key_blob` may be a host certificate; the signature is then one by the key inside it.
/// Accepted are ed25519, ecdsa on the three NIST curves, and rsa of 1024 to 8192 bits with SHA-2.
pub fn verify_host_signature(
    host_key_blob: &[u8],
    message: &[u8],
    signature_blob: &[u8],
) -> Result<(), SignatureError> {
    PublicKey::of_host(host_key_blob)?.verify(message, signature_blob)
}
