//! The requests that wait for the policy server.
//!
//! Each holds a client's connection and one to the policy server, so there is room for so many and no more: beyond, the
//! answer is 503 at once, and the client asks another CA. A policy server that is slow answers in the order in which it was
//! asked; so whoever was overtaken by others that came much later is waiting for something that does not come, such as the
//! one that hangs of several behind a load balancer. When there is no room, those make it. And when nobody was answered for a
//! while, whoever came last makes room for a newcomer now and then: others may still be answered, and their answer tells.

use crate::policy_source::PolicyFailure;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// Whoever came this much earlier than somebody who was answered already is not waiting in a line.
const OVERTAKEN: Duration = Duration::from_secs(1);
/// While there is no room and nobody is answered, somebody is let in so often to find out whether newcomers are; and has as
/// long.
const PROBE: Duration = OVERTAKEN;

/// Everybody who waits.
#[derive(Debug)]
pub(crate) struct Waiting {
    max: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    came: u64,
    /// By the order in which they came.
    places: BTreeMap<u64, Seat>,
    /// When the last of those came that were answered.
    answered: Option<Instant>,
    /// When somebody was last answered.
    last_answer: Option<Instant>,
    /// When somebody was last let in to find out whether newcomers are answered.
    probed: Option<Instant>,
    /// Whether somebody found no room lately, so that it is logged once and not for each of them.
    was_full: bool,
}

#[derive(Debug)]
struct Seat {
    since: Instant,
    lost: Arc<Notify>,
}

/// A place among those who wait, given back when dropped.
#[derive(Debug)]
pub(crate) struct Place<'a> {
    waiting: &'a Waiting,
    number: u64,
    since: Instant,
    lost: Arc<Notify>,
}

impl Waiting {
    /// Room for so many.
    pub(crate) fn new(max: usize) -> Self {
        Self {
            max,
            state: Mutex::default(),
        }
    }

    /// A place, if there is one or somebody has to give theirs up.
    pub(crate) fn enter(&self, now: Instant) -> Result<Place<'_>, PolicyFailure> {
        let mut state = self.state();
        if !state.make_room(self.max, now) {
            return Err(PolicyFailure::Busy(self.max));
        }
        let lost = Arc::new(Notify::new());
        state.came += 1;
        let number = state.came;
        let seat = Seat {
            since: now,
            lost: Arc::clone(&lost),
        };
        state.places.insert(number, seat);
        Ok(Place {
            waiting: self,
            number,
            since: now,
            lost,
        })
    }

    /// Whether [`enter`](Self::enter) would find a place: who knows that it would not saves everything else.
    pub(crate) fn has_room(&self, now: Instant) -> bool {
        let mut state = self.state();
        let has_room = state.places.len() < self.max || state.has_overtaken() || state.is_to_probe(now);
        if !has_room && !std::mem::replace(&mut state.was_full, true) {
            tracing::error!(
                waiting = self.max,
                "the policy server does not keep up: further requests are answered 503 at once"
            );
        }
        has_room
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Whether whoever has waited longest was overtaken by others.
    fn has_overtaken(&self) -> bool {
        matches!(
            (self.places.first_key_value(), self.answered),
            (Some((_, oldest)), Some(answered)) if answered > oldest.since + OVERTAKEN
        )
    }

    /// Whether nobody was answered or let in for long enough, though somebody waits that long.
    fn is_to_probe(&self, now: Instant) -> bool {
        let oldest = self.places.first_key_value().map(|(_, oldest)| oldest.since);
        let last = [oldest, self.probed, self.last_answer];
        last.into_iter().flatten().all(|moment| now >= moment + PROBE)
    }

    /// Sees to a free place: takes that of whoever was overtaken, or once in a while that of whoever came last.
    fn make_room(&mut self, max: usize, now: Instant) -> bool {
        if self.places.len() < max {
            return true;
        }
        let leaving = if self.has_overtaken() {
            self.places.pop_first()
        } else if self.is_to_probe(now) {
            self.probed = Some(now);
            self.places.pop_last()
        } else {
            return false;
        };
        if let Some((_, leaving)) = leaving {
            leaving.lost.notify_one();
        }
        true
    }
}

