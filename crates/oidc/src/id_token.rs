//! The one place where an ID token is believed (OpenID Connect Core 1.0 section 3.1.3.7).
//!
//! The plugin checks everything here before it gives a token out; the policy server checks everything but what
//! only the one who logged in can know (nonce, access token, `max_age`, the previous token). There is one reason
//! per failure, in words for people ([`TokenError`]'s `Display`) and as a short code for logs and tests.

use crate::claims::{Claims, optional_text, time};
use crate::json::{self, JsonError};
use crate::jwks::{KeyError, KeySet};
use crate::jws::{Algorithm, Compact, JwsError};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// Why a token is not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It is not a signed token in the form that we accept.
    #[error("the token is refused: {0}")]
    Form(#[from] JwsError),
    /// The provider's keys do not confirm it.
    #[error("the token is refused: {0}")]
    Key(#[from] KeyError),
    /// The provider says that it signs otherwise.
    #[error("the token is refused: it is signed with {0}, which the provider does not list")]
    AlgorithmNotOffered(Algorithm),
    /// It says itself that it is another kind of token (RFC 8725 section 3.11).
    #[error("the token is refused: it is a token of type {0:?}, not an ID token")]
    OtherType(String),
    /// The claims are not a strict JSON object.
    #[error("the token is refused: its claims are unusable: {0}")]
    Claims(JsonError),
    /// A claim that must be there is not.
    #[error("the token is refused: it has no {0:?}")]
    ClaimMissing(&'static str),
    /// A claim has the wrong type or an impossible value.
    #[error("the token is refused: its {claim:?} is not {expected}")]
    ClaimType {
        /// Which.
        claim: &'static str,
        /// What it should be.
        expected: &'static str,
    },
    /// Somebody else issued it.
    #[error("the token is refused: its issuer is {found:?}, not {expected:?}")]
    WrongIssuer {
        /// Ours.
        expected: String,
        /// The token's.
        found: String,
    },
    /// It was made for another client.
    #[error("the token is refused: it is for {}, not for the client {expected:?}", shown_list(.found))]
    WrongAudience {
        /// Our client id.
        expected: String,
        /// The token's audience.
        found: Vec<String>,
    },
    /// It was also made for somebody we do not know.
    #[error("the token is refused: it is also for {0:?}, which is not trusted here")]
    ExtraAudience(String),
    /// Several audiences, and it does not say which of them asked for it (`azp`).
    #[error(
        "the token is refused: it is for several clients and does not say which one asked for it (\"azp\")"
    )]
    NoAuthorizedParty,
    /// Another client asked for it (`azp`).
    #[error("the token is refused: the client {0:?} asked for it (\"azp\")")]
    WrongAuthorizedParty(String),
    /// Its end is past.
    #[error(
        "the token has expired: it ended {seconds} s ago; log in again, and check both clocks if this is new"
    )]
    Expired {
        /// How long ago, in seconds.
        seconds: u64,
    },
    /// Its beginning is yet to come (`nbf`).
    #[error(
        "the token is not valid yet: it begins in {seconds} s; check the clocks of this machine and the provider"
    )]
    NotYetValid {
        /// In how many seconds.
        seconds: u64,
    },
    /// It was issued in the future (`iat`).
    #[error(
        "the token was issued {seconds} s in the future; check the clocks of this machine and the provider"
    )]
    IssuedInFuture {
        /// By how many seconds.
        seconds: u64,
    },
    /// It comes fresh from a login and yet is old.
    #[error(
        "the token is refused: it was issued {seconds} s ago, which is not this login; check the clocks of this machine and the provider"
    )]
    TooOld {
        /// How many seconds.
        seconds: u64,
    },
    /// It answers another login than ours.
    #[error("the token is refused: its nonce is not the one of this login")]
    WrongNonce,
    /// It does not belong to the access token that came with it (`at_hash`).
    #[error("the token is refused: it belongs to another access token (\"at_hash\")")]
    WrongAccessToken,
    /// The person logged in longer ago than `max_age` allows.
    #[error("the token is refused: the person logged in {seconds} s ago, longer than --max-age allows")]
    LoginTooOld {
        /// How many seconds ago.
        seconds: u64,
    },
    /// A refreshed token is for somebody else than the one before (Core section 12.2).
    #[error("the refreshed token is refused: its {0:?} is not that of the token before it")]
    Changed(&'static str),
}

