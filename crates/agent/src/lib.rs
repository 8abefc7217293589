//! The agent of one connection: a signature firewall.
//!
//! ssh reaches it through `IdentityAgent`, on a socket that was made for this one connection. It holds one key and
//! one certificate, lists and signs, and signs nothing but the login that the certificate was made for.
//!
//! The way of a message: [`frame`] takes it off the socket, [`Request`] is what it asks, [`firewall::answer`]
//! decides by the connection's [`Session`] and the [`Credential`], and [`Reply`] goes back. Everything between the
//! socket and the reply is a pure function.
//!
//! The credential is a [`Promise`]: the socket can be served before the certificate is there.

mod askers;
mod chain;
mod clock;
mod connection;
mod credential;
pub mod firewall;
pub mod frame;
pub mod message;
mod promise;
pub mod session;
mod socket;
pub mod userauth;
mod watcher;

pub use askers::Askers;
pub use chain::{Chain, ChainWhen};
pub use clock::{Clock, Now};
pub use credential::{Credential, CredentialError};
pub use firewall::{Refusal, Rules, Verdict};
pub use message::{Identity, Reply, Request};
pub use promise::{Fulfil, Promise};
pub use session::Session;
pub use socket::{Activity, AgentSettings, AgentSocket, Places, SocketStamp};
pub use watcher::Watcher;
