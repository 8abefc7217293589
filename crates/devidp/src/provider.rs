//! The running provider: its thread, its address, and the switches that tests turn.

use crate::claims;
use crate::keys::{KeyRing, merge};
use crate::ledger::Ledger;
use crate::routes;
use crate::settings::Settings;
use epithet_serve::{Listen, ListenError};
use jiff::Timestamp;
use serde_json::{Map, Value};
use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Why a development provider did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Whoever reaches this provider can be anybody, so only this machine may.
    #[error(
        "the development identity provider listens on loopback addresses only, not on {0}: use 127.0.0.1:0"
    )]
    NotLoopback(SocketAddr),
    /// The address is taken or is not this machine's.
    #[error("the development identity provider cannot listen: use port 0 to take any free port")]
    Listen(#[source] ListenError),
    /// The system gave no thread or no event queue.
    #[error("cannot start the development identity provider's thread")]
    Thread(#[source] std::io::Error),
    /// The cryptographic library refused to make an RSA key.
    #[error("cannot make an RSA signing key for the development identity provider")]
    Key,
}

/// How often the provider was asked for what, since its start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Requests {
    /// Discovery documents given out, "not modified" answers included.
    pub discoveries: u64,
    /// Key sets given out, "not modified" answers included.
    pub key_sets: u64,
    /// Requests to the authorization endpoint, good or bad.
    pub authorizations: u64,
    /// People who signed in, through a browser's page or a device's.
    pub logins: u64,
    /// Logins that a person refused.
    pub refusals: u64,
    /// Requests to the token endpoint, of every kind, good or bad.
    pub tokens: u64,
    /// Codes that were exchanged for tokens.
    pub codes: u64,
    /// Refreshes that were answered with new tokens.
    pub refreshes: u64,
    /// Refreshes that were refused.
    pub refused_refreshes: u64,
    /// Device logins begun.
    pub devices: u64,
    /// Times a device asked whether its person has answered.
    pub device_polls: u64,
    /// Revocation requests.
    pub revocations: u64,
    /// Requests for a person's description.
    pub userinfos: u64,
}

/// What the routes work with.
pub(crate) struct Provider {
    pub(crate) settings: Settings,
    pub(crate) issuer: String,
    pub(crate) port: u16,
    /// Proves that a form came from a page of this provider and not from some other site.
    pub(crate) page_secret: String,
    keys: Mutex<KeyRing>,
    ledger: Mutex<Ledger>,
    requests: Mutex<Requests>,
    lies: Mutex<(Map<String, Value>, Map<String, Value>)>,
    is_down: AtomicBool,
    clock_offset: AtomicI64,
    holds: watch::Sender<usize>,
}

/// Locks a value whose holder cannot leave it half changed.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Provider {
    fn new(settings: Settings, keys: KeyRing, address: SocketAddr) -> Self {
        Self {
            settings,
            issuer: format!("http://{address}"),
            port: address.port(),
            page_secret: crate::random::random_text(),
            keys: Mutex::new(keys),
            ledger: Mutex::default(),
            requests: Mutex::default(),
            lies: Mutex::default(),
            is_down: AtomicBool::new(false),
            clock_offset: AtomicI64::new(0),
            holds: watch::Sender::new(0),
        }
    }

    /// The provider's clock: Unix time in milliseconds.
    pub(crate) fn now_ms(&self) -> i64 {
        Timestamp::now().as_millisecond() + self.clock_offset.load(Ordering::Relaxed) * 1000
    }

    /// The provider's clock: Unix time in seconds.
    pub(crate) fn now(&self) -> i64 {
        self.now_ms() / 1000
    }

    pub(crate) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        lock(&self.ledger)
    }

    pub(crate) fn count(&self, what: impl FnOnce(&mut Requests) -> &mut u64) {
        *what(&mut lock(&self.requests)) += 1;
    }

    pub(crate) fn is_down(&self) -> bool {
        self.is_down.load(Ordering::Relaxed)
    }

    /// Waits while somebody holds the token endpoint.
    pub(crate) async fn wait_while_held(&self) {
        // The sender lives in `self`, so waiting ends only with the value that is waited for.
        let _ = self.holds.subscribe().wait_for(|holds| *holds == 0).await;
    }

    pub(crate) fn key_set(&self) -> Value {
        lock(&self.keys).key_set()
    }

    pub(crate) fn sign(&self, header: &Map<String, Value>, claims: &Map<String, Value>) -> String {
        lock(&self.keys).sign(header, claims)
    }

    /// Signs an ID token, with whatever lies the provider was told to tell.
    pub(crate) fn sign_id_token(&self, mut claims: Map<String, Value>) -> String {
        let (header, changes) = lock(&self.lies).clone();
        merge(&mut claims, &changes);
        self.sign(&header, &claims)
    }
}

/// A development identity provider that runs on a thread of its own until it is stopped or dropped.
///
/// The tests' switches take effect at once, for the next request.
pub struct DevProvider {
    provider: Arc<Provider>,
    stop: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

impl fmt::Debug for DevProvider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DevProvider")
            .field("issuer", &self.provider.issuer)
            .finish_non_exhaustive()
    }
}