impl TokenError {
    /// A short name for logs, metrics and tests. It never changes for a situation.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Form(JwsError::TooLong(_)) => "too_long",
            Self::Form(JwsError::Parts(_) | JwsError::Base64(_)) => "malformed",
            Self::Form(JwsError::Encrypted) => "encrypted",
            Self::Form(JwsError::Header(JsonError::DuplicateName(_))) => "duplicate_header",
            Self::Form(JwsError::Header(_) | JwsError::HeaderParameter(_)) => "bad_header",
            Self::Form(JwsError::Unsigned) => "alg_none",
            Self::Form(JwsError::Symmetric(_)) => "alg_symmetric",
            Self::Form(JwsError::UnknownAlgorithm(_)) => "alg_unknown",
            Self::Form(JwsError::Critical) => "critical_header",
            Self::Key(KeyError::Unknown(_)) => "unknown_key",
            Self::Key(KeyError::Ambiguous(_)) => "ambiguous_key",
            Self::Key(KeyError::AlgorithmMismatch { .. }) => "alg_mismatch",
            Self::Key(KeyError::Weak { .. }) => "weak_key",
            Self::Key(KeyError::Signature) => "bad_signature",
            Self::AlgorithmNotOffered(_) => "alg_not_offered",
            Self::OtherType(_) => "wrong_type",
            Self::Claims(JsonError::DuplicateName(_)) => "duplicate_claim",
            Self::Claims(_) => "bad_claims",
            Self::ClaimMissing(_) => "claim_missing",
            Self::ClaimType { .. } => "claim_type",
            Self::WrongIssuer { .. } => "wrong_issuer",
            Self::WrongAudience { .. } => "wrong_audience",
            Self::ExtraAudience(_) => "extra_audience",
            Self::NoAuthorizedParty => "no_azp",
            Self::WrongAuthorizedParty(_) => "wrong_azp",
            Self::Expired { .. } => "expired",
            Self::NotYetValid { .. } => "not_yet_valid",
            Self::IssuedInFuture { .. } => "issued_in_future",
            Self::TooOld { .. } => "too_old",
            Self::WrongNonce => "wrong_nonce",
            Self::WrongAccessToken => "wrong_at_hash",
            Self::LoginTooOld { .. } => "login_too_old",
            Self::Changed(_) => "identity_changed",
        }
    }
}

fn shown_list(list: &[String]) -> String {
    let shown: Vec<_> = list.iter().take(3).map(|one| format!("{one:?}")).collect();
    if shown.is_empty() {
        "nobody".to_owned()
    } else {
        shown.join(", ")
    }
}

/// Who a refreshed token must still be for (OpenID Connect Core 1.0 section 12.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Previous {
    /// `sub` of the token before.
    pub subject: String,
    /// `auth_time` of the token before, when it had one.
    pub auth_time: Option<u64>,
    /// The nonce of the login, when it had one.
    pub nonce: Option<String>,
}

/// What a token must be.
#[derive(Debug, Clone, Copy)]
pub struct Expectation<'e> {
    /// The issuer, byte for byte.
    pub issuer: &'e str,
    /// The client it must be for.
    pub client_id: &'e str,
    /// Further audiences that it may also be for. Usually none.
    pub trusted_audiences: &'e [String],
    /// How it may be signed: what the provider lists, as far as we accept that.
    pub algorithms: &'e [Algorithm],
    /// How far the clocks may be apart, in seconds.
    pub leeway: u64,
    /// The nonce of this login. `None` where the one who checks did not log in.
    pub nonce: Option<&'e str>,
    /// The access token that came with it, for `at_hash`.
    pub access_token: Option<&'e str>,
    /// How long ago the person may have logged in, in seconds, when that was asked for.
    pub max_age: Option<u64>,
    /// How long ago it may have been issued, in seconds, when it comes straight from a login.
    pub issued_within: Option<u64>,
    /// The token that it replaces.
    pub previous: Option<&'e Previous>,
}

