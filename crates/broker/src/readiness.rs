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

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::process::{Signal, getpid, kill_process};
    use std::sync::atomic::{AtomicBool, Ordering};
    use tokio::signal::unix::{SignalKind, signal};

    /// A crowd of first connections lost one now and then: a plugin or an `ssh -G` had ended while it was looked at.
    #[tokio::test]
    async fn a_signal_is_no_reason_to_take_a_descriptor_for_gone() {
        let _caught = signal(SignalKind::user_defined2()).unwrap();
        let (ours, _theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::SeqCst) {
                    kill_process(getpid(), Signal::USR2).unwrap();
                }
            });
            let looks: Vec<_> = (0..100_000).map(|_| readiness(&ours, PollFlags::IN)).collect();
            done.store(true, Ordering::SeqCst);
            assert!(looks.iter().all(|look| *look == Ok(PollFlags::empty())));
        });
    }
}
