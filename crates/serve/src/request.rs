//! What a handler may want to know about a request beyond its own bytes.

use crate::answer::{busy, text};
use crate::room::{Held, Room};
use axum::body::{Body, Bytes};
use axum::response::Response;
use epithet_wire::RequestId;
use epithet_wire::limits::HTTP_READ_DEADLINE;
use http::header::{CONTENT_LENGTH, EXPECT};
use http::request::Parts;
use http::{Extensions, StatusCode};
use http_body_util::BodyExt;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::ops::Deref;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Who sent a request, as the socket says, or as proxies say that [`Settings`](crate::Settings) trusts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientAddress {
    /// A TCP peer. An IPv4 address that came through an IPv6 socket is shown as IPv4.
    Ip(IpAddr),
    /// A process on this machine, through the Unix socket, running as this user id.
    Unix {
        /// The peer's effective user id.
        uid: u32,
    },
}

impl ClientAddress {
    /// Who counts as one where clients are limited: an IPv4 address, or an IPv6 /64, which is what one subscriber gets.
    /// None for this machine, where proxies stand.
    pub fn counted_as(&self) -> Option<IpAddr> {
        match self {
            Self::Ip(address) if address.is_loopback() => None,
            Self::Ip(IpAddr::V6(v6)) => Some(IpAddr::V6((v6.to_bits() & !u128::from(u64::MAX)).into())),
            Self::Ip(v4 @ IpAddr::V4(_)) => Some(*v4),
            Self::Unix { .. } => None,
        }
    }
}

impl fmt::Display for ClientAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => address.fmt(f),
            Self::Unix { uid } => write!(f, "unix:uid={uid}"),
        }
    }
}

/// A name for one request, different from every other of this process and from those of the next.
///
/// It is for finding log lines, not a secret: a counter that starts at a random place, stirred (SplitMix64).
pub fn new_request_id() -> RequestId {
    static START: LazyLock<u64> = LazyLock::new(|| RandomState::new().hash_one(std::process::id()));
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let mut z = START.wrapping_add(count.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    RequestId::from_random((z ^ (z >> 31)).to_be_bytes())
}

/// The id [`serve`](crate::serve) gave to a request; a new one for a request that did not come that way.
pub fn request_id(extensions: &Extensions) -> RequestId {
    extensions
        .get::<RequestId>()
        .cloned()
        .unwrap_or_else(new_request_id)
}

/// Why a request's body could not be read.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// More bytes than the handler accepts; answered with 413.
    #[error("Request body too large")]
    TooLarge,
    /// The client took longer than [`HTTP_READ_DEADLINE`]; answered with 408.
    #[error("unable to read body: it took longer than {} s", HTTP_READ_DEADLINE.as_secs())]
    TooSlow,
    /// Others are being read, and there is no memory for this one; answered with 503.
    #[error("too many bytes of requests are being read; try again in a moment")]
    NoRoom,
    /// The connection broke, or the body's framing was wrong.
    #[error("unable to read body: {0}")]
    Broken(axum::Error),
}

impl BodyError {
    /// The status that says so.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::TooSlow => StatusCode::REQUEST_TIMEOUT,
            Self::NoRoom => StatusCode::SERVICE_UNAVAILABLE,
            Self::Broken(_) => StatusCode::BAD_REQUEST,
        }
    }

    /// The answer that says so.
    pub fn response(&self) -> Response {
        match self {
            Self::NoRoom => busy(),
            other => text(other.status(), other.to_string()),
        }
    }
}

/// How much of a refused body is read and dropped before the connection is, and for how long.
const DISCARD_MAX: usize = 1024 * 1024;
const DISCARD_FOR: Duration = Duration::from_millis(500);

/// A body that was read, and the room that it takes until it is dropped.
#[derive(Debug)]
pub struct ReadBody {
    bytes: Bytes,
    _held: Option<Held>,
}

impl Deref for ReadBody {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Reads the body of a request with this head, at most `max` bytes. A body that announces more is refused without being kept.
pub async fn read_body(body: Body, head: &Parts, max: usize) -> Result<ReadBody, BodyError> {
    let announced = head
        .headers
        .get(CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse::<u64>().ok())
        .map_or(0, |length| usize::try_from(length).unwrap_or(usize::MAX));
    let mut body = body;
    let mut held = held(head);
    let read = if announced > max {
        Err(BodyError::TooLarge)
    } else {
        let reading = collect(&mut body, &mut held, max);
        tokio::time::timeout(HTTP_READ_DEADLINE, reading)
            .await
            .unwrap_or(Err(BodyError::TooSlow))
    };
    // Who waits for leave to send (RFC 9110 section 10.1.1), or would send for long, is told at once.
    let sends_anyway = !head.headers.contains_key(EXPECT) && announced <= DISCARD_MAX;
    if matches!(read, Err(BodyError::TooLarge | BodyError::NoRoom)) && sends_anyway {
        let _ = tokio::time::timeout(DISCARD_FOR, discard(&mut body)).await;
    }
    Ok(ReadBody {
        bytes: read?,
        _held: held,
    })
}

/// The room that this server has for requests; none for one that did not come through [`serve`](crate::serve).
fn held(head: &Parts) -> Option<Held> {
    let client = head.extensions.get::<ClientAddress>()?;
    Some(head.extensions.get::<Room>()?.hold(*client))
}

/// Reads on for a while, so that a client that sends before it listens gets to see the refusal.
async fn discard(body: &mut Body) {
    let mut left = DISCARD_MAX;
    while let Some(Ok(frame)) = body.frame().await {
        left = left.saturating_sub(frame.data_ref().map_or(1, Bytes::len));
        if left == 0 {
            return;
        }
    }
}

async fn collect(body: &mut Body, held: &mut Option<Held>, max: usize) -> Result<Bytes, BodyError> {
    let mut first = Bytes::new();
    let mut more = Vec::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(BodyError::Broken)?.into_data() else {
            continue;
        };
        if first.len() + more.len() + data.len() > max {
            return Err(BodyError::TooLarge);
        }
        if held.as_mut().is_some_and(|held| held.take(data.len()).is_err()) {
            return Err(BodyError::NoRoom);
        }
        // Nearly every body arrives in one piece, which is then passed on without a copy.
        if first.is_empty() && more.is_empty() {
            first = data;
        } else {
            if more.is_empty() {
                more.extend_from_slice(&std::mem::take(&mut first));
            }
            more.extend_from_slice(&data);
        }
    }
    Ok(if more.is_empty() { first } else { Bytes::from(more) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn request_ids_do_not_repeat() {
        let ids: HashSet<_> = (0..10_000).map(|_| new_request_id()).collect();
        assert_eq!(ids.len(), 10_000);
    }
}
