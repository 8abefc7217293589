//! How fast a CA usually answers, and therefore when the next one is asked as well.

use epithet_wire::limits::{HEDGE_RANGE, HEDGE_UNKNOWN};
use std::collections::VecDeque;
use std::time::Duration;

/// How many answers are remembered: enough for a 95th percentile, few enough to forget a bad hour.
const REMEMBERED: usize = 32;
/// With fewer answers, nothing is usual yet.
const FEW: usize = 4;
/// How long a CA that was overtaken is asked after the others: the first time, and at most, when it always is.
const OVERTAKEN: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(480));

/// One CA's pace; `now` is time since boot everywhere.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    took: VecDeque<Duration>,
    slow_until: Option<Duration>,
    /// How often in a row it was overtaken when it was asked first.
    overtaken: u32,
}

impl Pace {
    /// It answered, after so long.
    pub(crate) fn answered(&mut self, took: Duration) {
        if self.took.len() == REMEMBERED {
            self.took.pop_front();
        }
        self.took.push_back(took);
        self.slow_until = None;
        self.overtaken = 0;
    }

    /// Another CA was asked later and answered first. That is no failure, but for a while the other one is asked first; longer
    /// each time, because whoever tries it first again waits for nothing.
    pub(crate) fn overtaken(&mut self, now: Duration) {
        if self.is_slow(now) {
            return;
        }
        let (first, most) = OVERTAKEN;
        let doubled = first * 2_u32.saturating_pow(self.overtaken.min(16));
        self.slow_until = Some(now + doubled.min(most));
        self.overtaken = self.overtaken.saturating_add(1);
    }

    /// Whether it was overtaken a moment ago.
    pub(crate) fn is_slow(&self, now: Duration) -> bool {
        self.slow_until.is_some_and(|until| now < until)
    }

    /// How long to wait for it before the next one is asked as well: the 95th percentile of its answers, within bounds.
    pub(crate) fn patience(&self) -> Duration {
        if self.took.len() < FEW {
            return HEDGE_UNKNOWN;
        }
        let mut took: Vec<_> = self.took.iter().copied().collect();
        took.sort();
        let last = took.len() - 1;
        took[(took.len() * 95 / 100).min(last)].clamp(HEDGE_RANGE.0, HEDGE_RANGE.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ca_is_waited_for_as_long_as_it_usually_takes_and_never_less_than_the_minimum() {
        let milliseconds = Duration::from_millis;
        let mut pace = Pace::default();
        assert_eq!(pace.patience(), HEDGE_UNKNOWN);
        for _ in 0..FEW {
            pace.answered(milliseconds(1));
        }
        assert_eq!(pace.patience(), HEDGE_RANGE.0, "a fast one is given the minimum");
        for _ in 0..REMEMBERED {
            pace.answered(milliseconds(700));
        }
        assert_eq!(pace.patience(), milliseconds(700));
        // One slow answer in 32 is within the usual.
        pace.answered(milliseconds(4000));
        assert_eq!(pace.patience(), milliseconds(700));
        pace.answered(milliseconds(4000));
        assert_eq!(pace.patience(), milliseconds(4000));
        for _ in 0..REMEMBERED {
            pace.answered(milliseconds(60_000));
        }
        assert_eq!(pace.patience(), HEDGE_RANGE.1);
    }

    #[test]
    fn an_overtaken_ca_is_slow_for_a_while_that_grows_or_until_it_answers() {
        let mut pace = Pace::default();
        let mut now = Duration::from_secs(100);
        assert!(!pace.is_slow(now));
        for seconds in [30, 60, 120, 240, 480, 480] {
            pace.overtaken(now);
            // Forty requests at once are overtaken together.
            pace.overtaken(now);
            let while_ = Duration::from_secs(seconds);
            assert!(pace.is_slow(now + while_ - Duration::from_millis(1)), "{seconds}");
            now += while_;
            assert!(!pace.is_slow(now), "{seconds}");
        }
        pace.overtaken(now);
        pace.answered(Duration::from_millis(5));
        assert!(!pace.is_slow(now));
        pace.overtaken(now);
        assert!(!pace.is_slow(now + OVERTAKEN.0), "it begins anew");
    }
}
