//! The certificate authority: it holds the key that opens every host, and decides nothing.
//!
//! The way of a request: [`router`] takes it apart, a [`PolicySource`] says yes or no, [`Authority::allow`] checks
//! every word of a yes again, [`Authority::issue`] signs, [`AuditLog`] writes the line, and only then does the
//! certificate leave. Whatever goes wrong on that way, there is no certificate.

mod audit;
mod authority;
mod ceilings;
mod http_policy;
mod policy_source;
mod routes;
mod service_token;

pub use audit::{AuditError, AuditLog};
pub use authority::{Allowed, Authority, IssueError, Issued};
pub use ceilings::{Ceilings, Excess};
pub use http_policy::{HttpPolicy, HttpPolicyError};
pub use policy_source::{Decide, Deciding, Discovering, PolicyRefusal, PolicySource};
pub use routes::{Ca, router};
pub use service_token::service_token;
