//! The certificate authority's key: private for the CA, public for everybody who trusts it.

use std::fmt;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, ECDSA_P521_SHA512_FIXED_SIGNING,
    EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA512, RSA_PSS_SHA256, RsaEncoding, RsaKeyPair,
};
use epithet_wire::SecretBytes;

use crate::agent_wire::RsaHash;
use crate::ca_key_format::{self, CaKeyFormatError};
use crate::encoding::{Malformed, Put, Reader};
use crate::jws::JwsAlgorithm;
use crate::line::{self, LineError};
use crate::public_key::{Curve, KeyFormatError, PublicKey, ecdsa_mpints};
use crate::subject::NoRandomness;

/// A private key that signs certificates: ed25519, ecdsa on P-256, P-384 or P-521, or rsa of 2048 to 8192 bits.
///
/// All signing is aws-lc's; the key stays inside it and is overwritten when it is freed.
pub struct CaKey {
    pub(crate) pair: Pair,
    public: CaPublicKey,
}

/// The key in the form that signs.
pub(crate) enum Pair {
    Ed25519(Ed25519KeyPair),
    Ecdsa(Curve, EcdsaKeyPair),
    Rsa(RsaKeyPair),
}

/// Signing failed, which for a key that loaded means that the system is out of memory or random bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the CA key could not sign; is the system out of memory?")]
pub struct SigningError;

impl CaKey {
    /// A new ed25519 key, for demos and tests; others make theirs with `ssh-keygen`.
    ///
    /// # Errors
    /// Only when the system gives no random bytes.
    pub fn generate_ed25519() -> Result<Self, NoRandomness> {
        let pair = Ed25519KeyPair::generate().map_err(|_| NoRandomness)?;
        let blob = PublicKey::Ed25519 {
            point: pair.public_key().as_ref(),
        }
        .to_blob();
        Ok(Self::new(Pair::Ed25519(pair), blob))
    }

    /// Reads a private key in OpenSSH's format (`-----BEGIN OPENSSH PRIVATE KEY-----`).
    ///
    /// `passphrase` is asked only when the key is encrypted; `None` means that nobody can give one.
    ///
    /// # Errors
    /// [`CaKeyFormatError`] says what is wrong with the key and how to make it usable.
    pub fn from_openssh(
        pem: &str,
        passphrase: impl FnOnce() -> Option<SecretBytes>,
    ) -> Result<Self, CaKeyFormatError> {
        ca_key_format::decode(pem, passphrase)
    }

    /// The key in OpenSSH's format, unencrypted. Only for keys of [`CaKey::generate_ed25519`].
    ///
    /// # Errors
    /// [`CaKeyFormatError::NotExportable`] for keys of other types, which came from a file and can stay there.
    pub fn to_openssh_private(&self) -> Result<SecretBytes, CaKeyFormatError> {
        ca_key_format::encode(self)
    }

    pub(crate) fn new(pair: Pair, public_blob: Vec<u8>) -> Self {
        let public = CaPublicKey {
            blob: public_blob.into(),
        };
        Self { pair, public }
    }

    /// The public half.
    pub fn public(&self) -> &CaPublicKey {
        &self.public
    }

    /// `algorithm base64`: the line for sshd's `TrustedUserCAKeys`.
    pub fn public_line(&self) -> String {
        self.public.line()
    }

    /// `SHA256:...`, as `ssh-keygen -l` prints it.
    pub fn fingerprint(&self) -> String {
        self.public.fingerprint()
    }

