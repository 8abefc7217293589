//! The discovery document as the CA passes it on: asked for once, kept for as long as policy allows.
//!
//! Anybody may ask the CA for it, so without a cache anybody could make the CA sign a request to the policy server.

use crate::policy_source::{PolicyFailure, PolicySource};
use axum::body::Bytes;
use epithet_wire::limits::DISCOVERY_MAX_AGE;
use http::HeaderValue;
use std::time::{Duration, Instant};
use tokio::sync::Mutex;

/// The longest time a document is kept, whatever policy says.
const KEEP_MAX: Duration = Duration::from_secs(24 * 3600);
/// How long a failure is passed on without asking again.
const FAILURE: Duration = Duration::from_secs(2);

/// The discovery document, cached. Whoever comes while it is fetched waits for that one fetch.
#[derive(Debug)]
pub(crate) struct DiscoveryCache {
    policy: PolicySource,
    kept: Mutex<Option<Kept>>,
}

#[derive(Debug)]
struct Kept {
    document: Result<Document, PolicyFailure>,
    until: Instant,
}

/// The document as it is sent.
#[derive(Debug, Clone)]
pub(crate) struct Document {
    pub(crate) json: Bytes,
    pub(crate) cache_control: HeaderValue,
}

impl DiscoveryCache {
    pub(crate) fn new(policy: PolicySource) -> Self {
        Self {
            policy,
            kept: Mutex::default(),
        }
    }

    pub(crate) async fn get(&self) -> Result<Document, PolicyFailure> {
        if matches!(self.policy, PolicySource::Local(_)) {
            return self.fetch().await.map(|(document, _)| document);
        }
        let mut kept = self.kept.lock().await;
        if let Some(kept) = kept.as_ref().filter(|kept| Instant::now() < kept.until) {
            return kept.document.clone();
        }
        let fetched = self.fetch().await;
        let age = fetched.as_ref().map_or(FAILURE, |(_, age)| *age);
        let document = fetched.map(|(document, _)| document);
        *kept = Some(Kept {
            document: document.clone(),
            until: Instant::now() + age,
        });
        document
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
