//! Who may log in where: the rules, the tokens they apply to, and the server that a CA asks.
//!
//! - [`Document`]: the rules as people write them, wire-compatible with the files of epithet 0.19.
//! - [`Rules`]: the same, ready to decide; pure, so that a table can say what it does.
//! - [`Policy`]: rules, and a way to tell who holds a token, together. [`Policy::decide`] is the whole question: for the
//!   policy server through [`router`], for `epithet server` directly.
//! - [`ServiceTokens`]: how the server knows that it is the CA who asks.
//!
//! - [`Findings`], [`Rules::explain`], [`Expectations`] and [`Replay`]: what rules say, asked before they are in
//!   force.
//!
//! A policy server holds no signing key. Everything that is not allowed is denied.
//!
//! # Where decisions differ from epithet 0.19
//!
//! | there | here | why |
//! |---|---|---|
//! | `email` is believed always | only with `email_verified`; otherwise `sub`, or the claim that `oidc.identity-claim` names | people could claim any address |
//! | the longest pattern text comes first | what says more comes first ([`epithet_wire::HostPattern`]) | `{prod,dev,stage,qa}-*` beat the plain `prod-1` |
//! | life and extensions come from the first pattern that grants anything at all | from the rule that allowed | a certificate got another rule's life |
//! | a malformed pattern matches nothing, an unknown key is ignored | both are errors with their line | a typing error silently changed who gets in |
//! | host names are compared with their case | without it, and without the last dot | `PROD.example.com.` is `prod.example.com` |

mod decision;
mod document;
mod expectations;
mod explain;
mod findings;
mod key_source;
mod metrics;
mod past;
mod person;
mod places;
mod policy;
mod replay;
mod reply_token;
mod routes;
mod rules;
mod service_token;
mod shadow;
mod status;
mod terms;
mod token_check;
mod token_command;
mod token_introspection;
mod verdict_cache;
mod warnings;

pub use decision::{Allowed, Decision, Denial, Login, Person, Question};
pub use document::{
    CommandSection, Document, DocumentError, HostRule, IntrospectionSection, Issuers, Lacking, Lifetime,
    Oidc, PrincipalTemplate, Principals, Reading, Requirement, Span, TokenKind,
};
pub use expectations::{Expectation, Expectations, OneOrMany, Unexpected, Verdict};
pub use explain::{Explanation, Part};
pub use findings::Findings;
pub use key_source::Asking;
pub use metrics::PolicyMetrics;
pub use past::{Change, Kind, Replay, Times, Unknown};
pub use person::{ClaimNames, Prefix};
pub use policy::{DEFAULT_SCOPES, Policy, PolicyError, Refusal};
pub use routes::{SERVICE_ERROR_HEADER, router, router_with};
pub use rules::Rules;
pub use service_token::{Received, ServiceTokenError, ServiceTokens};
pub use status::Status;
pub use terms::{DEFAULT_EXTENSIONS, Terms};
pub use warnings::{CaLimits, Warning};
