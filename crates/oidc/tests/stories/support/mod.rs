//! A provider in this process that can be told to lie, and people who use it.

pub(crate) mod keys;
pub(crate) mod person;
pub(crate) mod provider;

pub(crate) use keys::{SigningKey, other_rsa, rsa};
pub(crate) use person::{Person, visit};
pub(crate) use provider::Provider;

/// Seconds since 1970.
pub(crate) fn now() -> u64 {
    epithet_oidc::clock::unix_now()
}
