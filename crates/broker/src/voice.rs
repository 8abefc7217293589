//! How the broker speaks to a person who waits: through the waiting `match`, or, once that has gone, through the stderr
//! it passed along. Speaking never blocks: a terminal that stopped reading holds up nobody.

use crate::presence::Presence;
use crate::readiness::readiness;
use epithet_wire::LoopbackAddress;
use epithet_wire::broker::Reply;
use epithet_wire::display::sanitize_text;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::mpsc;

/// Reply lines that may wait for a slow reader; more are dropped.
const QUEUE: usize = 64;
/// How often it is looked whether whoever lent a stderr is still there.
const LOOK: std::time::Duration = std::time::Duration::from_secs(1);
/// What a pipe or terminal that is ready takes without blocking (POSIX `PIPE_BUF` is at least 512, on Linux 4096).
const WRITE_MAX: usize = 512;

/// A person's ear. Cloning it is cheap; all clones speak to the same person.
#[derive(Debug, Clone)]
pub(crate) struct Voice {
    lines: mpsc::Sender<Reply>,
    stderr: Option<Arc<Lent>>,
    can_paste: bool,
}

/// A stderr that was lent to the broker, for as long as the process that it is of is there.
#[derive(Debug)]
struct Lent {
    stderr: Mutex<Option<OwnedFd>>,
    lender: Option<Presence>,
}

impl Lent {
    fn new(stderr: OwnedFd, lender: Option<Presence>) -> Self {
        Self {
            stderr: Mutex::new(Some(stderr)),
            lender,
        }
    }

    /// Gives it back when the lender has ended: the terminal is the shell's again.
    fn give_back_if_alone(&self) -> bool {
        let is_alone = self.lender.as_ref().is_some_and(Presence::has_ended);
        if is_alone {
            let stderr = self.stderr.lock().unwrap_or_else(PoisonError::into_inner).take();
            drop(stderr);
        }
        is_alone
    }
}

/// Looks at the lender until it has ended or nobody could speak any more.
async fn watch(lent: std::sync::Weak<Lent>) {
    loop {
        tokio::time::sleep(LOOK).await;
        match lent.upgrade() {
            Some(lent) if !lent.give_back_if_alone() => {}
            _ => return,
        }
    }
}

impl Voice {
    /// A voice whose lines come out of the returned receiver, for the task that writes to `match`. `can_paste` says
    /// whether there is somebody who could paste an address.
    pub(crate) fn new(stderr: Option<OwnedFd>, can_paste: bool) -> (Self, mpsc::Receiver<Reply>) {
        let (lines, receiver) = mpsc::channel(QUEUE);
        (
            Self {
                lines,
                stderr: stderr.map(|stderr| Arc::new(Lent::new(stderr, None))),
                can_paste,
            },
            receiver,
        )
    }

    /// The same, with a stderr that is lent by a process (0 where it is unknown) and given back when that ends.
    pub(crate) fn lent(
        stderr: Option<OwnedFd>,
        lender: u32,
        can_paste: bool,
    ) -> (Self, mpsc::Receiver<Reply>) {
        let (mut voice, receiver) = Self::new(None, can_paste);
        voice.stderr = stderr.map(|stderr| Arc::new(Lent::new(stderr, Presence::of(lender))));
        if let Some(lent) = voice.stderr.as_ref().filter(|lent| lent.lender.is_some()) {
            tokio::spawn(watch(Arc::downgrade(lent)));
        }
        (voice, receiver)
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
        use rustix::event::PollFlags;
        use rustix::io::retry_on_intr;
        let Some(lent) = &self.stderr else { return };
        if lent.give_back_if_alone() {
            return;
        }
        let stderr = lent.stderr.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(stderr) = &*stderr else { return };
        for part in text.as_bytes().chunks(WRITE_MAX) {
            let is_ready =
                readiness(stderr, PollFlags::OUT).is_ok_and(|found| found.contains(PollFlags::OUT));
            if !is_ready || retry_on_intr(|| rustix::io::write(stderr, part)).is_err() {
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

    /// A late "no" must not land on the prompt of a shell, nor its terminal be kept open.
    #[tokio::test]
    async fn what_was_lent_is_given_back_when_the_lender_ends() {
        use std::process::{Command, Stdio};
        let mut ssh = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let (mut reader, writer) = std::io::pipe().unwrap();
        let (voice, receiver) = Voice::lent(Some(writer.into()), ssh.id(), false);
        drop(receiver);
        voice.say("denied\n");
        drop(ssh.stdin.take());
        ssh.wait().unwrap();
        voice.say("too late\n");
        // Its end is seen although the voice is still there.
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "denied\n");
        drop(voice);
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
