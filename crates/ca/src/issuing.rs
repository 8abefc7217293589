//! One request for a certificate, from question to answer: ask policy, issue, write it down, and only then hand it out.

use crate::asked::Asked;
use crate::audit::{AuditLog, CertificateEntry, Entry, GroundsEntry, timestamp};
use crate::authority::{Authority, IssueError};
use crate::decision::DecisionError;
use crate::issued_ids::IssuedIds;
use crate::metrics::CaMetrics;
use crate::policy_source::{PolicyFailure, PolicySource};
use crate::repeats::Repeats;
use crate::turned_away::TurnedAway;
use epithet_serve::{ClientAddress, request_id};
use epithet_ssh::{CertificateSpecError, UserCertificate};
use epithet_wire::display::sanitize_line;
use epithet_wire::policy::Grounds;
use epithet_wire::{RequestId, Token};
use http::{Extensions, StatusCode};
use jiff::Timestamp;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The longest reason in an audit line, in characters.
pub(crate) const REASON_MAX: usize = 1000;
/// When to ask again after there was no room to wait for policy.
pub(crate) const BUSY: Duration = Duration::from_secs(1);

/// Everything that issuing needs.
pub(crate) struct Issuing {
    pub(crate) authority: Authority,
    pub(crate) policy: PolicySource,
    pub(crate) audit: Arc<AuditLog>,
    pub(crate) repeats: Repeats,
    pub(crate) issued_ids: IssuedIds,
    pub(crate) turned_away: TurnedAway,
    pub(crate) metrics: CaMetrics,
}

/// How a request ended. Either way it is in the audit log.
pub(crate) enum Outcome {
    Issued(Arc<Issued>),
    /// The same as before, to the same question.
    Repeated(Arc<Issued>),
    Refused(Refused),
}

/// A refusal: what the client is told, and what the log is told.
pub(crate) struct Refused {
    pub(crate) status: StatusCode,
    pub(crate) message: String,
    /// When it is worth asking again, if that is known.
    pub(crate) retry_after: Option<Duration>,
    reason: String,
    grounds: Option<Box<Grounds>>,
}

/// A certificate, and what policy said about it.
#[derive(Debug)]
pub(crate) struct Issued {
    pub(crate) certificate: UserCertificate,
    /// That of the request, unless another certificate had it.
    pub(crate) request_id: RequestId,
    grounds: Grounds,
    ttl: u64,
}

impl Issued {
    /// Whether the certificate is good now, in seconds since 1970.
    pub(crate) fn is_good(&self, now: u64) -> bool {
        now < self.certificate.valid_before()
    }
}

/// A question that may come again, and the key under which it does.
pub(crate) struct Repeatable<'a> {
    pub(crate) key: String,
    pub(crate) body: &'a [u8],
}

impl Issuing {
    /// Answers with the certificate that the same question got before, while it is good; else decides and issues.
    pub(crate) async fn issue_once(
        &self,
        asked: &Asked,
        token: &Token,
        repeatable: Option<Repeatable<'_>>,
        extensions: &Extensions,
    ) -> Outcome {
        let Some(Repeatable { key, body }) = repeatable else {
            return self.issue(asked, token, extensions).await;
        };
        let now = crate::unix_now();
        let Ok(slot) = self.repeats.slot(key, token, body, now) else {
            let refused = Refused::plain(
                StatusCode::CONFLICT,
                "the Idempotency-Key was used for another request; use a new key for each".to_owned(),
            );
            let id = request_id(extensions);
            let entry = self.entry(asked, &id, extensions.get::<ClientAddress>(), Err(&refused));
            self.turned_away.note(&entry).await;
            return Outcome::Refused(refused);
        };
        let mut answer = slot.answer.lock().await;
        if let Some(issued) = answer.as_ref().filter(|issued| issued.is_good(now)) {
            return self.repeat(asked, issued, extensions).await;
        }
        let outcome = self.issue(asked, token, extensions).await;
        if let Outcome::Issued(issued) = &outcome {
            *answer = Some(Arc::clone(issued));
        }
        outcome
    }

