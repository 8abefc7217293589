//! One login at one provider: what is known of it, and what is done with the tokens that come.

use crate::claims::Claims;
use crate::client_auth::{self, ClientAuthChoice};
use crate::clock;
use crate::document::Document;
use crate::id_token::{self, Expectation, Previous, TokenError};
use crate::jwks::{KeyError, KeySet};
use crate::key_cache::fetch_keys;
use crate::login::{How, LoginError, Outcome};
use crate::options::{LoginOptions, TokenKind};
use crate::page::sentence;
use crate::provider::{Provider, ProviderError};
use crate::secret::Secret;
use crate::state::{Kept, Saved};
use crate::token_endpoint::{self, TokenEndpointError, TokenSet};
use epithet_wire::SecretBytes;
use url::Url;

/// A token that comes straight from a login was issued no longer ago than this, in seconds.
const FRESH_TOKEN: u64 = 600;

/// One login at one provider.
pub(crate) struct Session<'o> {
    pub(crate) options: &'o LoginOptions,
    pub(crate) saved: Saved,
    pub(crate) provider: Provider,
    discovery: Document,
    keys: Option<(KeySet, Document)>,
    pub(crate) auth: ClientAuthChoice,
}

pub(crate) enum Refresh {
    Done(Box<Outcome>),
    /// The refresh token has had its day.
    Over(String),
}

/// Tokens of which the ID token, if there is one, has been verified.
pub(crate) struct Verified {
    pub(crate) tokens: TokenSet,
    pub(crate) claims: Option<Claims>,
}

/// A token straight from a login, and the nonce it must have when the login went through a browser.
pub(crate) struct FirstToken<'n> {
    pub(crate) nonce: Option<&'n str>,
}

impl<'o> Session<'o> {
    /// Finds the provider. The keys are fetched when there is something to verify, so that the browser opens first.
    pub(crate) async fn open(options: &'o LoginOptions, mut saved: Saved) -> Result<Self, LoginError> {
        let now = clock::unix_now();
        let known = saved.discovery.as_ref();
        let (provider, discovery) = Provider::discover(&options.http, &options.issuer, known, now).await?;
        if saved
            .discovery
            .as_ref()
            .is_none_or(|before| before.body != discovery.body)
        {
            // They may be somewhere else now.
            saved.keys = None;
        }
        let auth = client_auth::choose(options, &provider)?;
        Ok(Self {
            options,
            saved,
            provider,
            discovery,
            keys: None,
            auth,
        })
    }

    /// A new token for the old refresh token.
    pub(crate) async fn refresh(&mut self, refresh_token: &Secret) -> Result<Refresh, LoginError> {
        let grant = [
            ("grant_type", "refresh_token"),
            ("refresh_token", refresh_token.expose()),
        ];
        let endpoint = self.token_endpoint()?;
        // A refresh token may be good for one use only. So first the keys, without which its successor would be lost.
        if self.options.token == TokenKind::Id {
            let known = self.saved.keys.take();
            self.keys = Some(self.keys_at_hand(known.as_ref()).await?);
        }
        let mut result = token_endpoint::request(self.options, self.auth, &endpoint, &grant).await;
        if matches!(result, Err(TokenEndpointError::Unavailable(_)))
            && let Some(endpoint) = self.moved_from(&endpoint).await
        {
            result = token_endpoint::request(self.options, self.auth, &endpoint, &grant).await;
        }
        let tokens = match result {
            Ok(tokens) => tokens,
            Err(TokenEndpointError::Refused(refusal)) if refusal.ends_the_session() => {
                return Ok(Refresh::Over(format!(
                    "The provider ended the session ({refusal})"
                )));
            }
            Err(error) => return Err(error.into()),
        };
        if tokens.id_token.is_none() && self.options.token == TokenKind::Id {
            return Ok(Refresh::Over(
                "The provider renewed the session without an ID token".to_owned(),
            ));
        }
        let previous = self.saved.previous.clone();
        let verified = match self.verify(tokens, None, previous.as_ref()).await {
            // Whoever this is for now, it is not the login that we remember.
            Err(LoginError::Token(error @ TokenError::Changed(_))) => {
                return Ok(Refresh::Over(sentence(&error.to_string())));
            }
            result => result?,
        };
        Ok(Refresh::Done(Box::new(self.finish(&verified, How::Refreshed)?)))
    }

