//! A provider's keys, kept in memory and replaced without anybody waiting.
//!
//! * Nothing is fetched before it is needed, so that a server starts while its provider is down.
//! * Once there is a set, [`KeyCache::refresh_ahead`] replaces it before it is stale.
//! * A stale set serves at once and is refreshed in the background, at most once a minute; when the provider is down, for
//!   up to 24 h.
//! * An unknown key id leads to one fetch, at most once a minute however many tokens arrive: rotation is
//!   noticed at once, and tokens with made-up key ids cannot turn us against the provider.

use crate::ahead::{Ahead, within};
use crate::document::{self, Document, Kind};
use crate::http::Http;
use crate::issuer::Issuer;
use crate::jwks::KeySet;
use crate::provider::{Provider, ProviderError};
use arc_swap::ArcSwapOption;
use epithet_wire::limits;
use std::sync::Arc;
use tokio::sync::Mutex;

/// Between two attempts to reach a provider that did not answer, in seconds.
const RETRY: u64 = 5;

/// A provider and its keys as of one moment.
#[derive(Debug)]
pub struct Snapshot {
    /// The metadata.
    pub provider: Provider,
    /// The keys.
    pub keys: KeySet,
    /// The discovery document that `provider` was read from.
    pub discovery: Document,
    /// The key set document that `keys` was read from.
    pub key_document: Document,
}

impl Snapshot {
    /// Fetches what is not fresh of the two documents, and reads both.
    pub async fn fetch(
        http: &Http,
        issuer: &Issuer,
        known: (Option<&Document>, Option<&Document>),
        now: u64,
    ) -> Result<Self, ProviderError> {
        let (provider, discovery) = Provider::discover(http, issuer, known.0, now).await?;
        // Keys that came from another address are not this document's keys.
        let is_same_address = known.0.is_some_and(|before| {
            Provider::parse(issuer, before.body.as_bytes())
                .is_ok_and(|before| before.jwks_uri == provider.jwks_uri)
        });
        let known_keys = known.1.filter(|_| is_same_address);
        let (keys, key_document) = fetch_keys(http, &provider, known_keys, now).await?;
        Ok(Self {
            provider,
            keys,
            discovery,
            key_document,
        })
    }

    fn is_fresh(&self, now: u64) -> bool {
        self.key_document.is_fresh(now)
    }

    fn is_usable(&self, now: u64) -> bool {
        self.key_document.is_usable(now)
    }
}

/// The provider's keys: those at hand while they are fresh, else fetched (or confirmed by their `ETag`).
pub(crate) async fn fetch_keys(
    http: &Http,
    provider: &Provider,
    known: Option<&Document>,
    now: u64,
) -> Result<(KeySet, Document), ProviderError> {
    let document = match known {
        Some(document) if document.is_fresh(now) => document.clone(),
        _ => document::fetch(http, &provider.jwks_uri, Kind::Keys, known, now).await?,
    };
    let keys = KeySet::parse(document.body.as_bytes())
        .map_err(|error| ProviderError::Keys(error, crate::http::shown(&provider.jwks_uri)))?;
    Ok((keys, document))
}

/// The keys of one provider for as long as the process lives. Cheap to clone; clones share.
#[derive(Debug, Clone)]
pub struct KeyCache(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    http: Arc<Http>,
    issuer: Issuer,
    current: ArcSwapOption<Snapshot>,
    /// Held while fetching: one fetch at a time, and whoever waited finds its result.
    attempts: Mutex<Attempts>,
}

/// When the provider was last asked, in seconds since 1970.
#[derive(Debug, Default)]
struct Attempts {
    failed: Option<(u64, ProviderError)>,
    /// The last fetch that an unknown key caused.
    key_missed: Option<u64>,
    ahead: Ahead,
}

impl Attempts {
    /// When the last fetch failed; none once one worked again.
    fn failed_at(&self) -> Option<u64> {
        self.failed.as_ref().map(|(at, _)| *at)
    }
}

impl KeyCache {
    /// Nothing is fetched yet.
    pub fn new(issuer: Issuer, http: Arc<Http>) -> Self {
        Self(Arc::new(Shared {
            http,
            issuer,
            current: ArcSwapOption::empty(),
            attempts: Mutex::default(),
        }))
    }

    /// Whose keys these are.
    pub fn issuer(&self) -> &Issuer {
        &self.0.issuer
    }

    /// The keys at hand, if any, however old.
    pub fn current(&self) -> Option<Arc<Snapshot>> {
        self.0.current.load_full()
    }

    /// How many fetches in a row failed; 0 while somebody is at it.
    pub fn failures(&self) -> u32 {
        let attempts = self.0.attempts.try_lock();
        attempts.map_or(0, |attempts| attempts.ahead.failures())
    }