impl<'e> Expectation<'e> {
    /// What everyone who is given a token checks.
    pub fn new(issuer: &'e str, client_id: &'e str, algorithms: &'e [Algorithm]) -> Self {
        Self {
            issuer,
            client_id,
            trusted_audiences: &[],
            algorithms,
            leeway: epithet_wire::limits::OIDC_LEEWAY.as_secs(),
            nonce: None,
            access_token: None,
            max_age: None,
            issued_within: None,
            previous: None,
        }
    }
}

/// Verifies an ID token. `now` is in seconds since 1970.
pub fn verify(
    token: &[u8],
    keys: &KeySet,
    expected: &Expectation<'_>,
    now: u64,
) -> Result<Claims, TokenError> {
    let compact = Compact::parse(token)?;
    verify_signature(&compact, keys, expected)?;
    check_claims(&compact, expected, now)
}

/// The signature, by a key of the provider that is for this algorithm.
pub(crate) fn verify_signature(
    compact: &Compact<'_>,
    keys: &KeySet,
    expected: &Expectation<'_>,
) -> Result<(), TokenError> {
    if !expected.algorithms.contains(&compact.algorithm) {
        return Err(TokenError::AlgorithmNotOffered(compact.algorithm));
    }
    keys.verify(
        compact.algorithm,
        compact.key_id.as_deref(),
        compact.signed,
        &compact.signature,
    )?;
    Ok(())
}

/// Everything the claims must say. Only for a token whose signature has been verified.
pub(crate) fn check_claims(
    compact: &Compact<'_>,
    expected: &Expectation<'_>,
    now: u64,
) -> Result<Claims, TokenError> {
    check_type(compact.token_type.as_deref())?;
    let claims = json::parse_object(&compact.payload()?).map_err(TokenError::Claims)?;
    let claims = Claims::read(claims)?;
    check_kind(&claims)?;
    check_issuer(&claims, expected)?;
    check_audience(&claims, expected)?;
    check_times(&claims, expected, now)?;
    check_login(&claims, expected, compact.algorithm, now)?;
    Ok(claims)
}

/// An explicit type other than plain `JWT` is another kind of token: `at+jwt`, `dpop+jwt`, `logout+jwt`, our own.
fn check_type(token_type: Option<&str>) -> Result<(), TokenError> {
    match token_type {
        Some(other) if other.ends_with("+jwt") => {
            Err(TokenError::OtherType(other.chars().take(64).collect()))
        }
        _ => Ok(()),
    }
}

/// Keycloak signs access, refresh and logout tokens with the same keys and tells them apart by a `typ` claim;
/// logout tokens and security events of others have `events` (Back-Channel Logout 1.0 section 2.4).
fn check_kind(claims: &Claims) -> Result<(), TokenError> {
    let kind = claims.raw.get("typ").and_then(|kind| kind.as_str());
    if let Some(kind) = kind
        && ["Bearer", "Refresh", "Offline", "Logout"]
            .iter()
            .any(|other| kind.eq_ignore_ascii_case(other))
    {
        return Err(TokenError::OtherType(kind.to_owned()));
    }
    if claims.raw.contains_key("events") {
        return Err(TokenError::OtherType("logout token".to_owned()));
    }
    Ok(())
}

fn check_issuer(claims: &Claims, expected: &Expectation<'_>) -> Result<(), TokenError> {
    if claims.issuer != expected.issuer {
        return Err(TokenError::WrongIssuer {
            expected: expected.issuer.to_owned(),
            found: claims.issuer.chars().take(200).collect(),
        });
    }
    Ok(())
}

