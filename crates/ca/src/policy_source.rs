//! Where decisions come from: a policy server, or policy in this very process. The checks are the same.

use crate::decision::Decision;
use crate::policy_client::PolicyClient;
use epithet_wire::ca::Discovery;
use epithet_wire::policy::{Grounds, PolicyResponse};
use epithet_wire::{ConnectionFields, RequestId, Token};
use http::{HeaderValue, StatusCode};
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

/// A no from policy: 401 for a token that is not believed, 403 for a person who may not, 5xx when it cannot tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyRefusal {
    /// The HTTP status, which becomes the CA's.
    pub status: StatusCode,
    /// One line for the person who asked.
    pub message: String,
    /// Whom it is about and which rule said no, if policy told: for the audit log.
    pub grounds: Option<Box<Grounds>>,
}

/// Why there is no decision.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyFailure {
    /// Policy said no.
    #[error("{}", .0.message)]
    Refused(PolicyRefusal),
    /// The policy server does not believe that the CA is the CA. Never the user's fault.
    #[error("the policy server does not accept this CA: {0}")]
    NotTrusted(String),
    /// The CA's key, which has to sign the question, cannot be used.
    #[error("the CA's key cannot be used: {0}")]
    Unsigned(String),
    /// No answer, or none in time.
    #[error("the policy server cannot be reached: {0}")]
    Unreachable(String),
    /// As many requests as may wait for an answer do.
    #[error("{0} requests wait for the policy server")]
    Busy(usize),
    /// An answer that is none.
    #[error("the policy server's answer cannot be used: {0}")]
    Garbled(String),
}

/// What [`LocalPolicy::decide`] returns.
pub type LocalDecision<'a> = Pin<Box<dyn Future<Output = Result<PolicyResponse, PolicyRefusal>> + Send + 'a>>;

/// What [`LocalPolicy::ready`] returns.
pub type LocalReadiness<'a> = Pin<Box<dyn Future<Output = Result<(), String>> + Send + 'a>>;

/// Policy in the same process, for `epithet server`.
pub trait LocalPolicy: Send + Sync + 'static {
    /// May the holder of this token make this connection, and on what terms?
    fn decide<'a>(&'a self, token: &'a Token, connection: &'a ConnectionFields) -> LocalDecision<'a>;
    /// What clients need to know to log in.
    fn discovery(&self) -> Discovery;
    /// Whether decisions can be made at all now; the text says why not.
    fn ready(&self) -> LocalReadiness<'_>;
}

/// Where decisions come from. The only maker of [`Decision`]s.
#[derive(Clone)]
pub enum PolicySource {
    /// A policy server.
    Remote(Arc<PolicyClient>),
    /// Policy in this process.
    Local(Arc<dyn LocalPolicy>),
}

impl PolicySource {
    /// A policy server.
    pub fn remote(client: PolicyClient) -> Self {
        Self::Remote(Arc::new(client))
    }

    /// Policy in this process.
    pub fn local(policy: impl LocalPolicy) -> Self {
        Self::Local(Arc::new(policy))
    }

    /// Asks whether the holder of `token` may make `connection`.
    ///
    /// # Errors
    /// [`PolicyFailure`]: a no, or nobody who could say yes.
    pub async fn decide(
        &self,
        token: &Token,
        connection: &ConnectionFields,
        request_id: &RequestId,
    ) -> Result<Decision, PolicyFailure> {
        let response = match self {
            Self::Remote(client) => client.decide(token, connection, request_id).await?,
            Self::Local(policy) => policy
                .decide(token, connection)
                .await
                .map_err(PolicyFailure::Refused)?,
        };
        Ok(Decision::new(response))
    }

    /// Whether a request would find somebody to decide, or too many others before it.
    pub(crate) fn has_room(&self) -> bool {
        match self {
            Self::Remote(client) => client.has_room(),
            Self::Local(_) => true,
        }
    }

    /// The discovery document, and how long policy lets it be kept.
    pub(crate) async fn discovery(&self) -> Result<(Discovery, Option<HeaderValue>), PolicyFailure> {
        match self {
            Self::Remote(client) => client.discovery().await,
            Self::Local(policy) => Ok((policy.discovery(), None)),
        }
    }
}

impl fmt::Debug for PolicySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Remote(client) => write!(f, "PolicySource({})", client.endpoint()),
            Self::Local(_) => f.write_str("PolicySource(in this process)"),
        }
    }
}
