//! Whether a process is still there: the ssh that asked, and with it the person at its terminal.

use crate::readiness::readiness;
use rustix::event::PollFlags;
use std::os::fd::OwnedFd;
use std::time::Duration;

/// How often it is looked whether a process has ended: somebody else's terminal is let go of that soon.
const LOOK: Duration = Duration::from_secs(1);

/// A process, by a descriptor that never stands for another one.
#[derive(Debug)]
pub(crate) struct Presence(OwnedFd);

impl Presence {
    /// Watches a process. None when it is gone, unknown (0), or this system cannot watch one.
    #[cfg(target_os = "linux")]
    pub(crate) fn of(process: u32) -> Option<Self> {
        use rustix::process::{Pid, PidfdFlags, pidfd_open};
        let process = Pid::from_raw(i32::try_from(process).ok()?)?;
        pidfd_open(process, PidfdFlags::empty()).map(Self).ok()
    }

    /// See above.
    #[cfg(not(target_os = "linux"))]
    pub(crate) fn of(_process: u32) -> Option<Self> {
        None
    }

    /// Waits for the end.
    pub(crate) async fn ended(&self) {
        while !self.has_ended() {
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Whether it has ended.
    pub(crate) fn has_ended(&self) -> bool {
        // Readable is the end (`pidfd_open(2)`). One that cannot be looked at is as good as gone.
        readiness(&self.0, PollFlags::IN) != Ok(PollFlags::empty())
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[tokio::test]
    async fn a_process_is_there_until_it_ends() {
        let mut process = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let presence = Presence::of(process.id()).unwrap();
        assert!(!presence.has_ended(), "it waits for its input");
        drop(process.stdin.take());
        tokio::time::timeout(Duration::from_secs(30), presence.ended())
            .await
            .unwrap();
        process.wait().unwrap();
        assert!(Presence::of(process.id()).is_none());
        assert!(Presence::of(0).is_none());
    }
}
