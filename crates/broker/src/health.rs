//! How a CA that failed is treated: left alone for a moment that grows, then tried by one request at a time.
//!
//! Only what is the CA's own fault is a failure: no answer, an answer that no CA gives, and 5xx, by which it says so itself.
//! Every other answer shows that it works and ends the pause, also when it is a "no", and also 408 and 429: those say that
//! this request is not served now, so another CA is asked, and this one is given the rest that it asks for.

use std::time::Duration;

/// The first time a CA is left alone.
const BACK_OFF: Duration = Duration::from_secs(1);

/// One CA's health; `now` is time since boot everywhere.
#[derive(Debug, Default)]
pub(crate) struct Health {
    failures: u32,
    open_until: Option<Duration>,
    probing: bool,
    /// It works, and asked to be left alone until then.
    rests_until: Option<Duration>,
    last_error: Option<String>,
}

/// What a request may do with a CA.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HealthState {
    /// It works, as far as is known.
    Closed,
    /// It works, and is asked after the others for a moment, as it wished.
    Resting,
    /// It may be tried again, by one request.
    HalfOpen,
    /// It failed, and is left alone.
    Open,
}

impl HealthState {
    /// The state as `inspect` names it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Resting => "resting",
            Self::HalfOpen => "half-open",
            Self::Open => "open",
        }
    }
}

impl Health {
    pub(crate) fn state(&self, now: Duration) -> HealthState {
        match self.open_until {
            None if self.rests_until.is_some_and(|until| now < until) => HealthState::Resting,
            None => HealthState::Closed,
            Some(until) if now < until || self.probing => HealthState::Open,
            Some(_) => HealthState::HalfOpen,
        }
    }

    /// Takes the one probe of a half-open CA. False when the CA is to be left alone.
    pub(crate) fn admit(&mut self, now: Duration) -> bool {
        match self.state(now) {
            HealthState::Closed | HealthState::Resting => true,
            HealthState::HalfOpen => {
                self.probing = true;
                true
            }
            HealthState::Open => false,
        }
    }

    /// It answered, whatever it said.
    pub(crate) fn answered(&mut self) {
        *self = Self::default();
    }

    /// It answered that this request is not served now. `retry_after` is its own wish, `longest` the longest rest.
    pub(crate) fn declined(
        &mut self,
        now: Duration,
        retry_after: Option<Duration>,
        longest: Duration,
        problem: String,
    ) {
        self.answered();
        self.rests_until = Some(now + retry_after.unwrap_or(BACK_OFF).min(longest).max(BACK_OFF));
        self.last_error = Some(problem);
    }

    /// It could not be reached, or answered 5xx. `retry_after` is its own wish, `longest` the longest pause; `jitter` is in 0..1.
    ///
    /// Requests that were out together when it failed are one failure: forty ssh at once do not make its pause a minute.
    pub(crate) fn failed(
        &mut self,
        now: Duration,
        retry_after: Option<Duration>,
        longest: Duration,
        jitter: f64,
        error: String,
    ) {
        self.last_error = Some(error);
        let is_another = self.open_until.is_none_or(|until| now >= until);
        if !is_another && retry_after.is_none() {
            return;
        }
        let doubled = BACK_OFF * 2_u32.saturating_pow(self.failures.min(16));
        let pause = retry_after.unwrap_or(doubled).min(longest).max(BACK_OFF);
        // What a CA wishes is the least; what we choose is spread to both sides.
        let least = if retry_after.is_some() { 1.0 } else { 0.75 };
        let until = now + pause.mul_f64(least + jitter.clamp(0.0, 1.0) / 2.0);
        self.open_until = self.open_until.max(Some(until));
        if is_another {
            self.failures = self.failures.saturating_add(1);
            self.probing = false;
        }
    }

    /// The request was given up for a reason that says nothing about the CA.
    pub(crate) fn undecided(&mut self) {
        self.probing = false;
    }

