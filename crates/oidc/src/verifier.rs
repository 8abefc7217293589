//! Verifies ID tokens for a server: one issuer, one client, keys that look after themselves.

use crate::claims::Claims;
use crate::clock;
use crate::http::Http;
use crate::id_token::{self, Expectation, TokenError};
use crate::issuer::Issuer;
use crate::jwks::KeyError;
use crate::jws::Compact;
use crate::key_cache::{KeyCache, Snapshot};
use crate::provider::ProviderError;
use std::sync::Arc;

/// Why a token was not accepted. The two cases call for different answers.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// The token is bad: 401, its bearer should log in again.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The provider cannot be asked: 503, the bearer should keep the token and try again.
    #[error("the identity provider is not available: {0}")]
    Provider(#[from] ProviderError),
}

/// Why a verifier cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VerifierError {
    /// Without a client id every token of the provider, for whatever application, would be accepted.
    #[error("the OIDC client id is empty; set it to the one that the login uses")]
    NoClientId,
}

/// Verifies ID tokens of one issuer for one client. Cheap to clone; clones share the keys.
#[derive(Debug, Clone)]
pub struct Verifier {
    client_id: Arc<str>,
    trusted_audiences: Arc<[String]>,
    keys: KeyCache,
}

/// Who a token says that it is from, before anything is verified: only to choose the verifier that then decides.
pub fn unverified_issuer(token: &[u8]) -> Option<String> {
    let payload = Compact::parse(token).ok()?.payload().ok()?;
    let claims = crate::json::parse_object(&payload).ok()?;
    claims.get("iss")?.as_str().map(str::to_owned)
}

impl Verifier {
    /// Fetches nothing yet: a server starts whether or not its provider is up.
    ///
    /// # Errors
    /// [`VerifierError::NoClientId`] for an empty client id.
    pub fn new(issuer: Issuer, client_id: &str, http: Arc<Http>) -> Result<Self, VerifierError> {
        if client_id.trim().is_empty() {
            return Err(VerifierError::NoClientId);
        }
        Ok(Self {
            client_id: client_id.into(),
            trusted_audiences: Arc::new([]),
            keys: KeyCache::new(issuer, http),
        })
    }

    /// Accepts tokens that are for these clients as well as for ours.
    #[must_use]
    pub fn with_trusted_audiences(self, audiences: impl IntoIterator<Item = String>) -> Self {
        Self {
            trusted_audiences: audiences.into_iter().collect(),
            ..self
        }
    }

    /// Whose tokens are accepted.
    pub fn issuer(&self) -> &Issuer {
        self.keys.issuer()
    }

    /// The client that tokens must be for.
    pub fn client_id(&self) -> &str {
        &self.client_id
    }

    /// The keys, for health checks and for warming up at start.
    pub fn keys(&self) -> &KeyCache {
        &self.keys
    }

    /// Verifies a token now. White space around it is forgiven.
    ///
    /// # Errors
    /// See [`VerifyError`]: whether the token is bad or the provider cannot be asked.
    pub async fn verify(&self, token: &[u8]) -> Result<Claims, VerifyError> {
        self.verify_at(token, clock::unix_now()).await
    }

    /// Verifies a token as of `now`, in seconds since 1970.
    pub async fn verify_at(&self, token: &[u8], now: u64) -> Result<Claims, VerifyError> {
        let compact = Compact::parse(token).map_err(TokenError::Form)?;
        let snapshot = self.keys.get(now).await?;
        match self.verify_with(&compact, &snapshot, now) {
            // The provider may have changed its keys, or put another key under an id that it used before.
            Err(TokenError::Key(KeyError::Unknown(_) | KeyError::Signature)) => {
                let snapshot = self.keys.after_missing_key(&snapshot, now).await?;
                Ok(self.verify_with(&compact, &snapshot, now)?)
            }
            result => Ok(result?),
        }
    }

    fn verify_with(
        &self,
        compact: &Compact<'_>,
        snapshot: &Snapshot,
        now: u64,
    ) -> Result<Claims, TokenError> {
        let expected = Expectation {
            trusted_audiences: &self.trusted_audiences,
            ..Expectation::new(
                self.issuer().as_str(),
                &self.client_id,
                &snapshot.provider.algorithms,
            )
        };
        id_token::verify_signature(compact, &snapshot.keys, &expected)?;
        id_token::check_claims(compact, &expected, now)
    }
}
