//! The policy that runs: rules, and whose tokens to believe, both replaceable while it does.

use crate::decision::{Allowed, Decision, Denial, Login, Person, Question};
use crate::document::{Document, DocumentError, Oidc, TokenKind};
use crate::metrics::{PolicyMetrics, outcome_of};
use crate::person::{ClaimNames, Prefix, check_identity};
use crate::rules::Rules;
use crate::status::Status;
use crate::token_check::{Bearer, Issuer as TokenIssuer, TokenCheck, TokenRefusal};
use crate::token_command::TokenCommand;
use crate::token_introspection::TokenIntrospection;
use arc_swap::ArcSwap;
use axum::body::Bytes;
use epithet_oidc::clock::unix_now;
use epithet_oidc::{Http, Issuer, IssuerError, ProviderError, Verifier, VerifierError};
use epithet_wire::ca::{Discovery, DiscoveryAuth};
use epithet_wire::display::sanitize_line;
use epithet_wire::limits::JWKS_LOOK;
use epithet_wire::policy::{CertParams, Grounds, LoginFacts, PolicyResponse, groups_within_limits};
use epithet_wire::{ConnectionFields, HostName, Principal, Token};
use http::StatusCode;
use jiff::Timestamp;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// The scopes that clients are told to ask for unless the document names others.
pub const DEFAULT_SCOPES: [&str; 3] = ["openid", "profile", "email"];

/// Answers one question: may the holder of this token make this connection, and on what terms?
#[derive(Debug)]
pub struct Policy {
    http: Arc<Http>,
    loaded: ArcSwap<Loaded>,
    status: Mutex<Status>,
    metrics: PolicyMetrics,
}

