//! A provider in this process that can be told to lie, and people who use it.
#![allow(dead_code, unreachable_pub, missing_docs, reason = "each test uses its own part")]
#![allow(clippy::allow_attributes, reason = "what is unused differs from test to test, `expect` would not hold")]

pub mod keys;
pub mod person;
pub mod provider;

pub use keys::{SigningKey, other_rsa, rsa};
pub use person::{Person, visit};
pub use provider::Provider;

/// Seconds since 1970.
pub fn now() -> u64 {
    epithet_oidc::clock::unix_now()
}
