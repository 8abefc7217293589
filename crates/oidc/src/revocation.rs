//! Logging out: the provider is asked to forget the tokens (RFC 7009).

use crate::client_auth;
use crate::clock;
use crate::login::LoginError;
use crate::options::LoginOptions;
use crate::provider::Provider;
use crate::state::Saved;
use crate::token_endpoint::{self, TokenEndpointError};

/// What became of a logout at the provider.
#[derive(Debug)]
pub enum Logout {
    /// There was nothing to revoke: no login is remembered, or one at another provider.
    NothingKept,
    /// The provider has no revocation endpoint; its tokens end by themselves.
    NotSupported,
    /// The provider was asked, once for each token.
    Asked(Vec<Revocation>),
}

/// One token and the provider's answer.
#[derive(Debug)]
pub struct Revocation {
    /// `refresh_token` or `access_token`.
    pub token: &'static str,
    /// Whether the provider accepted; it does so for tokens that it does not know, too.
    pub result: Result<(), TokenEndpointError>,
}

/// Revokes the refresh token first, because with it go the others at most providers, then the access token.
///
/// # Errors
/// The provider cannot be found or the options make no sense. Refusals of single tokens are in [`Logout::Asked`].
pub async fn logout(options: &LoginOptions, state: &[u8]) -> Result<Logout, LoginError> {
    options.check()?;
    let saved = Saved::read(state, options);
    let tokens = [
        ("refresh_token", &saved.refresh_token),
        ("access_token", &saved.access_token),
    ];
    if tokens.iter().all(|(_, token)| token.is_none()) {
        return Ok(Logout::NothingKept);
    }
    let known = saved.discovery.as_ref();
    let (provider, _) = Provider::discover(&options.http, &options.issuer, known, clock::unix_now()).await?;
    let Some(endpoint) = &provider.revocation_endpoint else {
        return Ok(Logout::NotSupported);
    };
    let auth = client_auth::choose(options, &provider)?;
    let mut asked = Vec::new();
    for (name, token) in tokens {
        let Some(token) = token else { continue };
        let parameters = [("token", token.expose()), ("token_type_hint", name)];
        let result = token_endpoint::post(options, auth, endpoint, &parameters)
            .await
            .map(drop);
        asked.push(Revocation { token: name, result });
    }
    Ok(Logout::Asked(asked))
}
