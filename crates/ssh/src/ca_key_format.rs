//! OpenSSH's private key format (`PROTOCOL.key`), to and from [`CaKey`].
//!
//! ssh-key takes the file apart and decrypts it; what is inside goes straight into aws-lc.

use aws_lc_rs::rsa::KeyPairComponents;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair, RsaKeyPair, RsaPublicKeyComponents};
use epithet_wire::SecretBytes;
use ssh_key::private::{EcdsaKeypair, Ed25519Keypair, KeypairData, RsaKeypair};
use ssh_key::{Cipher, LineEnding, PrivateKey};
use zeroize::Zeroizing;

use crate::ca_key::{CaKey, Pair};
use crate::public_key::{Curve, PublicKey};

/// Why a private key cannot be a CA key. Names what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CaKeyFormatError {
    /// PEM, but another format of the many that private keys come in.
    #[error(
        "the CA key is in PEM format {0:?}; convert a copy to OpenSSH's format with: ssh-keygen -p -N '' -f FILE"
    )]
    OtherPem(String),
    /// Not a private key; perhaps the public half.
    #[error(
        "the CA key is not a private key in OpenSSH's format (it would begin with `-----BEGIN OPENSSH PRIVATE KEY-----`)"
    )]
    NotPrivate,
    /// The right format, but damaged.
    #[error("the CA key is damaged: {0}")]
    Damaged(String),
    /// Encrypted, and nobody gave a passphrase.
    #[error(
        "the CA key is encrypted and no passphrase was given; give one, or remove it from a copy with: ssh-keygen -p -N '' -f FILE"
    )]
    Encrypted,
    /// Encrypted, and the passphrase is another.
    #[error("the passphrase of the CA key is wrong")]
    WrongPassphrase,
    /// Encrypted in a way that is not supported.
    #[error(
        "the CA key is encrypted with {0}, which is not supported; change a copy with: ssh-keygen -p -Z aes256-ctr -f FILE"
    )]
    Cipher(String),
    /// A type that no CA of ours has.
    #[error(
        "the CA key is of type {0}; make one with: ssh-keygen -t ed25519 (ecdsa with 256 or 384 bits and rsa work too)"
    )]
    Type(String),
    /// The size of an RSA key.
    #[error("the CA key is rsa with {0} bits; 2048 to 8192 are allowed")]
    RsaSize(usize),
    /// The private half does not belong to the public half.
    #[error("the CA key is inconsistent: its private half does not belong to its public half")]
    Inconsistent,
    /// Only generated keys can be written out.
    #[error("this CA key cannot be written out; only generated ed25519 keys can")]
    NotExportable,
}

/// What every key that we read begins with.
const OPENSSH_PEM: &str = "-----BEGIN OPENSSH PRIVATE KEY-----";

pub(crate) fn decode(
    pem: &str,
    passphrase: impl FnOnce() -> Option<SecretBytes>,
) -> Result<CaKey, CaKeyFormatError> {
    let pem = pem.trim_start();
    if !pem.starts_with(OPENSSH_PEM) {
        return Err(not_openssh(pem));
    }
    let sealed = PrivateKey::from_openssh(pem).map_err(damaged)?;
    if !sealed.is_encrypted() {
        return from_pair(sealed.key_data());
    }
    if matches!(sealed.cipher(), Cipher::None | Cipher::TdesCbc) {
        return Err(CaKeyFormatError::Cipher(sealed.cipher().to_string()));
    }
    let passphrase = passphrase().ok_or(CaKeyFormatError::Encrypted)?;
    let opened = sealed.decrypt(passphrase.expose()).map_err(|error| match error {
        ssh_key::Error::Crypto => CaKeyFormatError::WrongPassphrase,
        other => damaged(other),
    })?;
    from_pair(opened.key_data())
}

