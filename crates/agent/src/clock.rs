//! The time, twice: as the calendar has it, and as it passes while the machine sleeps.
//!
//! A certificate ends by the calendar. But the calendar can be set back, so an agent also counts: whichever says
//! first that the certificate has ended is believed.

use std::time::{Duration, SystemTime};

use rustix::time::{ClockId, clock_gettime};

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

impl Now {
    /// The present moment.
    pub fn read() -> Self {
        let unix = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .map_or(0, |since| since.as_secs());
        let boot = clock_gettime(BOOT_CLOCK);
        Self {
            unix,
            boot: Duration::new(
                u64::try_from(boot.tv_sec).unwrap_or(0),
                u32::try_from(boot.tv_nsec).unwrap_or(0),
            ),
        }
    }
}
