//! Making user certificates.
//!
//! The body is written straight into one buffer and signed there: making a certificate costs one signature and
//! little else.

use std::collections::BTreeMap;

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use epithet_wire::limits::PRINCIPALS_MAX;
use epithet_wire::{KeyId, Principal};

use crate::agent_key::AgentError;
use crate::ca_key::{CaKey, CaPublicKey, SigningError};
use crate::ca_signer::CaSigner;
use crate::certificate::{CERTIFICATE_MAX, CertificateError, USER_ROLE, UserCertificate, check_times};
use crate::encoding::Put;
use crate::subject::{NoRandomness, SubjectPublicKey};

/// Bytes of a nonce. It makes the signed message unpredictable, so that no two requests can be made to collide.
const NONCE_SIZE: usize = 32;
/// The longest name of an option or extension.
const OPTION_NAME_MAX: usize = 256;

/// What a certificate is to say. Times are Unix seconds; the certificate is valid at `valid_after`, no more at `valid_before`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateSpec {
    /// The key that is certified.
    pub subject: SubjectPublicKey,
    /// A number for revocation and audit; not zero, which means "not numbered".
    pub serial: u64,
    /// Who asked, as sshd will log it.
    pub key_id: KeyId,
    /// The names to log in as: at least one, at most [`PRINCIPALS_MAX`], no duplicates.
    pub principals: Vec<Principal>,
    /// Not zero, which means "since ever".
    pub valid_after: u64,
    /// Not `u64::MAX`, which means "for ever".
    pub valid_before: u64,
    /// Options that a host must understand or refuse; flags have an empty value.
    pub critical_options: BTreeMap<String, String>,
    /// What the holder may do, such as `permit-pty`; flags have an empty value.
    pub extensions: BTreeMap<String, String>,
}