impl Place<'_> {
    /// Returns when this place had to be given up.
    pub(crate) async fn is_lost(&self) {
        self.lost.notified().await;
    }

    /// The policy server answered.
    pub(crate) fn answered(&self, now: Instant) {
        let mut state = self.waiting.state();
        state.answered = state.answered.max(Some(self.since));
        state.last_answer = Some(now);
        if state.was_full && state.places.len() < self.waiting.max / 2 {
            state.was_full = false;
            tracing::warn!("the policy server keeps up again");
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.waiting.state().places.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_lost(place: &Place<'_>) -> bool {
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        std::pin::pin!(place.is_lost()).poll(&mut context).is_ready()
    }

    #[test]
    fn there_is_room_for_so_many_and_for_one_more_when_one_has_left() {
        let now = Instant::now();
        let waiting = Waiting::new(3);
        let mut places: Vec<_> = (0..3).map(|_| waiting.enter(now).unwrap()).collect();
        assert_eq!(waiting.enter(now).unwrap_err(), PolicyFailure::Busy(3));
        assert!(!waiting.has_room(now));
        places.pop();
        assert!(waiting.has_room(now));
        places.push(waiting.enter(now).unwrap());
        assert_eq!(waiting.enter(now).unwrap_err(), PolicyFailure::Busy(3));
        drop(places);
        assert!(waiting.state().places.is_empty());
    }

    #[test]
    fn in_a_line_that_moves_slowly_nobody_loses_their_place() {
        let begun = Instant::now();
        let waiting = Waiting::new(3);
        let first = waiting.enter(begun).unwrap();
        let _second = waiting.enter(begun + OVERTAKEN).unwrap();
        let third = waiting.enter(begun + 2 * OVERTAKEN).unwrap();
        first.answered(begun + 3 * OVERTAKEN);
        drop(first);
        let _fourth = waiting.enter(begun + 3 * OVERTAKEN).unwrap();
        let soon = begun + 4 * OVERTAKEN - Duration::from_millis(1);
        assert!(!waiting.has_room(soon) && waiting.enter(soon).is_err());
        // Nor by somebody who came a little later.
        third.answered(soon);
        assert!(waiting.enter(begun + 4 * OVERTAKEN).is_err());
    }

    /// A burst that hangs filled the room, and whoever would have been answered found none for as long as it hung.
    #[test]
    fn while_nobody_is_answered_a_newcomer_finds_out_now_and_then() {
        let waiting = Waiting::new(3);
        let begun = Instant::now();
        let hanging: Vec<_> = (0..3).map(|_| waiting.enter(begun).unwrap()).collect();
        assert!(waiting.enter(begun).is_err(), "they have only just come");
        let late = begun + 2 * OVERTAKEN;
        assert!(waiting.has_room(late));
        let probe = waiting.enter(late).unwrap();
        assert!(is_lost(&hanging[2]) && !is_lost(&hanging[0]) && !is_lost(&hanging[1]));
        let soon = late + PROBE - Duration::from_millis(1);
        assert!(!waiting.has_room(soon) && waiting.enter(soon).is_err());
        // It is not answered either: the next one has its place, and those in line keep theirs.
        let next = waiting.enter(late + PROBE).unwrap();
        assert!(is_lost(&probe) && !is_lost(&hanging[0]) && !is_lost(&hanging[1]));
        // That one is, so whoever waits since before then is not in a line.
        next.answered(late + PROBE);
        drop(next);
        let last: Vec<_> = (0..3).map(|_| waiting.enter(late + PROBE).unwrap()).collect();
        assert!(is_lost(&hanging[0]) && is_lost(&hanging[1]));
        assert!(waiting.enter(late + PROBE).is_err() && last.iter().all(|place| !is_lost(place)));
    }

    #[test]
    fn whoever_was_overtaken_makes_room() {
        let begun = Instant::now();
        let waiting = Waiting::new(3);
        let hanging = waiting.enter(begun).unwrap();
        let late = begun + OVERTAKEN + Duration::from_millis(1);
        let other = waiting.enter(late).unwrap();
        let answered = waiting.enter(late).unwrap();
        answered.answered(late);
        drop(answered);
        let _one = waiting.enter(late).unwrap();
        assert!(!is_lost(&hanging), "there was room");
        let _more = waiting.enter(late).unwrap();
        assert!(is_lost(&hanging) && !is_lost(&other));
        assert!(
            waiting.enter(late).is_err(),
            "the others came when the one did that was answered"
        );
        drop(hanging);
        assert!(waiting.enter(late).is_err(), "a place is given up once");
    }
}