    /// The keys to verify with now.
    ///
    /// # Errors
    /// The provider cannot be reached, or is not usable, and there is no set younger than 24 h.
    pub async fn get(&self, now: u64) -> Result<Arc<Snapshot>, ProviderError> {
        match self.current() {
            Some(snapshot) if snapshot.is_fresh(now) => Ok(snapshot),
            Some(snapshot) if snapshot.is_usable(now) => {
                self.refresh_in_background(snapshot.clone(), now);
                Ok(snapshot)
            }
            stale => self.replace(stale.as_ref(), now).await,
        }
    }

    /// The keys after `seen` turned out not to have the one that a token names: fetched anew at most once a minute.
    ///
    /// # Errors
    /// The provider did not answer the last time it was asked, so nobody knows whether the key exists.
    pub async fn after_missing_key(
        &self,
        seen: &Arc<Snapshot>,
        now: u64,
    ) -> Result<Arc<Snapshot>, ProviderError> {
        let mut attempts = self.0.attempts.lock().await;
        if let Some(current) = self.newer_than(Some(seen)) {
            return Ok(current);
        }
        if within(attempts.key_missed, limits::JWKS_REFETCH.as_secs(), now) {
            return match &attempts.failed {
                Some((_, error)) => Err(error.clone()),
                None => Ok(seen.clone()),
            };
        }
        attempts.key_missed = Some(now);
        self.fetch(&mut attempts, Some(seen), now).await
    }

    /// Fetches the keys anew if they will be stale before long; to be called every [`limits::JWKS_LOOK`]. Nothing is fetched
    /// before keys were needed for the first time.
    pub async fn refresh_ahead(&self, now: u64) {
        let Some(current) = self.current() else { return };
        let mut attempts = self.0.attempts.lock().await;
        if self.newer_than(Some(&current)).is_none()
            && attempts
                .ahead
                .is_due(&current.key_document, now, crate::random::jitter())
        {
            // A failure has been logged, and there are keys to go on with.
            let _ = self.fetch(&mut attempts, Some(&current), now).await;
        }
    }

    fn refresh_in_background(&self, stale: Arc<Snapshot>, now: u64) {
        let cache = self.clone();
        match cache.0.attempts.try_lock() {
            // The provider is down, and there are keys to go on with.
            Ok(attempts) if within(attempts.failed_at(), limits::JWKS_REFETCH.as_secs(), now) => return,
            Ok(_) => {}
            // Somebody is at it already.
            Err(_) => return,
        }
        tokio::spawn(async move {
            // A failure has been logged, and is told to whoever comes when the keys are too old to use.
            let _ = cache.replace(Some(&stale), now).await;
        });
    }

    /// Fetches, unless somebody just did or the provider just failed.
    async fn replace(&self, seen: Option<&Arc<Snapshot>>, now: u64) -> Result<Arc<Snapshot>, ProviderError> {
        let mut attempts = self.0.attempts.lock().await;
        if let Some(current) = self.newer_than(seen) {
            return Ok(current);
        }
        if let Some((last, error)) = &attempts.failed
            && within(Some(*last), RETRY, now)
        {
            return Err(error.clone());
        }
        self.fetch(&mut attempts, seen, now).await
    }

    fn newer_than(&self, seen: Option<&Arc<Snapshot>>) -> Option<Arc<Snapshot>> {
        self.current()
            .filter(|current| seen.is_none_or(|seen| !Arc::ptr_eq(seen, current)))
    }

    async fn fetch(
        &self,
        attempts: &mut Attempts,
        seen: Option<&Arc<Snapshot>>,
        now: u64,
    ) -> Result<Arc<Snapshot>, ProviderError> {
        let shared = &*self.0;
        // The key set is asked for again (conditionally); the discovery document only when it is stale itself.
        let known_keys = seen.map(|seen| seen.key_document.expired());
        let known = (seen.map(|seen| &seen.discovery), known_keys.as_ref());
        let fetched = Snapshot::fetch(&shared.http, &shared.issuer, known, now).await;
        attempts.ahead.fetched(now, fetched.is_ok());
        match fetched {
            Ok(snapshot) => {
                attempts.failed = None;
                let snapshot = Arc::new(snapshot);
                shared.current.store(Some(snapshot.clone()));
                tracing::info!(
                    issuer = %shared.issuer,
                    keys = snapshot.keys.len(),
                    fresh_for = snapshot.key_document.fresh_until.saturating_sub(now),
                    "provider keys loaded"
                );
                Ok(snapshot)
            }
            Err(error) => {
                tracing::warn!(issuer = %shared.issuer, %error, "provider keys could not be loaded");
                attempts.failed = Some((now, error.clone()));
                Err(error)
            }
        }
    }
}
