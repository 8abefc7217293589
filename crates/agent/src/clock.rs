//! The time, twice: as the calendar has it, and as it passes while the machine sleeps.
//!
//! A certificate ends by the calendar. But the calendar can be set back, so an agent also counts: whichever says
//! first that the certificate has ended is believed.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use rustix::time::{ClockId, Timespec, clock_gettime};

/// One moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// Unix time in seconds.
    pub unix: u64,
    /// Since the machine started, sleep included. Never goes back.
    pub boot: Duration,
}

/// The clock that counts sleep: on macOS the monotonic one does.
#[cfg(target_os = "linux")]
const BOOT_CLOCK: ClockId = ClockId::Boottime;
#[cfg(not(target_os = "linux"))]
const BOOT_CLOCK: ClockId = ClockId::Monotonic;

/// Where the time comes from: the system, or the system shifted by a test.
///
/// Clones of one clock are shifted together.
#[derive(Debug, Clone, Default)]
pub struct Clock {
    shift: Option<Arc<Mutex<Shift>>>,
}

/// How far a test has moved the time.
#[derive(Debug, Clone, Copy, Default)]
struct Shift {
    /// Seconds by which the calendar was set forward, or back.
    calendar: i64,
    /// How long the machine slept in addition.
    slept: Duration,
}

impl Clock {
    /// A clock that tests can move.
    pub fn movable() -> Self {
        Self {
            shift: Some(Arc::default()),
        }
    }

    /// The present moment.
    pub fn now(&self) -> Now {
        let now = Now::read();
        let Some(shift) = &self.shift else { return now };
        let shift = *shift.lock().unwrap_or_else(PoisonError::into_inner);
        Now {
            unix: now.unix.saturating_add_signed(shift.calendar),
            boot: now.boot.saturating_add(shift.slept),
        }
    }

    /// How long the machine has slept since it started.
    pub fn slept(&self) -> Duration {
        let awake = duration(clock_gettime(ClockId::Monotonic));
        self.now().boot.saturating_sub(awake)
    }

    /// Lets the machine sleep: both clocks go on. Does nothing to the system's own clock.
    pub fn sleep(&self, time: Duration) {
        self.shift(|shift| {
            shift.slept = shift.slept.saturating_add(time);
            let seconds = i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
            shift.calendar = shift.calendar.saturating_add(seconds);
        });
    }

    /// Sets the calendar forward or back by so many seconds, as a person or a time server does.
    pub fn set_calendar(&self, seconds: i64) {
        self.shift(|shift| shift.calendar = shift.calendar.saturating_add(seconds));
    }

    fn shift(&self, change: impl FnOnce(&mut Shift)) {
        if let Some(shift) = &self.shift {
            change(&mut shift.lock().unwrap_or_else(PoisonError::into_inner));
        }
    }
}

impl Now {
    /// The present moment by the system's clocks.
    pub fn read() -> Self {
        let unix = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .map_or(0, |since| since.as_secs());
        Self {
            unix,
            boot: duration(clock_gettime(BOOT_CLOCK)),
        }
    }
}

fn duration(time: Timespec) -> Duration {
    Duration::new(
        u64::try_from(time.tv_sec).unwrap_or(0),
        u32::try_from(time.tv_nsec).unwrap_or(0),
    )
}
