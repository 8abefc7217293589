//! HTTP as the CA and the policy server share it.
//!
//! Both are small programs that anybody on the network can reach, so what surrounds their handlers is the same for
//! both and lives here: where to listen ([`Listen`], TCP or a Unix socket), how long a client may take and how many
//! may come ([`Settings`]), TLS from files that can be replaced while running ([`Tls`]), and an end that lets requests
//! in flight finish ([`serve`]).
//!
//! Every request reaches its handler with a [`RequestId`](epithet_wire::RequestId) and a [`ClientAddress`] among its
//! extensions, and every reply leaves with the id in the header `Epithet-Request-Id`.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use epithet_serve::{Listen, Settings, serve};
//! use tokio_util::sync::CancellationToken;
//!
//! let listener = Listen::parse("127.0.0.1:0")?.bind().await?;
//! println!("listening on {}", listener.address());
//! let stop = CancellationToken::new();
//! serve(listener, axum::Router::new(), Settings::default(), stop).await;
//! # Ok(())
//! # }
//! ```

mod accept;
mod activity;
mod admission;
mod answer;
mod forwarded;
mod head;
mod listen;
mod listener;
mod metrics;
mod request;
mod room;
mod tls;
mod tls_expiry;
mod write_deadline;

pub use accept::{REQUEST_ID, Settings, serve};
pub use answer::{json, method_not_allowed, text};
pub use forwarded::{TrustedProxy, TrustedProxyError};
pub use listen::{Listen, ListenError};
pub use listener::Listener;
pub use metrics::{Looked, latency_histogram, metrics_router, tls_expiry};
pub use request::{BodyError, ClientAddress, ReadBody, new_request_id, read_body, request_id};
pub use tls::{Tls, TlsError};
