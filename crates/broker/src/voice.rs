//! How the broker speaks to a person who waits: through the waiting `match`, or, once that has gone, through the stderr
//! it passed along. Speaking never blocks: a terminal that stopped reading holds up nobody.

use epithet_wire::LoopbackAddress;
use epithet_wire::broker::Reply;
use epithet_wire::display::sanitize_text;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use tokio::sync::mpsc;

/// Reply lines that may wait for a slow reader; more are dropped.
const QUEUE: usize = 64;
/// What a pipe or terminal that is ready takes without blocking (POSIX `PIPE_BUF` is at least 512, on Linux 4096).
const WRITE_MAX: usize = 512;

/// A person's ear. Cloning it is cheap; all clones speak to the same person.
#[derive(Debug, Clone)]
pub(crate) struct Voice {
    lines: mpsc::Sender<Reply>,
    stderr: Option<Arc<OwnedFd>>,
    can_paste: bool,
}

impl Voice {
    /// A voice whose lines come out of the returned receiver, for the task that writes to `match`. `can_paste` says
    /// whether there is somebody who could paste an address.
    pub(crate) fn new(stderr: Option<OwnedFd>, can_paste: bool) -> (Self, mpsc::Receiver<Reply>) {
        let (lines, receiver) = mpsc::channel(QUEUE);
        (
            Self {
                lines,
                stderr: stderr.map(Arc::new),
                can_paste,
            },
            receiver,
        )
    }

    /// A voice that nobody hears.
    pub(crate) fn silent() -> Self {
        Self::new(None, false).0
    }

    /// Whether the person can still be spoken to after `match` has gone.
    pub(crate) fn outlives_match(&self) -> bool {
        self.stderr.is_some()
    }

    /// Says something, made harmless for a terminal.
    pub(crate) fn say(&self, text: &str) {
        let text = sanitize_text(text.as_bytes());
        match self.lines.try_send(Reply::output(text.clone())) {
            Ok(()) | Err(mpsc::error::TrySendError::Full(_)) => {}
            Err(mpsc::error::TrySendError::Closed(_)) => self.write_to_stderr(&text),
        }
    }

    /// Tells a person at a terminal where an address that they paste may be delivered.
    pub(crate) fn offer_paste(&self, deliver_to: &LoopbackAddress) {
        if self.can_paste {
            let _ = self.lines.try_send(Reply::paste(deliver_to));
        }
    }

    /// Lets the waiting `match` know that the broker is still at work.
    pub(crate) fn keep_alive(&self) {
        let _ = self.lines.try_send(Reply::output(""));
    }

    /// Writes to the passed stderr as much as it takes right now.
    ///
    /// The descriptor is shared with the person's shell, so it must not be made non-blocking: it is asked first.
    fn write_to_stderr(&self, text: &str) {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let Some(stderr) = &self.stderr else { return };
        for part in text.as_bytes().chunks(WRITE_MAX) {
            let mut descriptors = [PollFd::new(stderr, PollFlags::OUT)];
            let now = Timespec {
                tv_sec: 0,
                tv_nsec: 0,
            };
            let ready = poll(&mut descriptors, Some(&now)).is_ok_and(|ready| ready > 0);
            if !ready
                || !descriptors[0].revents().contains(PollFlags::OUT)
                || rustix::io::write(stderr, part).is_err()
            {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn a_reader_that_stopped_reading_holds_up_nobody() {
        let (voice, receiver) = Voice::new(None, true);
        for _ in 0..10 * QUEUE {
            voice.say("still here\n");
        }
        assert_eq!(receiver.len(), QUEUE);
    }

    #[test]
    fn after_match_has_gone_the_passed_stderr_is_used_and_never_blocks() {
        let (mut reader, writer) = std::io::pipe().unwrap();
        let (voice, receiver) = Voice::new(Some(writer.into()), false);
        drop(receiver);
        for _ in 0..1000 {
            voice.say(&"x".repeat(500));
        }
        voice.say("\x1b[2J");
        drop(voice);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert!(!text.is_empty() && text.bytes().all(|byte| byte == b'x'));
    }
}