    pub(crate) fn last_error(&self) -> Option<&str> {
        self.last_error.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn the_pause_grows_from_a_second_to_a_minute_and_any_answer_ends_it() {
        let mut health = Health::default();
        let mut now = Duration::from_secs(100);
        for expected in [1, 2, 4, 8, 16, 32, 60, 60] {
            health.failed(now, None, MINUTE, 0.5, "refused".into());
            let pause = Duration::from_secs(expected);
            assert_eq!(
                health.state(now + pause - Duration::from_millis(1)),
                HealthState::Open
            );
            now += pause;
            assert_eq!(health.state(now), HealthState::HalfOpen);
        }
        health.answered();
        assert_eq!(health.state(now), HealthState::Closed);
    }

    #[test]
    fn failures_of_requests_that_were_out_together_are_one() {
        let mut health = Health::default();
        let now = Duration::from_secs(100);
        for _ in 0..40 {
            health.failed(now, None, MINUTE, 0.5, "refused".into());
        }
        let second = Duration::from_secs(1);
        assert_eq!(health.state(now + second), HealthState::HalfOpen);
        health.failed(now + second, None, MINUTE, 0.5, "refused".into());
        assert_eq!(
            health.state(now + 2 * second),
            HealthState::Open,
            "the second pause is longer"
        );
        assert_eq!(health.state(now + 3 * second), HealthState::HalfOpen);
        // Its own wish counts whenever it comes.
        health.failed(now + second, Some(30 * second), MINUTE, 0.5, "busy".into());
        assert_eq!(health.state(now + 30 * second), HealthState::Open);
    }

    #[test]
    fn a_ca_that_declines_works_and_rests_as_long_as_it_asks_within_bounds() {
        let now = Duration::from_secs(100);
        for (wish, rest) in [(None, 1), (Some(0), 1), (Some(30), 30), (Some(86_400), 60)] {
            let mut health = Health::default();
            health.failed(now, None, MINUTE, 0.5, "refused".into());
            health.declined(now, wish.map(Duration::from_secs), MINUTE, "busy".into());
            let end = now + Duration::from_secs(rest);
            assert_eq!(
                health.state(end - Duration::from_millis(1)),
                HealthState::Resting,
                "{wish:?}"
            );
            assert_eq!(health.state(end), HealthState::Closed, "{wish:?}");
            assert!(health.admit(now), "it may be asked, by any number of requests");
            health.answered();
            assert_eq!(health.state(now), HealthState::Closed, "any answer ends it");
        }
    }

    #[test]
    fn one_probe_at_a_time_and_a_cancelled_probe_frees_the_place() {
        let mut health = Health::default();
        let now = Duration::from_secs(100);
        health.failed(now, None, MINUTE, 0.5, "refused".into());
        let later = now + Duration::from_secs(2);
        assert!(health.admit(later));
        assert!(!health.admit(later));
        health.undecided();
        assert!(health.admit(later));
    }

    #[test]
    fn the_cas_own_wish_is_kept_within_bounds() {
        let now = Duration::from_secs(100);
        for (wish, pause) in [(0, 1), (30, 30), (86_400, 60)] {
            let mut health = Health::default();
            health.failed(now, Some(Duration::from_secs(wish)), MINUTE, 0.0, "busy".into());
            assert_eq!(
                health.state(now + Duration::from_secs(pause)),
                HealthState::HalfOpen,
                "{wish}"
            );
            assert_eq!(
                health.state(now + Duration::from_millis(pause * 1000 - 1)),
                HealthState::Open,
                "{wish}"
            );
        }
        // It is never come back to earlier, however the pauses of many laptops are spread.
        let mut health = Health::default();
        health.failed(now, Some(Duration::from_secs(30)), MINUTE, 1.0, "busy".into());
        assert_eq!(health.state(now + Duration::from_secs(44)), HealthState::Open);
        assert_eq!(health.state(now + Duration::from_secs(45)), HealthState::HalfOpen);
    }
}
