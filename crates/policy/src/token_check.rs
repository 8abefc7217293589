//! Who holds a token: by its signature, by asking its provider, or by asking a program. The rules see only the answer.

use crate::decision::Person;
use crate::person::ClaimNames;
use crate::token_command::TokenCommand;
use crate::token_introspection::TokenIntrospection;
use epithet_oidc::{ProviderError, Verifier, VerifyError, clock::unix_now, unverified_issuer};
use epithet_wire::Token;

/// The holder of a token that was accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Bearer {
    pub(crate) person: Person,
    /// When the token ends, in seconds since 1970.
    pub(crate) expires_at: Option<u64>,
}

/// Why a token was not accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TokenRefusal {
    /// It is not good: 401.
    Invalid(String),
    /// It is good and does not say who holds it, as the rules name people: 403, because logging in again would not help.
    Nameless(String),
    /// Nobody could tell: 503.
    Unavailable(String),
}

/// The way tokens are checked.
#[derive(Debug)]
pub(crate) enum TokenCheck {
    Oidc(Vec<Issuer>),
    Introspection(Box<TokenIntrospection>),
    Command(Box<TokenCommand>),
}

/// One issuer of ID tokens, and how it names people.
#[derive(Debug, Clone)]
pub(crate) struct Issuer {
    pub(crate) verifier: Verifier,
    pub(crate) names: ClaimNames,
}

impl TokenCheck {
    /// Who holds this token.
    pub(crate) async fn holder(&self, token: &Token) -> Result<Bearer, TokenRefusal> {
        match self {
            Self::Oidc(issuers) => by_signature(issuers, token.expose()).await,
            Self::Introspection(introspection) => introspection.holder(token.expose(), unix_now()).await,
            Self::Command(command) => command.holder(token, unix_now()).await,
        }
    }

    /// The verifiers in use, so that a reload can keep them with their keys.
    pub(crate) fn verifiers(&self) -> impl Iterator<Item = &Verifier> {
        let issuers = if let Self::Oidc(issuers) = self {
            issuers.as_slice()
        } else {
            &[]
        };
        issuers.iter().map(|issuer| &issuer.verifier)
    }

    /// Whether tokens can be checked at all now.
    pub(crate) async fn ready(&self) -> Result<(), ProviderError> {
        if let Self::Oidc(issuers) = self
            && let Some(first) = issuers.first()
        {
            first.verifier.keys().get(unix_now()).await?;
        }
        Ok(())
    }
}

async fn by_signature(issuers: &[Issuer], token: &[u8]) -> Result<Bearer, TokenRefusal> {
    let chosen = match issuers {
        [only] => only,
        several => {
            let named = unverified_issuer(token);
            let of = |issuer: &&Issuer| named.as_deref() == Some(issuer.verifier.issuer().as_str());
            // A token that names nobody we know goes to the first, which says what is wrong with it.
            several
                .iter()
                .find(of)
                .or(several.first())
                .ok_or_else(|| TokenRefusal::Unavailable("no issuer".into()))?
        }
    };
    let claims = chosen.verifier.verify(token).await.map_err(|error| match error {
        VerifyError::Token(error) => TokenRefusal::Invalid(error.to_string()),
        VerifyError::Provider(error) => {
            tracing::error!(%error, "cannot verify tokens: the identity provider is not available");
            TokenRefusal::Unavailable(
                "the identity provider is not available to the policy server; try again".to_owned(),
            )
        }
    })?;
    let person = chosen.names.person(&claims);
    let person = person.ok_or_else(|| TokenRefusal::Nameless(chosen.names.missing()))?;
    Ok(Bearer {
        person,
        expires_at: Some(claims.expires_at),
    })
}
