//! The one place where certificates are made.

use crate::decision::{Ceilings, Decision, DecisionError};
use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use epithet_ssh::{
    CaPublicKey, CaSigner, CertificateSpec, CertificateSpecError, SubjectPublicKey, UserCertificate,
};
use epithet_wire::RequestId;
use epithet_wire::limits::CERTIFICATE_BACKDATE;

/// The CA's key and its limits. Every certificate comes from [`Authority::issue`].
#[derive(Debug)]
pub struct Authority {
    signer: CaSigner,
    fingerprint: String,
    published: Vec<CaPublicKey>,
    ceilings: Ceilings,
}

/// Why no certificate was issued.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// Policy asked for what this CA does not sign.
    #[error(transparent)]
    Decision(#[from] DecisionError),
    /// The certificate could not be made or signed.
    #[error(transparent)]
    Certificate(#[from] CertificateSpecError),
    /// The system gave no random bytes for the serial number.
    #[error("no random bytes for a serial number")]
    NoRandomness,
}

impl Authority {
    /// An authority that signs with this key, within these limits.
    pub fn new(signer: impl Into<CaSigner>, ceilings: Ceilings) -> Self {
        let signer = signer.into();
        let fingerprint = signer.fingerprint();
        Self {
            published: vec![signer.public().clone()],
            signer,
            fingerprint,
            ceilings,
        }
    }

    /// Publishes these keys beside its own: for a key's rotation, during which hosts shall trust the next one already
    /// or the last one still.
    #[must_use]
    pub fn publish_also(mut self, keys: impl IntoIterator<Item = CaPublicKey>) -> Self {
        for key in keys {
            if !self.published.contains(&key) {
                self.published.push(key);
            }
        }
        self
    }

    /// The public keys for hosts to trust, the one that signs first.
    pub fn public_keys(&self) -> &[CaPublicKey] {
        &self.published
    }

    /// `SHA256:...` of the key that signs.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// The key that signs, wherever it is.
    pub fn signer(&self) -> &CaSigner {
        &self.signer
    }

    /// The CA's own limits.
    pub fn ceilings(&self) -> &Ceilings {
        &self.ceilings
    }

    /// Issues a user certificate for `subject` as policy decided for a login as `user`, within the CA's own limits.
    ///
    /// It is valid from a minute before `now` (seconds since 1970), for hosts whose clocks are behind, and has a random
    /// serial number.
    ///
    /// # Errors
    /// [`IssueError`]; nothing was signed then.
    pub async fn issue(
        &self,
        decision: Decision,
        subject: SubjectPublicKey,
        user: &str,
        request_id: &RequestId,
        now: u64,
    ) -> Result<UserCertificate, IssueError> {
        let checked = self.ceilings.check(decision, user, request_id, now)?;
        checked.suits(&subject)?;
        let spec = CertificateSpec {
            subject,
            serial: serial()?,
            key_id: checked.key_id,
            principals: checked.principals,
            valid_after: now.saturating_sub(CERTIFICATE_BACKDATE.as_secs()),
            valid_before: checked.valid_before,
            critical_options: checked.critical_options,
            extensions: checked.extensions,
        };
        Ok(spec.sign_with(&self.signer).await?)
    }
}

/// A random number that is not zero, which means "not numbered".
fn serial() -> Result<u64, IssueError> {
    let random = SystemRandom::new();
    let mut bytes = [0; 8];
    while bytes == [0; 8] {
        random.fill(&mut bytes).map_err(|_| IssueError::NoRandomness)?;
    }
    Ok(u64::from_be_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decision::tests::good;
    use epithet_ssh::{CaKey, SubjectKey};
    use epithet_wire::policy::PolicyResponse;
    use std::sync::Arc;

    #[tokio::test]
    async fn a_certificate_says_what_was_decided_and_nothing_else() {
        let key = Arc::new(CaKey::generate_ed25519().unwrap());
        let authority = Authority::new(Arc::clone(&key), Ceilings::default());
        let pair = SubjectKey::generate().unwrap();
        let subject = SubjectPublicKey::parse(&pair.public_line()).unwrap();
        let mut serials = std::collections::BTreeSet::new();
        for _ in 0..20 {
            let decision = Decision::new(PolicyResponse { cert_params: good() });
            let id = RequestId::from_random([0; 8]);
            let issued = authority
                .issue(decision, subject.clone(), "root", &id, 1_767_225_600)
                .await
                .unwrap();
            // Read back as a host would.
            let read = UserCertificate::parse(&issued.line()).unwrap();
            assert!(read.certifies(&pair));
            assert_eq!(read.ca_fingerprint(), key.fingerprint());
            assert_eq!(read.key_id(), "alice@example.com");
            assert_eq!(read.principals(), ["root"]);
            assert_eq!(
                (read.valid_after(), read.valid_before()),
                (1_767_225_540, 1_767_225_900)
            );
            assert_eq!(read.extensions(), [("permit-pty", "")].into());
            assert!(read.critical_options().is_empty());
            assert_ne!(read.serial(), 0);
            serials.insert(read.serial());
        }
        assert_eq!(serials.len(), 20);
    }

    #[test]
    fn keys_for_rotation_are_published_once_and_after_the_own() {
        let own = Arc::new(CaKey::generate_ed25519().unwrap());
        let next = CaKey::generate_ed25519().unwrap();
        let authority = Authority::new(Arc::clone(&own), Ceilings::default()).publish_also([
            next.public().clone(),
            own.public().clone(),
            next.public().clone(),
        ]);
        assert_eq!(
            authority.public_keys(),
            [own.public().clone(), next.public().clone()]
        );
    }
}