    /// Records that a certificate is given out again, and gives it out.
    async fn repeat(&self, asked: &Asked, issued: &Arc<Issued>, extensions: &Extensions) -> Outcome {
        let id = request_id(extensions);
        let entry = Entry {
            decision: "repeated",
            client_request_id: None,
            request_id: id.as_str(),
            ..self.entry(asked, &id, extensions.get::<ClientAddress>(), Ok(issued))
        };
        match self.record(&entry, &id).await {
            Ok(()) => Outcome::Repeated(Arc::clone(issued)),
            Err(refused) => Outcome::Refused(refused),
        }
    }

    /// Decides, issues and records. A certificate that could not be recorded is not handed out.
    async fn issue(&self, asked: &Asked, token: &Token, extensions: &Extensions) -> Outcome {
        let id = request_id(extensions);
        let result = self.decide_and_issue(asked, token, &id).await;
        let entry = self.entry(asked, &id, extensions.get::<ClientAddress>(), result.as_ref());
        if let Err(refused) = self.record(&entry, &id).await {
            return Outcome::Refused(refused);
        }
        match result {
            Ok(issued) => Outcome::Issued(Arc::new(issued)),
            Err(refused) => Outcome::Refused(refused),
        }
    }

    /// Writes a line of the audit log. Nothing leaves without it.
    async fn record(&self, entry: &Entry<'_>, id: &RequestId) -> Result<(), Refused> {
        self.audit.record(entry).await.map_err(|error| {
            self.metrics.audit_failed();
            tracing::error!(request_id = %id, %error, "nothing is issued: the audit log cannot be written");
            Refused::plain(
                StatusCode::SERVICE_UNAVAILABLE,
                format!("the CA cannot write its audit log and issues nothing (request {id})"),
            )
        })
    }

    async fn decide_and_issue(
        &self,
        asked: &Asked,
        token: &Token,
        id: &RequestId,
    ) -> Result<Issued, Refused> {
        let connection = &asked.connection;
        let begun = Instant::now();
        let decided = self.policy.decide(token, connection, id).await;
        self.metrics.policy_took(begun.elapsed());
        let decision = decided.map_err(|failure| Refused::by_policy(failure, id))?;
        let (grounds, ttl) = (decision.grounds(), decision.ttl());
        let subject = asked.subject.clone();
        let own_id = self.issued_ids.own(id);
        let issued = self.authority.issue(
            decision,
            subject,
            &connection.remote_user,
            &own_id,
            crate::unix_now(),
        );
        let certificate = issued.await.map_err(|error| Refused::by_authority(&error, id))?;
        Ok(Issued {
            certificate,
            request_id: own_id,
            grounds,
            ttl,
        })
    }

    fn entry<'a>(
        &'a self,
        asked: &'a Asked,
        id: &'a RequestId,
        client: Option<&ClientAddress>,
        result: Result<&'a Issued, &'a Refused>,
    ) -> Entry<'a> {
        let connection = &asked.connection;
        let entry = Entry {
            time: timestamp(),
            request_id: id.as_str(),
            decision: "issued",
            status: 200,
            client: client_name(client),
            host: &connection.remote_host,
            user: &connection.remote_user,
            port: connection.port,
            jump: &connection.proxy_jump,
            key: Some(asked.subject.fingerprint()),
            ca: self.authority.fingerprint(),
            ..Entry::default()
        };
        match result {
            Ok(issued) => Entry {
                request_id: issued.request_id.as_str(),
                client_request_id: (issued.request_id != *id).then_some(id.as_str()),
                grounds: Some(GroundsEntry::of(&issued.grounds)),
                certificate: Some(certificate_entry(issued)),
                ..entry
            },
            Err(refused) => Entry {
                decision: "refused",
                status: refused.status.as_u16(),
                reason: Some(&refused.reason),
                grounds: refused.grounds.as_deref().map(GroundsEntry::of),
                ..entry
            },
        }
    }
}

/// The client's address as a line says it.
pub(crate) fn client_name(client: Option<&ClientAddress>) -> String {
    client.map_or_else(|| "unknown".to_owned(), ToString::to_string)
}

