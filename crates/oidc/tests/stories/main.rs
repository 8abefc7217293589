//! Logins, tokens and providers from outside, against a provider in this process that can be told to lie.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod id_token_lies;
mod login;
mod logout_and_probe;
mod support;
mod tls;
mod verifier;
