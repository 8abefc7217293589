//! The key that a certificate is for: the broker's ephemeral one, and whatever a client sends to the CA.

use std::fmt;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};

use crate::encoding::Put;
use crate::line::{self, LineError};
use crate::public_key::{KeyFormatError, PublicKey};

/// An Ed25519 key pair that lives as long as one certificate, in memory only.
///
/// The private half stays inside aws-lc, which overwrites it when it is freed; it can sign and nothing else.
pub struct SubjectKey {
    pair: Ed25519KeyPair,
}

impl SubjectKey {
    /// A new pair. Takes about 15 microseconds, so there is no need to make them ahead.
    ///
    /// # Errors
    /// Only when the system gives no random bytes.
    pub fn generate() -> Result<Self, NoRandomness> {
        let pair = Ed25519KeyPair::generate().map_err(|_| NoRandomness)?;
        Ok(Self { pair })
    }

    /// The public half as it goes to a CA: `ssh-ed25519 AAAA...`.
    pub fn public_line(&self) -> String {
        line::format("ssh-ed25519", &self.public_blob())
    }

    /// The public half as it goes over an agent's socket.
    pub fn public_blob(&self) -> Vec<u8> {
        PublicKey::Ed25519 {
            point: self.pair.public_key().as_ref(),
        }
        .to_blob()
    }

    /// Signs, and returns the signature as SSH carries it: `string "ssh-ed25519", string signature` (RFC 8709 section 6).
    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        let mut blob = Vec::with_capacity(4 + 11 + 4 + 64);
        blob.put_string("ssh-ed25519");
        blob.put_string(self.pair.sign(message));
        blob
    }
}

impl fmt::Debug for SubjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SubjectKey")
            .field("fingerprint", &line::fingerprint(&self.public_blob()))
            .finish_non_exhaustive()
    }
}

/// The system has no random bytes for us.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the system's random number generator gave nothing; is /dev/urandom readable?")]
pub struct NoRandomness;

/// The smallest and largest RSA modulus of a subject key, in bits.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;
/// The longest application name of a FIDO key; ssh-keygen writes `ssh:` and at most a few words.
const APPLICATION_MAX: usize = 256;

/// A public key for which a certificate may be made.
///
/// Allowed are ed25519, ecdsa on the three NIST curves, rsa of 2048 to 8192 bits with the exponent 65537, and the
/// FIDO types ed25519-sk and ecdsa-sk. Whoever holds one has its only byte form: numbers in shortest form, points on
/// their curve, no comment.
#[derive(Clone, PartialEq, Eq)]
pub struct SubjectPublicKey {
    blob: Box<[u8]>,
}

/// Why a public key gets no certificate. The text continues "the public key".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SubjectKeyError {
    /// Not a line of a `.pub` file.
    #[error("the public key {0}")]
    Line(#[from] LineError),
    /// Not a key of a type that is allowed.
    #[error("the public key {0}")]
    Key(#[from] KeyFormatError),
    /// An RSA modulus that is too short to be safe, too long to be cheap, or even.
    #[error("the public key is rsa with {0} bits; 2048 to 8192 are allowed")]
    RsaSize(usize),
    /// An RSA exponent other than 65537.
    #[error("the public key is rsa with an exponent other than 65537")]
    RsaExponent,
    /// A point that is not on the curve.
    #[error("the public key is not a point on its curve")]
    NotOnCurve,
    /// A FIDO application that is not one for ssh.
    #[error("the public key is a FIDO key for the application {0:?}; it must begin with \"ssh:\"")]
    Application(String),
}

impl SubjectPublicKey {
    /// Parses one line, `algorithm base64 [comment]`. The comment is dropped.
    ///
    /// # Errors
    /// [`SubjectKeyError`] for anything that is not exactly one allowed key.
    pub fn parse(line: &str) -> Result<Self, SubjectKeyError> {
        let (_, blob) = line::parse(line)?;
        check(&PublicKey::parse(&blob)?)?;
        Ok(Self { blob: blob.into() })
    }

    pub(crate) fn key(&self) -> PublicKey<'_> {
        PublicKey::parse(&self.blob).expect("the blob was parsed when this value was made")
    }

    /// The key's name, such as `ssh-ed25519`.
    pub fn algorithm(&self) -> &'static str {
        self.key().algorithm()
    }

    /// Whether it is one of a FIDO token, which says with each signature whether the person was asked for a PIN.
    pub fn is_fido(&self) -> bool {
        matches!(
            self.key(),
            PublicKey::SkEd25519 { .. } | PublicKey::SkEcdsa { .. }
        )
    }

    /// The key as SSH carries it.
    pub fn blob(&self) -> &[u8] {
        &self.blob
    }

    /// `algorithm base64`, without comment or line end.
    pub fn line(&self) -> String {
        line::format(self.algorithm(), &self.blob)
    }

    /// `SHA256:...`, as `ssh-keygen -l` prints it.
    pub fn fingerprint(&self) -> String {
        line::fingerprint(&self.blob)
    }
}

impl fmt::Debug for SubjectPublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SubjectPublicKey({})", self.line())
    }
}

/// What the format alone does not say about a key that is to be certified.
fn check(key: &PublicKey<'_>) -> Result<(), SubjectKeyError> {
    match key {
        PublicKey::Rsa { exponent, modulus } => {
            let bits = PublicKey::rsa_bits(modulus);
            let is_odd = modulus.last().is_some_and(|byte| byte % 2 == 1);
            if !RSA_BITS.contains(&bits) || !is_odd {
                return Err(SubjectKeyError::RsaSize(bits));
            }
            if *exponent != [1, 0, 1] {
                return Err(SubjectKeyError::RsaExponent);
            }
        }
        PublicKey::SkEd25519 { application, .. } | PublicKey::SkEcdsa { application, .. } => {
            let is_plain = application.bytes().all(|byte| byte.is_ascii_graphic());
            if !application.starts_with("ssh:") || !is_plain || application.len() > APPLICATION_MAX {
                let shown = application.chars().take(64).collect();
                return Err(SubjectKeyError::Application(shown));
            }
        }
        PublicKey::Ed25519 { .. } | PublicKey::Ecdsa { .. } => {}
    }
    if key.is_on_curve() {
        Ok(())
    } else {
        Err(SubjectKeyError::NotOnCurve)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fresh_key_signs_what_its_public_half_verifies() {
        let key = SubjectKey::generate().unwrap();
        let public = SubjectPublicKey::parse(&key.public_line()).unwrap();
        let signature = key.sign(b"message");
        assert_eq!(public.key().verify(b"message", &signature), Ok(()));
        assert!(public.key().verify(b"Message", &signature).is_err());
        assert_eq!(public.blob(), key.public_blob());
    }

    #[test]
    fn debug_shows_no_private_byte() {
        let key = SubjectKey::generate().unwrap();
        let shown = format!("{key:?}");
        assert!(
            shown.starts_with("SubjectKey { fingerprint: \"SHA256:"),
            "{shown}"
        );
    }
}