fn certificate_entry(issued: &Issued) -> CertificateEntry<'_> {
    let certificate = &issued.certificate;
    let time = |seconds: u64| {
        let time = i64::try_from(seconds)
            .ok()
            .and_then(|seconds| Timestamp::from_second(seconds).ok());
        time.map_or_else(|| seconds.to_string(), |time| time.to_string())
    };
    CertificateEntry {
        serial: certificate.serial().to_string(),
        key_id: certificate.key_id(),
        principals: certificate.principals(),
        valid_after: time(certificate.valid_after()),
        valid_before: time(certificate.valid_before()),
        ttl: issued.ttl,
        critical_options: certificate.critical_options(),
        extensions: certificate.extensions(),
        certificate: certificate.fingerprint(),
    }
}

impl Refused {
    /// The same for the client and the log.
    fn plain(status: StatusCode, message: String) -> Self {
        Self {
            status,
            reason: sanitize_line(&message, REASON_MAX),
            message,
            retry_after: None,
            grounds: None,
        }
    }

    /// What is said publicly, and what only the log is told.
    fn private(status: StatusCode, message: String, reason: &dyn std::fmt::Display) -> Self {
        Self {
            status,
            message,
            retry_after: None,
            reason: sanitize_line(&reason.to_string(), REASON_MAX),
            grounds: None,
        }
    }

    /// A no of policy is passed on as it is. Everything else is between us and the policy server: never a 401, which
    /// would make people log in again and again for nothing.
    fn by_policy(failure: PolicyFailure, id: &RequestId) -> Self {
        let message = |what: &str| format!("error retrieving policy: {what} (request {id})");
        match &failure {
            PolicyFailure::Refused(refusal) => Self {
                grounds: refusal
                    .grounds
                    .clone()
                    .map(|grounds| Box::new(grounds.within_limits())),
                ..Self::plain(refusal.status, refusal.message.clone())
            },
            PolicyFailure::NotTrusted(_) => {
                tracing::error!(
                    request_id = %id, %failure,
                    "no certificate can be issued until the policy server is given this CA's public key, the clocks agree, and no proxy changes the Host header"
                );
                let message = message("the policy server does not accept this CA");
                Self::private(StatusCode::BAD_GATEWAY, message, &failure)
            }
            PolicyFailure::Unsigned(_) => {
                tracing::error!(request_id = %id, %failure, "policy cannot be asked");
                let message = message("the CA's key cannot be used");
                Self::private(StatusCode::SERVICE_UNAVAILABLE, message, &failure)
            }
            PolicyFailure::Unreachable(_) => {
                tracing::error!(request_id = %id, %failure, "no decision");
                let message = message("the policy server cannot be reached");
                Self::private(StatusCode::SERVICE_UNAVAILABLE, message, &failure)
            }
            // Logged once, by the client.
            PolicyFailure::Busy(_) => Self {
                retry_after: Some(BUSY),
                ..Self::plain(
                    StatusCode::SERVICE_UNAVAILABLE,
                    message("the policy server does not keep up"),
                )
            },
            PolicyFailure::Garbled(_) => {
                tracing::error!(request_id = %id, %failure, "no decision");
                let message = message("the policy server's answer cannot be used");
                Self::private(StatusCode::BAD_GATEWAY, message, &failure)
            }
        }
    }

    fn by_authority(error: &IssueError, id: &RequestId) -> Self {
        let message = format!("error generating crt: {error}");
        match error {
            // The only one that logging in again helps against.
            IssueError::Decision(DecisionError::TokenExpired) => {
                Self::plain(StatusCode::UNAUTHORIZED, message)
            }
            IssueError::Decision(DecisionError::NotFido(_)) => Self::plain(StatusCode::FORBIDDEN, message),
            IssueError::Decision(_) => {
                tracing::error!(request_id = %id, %error, "refused to sign what policy asked for");
                Self::plain(StatusCode::BAD_GATEWAY, message)
            }
            // Where the agent is concerns nobody; the next CA may have its key at hand.
            IssueError::Certificate(CertificateSpecError::Agent(_)) => {
                tracing::error!(request_id = %id, %error, "cannot sign");
                let message = format!("error generating crt: the CA's key cannot be used (request {id})");
                Self::private(StatusCode::SERVICE_UNAVAILABLE, message, error)
            }
            IssueError::Certificate(_) | IssueError::NoRandomness => {
                tracing::error!(request_id = %id, %error, "cannot sign");
                Self::plain(StatusCode::INTERNAL_SERVER_ERROR, message)
            }
        }
    }
}
