//! The credential that an agent will have.
//!
//! With a warm login, `match` returns while the certificate is still being fetched, and ssh's key exchange and the
//! CA's answer run side by side. The agent holds the [`Promise`], the broker its [`Fulfil`].

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::credential::Credential;

/// Where a promise stands.
#[derive(Debug, Clone)]
enum State {
    Pending,
    Ready(Arc<Credential>),
    Refused,
    Withdrawn,
}

/// The agent's side: waits for the credential.
#[derive(Debug, Clone)]
pub struct Promise {
    state: Arc<watch::Sender<State>>,
    wanted: CancellationToken,
}

/// The broker's side: provides the credential, or says that there will be none.
///
/// Dropping it while nothing was said refuses the promise, so that an agent never waits for a task that has died.
#[derive(Debug)]
pub struct Fulfil {
    state: Arc<watch::Sender<State>>,
    wanted: CancellationToken,
}

impl Promise {
    /// A promise that nothing is known about.
    pub fn pending() -> (Fulfil, Self) {
        let state = Arc::new(watch::Sender::new(State::Pending));
        let wanted = CancellationToken::new();
        (
            Fulfil {
                state: Arc::clone(&state),
                wanted: wanted.clone(),
            },
            Self { state, wanted },
        )
    }

    /// A promise that is kept already.
    pub fn ready(credential: Arc<Credential>) -> Self {
        Self {
            state: Arc::new(watch::Sender::new(State::Ready(credential))),
            wanted: CancellationToken::new(),
        }
    }

    /// The credential, if it is there now.
    pub fn credential(&self) -> Option<Arc<Credential>> {
        match &*self.state.borrow() {
            State::Ready(credential) => Some(Arc::clone(credential)),
            _ => None,
        }
    }

    /// Whether nothing is known yet.
    pub fn is_pending(&self) -> bool {
        matches!(*self.state.borrow(), State::Pending)
    }

    /// Whether somebody has asked for the credential.
    pub fn is_wanted(&self) -> bool {
        self.wanted.is_cancelled()
    }

    /// Whether the credential was forgotten for good.
    pub fn is_withdrawn(&self) -> bool {
        matches!(*self.state.borrow(), State::Withdrawn)
    }

    /// Puts a newer credential in the place of one that is there. `false` when there is none any more.
    pub fn renew(&self, credential: Arc<Credential>) -> bool {
        self.state.send_if_modified(|state| {
            let is_ready = matches!(state, State::Ready(_));
            if is_ready {
                *state = State::Ready(credential);
            }
            is_ready
        })
    }

    /// The credential, waiting for at most `deadline`. None when it was refused, withdrawn, or did not come in time.
    pub async fn settled(&self, deadline: Duration) -> Option<Arc<Credential>> {
        self.wanted.cancel();
        if self.is_pending() {
            let mut updates = self.state.subscribe();
            let settled = updates.wait_for(|state| !matches!(state, State::Pending));
            // The sender is ours, so waiting ends with a state or with the deadline.
            let _ = tokio::time::timeout(deadline, settled).await;
        }
        self.credential()
    }

    /// Forgets the credential for good. The key is wiped as soon as nobody is signing with it.
    pub fn withdraw(&self) {
        self.state.send_replace(State::Withdrawn);
    }
}

impl Fulfil {
    /// Provides the credential, the first or a newer one. `false` when it was withdrawn meanwhile: then it stays so.
    pub fn ready(&self, credential: Arc<Credential>) -> bool {
        self.state.send_if_modified(|state| {
            let is_open = !matches!(state, State::Withdrawn);
            if is_open {
                *state = State::Ready(credential);
            }
            is_open
        })
    }

    /// Says that there will be no credential: those who wait get an empty list at once, and ssh goes on without us.
    pub fn refuse(&self) {
        self.state.send_if_modified(|state| {
            let is_open = !matches!(state, State::Withdrawn);
            if is_open {
                *state = State::Refused;
            }
            is_open
        });
    }

    /// Forgets the credential for good, for instance because it has ended.
    pub fn withdraw(&self) {
        self.state.send_replace(State::Withdrawn);
    }

    /// Waits until somebody asks for the credential.
    pub async fn wanted(&self) {
        self.wanted.cancelled().await;
    }

    /// Waits until the credential was withdrawn, by this side or by `ssh-add -D`.
    pub async fn withdrawn(&self) {
        let mut updates = self.state.subscribe();
        let _ = updates.wait_for(|state| matches!(state, State::Withdrawn)).await;
    }

    /// The agent's side, once more.
    pub fn promise(&self) -> Promise {
        Promise {
            state: Arc::clone(&self.state),
            wanted: self.wanted.clone(),
        }
    }
}

impl Drop for Fulfil {
    fn drop(&mut self) {
        self.state.send_if_modified(|state| {
            let is_pending = matches!(state, State::Pending);
            if is_pending {
                *state = State::Refused;
            }
            is_pending
        });
    }
}
