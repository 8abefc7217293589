//! A development identity provider: everything `epithet demo` and the tests need to log in with OpenID Connect
//! on a machine that has no provider.
//!
//! It speaks the real protocol (OpenID Connect Core 1.0, RFC 6749, 7009, 7636, 8252, 8414, 8628 and 9207) and
//! checks what a strict provider checks: PKCE with `S256` always, codes for one use, refresh tokens that rotate
//! and whose reuse ends the whole login. What it does not do is know people: whoever opens its page types a name
//! and is that person. That is why it listens on loopback addresses only, says so on each of its pages, and
//! forgets everything, its key included, when it ends.
//!
//! [`DevProvider`] is the provider. [`sign_in`] stands in for the browser and the person in front of it.
//!
//! ```
//! use epithet_devidp::{DevProvider, Settings};
//!
//! let provider = DevProvider::start(Settings::default())?;
//! assert!(provider.issuer().starts_with("http://127.0.0.1:"));
//! let token = provider.mint_id_token("alice", &serde_json::json!({ "groups": ["admin"] }));
//! assert_eq!(token.split('.').count(), 3);
//! # Ok::<(), epithet_devidp::StartError>(())
//! ```

mod authorize;
mod browser;
mod claims;
mod cookies;
mod device;
mod html;
mod keys;
mod ledger;
mod page;
mod parameters;
mod pkce;
mod provider;
mod random;
mod routes;
mod settings;
mod token;

pub use browser::{Page, Person, SignInError, sign_in, sign_in_blocking};
pub use provider::{DevProvider, Hold, Requests, StartError};
pub use settings::{RefreshTokens, Settings};
