//! A certificate for one connection: a fresh key, the token, the CA; and again with a new token when the CA says 401.

use crate::ca_answer::CaAnswer;
use crate::ca_pool::CaPool;
use crate::key_stock::KeyStock;
use crate::login::{Lease, Login, LoginError};
use crate::traces::Recorder;
use crate::voice::Voice;
use epithet_agent::{Clock, Credential, Now};
use epithet_ssh::UserCertificate;
use epithet_wire::broker::Asker;
use epithet_wire::ca::CertificateRequest;
use epithet_wire::limits::TOKEN_ATTEMPTS;
use epithet_wire::{Connection, ConnectionFields, RequestId};
use std::sync::Arc;
use std::time::Instant;

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MintError {
    #[error("authentication failed: {0}")]
    Login(#[from] LoginError),
    #[error("the CA did not accept the token of {TOKEN_ATTEMPTS} logins in a row, the last time saying: {0}")]
    Unauthorized(String),
    #[error("the CA did not accept the token ({0}), and the auth plugin gave the same token again")]
    SameToken(String),
    #[error("access denied by policy: {0}")]
    Denied(String),
    #[error("connection not handled: {0}")]
    NotHandled(String),
    #[error("the CA did not understand the request: {0}")]
    BadRequest(String),
    #[error("no CA is available: {0}")]
    Unavailable(String),
    #[error("the CA's certificate cannot be used: {0}")]
    BadCertificate(String),
}

impl MintError {
    /// The lines a person should read: what happened, and what to do about it.
    pub(crate) fn explain(&self) -> String {
        let advice = match self {
            Self::Login(error) => return format!("authentication failed: {}", error.explain()),
            Self::Unauthorized(_) => {
                "ask whoever runs the CA which tokens it accepts (issuer, client id, audience)"
            }
            Self::SameToken(_) => {
                "the plugin must get a fresh token when it is run again; see docs/auth-plugins.md"
            }
            Self::Denied(_) => "ask whoever runs the policy server for access",
            Self::NotHandled(_) => "ssh goes on without a certificate",
            Self::BadRequest(_) => "client and CA may be of versions that do not fit",
            Self::Unavailable(_) => {
                "check the network and the CA's URL; `epithet inspect` shows what is tried"
            }
            Self::BadCertificate(_) => "tell whoever runs the CA",
        };
        format!("{self}\n  try: {advice}")
    }
}

/// One certificate to be got: for which connection, paid by whom, and under which name.
#[derive(Debug)]
pub(crate) struct Errand {
    pub(crate) connection: Connection,
    /// The token to begin with; without one, the login is asked.
    pub(crate) lease: Option<Lease>,
    pub(crate) asker: Asker,
    pub(crate) request_id: RequestId,
    pub(crate) recorder: Arc<Recorder>,
}

/// What minting needs, shared by all connections.
#[derive(Debug, Clone)]
pub(crate) struct Mint {
    pub(crate) login: Arc<Login>,
    pub(crate) pool: Arc<CaPool>,
    pub(crate) keys: Arc<KeyStock>,
    pub(crate) clock: Clock,
}

impl Mint {
    /// Gets a certificate for the errand's connection, beginning with the token on loan.
    pub(crate) async fn credential(&self, errand: &Errand, voice: &Voice) -> Result<Credential, MintError> {
        let Errand {
            connection,
            lease,
            asker,
            request_id,
            recorder,
        } = errand;
        let began = Instant::now();
        let key = (self.keys.take()).map_err(|error| MintError::BadCertificate(error.to_string()))?;
        let public_key = format!("{}\n", key.public_line());
        let request = CertificateRequest {
            public_key,
            connection: ConnectionFields::from(connection),
        };
        recorder.phase("key", began, "");
        let mut lease = match lease {
            Some(lease) => lease.clone(),
            None => {
                let began = Instant::now();
                let lease = self.login.lease(Some(connection), asker, voice).await?;
                recorder.phase("login", began, lease.note());
                lease
            }
        };
        for attempt in 1.. {
            match (self.pool)
                .certificate(&lease.token, &request, request_id, recorder)
                .await
            {
                CaAnswer::Certificate(line) => {
                    let certificate = check(&line, connection, self.clock.now())?;
                    let user = connection.remote_user.clone();
                    let credential = Credential::new(key, certificate, user, self.clock.now())
                        .map_err(|error| MintError::BadCertificate(error.to_string()))?;
                    let certificate = credential.certificate();
                    self.login.paid_for(&lease, certificate.valid_before());
                    tracing::info!(%request_id, host = %connection.remote_host, user = %connection.remote_user, serial = certificate.serial(), key_id = certificate.key_id(), valid_before = certificate.valid_before(), "certificate received");
                    return Ok(credential);
                }
                CaAnswer::Unauthorized(words) => {
                    tracing::info!(%request_id, attempt, %words, "the CA did not accept the token");
                    self.login.reject(&lease);
                    if attempt == TOKEN_ATTEMPTS {
                        return Err(MintError::Unauthorized(words));
                    }
                    let began = Instant::now();
                    let next = self.login.lease(Some(connection), asker, voice).await?;
                    recorder.phase("login", began, "again, because the CA did not accept the token");
                    if next.token == lease.token {
                        self.login.reject(&next);
                        return Err(MintError::SameToken(words));
                    }
                    lease = next;
                }
                CaAnswer::Denied(words) => return Err(MintError::Denied(words)),
                CaAnswer::NotHandled(words) => return Err(MintError::NotHandled(words)),
                CaAnswer::BadRequest(words) => return Err(MintError::BadRequest(words)),
                CaAnswer::Unavailable { problem, .. } | CaAnswer::Declined { problem, .. } => {
                    return Err(MintError::Unavailable(problem));
                }
            }
        }
        unreachable!("the loop ends by returning")
    }
}

/// Accepts a certificate only if it names the user asked for and has begun. That it is for our key and has not ended is
/// checked where it becomes a credential.
fn check(line: &str, connection: &Connection, now: Now) -> Result<UserCertificate, MintError> {
    let bad = |problem: &str| MintError::BadCertificate(problem.to_owned());
    let certificate =
        UserCertificate::parse(line).map_err(|error| MintError::BadCertificate(error.to_string()))?;
    if !certificate.has_principal(connection.remote_user.as_str()) {
        return Err(bad("it does not name the user asked for"));
    }
    if certificate.valid_after() > now.unix {
        return Err(bad(
            "it is not valid yet; is this machine's clock behind the CA's?",
        ));
    }
    Ok(certificate)
}