fn check_audience(claims: &Claims, expected: &Expectation<'_>) -> Result<(), TokenError> {
    let client_id = expected.client_id;
    if client_id.is_empty() || !claims.audience.iter().any(|audience| audience == client_id) {
        return Err(TokenError::WrongAudience {
            expected: client_id.to_owned(),
            found: claims
                .audience
                .iter()
                .take(3)
                .map(|one| one.chars().take(200).collect())
                .collect(),
        });
    }
    let is_trusted =
        |audience: &&String| *audience == client_id || expected.trusted_audiences.contains(audience);
    if let Some(extra) = claims.audience.iter().find(|audience| !is_trusted(audience)) {
        return Err(TokenError::ExtraAudience(extra.chars().take(200).collect()));
    }
    match optional_text(&claims.raw, "azp")? {
        Some(party) if party != client_id => Err(TokenError::WrongAuthorizedParty(
            party.chars().take(200).collect(),
        )),
        None if claims.audience.len() > 1 => Err(TokenError::NoAuthorizedParty),
        _ => Ok(()),
    }
}

fn check_times(claims: &Claims, expected: &Expectation<'_>, now: u64) -> Result<(), TokenError> {
    let leeway = expected.leeway;
    if now >= claims.expires_at.saturating_add(leeway) {
        return Err(TokenError::Expired {
            seconds: now - claims.expires_at,
        });
    }
    if let Some(begins) = time(&claims.raw, "nbf")?
        && begins > now.saturating_add(leeway)
    {
        return Err(TokenError::NotYetValid {
            seconds: begins - now,
        });
    }
    if claims.issued_at > now.saturating_add(leeway) {
        return Err(TokenError::IssuedInFuture {
            seconds: claims.issued_at - now,
        });
    }
    if let Some(limit) = expected.issued_within
        && now.saturating_sub(claims.issued_at) > limit.saturating_add(leeway)
    {
        return Err(TokenError::TooOld {
            seconds: now - claims.issued_at,
        });
    }
    Ok(())
}

/// What only the one who logged in can check.
fn check_login(
    claims: &Claims,
    expected: &Expectation<'_>,
    algorithm: Algorithm,
    now: u64,
) -> Result<(), TokenError> {
    let nonce = optional_text(&claims.raw, "nonce")?;
    if let Some(ours) = expected.nonce
        && nonce.is_none_or(|theirs| verify_slices_are_equal(ours.as_bytes(), theirs.as_bytes()).is_err())
    {
        return Err(TokenError::WrongNonce);
    }
    if let (Some(access_token), Some(hash)) = (expected.access_token, optional_text(&claims.raw, "at_hash")?)
        && hash != access_token_hash(access_token, algorithm)
    {
        return Err(TokenError::WrongAccessToken);
    }
    if let Some(max_age) = expected.max_age {
        let login = claims.auth_time.ok_or(TokenError::ClaimMissing("auth_time"))?;
        let seconds = now.saturating_sub(login);
        if seconds > max_age.saturating_add(expected.leeway) {
            return Err(TokenError::LoginTooOld { seconds });
        }
    }
    if let Some(previous) = expected.previous {
        if claims.subject != previous.subject {
            return Err(TokenError::Changed("sub"));
        }
        // A provider may leave it out of a refreshed token; it may not make it a later login.
        if let (Some(before), Some(after)) = (previous.auth_time, claims.auth_time)
            && before != after
        {
            return Err(TokenError::Changed("auth_time"));
        }
        // It should not be there; if it is, it is the login's.
        if let (Some(before), Some(after)) = (previous.nonce.as_deref(), nonce)
            && before != after
        {
            return Err(TokenError::Changed("nonce"));
        }
    }
    Ok(())
}

/// The left half of the hash that goes with the signature's algorithm (Core section 3.1.3.6).
fn access_token_hash(access_token: &str, algorithm: Algorithm) -> String {
    let hash = match algorithm {
        Algorithm::RS256 | Algorithm::PS256 | Algorithm::ES256 => &digest::SHA256,
        Algorithm::RS384 | Algorithm::PS384 | Algorithm::ES384 => &digest::SHA384,
        Algorithm::RS512 | Algorithm::PS512 | Algorithm::ES512 | Algorithm::EdDSA => &digest::SHA512,
    };
    let digest = digest::digest(hash, access_token.as_bytes());
    URL_SAFE_NO_PAD.encode(&digest.as_ref()[..digest.as_ref().len() / 2])
}
