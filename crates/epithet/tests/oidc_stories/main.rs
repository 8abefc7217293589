//! Stories of people who log in with OpenID Connect: `ssh`, `epithet match`, the broker, `epithet auth oidc`, a browser
//! with a person in front of it, the provider, `epithet server`, and back to `sshd`.
//!
//! Each is told twice: at a certified provider (npm `oidc-provider`), so that our client is not only tested against
//! ours, and at the development provider that ships with the demo.

#![cfg(test)]

#[path = "../shared/laptop.rs"]
mod laptop;
#[path = "../shared/site.rs"]
mod site;

mod browsers;
mod by_hand;
mod certificates;
mod client_authentication;
mod clocks;
mod crowds;
mod keys;
mod logging_in;
mod other_flows;
mod outages;
mod strangers;
mod support;