fn not_openssh(text: &str) -> CaKeyFormatError {
    let label = text
        .strip_prefix("-----BEGIN ")
        .and_then(|rest| rest.split_once("-----"))
        .map(|(label, _)| label);
    match label {
        Some(label) if label.contains("PRIVATE KEY") => {
            CaKeyFormatError::OtherPem(label.chars().take(40).collect())
        }
        _ => CaKeyFormatError::NotPrivate,
    }
}

fn damaged(error: ssh_key::Error) -> CaKeyFormatError {
    CaKeyFormatError::Damaged(error.to_string())
}

fn from_pair(pair: &KeypairData) -> Result<CaKey, CaKeyFormatError> {
    match pair {
        KeypairData::Ed25519(pair) => ed25519(pair),
        KeypairData::Ecdsa(pair) => ecdsa(pair),
        KeypairData::Rsa(pair) => rsa(pair),
        other => Err(CaKeyFormatError::Type(
            other
                .algorithm()
                .map_or_else(|_| "unknown".into(), |algorithm| algorithm.to_string()),
        )),
    }
}

fn ed25519(pair: &Ed25519Keypair) -> Result<CaKey, CaKeyFormatError> {
    let seed: &[u8; 32] = pair.private.as_ref();
    let point = pair.public.0;
    let signing =
        Ed25519KeyPair::from_seed_and_public_key(seed, &point).map_err(|_| CaKeyFormatError::Inconsistent)?;
    let blob = PublicKey::Ed25519 { point: &point }.to_blob();
    Ok(CaKey::new(Pair::Ed25519(signing), blob))
}

fn ecdsa(pair: &EcdsaKeypair) -> Result<CaKey, CaKeyFormatError> {
    let curve = match pair {
        EcdsaKeypair::NistP256 { .. } => Curve::P256,
        EcdsaKeypair::NistP384 { .. } => Curve::P384,
        EcdsaKeypair::NistP521 { .. } => {
            return Err(CaKeyFormatError::Type(Curve::P521.algorithm().into()));
        }
    };
    let point = pair.public_key_bytes();
    let signing =
        CaKey::ecdsa_pair(curve, pair.private_key_bytes(), point).ok_or(CaKeyFormatError::Inconsistent)?;
    let blob = PublicKey::Ecdsa { curve, point }.to_blob();
    Ok(CaKey::new(Pair::Ecdsa(curve, signing), blob))
}

fn rsa(pair: &RsaKeypair) -> Result<CaKey, CaKeyFormatError> {
    fn magnitude(number: &ssh_key::Mpint) -> Result<&[u8], CaKeyFormatError> {
        number
            .as_positive_bytes()
            .ok_or_else(|| CaKeyFormatError::Damaged("a number of it is not positive".into()))
    }
    let (public, private) = (pair.public(), pair.private());
    let (n, e) = (magnitude(public.n())?, magnitude(public.e())?);
    let (d, p, q) = (
        magnitude(private.d())?,
        magnitude(private.p())?,
        magnitude(private.q())?,
    );
    let bits = PublicKey::rsa_bits(n);
    if !(2048..=8192).contains(&bits) {
        return Err(CaKeyFormatError::RsaSize(bits));
    }
    let components = KeyPairComponents {
        public_key: RsaPublicKeyComponents { n, e },
        d,
        p,
        q,
        dP: &remainder_by_predecessor(d, p),
        dQ: &remainder_by_predecessor(d, q),
        qInv: magnitude(private.iqmp())?,
    };
    let signing = RsaKeyPair::from_components(&components).map_err(|_| CaKeyFormatError::Inconsistent)?;
    let blob = PublicKey::Rsa {
        exponent: e,
        modulus: n,
    }
    .to_blob();
    Ok(CaKey::new(Pair::Rsa(signing), blob))
}

