//! The container of OpenSSH's private keys (`PROTOCOL.key`): PEM around an `openssh-key-v1` with one key, perhaps encrypted.
//!
//! Taken apart here rather than by ssh-key, whose decoder refuses one ecdsa key in 512: those on P-256 whose private
//! number is a byte shorter than the others. ssh-key still derives the encryption key and decrypts.

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use epithet_wire::SecretBytes;
use ssh_key::{Cipher, Kdf};
use zeroize::Zeroizing;

use crate::ca_key_format::CaKeyFormatError;
use crate::encoding::{Malformed, Put, Reader};

const PEM_BEGIN: &str = "-----BEGIN OPENSSH PRIVATE KEY-----";
const PEM_END: &str = "-----END OPENSSH PRIVATE KEY-----";
/// What the content begins with.
const MAGIC: &[u8] = b"openssh-key-v1\0";
/// Characters of a PEM line, as ssh-keygen breaks them.
const PEM_WIDTH: usize = 70;
/// Sections are padded to a multiple of this when there is no cipher that asks for more.
const BLOCK: usize = 8;
/// bcrypt's work for a passphrase: ssh-keygen's default is 16 or 24, and this is minutes.
const ROUNDS_MAX: u32 = 10_000;
/// What an authenticated cipher appends.
const TAG_SIZE: usize = 16;

/// The one key of a container, decrypted.
pub(crate) struct OpenedKey {
    /// The public key, as it stands unencrypted in front.
    pub(crate) public: Vec<u8>,
    /// The check numbers, the private key's type and parts, a comment, and padding.
    section: Zeroizing<Vec<u8>>,
}

impl OpenedKey {
    /// Takes a private key file apart, and decrypts it when need be.
    pub(crate) fn open(
        pem: &str,
        passphrase: impl FnOnce() -> Option<SecretBytes>,
    ) -> Result<Self, CaKeyFormatError> {
        let content = decode_pem(pem)?;
        let mut reader = Reader::new(
            content
                .strip_prefix(MAGIC)
                .ok_or_else(|| damaged("its magic is missing"))?,
        );
        let cipher_name = reader.text()?;
        let kdf_name = reader.text()?;
        let kdf_options = reader.string()?;
        if reader.u32()? != 1 {
            return Err(damaged("it does not hold exactly one key"));
        }
        let public = reader.string()?.to_vec();
        let mut section = Zeroizing::new(reader.string()?.to_vec());
        let tag = reader.rest();
        if cipher_name == "none" {
            reader.finish()?;
            if kdf_name != "none" || !kdf_options.is_empty() {
                return Err(damaged("it has a key derivation, but no encryption"));
            }
        } else {
            let cipher = supported(cipher_name)?;
            let kdf = key_derivation(kdf_name, kdf_options)?;
            let passphrase = passphrase().ok_or(CaKeyFormatError::Encrypted)?;
            decrypt(cipher, &kdf, &passphrase, &mut section, tag)?;
        }
        // Two equal numbers are how one sees that the passphrase was right.
        let mut checked = Reader::new(&section);
        match (checked.u32()?, checked.u32()?) {
            (first, second) if first == second => Ok(Self { public, section }),
            _ if cipher_name == "none" => Err(damaged("its check numbers differ")),
            _ => Err(CaKeyFormatError::WrongPassphrase),
        }
    }

    /// Where the private key's type and parts begin.
    pub(crate) fn private(&self) -> Reader<'_> {
        Reader::new(self.section.get(8..).unwrap_or_default())
    }

    /// Checks what follows the private parts: a comment, and padding that counts up from one.
    pub(crate) fn finish(mut rest: Reader<'_>) -> Result<(), CaKeyFormatError> {
        rest.string()?;
        if rest
            .rest()
            .iter()
            .zip(1u8..)
            .all(|(byte, expected)| *byte == expected)
            && rest.rest().len() <= 32
        {
            Ok(())
        } else {
            Err(damaged("its padding is wrong"))
        }
    }
}

