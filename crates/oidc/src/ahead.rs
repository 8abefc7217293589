//! When a provider's keys are fetched again before they are stale, so that no login has to wait for the provider, and it may be
//! down for a while before anybody notices.
//!
//! After three quarters of their life, and a random part of the next fifteen hundredths: servers that started together do
//! not ask together. When the provider is down, again after a minute, then two, then four, up to
//! [`limits::JWKS_PAUSE_MAX`]; never twice within [`limits::JWKS_REFETCH`].

use crate::document::Document;
use epithet_wire::limits;

/// When a key set is due, and what that was reckoned from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Due {
    fetched_at: u64,
    failures: u32,
    at: u64,
}

/// What is known of the fetches of one key set. All times in seconds since 1970.
#[derive(Debug, Default)]
pub(crate) struct Ahead {
    due: Option<Due>,
    /// How many fetches in a row failed.
    failures: u32,
    /// The last fetch, for whatever reason.
    last: Option<u64>,
}

impl Ahead {
    /// How many fetches in a row failed.
    pub(crate) fn failures(&self) -> u32 {
        self.failures
    }

    /// A fetch ended.
    pub(crate) fn fetched(&mut self, now: u64, worked: bool) {
        self.last = Some(now);
        self.failures = if worked {
            0
        } else {
            self.failures.saturating_add(1)
        };
    }

    /// Whether these keys are to be fetched again now. `jitter` is a random number, used once for each time that is reckoned.
    pub(crate) fn is_due(&mut self, keys: &Document, now: u64, jitter: u16) -> bool {
        if within(self.last, limits::JWKS_REFETCH.as_secs(), now) {
            return false;
        }
        let reckoned = (keys.fetched_at, self.failures);
        let due = match self.due {
            Some(due) if (due.fetched_at, due.failures) == reckoned => due,
            _ => Due {
                fetched_at: keys.fetched_at,
                failures: self.failures,
                at: self.reckon(keys, jitter),
            },
        };
        self.due = Some(due);
        // A clock that was set back makes nothing fresh.
        now >= due.at || now < keys.fetched_at
    }

    fn reckon(&self, keys: &Document, jitter: u16) -> u64 {
        match (self.failures, self.last) {
            (1.., Some(last)) => {
                let pause = pause(self.failures);
                last.saturating_add(pause).saturating_add(part(pause / 4, jitter))
            }
            _ => {
                let life = keys.fresh_until.saturating_sub(keys.fetched_at);
                let wait = life / 4 * 3 + part(life / 20 * 3, jitter);
                keys.fetched_at.saturating_add(wait)
            }
        }
    }
}

/// The pause after so many failures in a row.
fn pause(failures: u32) -> u64 {
    let doubled = 1_u64.checked_shl(failures.saturating_sub(1)).unwrap_or(u64::MAX);
    let most = limits::JWKS_PAUSE_MAX.as_secs();
    limits::JWKS_REFETCH.as_secs().saturating_mul(doubled).min(most)
}

/// A random part of so many seconds.
fn part(seconds: u64, jitter: u16) -> u64 {
    seconds.saturating_mul(u64::from(jitter)) / u64::from(u16::MAX)
}

/// Whether `now` is less than so many seconds after `last`. A time to come was written by a clock that was set back since.
pub(crate) fn within(last: Option<u64>, seconds: u64, now: u64) -> bool {
    last.is_some_and(|last| (last..last.saturating_add(seconds)).contains(&now))
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: u64 = 1_767_225_600;

    fn keys(fetched_at: u64, life: u64) -> Document {
        Document {
            body: String::new(),
            etag: None,
            fetched_at,
            fresh_until: fetched_at + life,
        }
    }

    /// The first second after `from` at which the keys are fetched.
    fn first(ahead: &mut Ahead, keys: &Document, from: u64, jitter: u16) -> u64 {
        let due = (0..100_000).find(|wait| ahead.is_due(keys, from + wait, jitter));
        due.expect("they are due some time")
    }

    #[test]
    fn keys_are_due_when_three_quarters_of_their_life_are_over_and_never_after_nine_tenths() {
        for (life, earliest, latest) in [(300, 225, 270), (3600, 2700, 3240), (86_400, 64_800, 77_760)] {
            for (jitter, expected) in [(0, earliest), (u16::MAX, latest)] {
                let mut ahead = Ahead::default();
                ahead.fetched(START, true);
                assert_eq!(
                    first(&mut ahead, &keys(START, life), START, jitter),
                    expected,
                    "{life} {jitter}"
                );
            }
        }
        // However short their life is, once a minute is enough.
        let mut ahead = Ahead::default();
        ahead.fetched(START, true);
        assert_eq!(first(&mut ahead, &keys(START, 10), START, 0), 60);
    }

    #[test]
    fn the_time_is_reckoned_once_whatever_the_dice_say_later() {
        let mut ahead = Ahead::default();
        ahead.fetched(START, true);
        let keys = keys(START, 3600);
        assert!(!ahead.is_due(&keys, START + 60, u16::MAX));
        assert_eq!(first(&mut ahead, &keys, START + 60, 0) + 60, 3240);
    }

    #[test]
    fn a_provider_that_is_down_is_asked_less_and_less_often() {
        let mut ahead = Ahead::default();
        ahead.fetched(START, true);
        let keys = keys(START, 3600);
        let mut now = START + first(&mut ahead, &keys, START, 0);
        let mut pauses = Vec::new();
        for jitter in [0, 0, 0, 0, 0, 0, u16::MAX] {
            ahead.fetched(now, false);
            let pause = first(&mut ahead, &keys, now, jitter);
            pauses.push(pause);
            now += pause;
        }
        assert_eq!(pauses, [60, 120, 240, 480, 900, 900, 1125]);
        // It is back: a life as any other.
        ahead.fetched(now, true);
        let new = Document {
            fetched_at: now,
            fresh_until: now + 3600,
            ..keys
        };
        assert_eq!(first(&mut ahead, &new, now, 0), 2700);
    }

    #[test]
    fn a_clock_that_was_set_back_makes_keys_due_but_not_twice_a_minute() {
        let mut ahead = Ahead::default();
        ahead.fetched(START, true);
        let keys = keys(START, 3600);
        assert!(ahead.is_due(&keys, START - 10, 0));
        ahead.fetched(START - 10, false);
        assert!(!ahead.is_due(&keys, START + 49, 0));
        assert!(ahead.is_due(&keys, START + 50, 0));
    }
}
