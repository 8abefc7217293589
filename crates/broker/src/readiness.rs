//! What a descriptor is ready for at this moment.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Result, retry_on_intr};
use std::os::fd::AsFd;

/// Which of `flags`, errors and hang-ups besides, hold of `descriptor` now. Never waits.
///
/// poll(2) is interrupted by a signal even when it does not wait, and the broker has many: one for each program that ends.
pub(crate) fn readiness(descriptor: &impl AsFd, flags: PollFlags) -> Result<PollFlags> {
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    let mut descriptors = [PollFd::new(descriptor, flags)];
    retry_on_intr(|| poll(&mut descriptors, Some(&now)))?;
    Ok(descriptors[0].revents())
}