    /// Verifies the ID token; keys that changed in the meantime are fetched once.
    pub(crate) async fn verify(
        &mut self,
        tokens: TokenSet,
        first: Option<FirstToken<'_>>,
        previous: Option<&Previous>,
    ) -> Result<Verified, LoginError> {
        let Some(id_token) = &tokens.id_token else {
            return match (first, self.options.token) {
                (None, TokenKind::Access) => Ok(Verified { tokens, claims: None }),
                _ => Err(LoginError::NoToken("ID token")),
            };
        };
        let id_token = id_token.expose().as_bytes();
        let (mut keys, mut document) = match self.keys.take() {
            Some(keys) => keys,
            None => {
                let known = self.saved.keys.take();
                self.keys_at_hand(known.as_ref()).await?
            }
        };
        let algorithms = self.provider.algorithms.clone();
        let expected = Expectation {
            nonce: first.as_ref().and_then(|first| first.nonce),
            access_token: tokens.access_token.as_ref().map(Secret::expose),
            max_age: self.options.max_age.filter(|_| first.is_some()),
            issued_within: first.is_some().then_some(FRESH_TOKEN),
            previous,
            ..Expectation::new(self.options.issuer.as_str(), &self.options.client_id, &algorithms)
        };
        let mut result = id_token::verify(id_token, &keys, &expected, clock::unix_now());
        if let Err(TokenError::Key(KeyError::Unknown(_) | KeyError::Signature)) = result {
            (keys, document) = self.fetch_keys(Some(&document.expired())).await?;
            result = id_token::verify(id_token, &keys, &expected, clock::unix_now());
        }
        self.keys = Some((keys, document));
        let claims = Some(result?);
        Ok(Verified { tokens, claims })
    }

    async fn fetch_keys(&self, known: Option<&Document>) -> Result<(KeySet, Document), ProviderError> {
        fetch_keys(&self.options.http, &self.provider, known, clock::unix_now()).await
    }

    /// The provider's keys; those of the last run when they are fresh, or when the provider does not give them out now
    /// and they are not older than a day.
    async fn keys_at_hand(&self, known: Option<&Document>) -> Result<(KeySet, Document), ProviderError> {
        match (self.fetch_keys(known).await, known) {
            (Err(ProviderError::Fetch(error)), Some(known)) if known.is_usable(clock::unix_now()) => {
                tracing::warn!(%error, "provider keys cannot be fetched, using the last ones");
                let keys = KeySet::parse(known.body.as_bytes()).map_err(|error| {
                    ProviderError::Keys(error, crate::http::shown(&self.provider.jwks_uri))
                })?;
                Ok((keys, known.clone()))
            }
            (result, _) => result,
        }
    }

    /// What is given out and what is remembered.
    pub(crate) fn finish(&self, verified: &Verified, how: How) -> Result<Outcome, LoginError> {
        let (token, name) = match self.options.token {
            TokenKind::Id => (&verified.tokens.id_token, "ID token"),
            TokenKind::Access => (&verified.tokens.access_token, "access token"),
        };
        let token = token.as_ref().ok_or(LoginError::NoToken(name))?;
        let kept = Kept {
            tokens: &verified.tokens,
            claims: verified.claims.as_ref(),
            // A verified token of a login has the login's own nonce.
            nonce: verified
                .claims
                .as_ref()
                .filter(|_| how != How::Refreshed)
                .and_then(|it| it.raw.get("nonce")?.as_str()),
            flow: match how {
                How::LoggedIn(flow) => Some(flow),
                How::Refreshed => None,
            },
            in_vain: &self.saved.in_vain,
            discovery: &self.discovery,
            keys: self
                .keys
                .as_ref()
                .map(|(_, document)| document)
                .or(self.saved.keys.as_ref()),
            now: clock::unix_now(),
        };
        // After a login, what was remembered of the one before is of no use: it may have been somebody else.
        let before = Saved::default();
        let saved = if how == How::Refreshed {
            &self.saved
        } else {
            &before
        };
        Ok(Outcome {
            token: SecretBytes::new(token.expose().as_bytes().to_vec()),
            state: SecretBytes::new(saved.write(self.options, &kept)),
            claims: verified.claims.clone(),
            how,
        })
    }

    /// Where the token endpoint is now, if the discovery document that we remembered has become wrong.
    async fn moved_from(&mut self, endpoint: &Url) -> Option<Url> {
        let (options, now) = (self.options, clock::unix_now());
        let known = self.discovery.expired();
        let (provider, discovery) = Provider::discover(&options.http, &options.issuer, Some(&known), now)
            .await
            .ok()?;
        (self.provider, self.discovery) = (provider, discovery);
        self.provider.token_endpoint.clone().filter(|now| now != endpoint)
    }

    pub(crate) fn token_endpoint(&self) -> Result<Url, LoginError> {
        let missing = || ProviderError::Member {
            issuer: self.options.issuer.to_string(),
            member: "token_endpoint",
        };
        Ok(self.provider.token_endpoint.clone().ok_or_else(missing)?)
    }
}
