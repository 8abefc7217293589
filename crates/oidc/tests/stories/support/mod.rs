//! A provider in this process that can be told to lie, and people who use it.

pub(crate) mod keys;
pub(crate) mod person;
pub(crate) mod provider;

pub(crate) use keys::{SigningKey, other_rsa, rsa};
pub(crate) use person::{Person, visit};
pub(crate) use provider::Provider;

use epithet_oidc::{LoginError, LoginOptions, Outcome, login};
use provider::CLIENT;
use serde_json::Value;
use std::time::Duration;

/// Seconds since 1970.
pub(crate) fn now() -> u64 {
    epithet_oidc::clock::unix_now()
}

/// A login that does not wait for ever.
pub(crate) fn options(provider: &Provider) -> LoginOptions {
    LoginOptions {
        timeout: Duration::from_secs(20),
        ..LoginOptions::new(provider.http(), provider.issuer(), CLIENT)
    }
}

/// A first login.
pub(crate) async fn log_in(provider: &Provider) -> Outcome {
    login(&options(provider), b"", &mut Person::with_browser())
        .await
        .unwrap()
}

/// The next run, with the state of the one before.
pub(crate) async fn run_again(provider: &Provider, before: &Outcome) -> Result<Outcome, LoginError> {
    login(
        &options(provider),
        before.state.expose(),
        &mut Person::with_browser(),
    )
    .await
}

/// The state as JSON.
pub(crate) fn state(outcome: &Outcome) -> Value {
    serde_json::from_slice(outcome.state.expose()).unwrap()
}
