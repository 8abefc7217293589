//! What an agent holds: one key, one certificate for it, and the user they are for.

use epithet_ssh::{SubjectKey, UserCertificate};
use epithet_wire::Principal;
use epithet_wire::limits::CERTIFICATE_EXPIRY_BUFFER;
use std::time::Duration;

use crate::clock::Now;

/// A key and its certificate, with the only user it logs in as. The key is wiped when this is dropped.
#[derive(Debug)]
pub struct Credential {
    key: SubjectKey,
    certificate: UserCertificate,
    user: Principal,
    /// When the certificate ends by the clock that nobody can set.
    ends: Duration,
}

/// Why a certificate is of no use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CredentialError {
    /// It is somebody else's.
    #[error("the CA's certificate is for another key than the one that was sent")]
    OtherKey,
    /// It has ended.
    #[error(
        "the CA's certificate has ended already ({seconds} s ago by this machine's clock); is the clock right?"
    )]
    Ended {
        /// How long ago.
        seconds: u64,
    },
    /// It ends before a login that begins now is sure to be completed.
    #[error(
        "the CA's certificate ends in {seconds} s by this machine's clock, which is too soon to log in with it; is the clock right?"
    )]
    Ending {
        /// How soon.
        seconds: u64,
    },
}

impl Credential {
    /// Joins a key and its certificate for logins as `user`.
    ///
    /// The user need not be among the certificate's principals: a host may map principals to users as it likes
    /// (`AuthorizedPrincipalsFile`).
    ///
    /// # Errors
    /// [`CredentialError`] when the certificate is for another key, or ends within the next five seconds.
    pub fn new(
        key: SubjectKey,
        certificate: UserCertificate,
        user: Principal,
        now: Now,
    ) -> Result<Self, CredentialError> {
        if !certificate.certifies(&key) {
            return Err(CredentialError::OtherKey);
        }
        let life = Duration::from_secs(certificate.valid_before().saturating_sub(now.unix));
        let ends = now.boot.saturating_add(life);
        let credential = Self {
            key,
            certificate,
            user,
            ends,
        };
        if credential.is_live(now) {
            Ok(credential)
        } else {
            let ends = credential.expires_at();
            Err(match ends.checked_sub(now.unix) {
                Some(seconds) if seconds > 0 => CredentialError::Ending { seconds },
                _ => CredentialError::Ended {
                    seconds: now.unix.saturating_sub(ends),
                },
            })
        }
    }

    /// Whether a login that begins now can still be completed: not from five seconds before the end on.
    pub fn is_live(&self, now: Now) -> bool {
        let by_calendar = now.unix.saturating_add(CERTIFICATE_EXPIRY_BUFFER.as_secs()) < self.expires_at();
        let by_counting = now.boot.saturating_add(CERTIFICATE_EXPIRY_BUFFER) < self.ends;
        by_calendar && by_counting
    }

    /// The certificate.
    pub fn certificate(&self) -> &UserCertificate {
        &self.certificate
    }

    /// The user on the host.
    pub fn user(&self) -> &Principal {
        &self.user
    }

    /// When the certificate ends, in Unix seconds.
    pub fn expires_at(&self) -> u64 {
        self.certificate.valid_before()
    }

    /// Signs. Only the firewall may ask for it.
    pub(crate) fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.key.sign(message)
    }
}
