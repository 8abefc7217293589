//! Where decisions come from: a policy server over HTTP, or one in this very process. The CA treats both alike.

use crate::http_policy::HttpPolicy;
use epithet_ssh::CaKey;
use epithet_wire::ca::Discovery;
use epithet_wire::policy::CertParams;
use epithet_wire::{ConnectionFields, Token};
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

/// A decision that is being made.
pub type Deciding<'a> = Pin<Box<dyn Future<Output = Result<CertParams, PolicyRefusal>> + Send + 'a>>;
/// A discovery document that is being made.
pub type Discovering<'a> = Pin<Box<dyn Future<Output = Result<Discovery, PolicyRefusal>> + Send + 'a>>;

/// A policy server in this process.
pub trait Decide: Send + Sync {
    /// Whether the holder of `token` may make `connection`, and what the certificate shall say.
    fn decide<'a>(&'a self, token: &'a Token, connection: &'a ConnectionFields) -> Deciding<'a>;
    /// What clients may know.
    fn discovery(&self) -> Discovering<'_>;
}

/// A no, or no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyRefusal {
    /// Policy says no to the user; status and text go to the client as they are.
    #[error("{message}")]
    Refused {
        /// 401, 403, 422 or another 4xx.
        status: u16,
        /// Policy's words.
        message: String,
    },
    /// Policy does not believe that this is its CA. The CA's affair, never the user's: 502.
    #[error("the policy server does not accept this CA: {0}")]
    NotBelieved(String),
    /// No answer, or one that is none: 503.
    #[error("error retrieving policy: {0}")]
    Unavailable(String),
}

/// See the module.
pub enum PolicySource {
    /// Over HTTPS or a Unix socket.
    Http(Box<HttpPolicy>),
    /// In this process.
    InProcess(Arc<dyn Decide>),
}

impl fmt::Debug for PolicySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http(policy) => policy.fmt(f),
            Self::InProcess(_) => f.write_str("InProcess"),
        }
    }
}

impl PolicySource {
    pub(crate) async fn decide(
        &self,
        key: &CaKey,
        token: &Token,
        connection: &ConnectionFields,
    ) -> Result<CertParams, PolicyRefusal> {
        match self {
            Self::Http(policy) => policy.decide(key, token, connection).await,
            Self::InProcess(policy) => policy.decide(token, connection).await,
        }
    }

    pub(crate) async fn discovery(&self, key: &CaKey) -> Result<Discovery, PolicyRefusal> {
        match self {
            Self::Http(policy) => policy.discovery(key).await,
            Self::InProcess(policy) => policy.discovery().await,
        }
    }
}
