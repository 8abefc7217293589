//! Whatever signs for a CA: a key in this process, or one that an ssh-agent holds.

use std::sync::Arc;

use crate::agent_key::{AgentError, AgentKey};
use crate::ca_key::{CaKey, CaPublicKey, SigningError};
use crate::jws::JwsAlgorithm;

/// A CA's key, wherever it is. Clones share it.
#[derive(Debug, Clone)]
pub enum CaSigner {
    /// In this process, from a file.
    Here(Arc<CaKey>),
    /// In an ssh-agent, and through it perhaps in a security module.
    Agent(Arc<AgentKey>),
}

/// Why there is no signature.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignerError {
    /// A key in this process failed.
    #[error(transparent)]
    Here(#[from] SigningError),
    /// The agent did.
    #[error(transparent)]
    Agent(#[from] AgentError),
}

impl CaSigner {
    /// The public half.
    pub fn public(&self) -> &CaPublicKey {
        match self {
            Self::Here(key) => key.public(),
            Self::Agent(key) => key.public(),
        }
    }

    /// `SHA256:...`, as `ssh-keygen -l` prints it.
    pub fn fingerprint(&self) -> String {
        self.public().fingerprint()
    }

    /// The algorithm of [`CaSigner::sign_jws`].
    pub fn jws_algorithm(&self) -> JwsAlgorithm {
        match self {
            Self::Here(key) => key.jws_algorithm(),
            Self::Agent(key) => key.jws_algorithm(),
        }
    }

    /// Signs, and returns the signature as SSH carries it.
    ///
    /// # Errors
    /// [`SignerError`], for a key in this process only when the system is out of memory.
    pub async fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignerError> {
        Ok(match self {
            Self::Here(key) => key.sign(message)?,
            Self::Agent(key) => key.sign(message).await?,
        })
    }

    /// Signs the signing input of a JWS (RFC 7515 section 5.1), and returns the raw signature.
    ///
    /// # Errors
    /// As [`CaSigner::sign`].
    pub async fn sign_jws(&self, signing_input: &[u8]) -> Result<Vec<u8>, SignerError> {
        Ok(match self {
            Self::Here(key) => key.sign_jws(signing_input)?,
            Self::Agent(key) => key.sign_jws(signing_input).await?,
        })
    }

    /// Whether it can sign now, as far as that can be known without a signature.
    ///
    /// # Errors
    /// The reason why not.
    pub async fn ready(&self) -> Result<(), SignerError> {
        match self {
            Self::Here(_) => Ok(()),
            Self::Agent(key) => Ok(key.ready().await?),
        }
    }
}

impl From<Arc<CaKey>> for CaSigner {
    fn from(key: Arc<CaKey>) -> Self {
        Self::Here(key)
    }
}

impl From<CaKey> for CaSigner {
    fn from(key: CaKey) -> Self {
        Self::Here(Arc::new(key))
    }
}

impl From<AgentKey> for CaSigner {
    fn from(key: AgentKey) -> Self {
        Self::Agent(Arc::new(key))
    }
}
