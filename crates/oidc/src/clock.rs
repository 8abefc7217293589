//! The one place where this crate asks what time it is.

use std::time::{SystemTime, UNIX_EPOCH};

/// Seconds since 1970 by the wall clock, which is what the times in tokens count; 0 for a clock before that.
pub fn unix_now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}