/// Why a certificate is not made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CertificateSpecError {
    /// Older sshd take such a certificate for everybody's (CVE-2024-7594).
    #[error("a certificate needs at least one principal")]
    NoPrincipal,
    /// Too many names.
    #[error("{0} principals were asked for; at most {PRINCIPALS_MAX} are allowed")]
    TooManyPrincipals(usize),
    /// The same name twice.
    #[error("the principal {0} is there twice")]
    DuplicatePrincipal(Principal),
    /// Zero is no number.
    #[error("the serial number must not be zero")]
    Serial,
    /// It would be valid for ever or never.
    #[error(transparent)]
    Times(CertificateError),
    /// A name that no option has.
    #[error("the option name {0:?} is empty, too long, or not plain ASCII")]
    OptionName(String),
    /// All of it together is too much.
    #[error("the certificate would be larger than {CERTIFICATE_MAX} bytes")]
    TooLarge,
    /// No nonce.
    #[error(transparent)]
    NoRandomness(#[from] NoRandomness),
    /// No signature.
    #[error(transparent)]
    Signing(#[from] SigningError),
    /// No signature from the agent that holds the key.
    #[error(transparent)]
    Agent(#[from] AgentError),
    /// A signature from outside that does not fit.
    #[error(transparent)]
    Signature(CertificateError),
}

impl CertificateSpec {
    /// Makes the certificate: a fresh nonce, the user type, options in order, signed by `key`.
    ///
    /// # Errors
    /// [`CertificateSpecError`]: nothing is signed unless every field is in order.
    pub fn sign(&self, key: &CaKey) -> Result<UserCertificate, CertificateSpecError> {
        let unsigned = self.prepare(key.public())?;
        let signature = key.sign(unsigned.to_be_signed())?;
        UserCertificate::from_signed(unsigned.join(&signature)).map_err(too_large_or_wrong)
    }

    /// The same by a key that may be in an agent.
    ///
    /// # Errors
    /// As [`CertificateSpec::sign`], and [`CertificateSpecError::Agent`].
    pub async fn sign_with(&self, signer: &CaSigner) -> Result<UserCertificate, CertificateSpecError> {
        match signer {
            CaSigner::Here(key) => self.sign(key),
            CaSigner::Agent(key) => {
                let unsigned = self.prepare(key.public())?;
                let signature = key.sign(unsigned.to_be_signed()).await?;
                UserCertificate::from_signed(unsigned.join(&signature)).map_err(too_large_or_wrong)
            }
        }
    }

    /// Everything but the signature, for a CA key that is somewhere else (an agent, a security module).
    ///
    /// # Errors
    /// As [`CertificateSpec::sign`].
    pub fn prepare(&self, ca: &CaPublicKey) -> Result<UnsignedCertificate, CertificateSpecError> {
        self.check()?;
        let mut nonce = [0; NONCE_SIZE];
        SystemRandom::new().fill(&mut nonce).map_err(|_| NoRandomness)?;
        let subject = self.subject.key();

        let mut blob = Vec::with_capacity(1024);
        blob.put_string(subject.certificate_algorithm());
        blob.put_string(nonce);
        subject.put_parts(&mut blob);
        blob.put_u64(self.serial);
        blob.put_u32(USER_ROLE);
        blob.put_string(self.key_id.as_str());
        blob.put_nested(|list| {
            for principal in &self.principals {
                list.put_string(principal.as_str());
            }
        });
        blob.put_u64(self.valid_after);
        blob.put_u64(self.valid_before);
        put_options(&mut blob, &self.critical_options);
        put_options(&mut blob, &self.extensions);
        blob.put_string("");
        blob.put_string(ca.blob());
        Ok(UnsignedCertificate { blob })
    }

    fn check(&self) -> Result<(), CertificateSpecError> {
        if self.principals.is_empty() {
            return Err(CertificateSpecError::NoPrincipal);
        }
        if self.principals.len() > PRINCIPALS_MAX {
            return Err(CertificateSpecError::TooManyPrincipals(self.principals.len()));
        }
        for (index, principal) in self.principals.iter().enumerate() {
            if self.principals[..index].contains(principal) {
                return Err(CertificateSpecError::DuplicatePrincipal(principal.clone()));
            }
        }
        if self.serial == 0 {
            return Err(CertificateSpecError::Serial);
        }
        check_times(self.valid_after, self.valid_before).map_err(CertificateSpecError::Times)?;
        let is_plain = |name: &str| {
            (1..=OPTION_NAME_MAX).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_graphic())
        };
        match self
            .critical_options
            .keys()
            .chain(self.extensions.keys())
            .find(|name| !is_plain(name))
        {
            Some(name) => Err(CertificateSpecError::OptionName(name.chars().take(64).collect())),
            None => Ok(()),
        }
    }
}

/// Options in the order of their names, which is the order of a `BTreeMap`.
fn put_options(blob: &mut Vec<u8>, options: &BTreeMap<String, String>) {
    blob.put_nested(|list| {
        for (name, value) in options {
            list.put_string(name);
            if value.is_empty() {
                list.put_string("");
            } else {
                list.put_nested(|data| data.put_string(value));
            }
        }
    });
}

fn too_large_or_wrong(error: CertificateError) -> CertificateSpecError {
    match error {
        CertificateError::TooLarge(_) => CertificateSpecError::TooLarge,
        other => CertificateSpecError::Signature(other),
    }
}

/// A certificate that lacks its signature.
#[derive(Debug, Clone)]
pub struct UnsignedCertificate {
    blob: Vec<u8>,
}

impl UnsignedCertificate {
    /// What the CA key signs.
    pub fn to_be_signed(&self) -> &[u8] {
        &self.blob
    }

    fn join(mut self, signature: &[u8]) -> Vec<u8> {
        self.blob.put_string(signature);
        self.blob
    }

    /// Completes the certificate with a signature made elsewhere (`string algorithm, string signature`).
    ///
    /// # Errors
    /// When the signature is not one by the CA key that the certificate was prepared for.
    pub fn with_signature(self, signature: &[u8]) -> Result<UserCertificate, CertificateSpecError> {
        UserCertificate::from_blob(self.join(signature)).map_err(too_large_or_wrong)
    }
}