impl DevProvider {
    /// Makes a key, listens, and returns once requests are accepted. Takes about a tenth of a second.
    ///
    /// Works with and without an asynchronous runtime around it.
    pub fn start(settings: Settings) -> Result<Self, StartError> {
        let address = settings.listen;
        if !address.ip().is_loopback() {
            return Err(StartError::NotLoopback(address));
        }
        let keys = KeyRing::generate().map_err(|_| StartError::Key)?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(StartError::Thread)?;
        let stop = CancellationToken::new();
        let (ready, outcome) = mpsc::channel();
        let work = run(settings, keys, ready, stop.clone());
        let thread = std::thread::Builder::new()
            .name("devidp".to_owned())
            .spawn(move || runtime.block_on(work))
            .map_err(StartError::Thread)?;
        // The sender is gone without a word only when the thread panicked.
        let provider = outcome
            .recv()
            .map_err(|gone| StartError::Thread(std::io::Error::other(gone)))??;
        Ok(Self {
            provider,
            stop,
            thread: Some(thread),
        })
    }

    /// The issuer: `http://127.0.0.1:PORT`, without a closing slash.
    pub fn issuer(&self) -> &str {
        &self.provider.issuer
    }

    /// The port that it listens on, to start another provider in its place later.
    pub fn port(&self) -> u16 {
        self.provider.port
    }

    /// The settings that it was started with.
    pub fn settings(&self) -> &Settings {
        &self.provider.settings
    }

    /// How often it was asked for what.
    pub fn requests(&self) -> Requests {
        *lock(&self.provider.requests)
    }

    /// An ID token for `user`, as if they had just signed in. `overrides` is an object whose members replace claims;
    /// null takes a claim out.
    pub fn mint_id_token(&self, user: &str, overrides: &Value) -> String {
        let now = self.provider.now();
        let mut claims = claims::identity(&self.provider.issuer, &self.provider.settings, user, now, now);
        merge(&mut claims, &claims::object(overrides.clone()));
        self.provider.sign_id_token(claims)
    }

    /// Signs any claims under any header. `header` is merged over the true `alg` and `kid`; null takes a member out.
    /// The signature is RS256 whatever the header says.
    pub fn sign(&self, header: &Value, claims: &Value) -> String {
        self.provider
            .sign(&claims::object(header.clone()), &claims::object(claims.clone()))
    }

    /// Makes every ID token from now on say something else: `header` and `claims` are merged over the true ones, null
    /// takes a member out. Two empty objects bring the truth back.
    pub fn lie_in_id_tokens(&self, header: &Value, claims: &Value) {
        *lock(&self.provider.lies) = (claims::object(header.clone()), claims::object(claims.clone()));
    }

    /// The name (`kid`) of the key that signs.
    pub fn key_id(&self) -> String {
        lock(&self.provider.keys).kid().to_owned()
    }

    /// The public half of the signing key, as DER (`SubjectPublicKeyInfo`).
    pub fn public_key_der(&self) -> Vec<u8> {
        lock(&self.provider.keys).public_der().unwrap_or_default()
    }

    /// Signs with a new key from now on. The old one stays published, as at a provider that rotates with care.
    ///
    /// # Errors
    /// [`StartError::Key`] when no key could be made; the old one goes on signing.
    pub fn rotate_keys(&self) -> Result<(), StartError> {
        lock(&self.provider.keys).rotate().map_err(|_| StartError::Key)
    }

    /// Publishes nothing but the key that signs: tokens of earlier keys are now worth nothing.
    pub fn retire_old_keys(&self) {
        lock(&self.provider.keys).retire_earlier();
    }

    /// Revokes every login, token and pending device, as an administrator who ends all sessions does.
    pub fn revoke_all(&self) {
        self.provider.ledger().revoke_all();
    }

    /// While down, every request is answered 503. Logins and tokens survive it.
    pub fn set_down(&self, is_down: bool) {
        self.provider.is_down.store(is_down, Ordering::Relaxed);
    }

    /// Moves the provider's clock: positive seconds put it ahead of this machine's.
    pub fn set_clock_offset(&self, seconds: i64) {
        self.provider.clock_offset.store(seconds, Ordering::Relaxed);
    }

    /// Lets requests to the token endpoint wait until the returned value is dropped: for tests of what happens
    /// meanwhile. They are counted in [`Requests::tokens`] before they wait.
    #[must_use = "the token endpoint is held only while this value lives"]
    pub fn hold_tokens(&self) -> Hold {
        self.provider.holds.send_modify(|holds| *holds += 1);
        Hold(Arc::clone(&self.provider))
    }

    /// Stops listening and closes every connection. Dropping does the same.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for DevProvider {
    fn drop(&mut self) {
        self.end();
    }
}

/// Holds the token endpoint of a [`DevProvider`] while it lives.
pub struct Hold(Arc<Provider>);

impl fmt::Debug for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hold")
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.0.holds.send_modify(|holds| *holds = holds.saturating_sub(1));
    }
}

/// Listens, says through `ready` how that went, and answers requests until it is stopped.
async fn run(
    settings: Settings,
    keys: KeyRing,
    ready: mpsc::Sender<Result<Arc<Provider>, StartError>>,
    stop: CancellationToken,
) {
    let wanted = settings.listen;
    let listen = Listen::Tcp {
        host: Some(wanted.ip().to_string()),
        port: wanted.port(),
    };
    let listener = match listen.bind().await {
        Ok(listener) => listener,
        Err(error) => {
            let _ = ready.send(Err(StartError::Listen(error)));
            return;
        }
    };
    let address = listener.tcp_address().unwrap_or(wanted);
    let provider = Arc::new(Provider::new(settings, keys, address));
    let router = routes::router(Arc::clone(&provider));
    if ready.send(Ok(provider)).is_ok() {
        // Nobody is left waiting for a provider that is gone.
        let serving = epithet_serve::Settings {
            drain: Duration::ZERO,
            ..epithet_serve::Settings::default()
        };
        epithet_serve::serve(listener, router, serving, stop).await;
    }
}
