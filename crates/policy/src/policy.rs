//! The policy that runs: rules, and whose tokens to believe, both replaceable while it does.

use crate::decision::{Allowed, Decision, Denial, Person};
use crate::document::{Document, DocumentError};
use crate::person::ClaimNames;
use crate::rules::Rules;
use arc_swap::ArcSwap;
use axum::body::Bytes;
use epithet_oidc::clock::unix_now;
use epithet_oidc::{Claims, Http, Issuer, IssuerError, ProviderError, Verifier, VerifierError, VerifyError};
use epithet_wire::ca::{Discovery, DiscoveryAuth};
use epithet_wire::display::sanitize_line;
use epithet_wire::policy::{CertParams, PolicyResponse};
use epithet_wire::{ConnectionFields, HostName, Principal, Token};
use http::StatusCode;
use jiff::Timestamp;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The scopes that clients are told to ask for unless the document names others.
pub const DEFAULT_SCOPES: [&str; 3] = ["openid", "profile", "email"];

/// Answers one question: may the holder of this token make this connection, and on what terms?
#[derive(Debug)]
pub struct Policy {
    http: Arc<Http>,
    loaded: ArcSwap<Loaded>,
    reload_failed: AtomicBool,
}

/// Everything that comes from one document.
#[derive(Debug)]
struct Loaded {
    verifier: Verifier,
    names: ClaimNames,
    rules: Rules,
    discovery: Discovery,
    discovery_json: Bytes,
}

