//! The certificate authority: issues what policy decided, within its own limits, and writes it down first.
//!
//! - [`Authority`] holds the CA key and has the one function that issues. It takes a [`Decision`], which only a
//!   [`PolicySource`] makes, and checks everything in it against [`Ceilings`] that only the CA's operator sets.
//! - [`PolicySource`] is a policy server ([`PolicyClient`], to which the CA proves itself with a token signed by its
//!   key) or policy in the same process ([`LocalPolicy`]).
//! - [`AuditLog`] gets a line for every decision before its answer leaves; without it nothing is issued.
//! - [`router`] is the HTTP in front of it all.
//!
//! The CA never looks into the user's token, and decides nothing: it can only say no to what policy allowed.
//!
//! # Where answers differ from epithet 0.19
//!
//! | there | here | why |
//! |---|---|---|
//! | policy's 401 about the CA itself reaches the client | 502 | people logged in again and again for nothing |
//! | policy unreachable: 500 with its URL | 503, garbled 502, with a request id | 5xx all the same to a client; where policy is concerns nobody |
//! | a token that ended meanwhile: 400 | 401 | logging in again is what helps |
//! | whatever policy orders is signed | [`Ceilings`]; beyond them 502 | a policy server that was taken over |
//! | any public key, after policy was asked | [`epithet_ssh::SubjectPublicKey`], before; 400 | a certificate as a key ended the handler |
//! | names are passed on as they are | names that no host or user has are 400 | they end in logs |
//! | `/discovery` asks policy every time | once per `max-age` | anybody could make the CA ask |
//!
//! ```no_run
//! # fn example() -> Result<axum::Router, Box<dyn std::error::Error>> {
//! use epithet_ca::{AuditLog, Authority, Ceilings, PolicyClient, PolicySource, router};
//! use std::sync::Arc;
//!
//! let key = Arc::new(epithet_ssh::CaKey::load("/etc/epithet/ca.key", || None)?);
//! let client = PolicyClient::new(&"https://policy.example.com".parse()?, Arc::clone(&key), None)?;
//! let authority = Authority::new(key, Ceilings::default());
//! Ok(router(authority, PolicySource::remote(client), Arc::new(AuditLog::stdout()?)))
//! # }
//! ```

mod asked;
pub mod audit;
mod authority;
mod decision;
mod discovery;
mod failed_tokens;
mod issued_ids;
mod issuing;
mod metrics;
mod policy_client;
mod policy_source;
mod principal_pattern;
mod repeats;
mod reply_token;
mod routes;
mod service_token;
mod turned_away;
mod unix_client;
mod waiting;

#[doc(hidden)]
pub use asked::is_request;
pub use audit::{AuditError, AuditLog};
pub use authority::{Authority, IssueError};
pub use decision::{ALLOWED_CRITICAL_OPTIONS, ALLOWED_EXTENSIONS, Ceilings, Decision, DecisionError};
pub use metrics::CaMetrics;
pub use policy_client::{PolicyClient, PolicyClientError};
pub use policy_source::{
    LocalDecision, LocalPolicy, LocalReadiness, PolicyFailure, PolicyRefusal, PolicySource,
};
pub use principal_pattern::{PrincipalPattern, PrincipalPatternError};
pub use routes::{router, router_with};

/// Seconds since 1970.
fn unix_now() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}
