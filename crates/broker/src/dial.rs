//! One TLS handshake for forty ssh: while there is no connection to a CA, one request goes ahead and makes it; the others
//! wait for a moment and then share it (HTTP/2).

use epithet_wire::limits::{CA_CONNECT_DEADLINE, CA_IDLE};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{Semaphore, SemaphorePermit};

/// After a connection that could not be made, nobody waits for another's attempt for so long.
const FAILED: Duration = Duration::from_secs(1);

/// What is known about the connections to one CA.
#[derive(Debug)]
pub(crate) struct Dial {
    first: Semaphore,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    answered: Option<Instant>,
    failed: Option<Instant>,
    /// It speaks HTTP/1.1, where requests cannot share a connection at the same time.
    cannot_share: bool,
}

impl Dial {
    pub(crate) fn new() -> Self {
        Self {
            first: Semaphore::new(1),
            state: Mutex::default(),
        }
    }

    /// Waits while another request makes the connection, at most [`CA_CONNECT_DEADLINE`]. Hold what is returned until there
    /// is an answer.
    pub(crate) async fn go(&self) -> Option<SemaphorePermit<'_>> {
        if !self.needs_one_ahead() {
            return None;
        }
        let turn = tokio::time::timeout(CA_CONNECT_DEADLINE, self.first.acquire()).await;
        turn.ok()?.ok().filter(|_| self.needs_one_ahead())
    }

    /// There is a connection. `can_share`: it takes several requests at the same time.
    pub(crate) fn answered(&self, can_share: bool) {
        let mut state = self.state();
        state.answered = Some(Instant::now());
        state.failed = None;
        state.cannot_share = !can_share;
    }

    /// There is none.
    pub(crate) fn failed(&self) {
        let mut state = self.state();
        state.answered = None;
        state.failed = Some(Instant::now());
    }

    fn needs_one_ahead(&self) -> bool {
        let state = self.state();
        let is_recent =
            |moment: Option<Instant>, age: Duration| moment.is_some_and(|then| then.elapsed() < age);
        !state.cannot_share && !is_recent(state.answered, CA_IDLE) && !is_recent(state.failed, FAILED)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_goes_ahead_and_the_others_wait_for_it_but_not_for_ever() {
        let dial = Dial::new();
        let ahead = dial.go().await;
        assert!(ahead.is_some());
        let begun = tokio::time::Instant::now();
        assert!(dial.go().await.is_none(), "gives up waiting");
        assert_eq!(begun.elapsed(), CA_CONNECT_DEADLINE);
        dial.answered(true);
        drop(ahead);
        assert!(dial.go().await.is_none(), "there is a connection now");
    }

    #[tokio::test]
    async fn nobody_waits_where_waiting_does_not_help() {
        let dial = Dial::new();
        let ahead = dial.go().await;
        dial.failed();
        drop(ahead);
        assert!(dial.go().await.is_none(), "the one ahead could not connect");
        let dial = Dial::new();
        let ahead = dial.go().await;
        dial.answered(false);
        drop(ahead);
        assert!(dial.go().await.is_none(), "HTTP/1.1");
    }
}
