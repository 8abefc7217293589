//! Logins, tokens and providers from outside, against a provider in this process that can be told to lie.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod another_way;
mod browser_login;
mod client_authentication;
mod id_token_lies;
mod login_elsewhere;
mod logout_and_probe;
mod lying_provider;
mod refresh;
mod support;
mod tls;
mod verifier;
