//! A document of the provider (discovery, keys) together with how long it is good for.

use crate::http::{FetchError, Http, shown};
use crate::reply::Reply;
use serde::{Deserialize, Serialize};
use url::Url;

/// How long a document without a stated life is kept.
const LIFE: u64 = 3600;
/// The shortest and longest life we grant, whatever the provider says: seconds.
///
/// A provider that forbids caching would otherwise be asked for its keys with every single token.
const LIFE_RANGE: (u64, u64) = (300, 24 * 3600);

/// What was fetched, when, and for how long it is fresh. Kept in the plugin's state between runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Document {
    /// The body, as it came.
    pub body: String,
    /// The provider's own version mark, for a conditional request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub etag: Option<String>,
    /// When it was fetched or last confirmed, in seconds since 1970.
    pub fetched_at: u64,
    /// Until when it need not be asked for again.
    pub fresh_until: u64,
}

impl Document {
    /// Whether it need not be fetched again. A clock that was set back makes nothing fresh.
    pub fn is_fresh(&self, now: u64) -> bool {
        (self.fetched_at..self.fresh_until).contains(&now)
    }

    /// Whether it may still serve when the provider is down (24 h, `wire::limits::JWKS_STALE`).
    pub fn is_usable(&self, now: u64) -> bool {
        now < self
            .fetched_at
            .saturating_add(epithet_wire::limits::JWKS_STALE.as_secs())
    }

    /// The same, to be asked for again.
    pub(crate) fn expired(&self) -> Self {
        Self {
            fresh_until: 0,
            ..self.clone()
        }
    }

    fn life(reply: &Reply) -> u64 {
        reply.max_age.unwrap_or(LIFE).clamp(LIFE_RANGE.0, LIFE_RANGE.1)
    }
}

/// What a fetch is for: it decides about redirects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// May be redirected within its origin.
    Discovery,
    /// May not be redirected.
    Keys,
}

/// Fetches a document, or confirms with its `ETag` that the one at hand is still right.
pub(crate) async fn fetch(
    http: &Http,
    url: &Url,
    kind: Kind,
    known: Option<&Document>,
    now: u64,
) -> Result<Document, FetchError> {
    let etag = known.and_then(|document| document.etag.as_deref());
    let reply = match kind {
        Kind::Discovery => http.get(url, etag).await?,
        Kind::Keys => http.get_directly(url, etag).await?,
    };
    let fresh_until = now.saturating_add(Document::life(&reply));
    if let (304, Some(known), Some(_)) = (reply.status, known, etag) {
        return Ok(Document {
            fetched_at: now,
            fresh_until,
            ..known.clone()
        });
    }
    if !reply.is_success() {
        return Err(FetchError::Status {
            url: shown(url),
            status: reply.status,
        });
    }
    reply.refuse_pages(url)?;
    let etag = reply.etag;
    // What is not UTF-8 is not JSON either; the JSON reader says so.
    let body = String::from_utf8_lossy(&reply.body).into_owned();
    Ok(Document {
        body,
        etag,
        fetched_at: now,
        fresh_until,
    })
}
