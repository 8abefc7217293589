//! The one place that signs.

use crate::ceilings::{Ceilings, Excess, WithinCeilings};
use epithet_ssh::{CaKey, CertificateSpec, CertificateSpecError, SubjectPublicKey, UserCertificate};
use epithet_wire::limits::CERTIFICATE_BACKDATE;
use epithet_wire::policy::CertParams;
use epithet_wire::{Principal, RequestId};
use jiff::Timestamp;

/// The CA's key and its limits.
#[derive(Debug)]
pub struct Authority {
    key: CaKey,
    ceilings: Ceilings,
}

/// A decision of policy, every word of it checked: the only thing [`Authority::issue`] takes.
///
/// It can only be made by [`Authority::allow`], out of what policy said.
#[must_use]
#[derive(Debug)]
pub struct Allowed {
    within: WithinCeilings,
    params: CertParams,
    now: Timestamp,
}

/// A certificate, and what the audit log says about it.
#[derive(Debug)]
pub struct Issued {
    /// The certificate.
    pub certificate: UserCertificate,
    /// Who policy says this is.
    pub identity: String,
    /// The rule that said yes, when policy names it.
    pub rule: Option<String>,
}

/// Why an allowed certificate was not signed.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// No randomness for the serial.
    #[error("the system gives no random numbers")]
    NoRandomness,
    /// The certificate cannot be made.
    #[error(transparent)]
    Certificate(#[from] CertificateSpecError),
}

impl Authority {
    /// An authority that signs with `key` within `ceilings`.
    pub fn new(key: CaKey, ceilings: Ceilings) -> Self {
        Self { key, ceilings }
    }

    /// The key, for what is not a certificate: its public half, and the CA's own tokens.
    pub fn key(&self) -> &CaKey {
        &self.key
    }

    /// Checks a decision of policy for `user` at `now`.
    ///
    /// # Errors
    /// The first thing that policy said and this CA does not do.
    pub fn allow(
        &self,
        params: CertParams,
        user: &Principal,
        request_id: &RequestId,
        now: Timestamp,
    ) -> Result<Allowed, Excess> {
        let within = self.ceilings.check(&params, user, request_id, now.as_second())?;
        Ok(Allowed { within, params, now })
    }

    /// Signs a certificate for `subject`.
    ///
    /// # Errors
    /// See [`IssueError`]; none of them leaves half a certificate.
    pub fn issue(&self, allowed: Allowed, subject: SubjectPublicKey) -> Result<Issued, IssueError> {
        let Allowed { within, params, now } = allowed;
        let now = u64::try_from(now.as_second()).unwrap_or(0);
        let spec = CertificateSpec {
            subject,
            serial: serial()?,
            key_id: within.key_id,
            principals: within.principals,
            valid_after: now.saturating_sub(CERTIFICATE_BACKDATE.as_secs()),
            valid_before: within.valid_before,
            critical_options: params.critical_options,
            extensions: params.extensions,
        };
        Ok(Issued {
            certificate: spec.sign(&self.key)?,
            identity: params.identity,
            rule: params.rule,
        })
    }
}

/// A random serial number that is not zero.
fn serial() -> Result<u64, IssueError> {
    let mut bytes = [0; 8];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| IssueError::NoRandomness)?;
    Ok(u64::from_be_bytes(bytes).max(1))
}