    /// Signs, and returns the signature as SSH carries it: `string algorithm, string signature`.
    ///
    /// RSA keys sign with `rsa-sha2-512`, never with SHA-1.
    ///
    /// # Errors
    /// [`SigningError`], which no input can cause.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SigningError> {
        let mut blob = Vec::with_capacity(128);
        match &self.pair {
            Pair::Ed25519(pair) => {
                blob.put_string("ssh-ed25519");
                blob.put_string(pair.try_sign(message).map_err(|_| SigningError)?);
            }
            Pair::Ecdsa(curve, pair) => {
                let fixed = pair
                    .sign(&SystemRandom::new(), message)
                    .map_err(|_| SigningError)?;
                blob.put_string(curve.algorithm());
                blob.put_string(ecdsa_mpints(fixed.as_ref()));
            }
            Pair::Rsa(pair) => {
                blob.put_string("rsa-sha2-512");
                blob.put_string(rsa_sign(pair, &RSA_PKCS1_SHA512, message)?);
            }
        }
        Ok(blob)
    }

    /// The algorithm of [`CaKey::sign_jws`].
    pub fn jws_algorithm(&self) -> JwsAlgorithm {
        match &self.pair {
            Pair::Ed25519(_) => JwsAlgorithm::EdDsa,
            Pair::Ecdsa(curve, _) => curve.jws_algorithm(),
            Pair::Rsa(_) => JwsAlgorithm::Ps256,
        }
    }

    /// Signs the signing input of a JWS (RFC 7515 section 5.1), and returns the raw signature.
    ///
    /// # Errors
    /// [`SigningError`], which no input can cause.
    pub fn sign_jws(&self, signing_input: &[u8]) -> Result<Vec<u8>, SigningError> {
        let signature = match &self.pair {
            Pair::Ed25519(pair) => pair.try_sign(signing_input),
            Pair::Ecdsa(_, pair) => pair.sign(&SystemRandom::new(), signing_input),
            Pair::Rsa(pair) => return rsa_sign(pair, &RSA_PSS_SHA256, signing_input),
        };
        signature
            .map(|signature| signature.as_ref().to_vec())
            .map_err(|_| SigningError)
    }

    /// A pair on this curve; none when the halves do not belong together.
    pub(crate) fn ecdsa_pair(curve: Curve, private: &[u8], point: &[u8]) -> Option<EcdsaKeyPair> {
        let scheme = match curve {
            Curve::P256 => &ECDSA_P256_SHA256_FIXED_SIGNING,
            Curve::P384 => &ECDSA_P384_SHA384_FIXED_SIGNING,
            Curve::P521 => &ECDSA_P521_SHA512_FIXED_SIGNING,
        };
        EcdsaKeyPair::from_private_key_and_public_key(scheme, private, point).ok()
    }
}

fn rsa_sign(
    pair: &RsaKeyPair,
    scheme: &'static dyn RsaEncoding,
    message: &[u8],
) -> Result<Vec<u8>, SigningError> {
    let mut signature = vec![0; pair.public_modulus_len()];
    pair.sign(scheme, &SystemRandom::new(), message, &mut signature)
        .map_err(|_| SigningError)?;
    Ok(signature)
}

impl fmt::Debug for CaKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CaKey")
            .field("public", &self.public)
            .finish_non_exhaustive()
    }
}

/// So that ssh-key's own types (`SshSig`, its certificate builder) can be signed by a [`CaKey`].
impl signature::Signer<ssh_key::Signature> for CaKey {
    fn try_sign(&self, message: &[u8]) -> Result<ssh_key::Signature, signature::Error> {
        let blob = self.sign(message).map_err(|_| signature::Error::new())?;
        ssh_key::Signature::try_from(blob.as_slice()).map_err(|_| signature::Error::new())
    }
}

/// The public half of a CA key, as hosts and policy servers are given it.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct CaPublicKey {
    blob: Box<[u8]>,
}

/// Why a line is not a CA's public key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CaPublicKeyError {
    /// Not a line of a `.pub` file.
    #[error("the CA's public key {0}")]
    Line(#[from] LineError),
    /// Not a plain key.
    #[error("the CA's public key {0}")]
    Key(#[from] KeyFormatError),
    /// A key of a type that cannot be a CA's.
    #[error(
        "the CA's public key is of type {0}; a CA key is ed25519, ecdsa on nistp256, nistp384 or nistp521, or rsa of 2048 to 8192 bits"
    )]
    Type(&'static str),
}