/// Everything that comes from one document.
#[derive(Debug)]
struct Loaded {
    check: TokenCheck,
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
    /// Two issuers could name the same people.
    #[error(
        "oidc: {0} needs identity-prefix (such as 'ci:'), so that its names are nobody's of another issuer; '' if they \
         may be"
    )]
    NoPrefix(String),
    /// Two issuers would name the same people, although they are told apart.
    #[error("oidc: two issuers have the {0} {1:?}; give each its own")]
    PrefixTwice(&'static str, String),
    /// Which of the two would verify its tokens?
    #[error("oidc names the issuer {0} twice; give each issuer one entry")]
    IssuerTwice(String),
    /// The issuer is no usable URL.
    #[error("oidc.issuer: {0}")]
    Issuer(#[from] IssuerError),
    /// `introspection` or `command` cannot be used.
    #[error("{0}")]
    Token(String),
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
    /// Whom it is about and which rule said no, once that is known.
    pub grounds: Option<Box<Grounds>>,
}

impl PolicyError {
    /// The key that it is about, as far as that is known.
    pub(crate) fn key(&self) -> &str {
        match self {
            Self::Issuer(_) | Self::IssuerTwice(_) => "issuer",
            Self::PrefixTwice(key, _) => key,
            // These messages begin with their key.
            Self::Token(problem) => {
                let key = problem.split([' ', ':']).next().unwrap_or_default();
                key.rsplit('.').next().unwrap_or_default()
            }
            _ => "",
        }
    }
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
            status: Mutex::new(Status::loaded(document)),
            metrics: PolicyMetrics::default(),
        })
    }

    /// How it decided so far.
    pub fn metrics(&self) -> &PolicyMetrics {
        &self.metrics
    }

    /// Replaces the rules, in one step. A document that could not be read, or cannot run, leaves the old ones in force.
    /// Answers about tokens that were kept for a moment are forgotten; the keys of issuers that stay are not.
    ///
    /// # Errors
    /// Whatever was wrong; it also shows in `/readyz` until the next reload that works.
    pub fn reload<E: From<PolicyError> + std::fmt::Display>(
        &self,
        document: Result<Document, E>,
    ) -> Result<(), E> {
        let loaded = document.and_then(|document| {
            let now = self.loaded.load();
            let loaded = Loaded::new(&document, &self.http, Some(&now.check))?;
            Ok((Status::loaded(&document), loaded))
        });
        let mut status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        let (new, loaded) = loaded.inspect_err(|error| status.fail(error))?;
        self.loaded.store(Arc::new(loaded));
        status.replace(new);
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
        let began = Instant::now();
        let decision = self.decide_uncounted(token, connection).await;
        let outcome = match &decision {
            Ok(_) => "allowed",
            Err(refusal) => outcome_of(refusal.status),
        };
        self.metrics.decided(outcome, began.elapsed());
        decision
    }

    async fn decide_uncounted(
        &self,
        token: &Token,
        connection: &ConnectionFields,
    ) -> Result<PolicyResponse, Refusal> {
        let loaded = self.loaded.load_full();
        let bearer = loaded.check.holder(token).await.map_err(Refusal::of_token)?;
        let person = &bearer.person;
        let now = unix_now();
        let denied = |denial: Denial<'_>| loaded.refusal(person, connection, denial, now);
        // A name that no host or user can have is covered by no rule.
        let host = HostName::parse(&connection.remote_host).map_err(|_| denied(Denial::NoRule))?;
        let user = Principal::parse(&connection.remote_user).map_err(|_| denied(Denial::NotAllowed))?;
        let question = Question {
            person,
            host: &host,
            user: &user,
            now,
        };
        match loaded.rules.evaluate(&question) {
            Decision::Allowed(allowed) => Ok(loaded.certificate_for(&bearer, allowed, now)),
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

    /// Which rules are in force, since when, and whether newer ones could not be used.
    pub fn status(&self) -> Status {
        let status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        status.clone()
    }

    /// Whether the last reload failed, so that older rules than the file's are in force.
    pub fn reload_failed(&self) -> bool {
        let status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        status.problem.is_some()
    }

    /// The age of the oldest identity provider's keys, in seconds, since they were fetched or last confirmed; none while
    /// there are none.
    pub fn keys_age(&self) -> Option<u64> {
        let now = unix_now();
        let loaded = self.loaded.load();
        let ages = loaded.check.verifiers().filter_map(|verifier| {
            let snapshot = verifier.keys().current()?;
            Some(now.saturating_sub(snapshot.key_document.fetched_at))
        });
        ages.max()
    }

    /// Fetches the identity providers' keys ahead of time, whenever they will soon be stale. Never ends.
    pub async fn keep_keys_fresh(&self) {
        loop {
            tokio::time::sleep(JWKS_LOOK).await;
            let loaded = self.loaded.load_full();
            for verifier in loaded.check.verifiers() {
                verifier.keys().refresh_ahead(unix_now()).await;
            }
        }
    }

    /// Fetches the identity provider's keys if they are not at hand: for a quick first login, and to see whether
    /// tokens can be verified at all.
    ///
    /// # Errors
    /// The provider cannot be reached, and there are no keys from before.
    pub async fn ready(&self) -> Result<(), ProviderError> {
        let loaded = self.loaded.load_full();
        loaded.check.ready().await
    }
}

impl Refusal {
    fn forbidden(message: impl Into<String>) -> Self {
        Self::plain(StatusCode::FORBIDDEN, message)
    }

    pub(crate) fn plain(status: StatusCode, message: impl Into<String>) -> Self {
        Self {
            status,
            message: message.into(),
            grounds: None,
        }
    }

    fn of_token(refusal: TokenRefusal) -> Self {
        match refusal {
            TokenRefusal::Invalid(reason) => Self::invalid_token(&reason),
            TokenRefusal::Insufficient(message) => Self::forbidden(message),
            TokenRefusal::Unavailable(message) => Self::plain(StatusCode::SERVICE_UNAVAILABLE, message),
        }
    }

    pub(crate) fn invalid_token(error: &dyn std::fmt::Display) -> Self {
        let error = sanitize_line(&error.to_string(), 500);
        let message = format!("Invalid token: token verification failed: {error}");
        Self::plain(StatusCode::UNAUTHORIZED, message)
    }
}

impl Loaded {
    /// The terms of the rule that allowed, for the user who was asked for and what the rule adds to them.
    fn certificate_for(&self, bearer: &Bearer, allowed: Allowed<'_>, now: u64) -> PolicyResponse {
        let terms = allowed.terms;
        let (groups, groups_left_out) = self.groups(&bearer.person);
        let not_after = bearer
            .expires_at
            .and_then(|at| Timestamp::from_second(i64::try_from(at).ok()?).ok());
        PolicyResponse {
            cert_params: CertParams {
                identity: bearer.person.identity.clone(),
                principals: allowed.principals.into_iter().map(Into::into).collect(),
                expiration_ns: i64::try_from(terms.expiration.as_nanos()).unwrap_or(i64::MAX),
                extensions: terms.extensions.clone(),
                critical_options: terms.critical_options.clone(),
                not_after,
                rule: Some(allowed.rule.as_str().to_owned()),
                groups,
                groups_left_out,
                login: facts(&bearer.person.login, now),
            },
        }
    }

    /// Those of a person's groups that the rules know, for the audit log.
    fn groups(&self, person: &Person) -> (Vec<String>, u32) {
        groups_within_limits(self.rules.known_groups(person))
    }

    /// A no, with the texts of epithet 0.19 where it has one.
    fn refusal(
        &self,
        person: &Person,
        connection: &ConnectionFields,
        denial: Denial<'_>,
        now: u64,
    ) -> Refusal {
        let line = |text: &str| sanitize_line(text, 300);
        let identity = line(&person.identity);
        let (user, host) = (line(&connection.remote_user), line(&connection.remote_host));
        tracing::info!(identity, user, host, reason = %denial, "denied");
        let login = format!("User {identity} not authorized for {user}@{host}");
        let message = match denial {
            Denial::UnknownUser => format!("User {identity} not in users list{}", self.why_unknown(person)),
            Denial::Insufficient { lacking, .. } => format!("{login}: it takes {lacking}; log in again"),
            Denial::NoPrincipal(_) => format!("{login}: {denial}"),
            _ => login,
        };
        let (groups, groups_left_out) = self.groups(person);
        Refusal {
            grounds: Some(Box::new(Grounds {
                identity: person.identity.clone(),
                groups,
                rule: denial.rule().map(ToString::to_string),
                groups_left_out,
                login: facts(&person.login, now),
            })),
            ..Refusal::forbidden(message)
        }
    }

    /// What a person whom the rules do not know, or whoever they ask, may want to know beside that.
    fn why_unknown(&self, person: &Person) -> String {
        let groups = match (self.rules.have_groups(), person.groups.len()) {
            (false, _) => "",
            (true, 0) => ", and the token lists no groups",
            (true, _) => ", and in no group that has tags",
        };
        let address = person.unverified_email.as_deref().map(|email| {
            let email = sanitize_line(email, 300);
            format!("; the provider does not vouch for {email} (email_verified), so it does not count")
        });
        format!("{groups}{}", address.unwrap_or_default())
    }

    fn new(document: &Document, http: &Arc<Http>, before: Option<&TokenCheck>) -> Result<Self, PolicyError> {
        let check = match document.token_kind() {
            TokenKind::Oidc => TokenCheck::Oidc(issuers(document, http, before)?),
            TokenKind::Introspection => {
                TokenCheck::Introspection(Box::new(TokenIntrospection::new(&document.introspection, http)?))
            }
            TokenKind::Command => TokenCheck::Command(Box::new(TokenCommand::new(&document.command)?)),
        };
        let oidc = &document.oidc.first;
        let rules = Rules::new(document);
        let scopes = oidc.scopes.clone();
        // How to log in is known when a provider is; with other tokens a client needs a plugin of its own.
        let auth = given(&oidc.issuer)
            .zip(given(&oidc.client_id))
            .map(|(issuer, client_id)| DiscoveryAuth {
                kind: Some("oidc".to_owned()),
                issuer,
                client_id,
                client_secret: given(&oidc.client_secret),
                scopes: scopes
                    .unwrap_or_else(|| DEFAULT_SCOPES.iter().map(|scope| (*scope).to_owned()).collect()),
                command: None,
            });
        let discovery = Discovery {
            auth,
            match_patterns: rules
                .patterns()
                .map(|pattern| pattern.as_str().to_owned())
                .collect(),
        };
        let discovery_json = serde_json::to_vec_pretty(&discovery).unwrap_or_default().into();
        Ok(Self {
            check,
            rules,
            discovery,
            discovery_json,
        })
    }
}

/// How somebody logged in, for the audit log.
fn facts(login: &Login, now: u64) -> Option<LoginFacts> {
    let seconds = |time: u64| i64::try_from(time).unwrap_or(i64::MAX);
    let facts = LoginFacts {
        acr: login.acr.clone(),
        amr: login.amr.clone(),
        age: login.at.map(|at| seconds(now).saturating_sub(seconds(at))),
    };
    facts.within_limits()
}

/// The issuers whose tokens are believed, the one that clients are told of first.
fn issuers(
    document: &Document,
    http: &Arc<Http>,
    before: Option<&TokenCheck>,
) -> Result<Vec<TokenIssuer>, PolicyError> {
    if let Some((_, problem)) = issuer_problems(document).into_iter().next() {
        return Err(problem);
    }
    let all = || document.oidc.all();
    let prefixes: Vec<&str> = all().map(identity_prefix).collect();
    let groups_prefixes: Vec<&str> = all().map(groups_prefix).collect();
    let mut issuers: Vec<TokenIssuer> = Vec::new();
    for oidc in all() {
        let issuer = Issuer::parse(&given(&oidc.issuer).ok_or(PolicyError::NoIssuer)?)?;
        let client_id = given(&oidc.client_id).ok_or(PolicyError::NoClientId)?;
        // A verifier that would be the same is kept, and with it the provider's keys.
        let same = |kept: &&Verifier| *kept.issuer() == issuer && kept.client_id() == client_id;
        let verifier = match before.and_then(|before| before.verifiers().find(same)) {
            Some(kept) => kept.clone(),
            None => Verifier::new(issuer, &client_id, Arc::clone(http))?,
        };
        let names = ClaimNames {
            identity: given(&oidc.identity_claim),
            groups: given(&oidc.groups_claim),
            identity_prefix: Prefix::new(identity_prefix(oidc), &prefixes),
            groups_prefix: Prefix::new(groups_prefix(oidc), &groups_prefixes),
        };
        issuers.push(TokenIssuer { verifier, names });
    }
    Ok(issuers)
}

fn identity_prefix(oidc: &Oidc) -> &str {
    oidc.identity_prefix.as_deref().unwrap_or_default()
}

fn groups_prefix(oidc: &Oidc) -> &str {
    oidc.groups_prefix
        .as_deref()
        .unwrap_or_else(|| identity_prefix(oidc))
}

/// Why the issuers of a document cannot be told apart or used, each with the index of the one that is wrong.
pub(crate) fn issuer_problems(document: &Document) -> Vec<(usize, PolicyError)> {
    let mut problems = Vec::new();
    for (index, oidc) in document.oidc.all().enumerate().skip(1) {
        if let Some(issuer) = given(&oidc.issuer).filter(|_| oidc.identity_prefix.is_none()) {
            problems.push((index, PolicyError::NoPrefix(issuer)));
        }
    }
    let all = || document.oidc.all();
    told_apart("identity-prefix", all().map(identity_prefix), &mut problems);
    told_apart("groups-prefix", all().map(groups_prefix), &mut problems);
    let mut known: Vec<Issuer> = Vec::new();
    for (index, oidc) in all().enumerate() {
        match given(&oidc.issuer).map(|issuer| Issuer::parse(&issuer)) {
            None => problems.push((index, PolicyError::NoIssuer)),
            Some(Err(error)) => problems.push((index, error.into())),
            Some(Ok(issuer)) if known.contains(&issuer) => {
                problems.push((index, PolicyError::IssuerTwice(issuer.as_str().to_owned())));
            }
            Some(Ok(issuer)) => known.push(issuer),
        }
        if given(&oidc.client_id).is_none() {
            problems.push((index, PolicyError::NoClientId));
        }
    }
    problems
}

/// Finds prefixes that no certificate can carry, and such as two issuers have but for those that are empty.
fn told_apart<'a>(
    key: &'static str,
    prefixes: impl Iterator<Item = &'a str>,
    problems: &mut Vec<(usize, PolicyError)>,
) {
    let mut all: Vec<&str> = Vec::new();
    for (index, prefix) in prefixes.enumerate().filter(|(_, prefix)| !prefix.is_empty()) {
        // The groups' prefix is the identities' where nothing else is said, and then so is what is wrong with it.
        let is_told = problems.iter().any(|(other, _)| *other == index);
        if let Err(error) = check_identity(prefix)
            && !is_told
        {
            problems.push((index, PolicyError::Token(format!("oidc.{key}: {error}"))));
        } else if all.contains(&prefix) && !is_told {
            problems.push((index, PolicyError::PrefixTwice(key, prefix.to_owned())));
        }
        all.push(prefix);
    }
}

/// A value that says something.
fn given(text: &Option<String>) -> Option<String> {
    text.clone().filter(|text| !text.trim().is_empty())
}
