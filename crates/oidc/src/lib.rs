//! OAuth 2.0 and OpenID Connect for Epithet: logging in, and believing the token that comes of it.
//!
//! Two users: `epithet auth oidc`, which logs a person in, and the policy server, which verifies
//! ID tokens with a [`Verifier`]. Both go through the one function that believes a token, [`id_token::verify`].
//! A provider is never trusted with more than its own tokens: every document is bounded in size and time, every
//! address in it is checked, and no text of it reaches a shell.

mod ahead;
mod authorization;
pub mod browser;
mod callback;
mod claims;
pub mod client_auth;
pub mod clock;
mod device;
pub mod document;
pub mod flow;
pub mod http;
pub mod id_token;
pub mod introspection;
mod issuer;
pub mod json;
pub mod jwks;
pub mod jws;
pub mod key_cache;
pub mod login;
mod login_browser;
mod login_device;
pub mod options;
pub mod page;
mod peer;
pub mod probe;
pub mod provider;
mod random;
mod reply;
pub mod revocation;
mod secret;
mod session;
mod state;
pub mod token_endpoint;
mod ui;
mod verifier;
mod waiting;

pub use authorization::ResponseError;
#[doc(hidden)]
pub use authorization::is_answer;
pub use callback::ListenError;
pub use claims::Claims;
pub use client_auth::{ClientAuthChoice, ClientKey, ClientKeyError};
pub use flow::{Flow, FlowChoice, Surroundings};
pub use http::{FetchError, Http};
pub use introspection::{Introspection, IntrospectionError};
pub use issuer::{Issuer, IssuerError};
pub use key_cache::KeyCache;
pub use login::{How, LoginError, Outcome, login};
pub use options::{LoginOptions, OptionsError, RedirectHost, TokenKind};
pub use provider::{Provider, ProviderError};
pub use random::NoRandomness;
pub use secret::Secret;
pub use token_endpoint::{Refusal, TokenEndpointError};
pub use ui::{LoginUi, Notice};
pub use verifier::{Verifier, VerifierError, VerifyError, unverified_issuer};