impl CaPublicKey {
    /// Parses one line, `algorithm base64 [comment]`.
    ///
    /// # Errors
    /// [`CaPublicKeyError`] for anything else than one key of a type that [`CaKey`] can have.
    pub fn parse(line: &str) -> Result<Self, CaPublicKeyError> {
        let (_, blob) = line::parse(line)?;
        Self::from_blob(&blob)
    }

    pub(crate) fn from_blob(blob: &[u8]) -> Result<Self, CaPublicKeyError> {
        let key = PublicKey::parse(blob)?;
        let is_ca_type = match &key {
            PublicKey::Ed25519 { .. } => true,
            PublicKey::Ecdsa { .. } => key.is_on_curve(),
            PublicKey::Rsa { modulus, .. } => (2048..=8192).contains(&PublicKey::rsa_bits(modulus)),
            PublicKey::SkEd25519 { .. } | PublicKey::SkEcdsa { .. } => false,
        };
        if is_ca_type {
            Ok(Self { blob: blob.into() })
        } else {
            Err(CaPublicKeyError::Type(key.algorithm()))
        }
    }

    fn key(&self) -> PublicKey<'_> {
        PublicKey::parse(&self.blob).expect("the blob was parsed when this value was made")
    }

    /// The key as SSH carries it.
    pub fn blob(&self) -> &[u8] {
        &self.blob
    }

    /// `algorithm base64`, without comment or line end.
    pub fn line(&self) -> String {
        line::format(self.key().algorithm(), &self.blob)
    }

    /// `SHA256:...`, as `ssh-keygen -l` prints it.
    pub fn fingerprint(&self) -> String {
        line::fingerprint(&self.blob)
    }

    /// The JWS algorithm of tokens that this key signs, unless it is an RSA key in an agent, which signs with RS256.
    pub fn jws_algorithm(&self) -> JwsAlgorithm {
        match self.key() {
            PublicKey::Ecdsa { curve, .. } => curve.jws_algorithm(),
            PublicKey::Rsa { .. } => JwsAlgorithm::Ps256,
            _ => JwsAlgorithm::EdDsa,
        }
    }

    /// The algorithm named `name`, if a token signed by this key may name it.
    pub fn jws_algorithm_named(&self, name: &str) -> Option<JwsAlgorithm> {
        let own = self.jws_algorithm();
        let of_agents = (own == JwsAlgorithm::Ps256).then_some(JwsAlgorithm::Rs256);
        [Some(own), of_agents]
            .into_iter()
            .flatten()
            .find(|algorithm| algorithm.name() == name)
    }

    /// Whether `signature` is this key's over the signing input of a JWS, of this algorithm.
    #[must_use]
    pub fn verify_jws(&self, algorithm: JwsAlgorithm, signing_input: &[u8], signature: &[u8]) -> bool {
        self.key().verify_jws(algorithm, signing_input, signature)
    }

    pub(crate) fn is_rsa(&self) -> bool {
        matches!(self.key(), PublicKey::Rsa { .. })
    }

    /// Whether `signature` is one that this key should make over `message`: RSA with this hash and nothing else.
    pub(crate) fn verify_own(&self, message: &[u8], signature: &[u8], hash: RsaHash) -> bool {
        let algorithm = Reader::new(signature).string();
        self.verify(message, signature) && (!self.is_rsa() || algorithm == Ok(hash.algorithm().as_bytes()))
    }

    pub(crate) fn jws_form(&self, signature: &[u8]) -> Result<Vec<u8>, Malformed> {
        self.key().jws_form(signature)
    }

    /// Whether an SSH signature (`string algorithm, string signature`) is this key's over `message`.
    #[must_use]
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        self.key().verify(message, signature).is_ok()
    }
}

impl fmt::Debug for CaPublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CaPublicKey({})", self.line())
    }
}