/// Writes an unencrypted key: `parts` puts the private key's type and parts.
pub(crate) fn write(
    public: &[u8],
    comment: &str,
    parts: impl FnOnce(&mut Vec<u8>),
) -> Result<SecretBytes, CaKeyFormatError> {
    let mut check = [0; 4];
    SystemRandom::new()
        .fill(&mut check)
        .map_err(|_| CaKeyFormatError::NotExportable)?;
    // Large enough for the only type that is written, so that no copy is left behind by growing.
    let mut section = Zeroizing::new(Vec::with_capacity(1024));
    section.extend_from_slice(&check);
    section.extend_from_slice(&check);
    parts(&mut section);
    section.put_string(comment);
    let padding = section.len().next_multiple_of(BLOCK) - section.len();
    section.extend((1u8..).take(padding));

    let mut content = Zeroizing::new(Vec::with_capacity(2048));
    content.extend_from_slice(MAGIC);
    content.put_string("none");
    content.put_string("none");
    content.put_string("");
    content.put_u32(1);
    content.put_string(public);
    content.put_string(&*section);

    let mut encoded = Zeroizing::new(vec![0; content.len().div_ceil(3) * 4]);
    let length = STANDARD
        .encode_slice(&*content, &mut encoded)
        .map_err(|_| CaKeyFormatError::NotExportable)?;
    let mut pem = Vec::with_capacity(2 * length + 128);
    for line in std::iter::once(PEM_BEGIN.as_bytes())
        .chain(encoded[..length].chunks(PEM_WIDTH))
        .chain([PEM_END.as_bytes()])
    {
        pem.extend_from_slice(line);
        pem.push(b'\n');
    }
    Ok(SecretBytes::new(pem))
}

fn damaged(problem: &str) -> CaKeyFormatError {
    CaKeyFormatError::Damaged(problem.into())
}

impl From<Malformed> for CaKeyFormatError {
    fn from(error: Malformed) -> Self {
        Self::Damaged(error.to_string())
    }
}

fn decode_pem(pem: &str) -> Result<Zeroizing<Vec<u8>>, CaKeyFormatError> {
    let text = pem.trim();
    let Some(rest) = text.strip_prefix(PEM_BEGIN) else {
        return Err(other_format(text));
    };
    let body = rest
        .strip_suffix(PEM_END)
        .ok_or_else(|| damaged("its last line is missing"))?;
    let mut encoded = Zeroizing::new(Vec::with_capacity(body.len()));
    encoded.extend(body.bytes().filter(|byte| !byte.is_ascii_whitespace()));
    let mut content = Zeroizing::new(vec![0; encoded.len().div_ceil(4) * 3]);
    let length = STANDARD
        .decode_slice(&*encoded, &mut content)
        .map_err(|_| damaged("its base64 is wrong"))?;
    content.truncate(length);
    Ok(content)
}

/// A private key in one of the many other formats, or something else entirely.
fn other_format(text: &str) -> CaKeyFormatError {
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

fn supported(name: &str) -> Result<Cipher, CaKeyFormatError> {
    match Cipher::new(name) {
        Ok(cipher) if !matches!(cipher, Cipher::None | Cipher::TdesCbc) => Ok(cipher),
        _ => Err(CaKeyFormatError::Cipher(name.chars().take(64).collect())),
    }
}

fn key_derivation(name: &str, options: &[u8]) -> Result<Kdf, CaKeyFormatError> {
    if name != "bcrypt" {
        return Err(CaKeyFormatError::Cipher(name.chars().take(64).collect()));
    }
    let mut reader = Reader::new(options);
    let salt = reader.string()?.to_vec();
    let rounds = reader.u32()?;
    reader.finish()?;
    if (1..=ROUNDS_MAX).contains(&rounds) && !salt.is_empty() {
        Ok(Kdf::Bcrypt { salt, rounds })
    } else {
        Err(damaged(
            "its key derivation asks for no salt, no rounds, or far too many",
        ))
    }
}

fn decrypt(
    cipher: Cipher,
    kdf: &Kdf,
    passphrase: &SecretBytes,
    section: &mut [u8],
    tag: &[u8],
) -> Result<(), CaKeyFormatError> {
    let tag = match (cipher.has_tag(), <[u8; TAG_SIZE]>::try_from(tag)) {
        (true, Ok(tag)) => Some(tag.into()),
        (false, _) if tag.is_empty() => None,
        _ => {
            return Err(damaged(
                "the end of its encryption is missing, or something follows it",
            ));
        }
    };
    if section.is_empty() || !section.len().is_multiple_of(cipher.block_size()) {
        return Err(damaged("its encrypted part is cut off"));
    }
    // An empty passphrase is one that bcrypt cannot take and ssh-keygen does not set.
    if passphrase.is_empty() {
        return Err(CaKeyFormatError::WrongPassphrase);
    }
    let (key, iv) = kdf
        .derive_key_and_iv(cipher, passphrase.expose())
        .map_err(|error| CaKeyFormatError::Damaged(error.to_string()))?;
    cipher
        .decrypt(&key, &iv, section, tag)
        .map_err(|_| CaKeyFormatError::WrongPassphrase)
}