/// Why a document cannot run.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// Nobody's tokens would be believed.
    #[error("oidc.issuer is required: the identity provider's URL, such as https://accounts.google.com")]
    NoIssuer,
    /// Every application's tokens would be believed.
    #[error("oidc.client-id is required: the client that people log in with at the identity provider")]
    NoClientId,
    /// The issuer is no usable URL.
    #[error("oidc.issuer: {0}")]
    Issuer(#[from] IssuerError),
    /// The verifier refuses.
    #[error(transparent)]
    Verifier(#[from] VerifierError),
    /// The file does not read.
    #[error(transparent)]
    Document(#[from] DocumentError),
}

/// A no, as it is answered: 401 for a token that is not believed, 403 for a person who may not, 503 when nobody can
/// tell because the identity provider is down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The HTTP status.
    pub status: StatusCode,
    /// One line for the person who asked.
    pub message: String,
}

impl Policy {
    /// A policy out of a document. Fetches nothing: it starts whether or not the identity provider is up.
    ///
    /// # Errors
    /// [`PolicyError`] when the document does not say whose tokens to believe.
    pub fn new(document: &Document, http: Arc<Http>) -> Result<Self, PolicyError> {
        let loaded = Loaded::new(document, &http, None)?;
        Ok(Self {
            http,
            loaded: ArcSwap::from_pointee(loaded),
            reload_failed: AtomicBool::new(false),
        })
    }

    /// Replaces the rules, in one step. A document that could not be read, or cannot run, leaves the old ones in force.
    ///
    /// # Errors
    /// Whatever was wrong; it also shows in `/readyz` until the next reload that works.
    pub fn reload(&self, document: Result<Document, DocumentError>) -> Result<(), PolicyError> {
        let loaded = document.map_err(PolicyError::from).and_then(|document| {
            let now = self.loaded.load();
            Loaded::new(&document, &self.http, Some(&now.verifier))
        });
        self.reload_failed.store(loaded.is_err(), Ordering::Relaxed);
        self.loaded.store(Arc::new(loaded?));
        Ok(())
    }

    /// Decides.
    ///
    /// # Errors
    /// [`Refusal`], with the texts of epithet 0.19.
    pub async fn decide(
        &self,
        token: &Token,
        connection: &ConnectionFields,
    ) -> Result<PolicyResponse, Refusal> {
        let loaded = self.loaded.load_full();
        let claims = loaded
            .verifier
            .verify(token.expose())
            .await
            .map_err(Refusal::of_token)?;
        let person = loaded
            .names
            .person(&claims)
            .ok_or_else(|| Refusal::forbidden(loaded.names.missing()))?;
        let denied = |denial: Denial<'_>| Refusal::of_person(&person, connection, denial);
        // A name that no host or user can have is covered by no rule.
        let host = HostName::parse(&connection.remote_host).map_err(|_| denied(Denial::NoRule))?;
        let user = Principal::parse(&connection.remote_user).map_err(|_| denied(Denial::NotAllowed))?;
        match loaded.rules.evaluate(&person, &host, &user) {
            Decision::Allowed(allowed) => Ok(certificate_for(&person, &claims, user, allowed)),
            Decision::Denied(denial) => Err(denied(denial)),
        }
    }

    /// What clients need to know to log in here.
    pub fn discovery(&self) -> Discovery {
        self.loaded.load().discovery.clone()
    }

    /// The same as the policy server answers it: JSON with an indent of two.
    pub(crate) fn discovery_json(&self) -> Bytes {
        self.loaded.load().discovery_json.clone()
    }

    /// Whether the last reload failed, so that older rules than the file's are in force.
    pub fn reload_failed(&self) -> bool {
        self.reload_failed.load(Ordering::Relaxed)
    }

    /// Fetches the identity provider's keys if they are not at hand: for a quick first login, and to see whether
    /// tokens can be verified at all.
    ///
    /// # Errors
    /// The provider cannot be reached, and there are no keys from before.
    pub async fn ready(&self) -> Result<(), ProviderError> {
        let verifier = self.loaded.load().verifier.clone();
        verifier.keys().get(unix_now()).await.map(|_| ())
    }
}

/// The terms of the rule that allowed, for the user who was asked for and nobody else.
fn certificate_for(
    person: &Person,
    claims: &Claims,
    user: Principal,
    allowed: Allowed<'_>,
) -> PolicyResponse {
    let terms = allowed.terms;
    let not_after = i64::try_from(claims.expires_at)
        .ok()
        .and_then(|at| Timestamp::from_second(at).ok());
    PolicyResponse {
        cert_params: CertParams {
            identity: person.identity.clone(),
            principals: vec![user.into()],
            expiration_ns: i64::try_from(terms.expiration.as_nanos()).unwrap_or(i64::MAX),
            extensions: terms.extensions.clone(),
            critical_options: terms.critical_options.clone(),
            not_after,
            rule: Some(allowed.rule.as_str().to_owned()),
        },
    }
}

impl Refusal {
    fn forbidden(message: impl Into<String>) -> Self {
        Self {
            status: StatusCode::FORBIDDEN,
            message: message.into(),
        }
    }

    fn of_token(error: VerifyError) -> Self {
        match error {
            VerifyError::Token(error) => Self::invalid_token(&error),
            VerifyError::Provider(error) => {
                tracing::error!(%error, "cannot verify tokens: the identity provider is not available");
                Self {
                    status: StatusCode::SERVICE_UNAVAILABLE,
                    message: "the identity provider is not available to the policy server; try again"
                        .to_owned(),
                }
            }
        }
    }

    pub(crate) fn invalid_token(error: &dyn std::fmt::Display) -> Self {
        let error = sanitize_line(&error.to_string(), 500);
        let message = format!("Invalid token: token verification failed: {error}");
        Self {
            status: StatusCode::UNAUTHORIZED,
            message,
        }
    }

    fn of_person(person: &Person, connection: &ConnectionFields, denial: Denial<'_>) -> Self {
        let line = |text: &str| sanitize_line(text, 300);
        let identity = line(&person.identity);
        let (user, host) = (line(&connection.remote_user), line(&connection.remote_host));
        tracing::info!(identity, user, host, reason = %denial, "denied");
        Self::forbidden(match denial {
            Denial::UnknownUser => format!("User {identity} not in users list"),
            _ => format!("User {identity} not authorized for {user}@{host}"),
        })
    }
}

impl Loaded {
    fn new(document: &Document, http: &Arc<Http>, before: Option<&Verifier>) -> Result<Self, PolicyError> {
        let oidc = &document.oidc;
        let given = |text: &Option<String>| text.clone().filter(|text| !text.trim().is_empty());
        let issuer = Issuer::parse(&given(&oidc.issuer).ok_or(PolicyError::NoIssuer)?)?;
        let client_id = given(&oidc.client_id).ok_or(PolicyError::NoClientId)?;
        // A verifier that would be the same is kept, and with it the provider's keys.
        let verifier = match before {
            Some(before) if *before.issuer() == issuer && before.client_id() == client_id => before.clone(),
            _ => Verifier::new(issuer, &client_id, Arc::clone(http))?,
        };
        let names = ClaimNames {
            identity: given(&oidc.identity_claim),
            groups: given(&oidc.groups_claim),
        };
        let rules = Rules::new(document);
        let scopes = oidc.scopes.clone();
        let discovery = Discovery {
            auth: Some(DiscoveryAuth {
                kind: Some("oidc".to_owned()),
                issuer: verifier.issuer().as_str().to_owned(),
                client_id,
                client_secret: given(&oidc.client_secret),
                scopes: scopes
                    .unwrap_or_else(|| DEFAULT_SCOPES.iter().map(|scope| (*scope).to_owned()).collect()),
                command: None,
            }),
            match_patterns: rules
                .patterns()
                .map(|pattern| pattern.as_str().to_owned())
                .collect(),
        };
        let discovery_json = serde_json::to_vec_pretty(&discovery).unwrap_or_default().into();
        Ok(Self {
            verifier,
            names,
            rules,
            discovery,
            discovery_json,
        })
    }
}
