//! The discovery document as the CA passes it on: asked for once, kept for as long as policy allows.
//!
//! Anybody may ask the CA for it, so without a cache anybody could make the CA sign a request to the policy server. While
//! the policy server does not answer, the last document serves: what it says rarely changes, and people would otherwise
//! wait for it in vain.

use crate::policy_source::{PolicyFailure, PolicySource};
use axum::body::Bytes;
use epithet_wire::limits::DISCOVERY_MAX_AGE;
use http::HeaderValue;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::OwnedMutexGuard;

/// The longest time a document is kept, whatever policy says, and however long the policy server is away.
const KEEP_MAX: Duration = Duration::from_secs(24 * 3600);
/// How long an answer says whether the policy server can be reached, and a failure is passed on without asking again.
const FAILURE: Duration = Duration::from_secs(2);
/// How long a new document is waited for while there is an old one.
const PATIENCE: Duration = Duration::from_millis(250);

/// The discovery document, cached. Whoever comes while it is fetched waits for that one fetch.
#[derive(Debug, Clone)]
pub(crate) struct DiscoveryCache {
    policy: PolicySource,
    kept: Arc<Mutex<Kept>>,
    /// Held by whoever fetches.
    fetching: Arc<tokio::sync::Mutex<()>>,
}

#[derive(Debug, Default)]
struct Kept {
    /// The last document, and until when it is as good as a new one.
    document: Option<(Document, Instant)>,
    /// What became of the last fetch, and when.
    last: Option<(Result<(), PolicyFailure>, Instant)>,
}

/// The document as it is sent.
#[derive(Debug, Clone)]
pub(crate) struct Document {
    pub(crate) json: Bytes,
    pub(crate) cache_control: HeaderValue,
}

impl Kept {
    fn fresh(&self, now: Instant) -> Option<Document> {
        let (document, until) = self.document.as_ref()?;
        (now < *until).then(|| document.clone())
    }

    /// The last document, unless it is too old for anything.
    fn stale(&self, now: Instant) -> Option<Document> {
        let (document, until) = self.document.as_ref()?;
        (now < *until + KEEP_MAX).then(|| document.clone())
    }

    /// What became of the last fetch, if that was just now.
    fn lately(&self, now: Instant) -> Option<Result<(), PolicyFailure>> {
        let (result, at) = self.last.as_ref()?;
        (now < *at + FAILURE).then(|| result.clone())
    }
}

impl DiscoveryCache {
    pub(crate) fn new(policy: PolicySource) -> Self {
        Self {
            policy,
            kept: Arc::default(),
            fetching: Arc::default(),
        }
    }

    pub(crate) async fn get(&self) -> Result<Document, PolicyFailure> {
        if matches!(self.policy, PolicySource::Local(_)) {
            return self.fetch().await.map(|(document, _)| document);
        }
        let now = Instant::now();
        let (stale, failure) = {
            let kept = self.kept();
            if let Some(document) = kept.fresh(now) {
                return Ok(document);
            }
            (kept.stale(now), kept.lately(now).and_then(Result::err))
        };
        match (stale, failure) {
            (Some(stale), Some(_)) => Ok(stale),
            (Some(stale), None) => {
                if let Ok(turn) = Arc::clone(&self.fetching).try_lock_owned() {
                    // It goes on when nobody waits for it any more.
                    let fetched = tokio::spawn(self.clone().renew(turn));
                    if let Ok(Ok(Ok(document))) = tokio::time::timeout(PATIENCE, fetched).await {
                        return Ok(document);
                    }
                }
                Ok(stale)
            }
            (None, Some(failure)) => Err(failure),
            (None, None) => {
                let turn = Arc::clone(&self.fetching).lock_owned().await;
                let now = Instant::now();
                let (fresh, failure) = {
                    let kept = self.kept();
                    (kept.fresh(now), kept.lately(now).and_then(Result::err))
                };
                match (fresh, failure) {
                    (Some(document), _) => Ok(document),
                    (None, Some(failure)) => Err(failure),
                    (None, None) => self.clone().renew(turn).await,
                }
            }
        }
    }

    /// Whether the policy server answers now, or did within the last two seconds.
    pub(crate) async fn reachable(&self) -> Result<(), PolicyFailure> {
        if let Some(lately) = self.kept().lately(Instant::now()) {
            return lately;
        }
        let turn = Arc::clone(&self.fetching).lock_owned().await;
        if let Some(lately) = self.kept().lately(Instant::now()) {
            return lately;
        }
        self.clone().renew(turn).await.map(|_| ())
    }

    /// Fetches it, and keeps it or the failure.
    async fn renew(self, turn: OwnedMutexGuard<()>) -> Result<Document, PolicyFailure> {
        let fetched = self.fetch().await;
        let now = Instant::now();
        let mut kept = self.kept();
        kept.last = Some((fetched.as_ref().map(|_| ()).map_err(Clone::clone), now));
        let renewed = fetched.map(|(document, age)| {
            kept.document = Some((document.clone(), now + age));
            document
        });
        drop(kept);
        drop(turn);
        renewed
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn fetch(&self) -> Result<(Document, Duration), PolicyFailure> {
        let (discovery, cache_control) = self.policy.discovery().await?;
        let json = serde_json::to_vec(&discovery)
            .map_err(|error| PolicyFailure::Garbled(error.to_string()))?
            .into();
        let age = cache_control
            .as_ref()
            .and_then(max_age)
            .unwrap_or(DISCOVERY_MAX_AGE)
            .min(KEEP_MAX);
        let cache_control = cache_control
            .or_else(|| HeaderValue::try_from(format!("max-age={}", DISCOVERY_MAX_AGE.as_secs())).ok())
            .unwrap_or_else(|| HeaderValue::from_static("max-age=300"));
        Ok((Document { json, cache_control }, age))
    }
}

/// The age in a `Cache-Control` header; nothing may be kept with `no-store` or `no-cache`, so the shortest is taken.
fn max_age(header: &HeaderValue) -> Option<Duration> {
    let directives = header
        .to_str()
        .ok()?
        .split(',')
        .map(|one| one.trim().to_ascii_lowercase());
    let mut age = None;
    for directive in directives {
        if directive == "no-store" || directive == "no-cache" {
            return Some(FAILURE);
        }
        if let Some(seconds) = directive.strip_prefix("max-age=") {
            age = seconds.trim_matches('"').parse().ok().map(Duration::from_secs);
        }
    }
    age
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_age_is_read_as_caches_read_it() {
        for (header, seconds) in [
            ("max-age=300", Some(300)),
            ("public, Max-Age=60", Some(60)),
            ("max-age=\"5\"", Some(5)),
            ("no-store", Some(2)),
            ("max-age=300, no-cache", Some(2)),
            ("private", None),
            ("max-age=-1", None),
            ("max-age=x", None),
            ("", None),
        ] {
            let header = HeaderValue::from_static(header);
            assert_eq!(max_age(&header).map(|age| age.as_secs()), seconds, "{header:?}");
        }
    }
}
