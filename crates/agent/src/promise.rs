//! The credential that an agent will have.
//!
//! With a warm login, `match` returns while the certificate is still being fetched, and ssh's key exchange and the
//! CA's answer run side by side. The agent holds the [`Promise`], the broker its [`Fulfil`].

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use crate::credential::Credential;

/// Where a promise stands.
#[derive(Debug)]
enum State {
    Pending,
    /// Pending, and nobody works on it before somebody asks.
    OnDemand,
    Ready(Arc<Credential>),
    Refused,
    Withdrawn,
}

impl State {
    fn is_pending(&self) -> bool {
        matches!(self, Self::Pending | Self::OnDemand)
    }
}

/// What both sides share. Small, because there are thousands.
#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    is_wanted: AtomicBool,
    /// Told of every change of the two above.
    changed: Notify,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Goes on to `next` if the state is as `may` wants it.
    fn change(&self, next: State, may: impl FnOnce(&State) -> bool) -> bool {
        let mut state = self.state();
        if !may(&state) {
            return false;
        }
        // What was there may be the last of a key, which is wiped when it is dropped: not under the lock.
        let before = std::mem::replace(&mut *state, next);
        drop(state);
        self.changed.notify_waiters();
        drop(before);
        true
    }

    /// Waits until it is so.
    async fn until(&self, is_so: impl Fn(&Self) -> bool) {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            // From here on no change is missed.
            changed.as_mut().enable();
            if is_so(self) {
                return;
            }
            changed.await;
        }
    }
}

/// The agent's side: waits for the credential.
#[derive(Debug, Clone)]
pub struct Promise(Arc<Shared>);

/// The broker's side: provides the credential, or says that there will be none.
///
/// Dropping it while nothing was said refuses the promise, so that an agent never waits for a task that has died.
#[derive(Debug)]
pub struct Fulfil(Arc<Shared>);

impl Promise {
    /// A promise that nothing is known about.
    pub fn pending() -> (Fulfil, Self) {
        let promise = Self::of(State::Pending);
        (Fulfil(Arc::clone(&promise.0)), promise)
    }

    /// A promise that is kept already.
    pub fn ready(credential: Arc<Credential>) -> Self {
        Self::of(State::Ready(credential))
    }

    fn of(state: State) -> Self {
        Self(Arc::new(Shared {
            state: Mutex::new(state),
            is_wanted: AtomicBool::new(false),
            changed: Notify::new(),
        }))
    }

    /// The credential, if it is there now.
    pub fn credential(&self) -> Option<Arc<Credential>> {
        match &*self.0.state() {
            State::Ready(credential) => Some(Arc::clone(credential)),
            _ => None,
        }
    }

    /// Whether nothing is known yet.
    pub fn is_pending(&self) -> bool {
        self.0.state().is_pending()
    }

    /// Whether nothing is known yet, because the credential is only got when somebody asks for it.
    pub fn is_on_demand(&self) -> bool {
        matches!(*self.0.state(), State::OnDemand)
    }

    /// Whether somebody has asked for the credential.
    pub fn is_wanted(&self) -> bool {
        self.0.is_wanted.load(Ordering::SeqCst)
    }

    /// Whether the credential was forgotten for good.
    pub fn is_withdrawn(&self) -> bool {
        matches!(*self.0.state(), State::Withdrawn)
    }

    /// Puts a newer credential in the place of one that is there. `false` when there is none any more.
    pub fn renew(&self, credential: Arc<Credential>) -> bool {
        let is_ready = |state: &State| matches!(state, State::Ready(_));
        self.0.change(State::Ready(credential), is_ready)
    }

    /// The credential, waiting for at most `deadline`. None when it was refused, withdrawn, or did not come in time.
    pub async fn settled(&self, deadline: Duration) -> Option<Arc<Credential>> {
        if !self.0.is_wanted.swap(true, Ordering::SeqCst) {
            self.0.changed.notify_waiters();
        }
        if self.is_pending() {
            let settled = self.0.until(|shared| !shared.state().is_pending());
            let _ = tokio::time::timeout(deadline, settled).await;
        }
        self.credential()
    }

    /// Forgets the credential for good. The key is wiped as soon as nobody is signing with it.
    pub fn withdraw(&self) {
        self.0.change(State::Withdrawn, |_| true);
    }
}

impl Fulfil {
    /// Provides the credential, the first or a newer one. `false` when it was withdrawn meanwhile: then it stays so.
    pub fn ready(&self, credential: Arc<Credential>) -> bool {
        self.0.change(State::Ready(credential), is_open)
    }

    /// Says that there will be no credential: those who wait get an empty list at once, and ssh goes on without us.
    pub fn refuse(&self) {
        self.0.change(State::Refused, is_open);
    }

    /// Forgets the credential for good, for instance because it has ended.
    pub fn withdraw(&self) {
        self.0.change(State::Withdrawn, |_| true);
    }

    /// Says that the credential will only be got when somebody asks for it.
    pub fn on_demand(&self) {
        let is_pending = |state: &State| matches!(state, State::Pending);
        self.0.change(State::OnDemand, is_pending);
    }

    /// Waits until somebody asks for the credential.
    pub async fn wanted(&self) {
        self.0
            .until(|shared| shared.is_wanted.load(Ordering::SeqCst))
            .await;
    }

    /// Waits until the credential was withdrawn, by this side or by `ssh-add -D`.
    pub async fn withdrawn(&self) {
        self.0
            .until(|shared| matches!(*shared.state(), State::Withdrawn))
            .await;
    }

    /// The agent's side, once more.
    pub fn promise(&self) -> Promise {
        Promise(Arc::clone(&self.0))
    }
}

impl Drop for Fulfil {
    fn drop(&mut self) {
        self.0.change(State::Refused, State::is_pending);
    }
}

/// Whether something can still be said.
fn is_open(state: &State) -> bool {
    !matches!(state, State::Withdrawn)
}
