//! The storm guard: a login that nobody completed is not started again and again by programs without a terminal.
//!
//! An editor that polls a host all night must not open a hundred browser tabs. A person at a terminal may always try.

use epithet_wire::limits::STORM_COOL_DOWN;
use std::time::Duration;

/// How many logins in a row nobody completed, and until when background callers are refused.
#[derive(Debug, Default)]
pub(crate) struct StormGuard {
    unanswered: usize,
    quiet_until: Option<Duration>,
}

impl StormGuard {
    /// Whether a caller may start a login at `now` (time since boot); if not, how long it has to wait.
    ///
    /// A caller at a terminal is always admitted, and ends the quiet time for everybody.
    pub(crate) fn admit(&mut self, terminal: bool, now: Duration) -> Result<(), Duration> {
        if terminal {
            *self = Self::default();
            return Ok(());
        }
        match self.quiet_until {
            Some(until) if now < until => Err(until - now),
            _ => Ok(()),
        }
    }

    /// A login ended without success.
    pub(crate) fn unanswered(&mut self, now: Duration) {
        let last = STORM_COOL_DOWN.len() - 1;
        self.quiet_until = Some(now + STORM_COOL_DOWN[self.unanswered.min(last)]);
        self.unanswered += 1;
    }

    /// A login succeeded.
    pub(crate) fn answered(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_quiet_time_grows_and_a_terminal_ends_it() {
        let second = Duration::from_secs(1);
        let mut guard = StormGuard::default();
        let mut now = 1000 * second;
        for expected in [5, 15, 60, 60] {
            assert!(guard.admit(false, now).is_ok());
            guard.unanswered(now);
            assert_eq!(guard.admit(false, now), Err(expected * second));
            assert_eq!(guard.admit(false, now + (expected - 1) * second), Err(second));
            now += expected * second;
        }
        guard.unanswered(now);
        assert!(guard.admit(true, now).is_ok());
        assert!(guard.admit(false, now).is_ok());
    }

    #[test]
    fn a_hundred_background_callers_in_ten_seconds_start_at_most_two_logins() {
        let mut guard = StormGuard::default();
        let mut started = 0;
        for tenth in 0..100 {
            let now = Duration::from_millis(1_000_000 + tenth * 100);
            if guard.admit(false, now).is_ok() {
                started += 1;
                guard.unanswered(now);
            }
        }
        assert!(started <= 2, "{started}");
    }
}