/// `d mod (p - 1)`, which OpenSSH's format leaves out and RSA's Chinese remainder form needs.
///
/// Bit by bit, with big-endian bytes: it runs twice per start of a CA. aws-lc checks the result when the key is made.
fn remainder_by_predecessor(d: &[u8], p: &[u8]) -> Zeroizing<Vec<u8>> {
    let mut modulus = Zeroizing::new(p.to_vec());
    // A prime is odd, so its predecessor differs in the last bit only; an even number is refused by aws-lc later.
    if let Some(last) = modulus.last_mut() {
        *last &= !1;
    }
    // One byte more than the modulus, for the bit that doubling adds.
    let mut remainder = Zeroizing::new(vec![0u8; modulus.len() + 1]);
    for bit in d
        .iter()
        .flat_map(|byte| (0..8).rev().map(move |place| byte >> place & 1))
    {
        let mut carry = bit;
        for byte in remainder.iter_mut().rev() {
            let high = *byte >> 7;
            *byte = *byte << 1 | carry;
            carry = high;
        }
        let is_large = remainder[0] != 0 || remainder[1..] >= modulus[..];
        if is_large {
            let mut borrow = false;
            for (byte, subtrahend) in remainder[1..].iter_mut().zip(modulus.iter()).rev() {
                let (difference, first) = byte.overflowing_sub(*subtrahend);
                let (difference, second) = difference.overflowing_sub(u8::from(borrow));
                *byte = difference;
                borrow = first || second;
            }
            remainder[0] = remainder[0].wrapping_sub(u8::from(borrow));
        }
    }
    remainder
}

pub(crate) fn encode(key: &CaKey) -> Result<SecretBytes, CaKeyFormatError> {
    let Pair::Ed25519(pair) = &key.pair else {
        return Err(CaKeyFormatError::NotExportable);
    };
    let not_exportable = |_| CaKeyFormatError::NotExportable;
    let seed = pair.seed().map_err(not_exportable)?;
    let mut bytes = Zeroizing::new([0u8; 64]);
    {
        use aws_lc_rs::encoding::AsBigEndian;
        let seed = seed.as_be_bytes().map_err(not_exportable)?;
        bytes[..32].copy_from_slice(seed.as_ref());
    }
    bytes[32..].copy_from_slice(pair.public_key().as_ref());
    let pair = Ed25519Keypair::from_bytes(&bytes).map_err(|_| CaKeyFormatError::NotExportable)?;
    let pem = PrivateKey::new(KeypairData::Ed25519(pair), "epithet CA")
        .and_then(|private| private.to_openssh(LineEnding::LF))
        .map_err(|_| CaKeyFormatError::NotExportable)?;
    let mut text = Vec::with_capacity(pem.len());
    text.extend_from_slice(pem.as_bytes());
    Ok(SecretBytes::new(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_remainder_is_that_of_schoolbook_arithmetic() {
        for (d, p) in [(1000u32, 7u16), (65_535, 255), (4_000_000_000, 65_521), (5, 257)] {
            let expected = d % (u32::from(p) - 1);
            let remainder = remainder_by_predecessor(&d.to_be_bytes(), &p.to_be_bytes());
            let value = remainder
                .iter()
                .fold(0u32, |value, byte| value << 8 | u32::from(*byte));
            assert_eq!(value, expected, "{d} mod {p}-1");
        }
    }

    #[test]
    fn a_generated_key_survives_being_written_and_read() {
        let key = CaKey::generate_ed25519().unwrap();
        let pem = key.to_openssh_private().unwrap();
        let again = CaKey::from_openssh(std::str::from_utf8(pem.expose()).unwrap(), || None).unwrap();
        assert_eq!(again.fingerprint(), key.fingerprint());
    }

    #[test]
    fn other_formats_are_named_with_the_way_out() {
        let error = |text| CaKey::from_openssh(text, || None).unwrap_err();
        assert_eq!(
            error("-----BEGIN RSA PRIVATE KEY-----\nx"),
            CaKeyFormatError::OtherPem("RSA PRIVATE KEY".into())
        );
        assert_eq!(error("ssh-ed25519 AAAA"), CaKeyFormatError::NotPrivate);
        assert_eq!(
            error("-----BEGIN CERTIFICATE-----\n"),
            CaKeyFormatError::NotPrivate
        );
        assert!(matches!(error(OPENSSH_PEM), CaKeyFormatError::Damaged(_)));
    }
}
