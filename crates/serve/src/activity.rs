//! Whether anything is asked on an HTTP/2 connection.
//!
//! Pings show that a client is there, not that it wants anything. One that asks nothing for long would keep a place for
//! nothing, and enough of those would keep everybody else out.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// The requests of one connection.
#[derive(Debug, Default)]
pub(crate) struct Activity(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    in_flight: usize,
    /// When the last request ended; none before the first.
    last: Option<Instant>,
}

/// A request in flight, until dropped.
#[derive(Debug)]
pub(crate) struct Begun(Arc<Activity>);

impl Activity {
    /// A request begins.
    pub(crate) fn begin(self: &Arc<Self>) -> Begun {
        self.state(|state| state.in_flight += 1);
        Begun(Arc::clone(self))
    }

    /// Returns when no request has come within `first`, or none for as long as `idle` after the last one.
    pub(crate) async fn silence(&self, first: Duration, idle: Duration) {
        let mut until = Instant::now() + first;
        loop {
            tokio::time::sleep_until(until).await;
            let now = Instant::now();
            until = match self.state(|state| (state.in_flight, state.last)) {
                (0, None) => return,
                (0, Some(last)) if now >= last + idle => return,
                (0, Some(last)) => last + idle,
                _ => now + idle,
            };
        }
    }

    fn state<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        self.0.state(|state| {
            state.in_flight -= 1;
            state.last = Some(Instant::now());
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Duration = Duration::from_secs(10);
    const IDLE: Duration = Duration::from_secs(120);

    async fn silent_after(activity: &Activity) -> Duration {
        let begun = Instant::now();
        activity.silence(FIRST, IDLE).await;
        begun.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_is_silent_when_nothing_comes_and_later_when_nothing_comes_any_more() {
        let activity = Arc::new(Activity::default());
        assert_eq!(silent_after(&activity).await.as_secs(), FIRST.as_secs());
        drop(activity.begin());
        assert_eq!(silent_after(&activity).await.as_secs(), IDLE.as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_in_flight_is_no_silence_however_long_it_takes() {
        let activity = Arc::new(Activity::default());
        let begun = activity.begin();
        let long = tokio::time::timeout(IDLE * 10, activity.silence(FIRST, IDLE)).await;
        assert!(long.is_err());
        drop(begun);
        let rest = silent_after(&activity).await;
        assert!(rest >= IDLE && rest <= IDLE + FIRST, "{rest:?}");
    }
}
