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
    /// It is good and does not say what this server must know of its holder: 403, because logging in again would not help.
    Insufficient(String),
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
    let chosen = choose(issuers, unverified_issuer(token).as_deref())?;
    let claims = chosen.verifier.verify(token).await.map_err(|error| match error {
        VerifyError::Token(error) => TokenRefusal::Invalid(error.to_string()),
        VerifyError::Provider(error) => {
            tracing::error!(%error, "cannot verify tokens: the identity provider is not available");
            TokenRefusal::Unavailable(
                "the identity provider is not available to the policy server; try again".to_owned(),
            )
        }
    })?;
    let person = chosen.names.person(&claims).map_err(TokenRefusal::Insufficient)?;
    Ok(Bearer {
        person,
        expires_at: Some(claims.expires_at),
    })
}

/// The issuer that a token names, unverified: its keys then say whether that is true.
fn choose<'i>(issuers: &'i [Issuer], named: Option<&str>) -> Result<&'i Issuer, TokenRefusal> {
    let found = match named {
        Some(named) => issuers
            .iter()
            .find(|issuer| issuer.verifier.issuer().as_str() == named),
        // A token that names nobody goes to the first, which says what is wrong with it.
        None => issuers.first(),
    };
    found.ok_or_else(|| {
        let named = named.unwrap_or_default();
        TokenRefusal::Invalid(match issuers {
            [only] => {
                let expected = only.verifier.issuer().as_str();
                format!("the token is refused: its issuer is {named:?}, not {expected:?}")
            }
            _ => format!("the token is refused: its issuer is {named:?}, which this server does not know"),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use epithet_oidc::Http;
    use std::sync::Arc;

    #[test]
    fn the_issuer_that_a_token_names_is_chosen_and_a_stranger_refused() {
        let http = Arc::new(Http::default());
        let issuer = |url: &str| Issuer {
            verifier: Verifier::new(epithet_oidc::Issuer::parse(url).unwrap(), "c", Arc::clone(&http))
                .unwrap(),
            names: ClaimNames::default(),
        };
        let several = [issuer("https://a.example.com"), issuer("https://b.example.com")];
        let chosen = |issuers: &[Issuer], named| {
            choose(issuers, named).map(|issuer| issuer.verifier.issuer().as_str().to_owned())
        };
        for (named, expected) in [
            (None, Some("https://a.example.com")),
            (Some("https://a.example.com"), Some("https://a.example.com")),
            (Some("https://b.example.com"), Some("https://b.example.com")),
            (Some("https://b.example.com/"), None),
            (Some("HTTPS://b.example.com"), None),
            (Some(""), None),
        ] {
            assert_eq!(chosen(&several, named).ok().as_deref(), expected, "{named:?}");
        }
        let Err(TokenRefusal::Invalid(alone)) = chosen(&several[..1], Some("https://x")) else {
            panic!("a stranger")
        };
        assert!(
            alone.contains("\"https://x\", not \"https://a.example.com\""),
            "{alone}"
        );
    }
}
