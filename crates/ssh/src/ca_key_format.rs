//! The CA's key types inside OpenSSH's private key format (`PROTOCOL.key`), to and from [`CaKey`].
//!
//! The parts go straight into aws-lc, which checks that they belong together.

use aws_lc_rs::encoding::AsBigEndian;
use aws_lc_rs::rsa::KeyPairComponents;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair, RsaKeyPair, RsaPublicKeyComponents};
use epithet_wire::SecretBytes;
use zeroize::Zeroizing;

use crate::ca_key::{CaKey, Pair};
use crate::encoding::{Malformed, Put, Reader};
use crate::openssh_key::{self, OpenedKey};
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
    #[error("the CA key is of type {0}; make one with: ssh-keygen -t ed25519 (ecdsa and rsa work too)")]
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

pub(crate) fn decode(
    pem: &str,
    passphrase: impl FnOnce() -> Option<SecretBytes>,
) -> Result<CaKey, CaKeyFormatError> {
    let opened = OpenedKey::open(pem, passphrase)?;
    let mut reader = opened.private();
    let pair = match reader.text()? {
        "ssh-ed25519" => ed25519(&mut reader)?,
        "ecdsa-sha2-nistp256" => ecdsa(Curve::P256, &mut reader)?,
        "ecdsa-sha2-nistp384" => ecdsa(Curve::P384, &mut reader)?,
        "ecdsa-sha2-nistp521" => ecdsa(Curve::P521, &mut reader)?,
        "ssh-rsa" => rsa(&mut reader)?,
        other => return Err(CaKeyFormatError::Type(other.chars().take(64).collect())),
    };
    OpenedKey::finish(reader)?;
    let (signing, public) = pair;
    if public == opened.public {
        Ok(CaKey::new(signing, public))
    } else {
        Err(CaKeyFormatError::Inconsistent)
    }
}

/// The key that signs, and its public half as SSH carries it.
type Parts = Result<(Pair, Vec<u8>), CaKeyFormatError>;

fn ed25519(reader: &mut Reader<'_>) -> Parts {
    let point = reader.string()?;
    // The seed, and the public half once more.
    let seed = match reader.string()?.split_at_checked(32) {
        Some((seed, again)) if again == point => seed,
        _ => return Err(CaKeyFormatError::Inconsistent),
    };
    let signing =
        Ed25519KeyPair::from_seed_and_public_key(seed, point).map_err(|_| CaKeyFormatError::Inconsistent)?;
    Ok((Pair::Ed25519(signing), PublicKey::Ed25519 { point }.to_blob()))
}

fn ecdsa(curve: Curve, reader: &mut Reader<'_>) -> Parts {
    if reader.text()? != curve.name() {
        return Err(CaKeyFormatError::Inconsistent);
    }
    let point = reader.string()?;
    let number = reader.positive()?;
    // aws-lc wants the number at the curve's full size; in the file it is as short as it can be.
    let mut private = Zeroizing::new(vec![0; curve.size()]);
    let start = curve.size().checked_sub(number.len()).ok_or(Malformed::Value)?;
    private[start..].copy_from_slice(number);
    let signing = CaKey::ecdsa_pair(curve, &private, point).ok_or(CaKeyFormatError::Inconsistent)?;
    Ok((
        Pair::Ecdsa(curve, signing),
        PublicKey::Ecdsa { curve, point }.to_blob(),
    ))
}

fn rsa(reader: &mut Reader<'_>) -> Parts {
    let (n, e) = (reader.positive()?, reader.positive()?);
    let (d, inverse) = (reader.positive()?, reader.positive()?);
    let (p, q) = (reader.positive()?, reader.positive()?);
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
        qInv: inverse,
    };
    let signing = RsaKeyPair::from_components(&components).map_err(|_| CaKeyFormatError::Inconsistent)?;
    let public = PublicKey::Rsa {
        exponent: e,
        modulus: n,
    };
    Ok((Pair::Rsa(signing), public.to_blob()))
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
    let point = pair.public_key().as_ref();
    let seed = pair
        .seed()
        .and_then(|seed| seed.as_be_bytes())
        .map_err(|_| CaKeyFormatError::NotExportable)?;
    openssh_key::write(key.public().blob(), "epithet CA", |section| {
        section.put_string("ssh-ed25519");
        section.put_string(point);
        section.put_nested(|both| {
            both.extend_from_slice(seed.as_ref());
            both.extend_from_slice(point);
        });
    })
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
    fn a_private_number_that_is_a_byte_shorter_than_others_is_read() {
        // One ecdsa key in 256 has such a number.
        let pem = include_str!("../tests/keys/ecdsa-short-number");
        let line = include_str!("../tests/keys/ecdsa-short-number.pub");
        let key = CaKey::from_openssh(pem, || None).unwrap();
        assert!(line.starts_with(&key.public_line()), "{}", key.public_line());
    }

    #[test]
    fn a_key_with_any_part_changed_is_refused() {
        let pem = CaKey::generate_ed25519().unwrap().to_openssh_private().unwrap();
        let text = std::str::from_utf8(pem.expose()).unwrap();
        for (place, byte) in text.bytes().enumerate() {
            let mut changed = text.to_owned().into_bytes();
            changed[place] = if byte == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(changed).unwrap();
            // The comment says nothing about the key.
            let is_comment = CaKey::from_openssh(&changed, || None).is_ok();
            assert!(!is_comment || place > text.len() - 90, "{place}");
            let _ = CaKey::from_openssh(&text[..place], || None);
        }
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
        let opened = "-----BEGIN OPENSSH PRIVATE KEY-----\n";
        assert!(matches!(error(opened), CaKeyFormatError::Damaged(_)));
    }
}
