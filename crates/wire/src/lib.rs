//! The vocabulary of Epithet: what crosses a process boundary, and the limits everybody keeps.
//!
//! Nothing here does I/O. Values that came from outside are parsed into types that cannot be wrong
//! ([`HostName`], [`Principal`], [`ConnectionHash`], [`Endpoint`]) at the edge and trusted from there on.
//! The JSON of the three wires (ssh's `match` to the broker, broker to CA, CA to policy server) lives in
//! [`broker`], [`ca`] and [`policy`], so that a change of a wire is a change of one file.

pub mod broker;
pub mod ca;
mod connection;
pub mod display;
mod document;
mod duration;
mod endpoint;
pub mod limits;
mod loopback;
mod names;
mod network;
mod pattern;
pub mod policy;
mod secret;
mod time;
mod token;
pub mod trace;

pub use connection::{Connection, ConnectionError, ConnectionFields};
pub use document::read_document;
pub use duration::{DurationError, format_duration, parse_duration};
pub use endpoint::{Endpoint, EndpointError};
pub use loopback::{LoopbackAddress, LoopbackAddressError};
pub use names::{ConnectionHash, HostName, KeyId, NameError, Principal, ProfileName, RequestId};
pub use network::{NetworkError, check_network};
pub use pattern::{HostPattern, HostSketch, PatternError, PatternSketch};
pub use secret::{PluginState, SecretBytes, SecretStorage};
pub use time::parse_time;
pub use token::{HeaderToken, TOKEN_ENCODING_HEADER, Token, TokenError};
