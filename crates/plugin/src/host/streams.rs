//! What a plugin says, read within limits, and how it ended.

use super::progress::ProgressSink;
use crate::secret_buffer::SecretBuffer;
use crate::{STATE_MAX, TOKEN_MAX};
use epithet_wire::display::sanitize_text;
use epithet_wire::limits::{PLUGIN_STDERR_TAIL, PROGRESS_MAX};
use std::collections::VecDeque;
use std::io;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::{Receiver, Sender};

/// One of the streams a plugin writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stream {
    /// stdout: the token.
    Token,
    /// stderr: messages and errors.
    Messages,
    /// fd 3: the new state.
    State,
    /// fd 4: progress.
    Progress,
}

impl std::fmt::Display for Stream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Token => "stdout",
            Self::Messages => "stderr",
            Self::State => "fd 3",
            Self::Progress => "fd 4",
        })
    }
}

/// How a plugin's process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// It exited with this status.
    Status(i32),
    /// A signal ended it.
    Signal(i32),
}

/// Our ends of a plugin's streams. `None` is a stream that has come to its end.
pub(crate) struct Streams {
    pub(crate) stdin: Option<Sender>,
    pub(crate) token: Option<Receiver>,
    pub(crate) messages: Option<Receiver>,
    pub(crate) state: Option<Receiver>,
    pub(crate) progress: Option<Receiver>,
}

/// What ends a run while its streams are read.
#[derive(Debug)]
pub(crate) enum StreamTrouble {
    OverLimit(Stream),
    Io(io::Error),
}

/// Everything one run of a plugin said and did. Token and state are wiped when it goes.
pub struct Transcript {
    pub(crate) token: SecretBuffer,
    pub(crate) state: SecretBuffer,
    pub(crate) messages: Tail,
    pub(crate) progress: Tail,
    pub(crate) state_accepted: usize,
    pub(crate) exit: Option<Exit>,
    pub(crate) left_open: Vec<Stream>,
    pub(crate) forced: bool,
    pub(crate) elapsed: Duration,
}

impl Transcript {
    pub(crate) fn new() -> Self {
        Self {
            token: SecretBuffer::new(TOKEN_MAX),
            state: SecretBuffer::new(STATE_MAX),
            messages: Tail::new(PLUGIN_STDERR_TAIL),
            progress: Tail::new(PROGRESS_MAX),
            state_accepted: 0,
            exit: None,
            left_open: Vec::new(),
            forced: false,
            elapsed: Duration::ZERO,
        }
    }

    /// What came on stdout, whether or not it counts. A secret: show its length and fingerprint only.
    pub fn token_bytes(&self) -> &[u8] {
        self.token.as_slice()
    }

    /// What came on fd 3, whether or not it counts. A secret: show its length and fingerprint only.
    pub fn state_bytes(&self) -> &[u8] {
        self.state.as_slice()
    }

    /// The end of what came on stderr, made harmless for a terminal.
    pub fn stderr(&self) -> String {
        self.messages.text()
    }

    /// How many bytes of stderr came before what [`stderr`](Self::stderr) shows.
    pub fn stderr_skipped(&self) -> u64 {
        self.messages.skipped
    }

    /// How many bytes of progress came on fd 4.
    pub fn progress_bytes(&self) -> u64 {
        self.progress.total()
    }

    /// The end of what came on fd 4, made harmless for a terminal.
    pub fn progress(&self) -> String {
        self.progress.text()
    }

    /// How many bytes came on stderr.
    pub fn stderr_bytes(&self) -> u64 {
        self.messages.total()
    }

    /// How many bytes of the old state the plugin, or the pipe towards it, took.
    pub fn state_accepted(&self) -> usize {
        self.state_accepted
    }

    /// How the plugin ended; `None` when it never started or could not be waited for.
    pub fn exit(&self) -> Option<Exit> {
        self.exit
    }

    /// The streams that somebody else still held open when the plugin had exited and the grace was over.
    pub fn left_open(&self) -> &[Stream] {
        &self.left_open
    }

    /// Whether the plugin's group ignored SIGTERM and had to be killed.
    pub fn was_killed(&self) -> bool {
        self.forced
    }

    /// From start to the last stream's end.
    pub fn elapsed(&self) -> Duration {
        self.elapsed
    }

    /// Reads all four streams to their ends, or until one of them is over its limit.
    ///
    /// Can be dropped at any moment: what was read stays, and so do the streams that have not ended.
    pub(crate) async fn read_to_the_end(
        &mut self,
        streams: &mut Streams,
        sink: &ProgressSink,
    ) -> Result<(), StreamTrouble> {
        tokio::try_join!(
            keep(&mut streams.token, &mut self.token, Stream::Token),
            keep(&mut streams.state, &mut self.state, Stream::State),
            async {
                while let Some(piece) = next(&mut streams.messages).await? {
                    self.messages.push(&piece);
                }
                Ok(())
            },
            async {
                while let Some(piece) = next(&mut streams.progress).await? {
                    self.progress.push(&piece);
                    sink.push(&piece);
                }
                Ok(())
            },
        )?;
        Ok(())
    }

    /// Takes what is in the pipes this very moment, without asking the runtime's idea of readiness: when a process is gone
    /// or a timer is due, what it wrote before may not yet be known to be there.
    pub(crate) fn sweep(&mut self, streams: &Streams) -> Result<(), StreamTrouble> {
        for (receiver, buffer, stream) in [
            (&streams.token, &mut self.token, Stream::Token),
            (&streams.state, &mut self.state, Stream::State),
        ] {
            let Some(receiver) = receiver else { continue };
            while let Some(read) = read_now(receiver, buffer.room())? {
                buffer
                    .filled(read)
                    .map_err(|_| StreamTrouble::OverLimit(stream))?;
            }
        }
        self.sweep_messages(streams)
    }

    /// The same for stderr alone.
    pub(crate) fn sweep_messages(&mut self, streams: &Streams) -> Result<(), StreamTrouble> {
        /// More than a pipe holds; whoever still writes does not keep us for ever.
        const PIECES: usize = 128;
        let Some(receiver) = &streams.messages else {
            return Ok(());
        };
        let mut piece = [0; PIECE];
        for _ in 0..PIECES {
            let Some(read) = read_now(receiver, &mut piece)? else {
                break;
            };
            self.messages.push(&piece[..read]);
        }
        Ok(())
    }
}

/// Reads without waiting; `None` when there is nothing (any more).
fn read_now(receiver: &Receiver, room: &mut [u8]) -> Result<Option<usize>, StreamTrouble> {
    loop {
        return match rustix::io::read(receiver, &mut *room) {
            Ok(0) | Err(rustix::io::Errno::AGAIN) => Ok(None),
            Ok(read) => Ok(Some(read)),
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => Err(StreamTrouble::Io(error.into())),
        };
    }
}

impl std::fmt::Debug for Transcript {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Transcript")
            .field("token_bytes", &self.token.as_slice().len())
            .field("state_bytes", &self.state.as_slice().len())
            .field("exit", &self.exit)
            .field("left_open", &self.left_open)
            .field("elapsed", &self.elapsed)
            .finish_non_exhaustive()
    }
}

impl Streams {
    /// The streams that have not come to their end.
    pub(crate) fn open(&self) -> Vec<Stream> {
        [
            (Stream::Token, &self.token),
            (Stream::Messages, &self.messages),
            (Stream::State, &self.state),
            (Stream::Progress, &self.progress),
        ]
        .into_iter()
        .filter_map(|(stream, receiver)| receiver.as_ref().map(|_| stream))
        .collect()
    }
}

/// Reads a stream into a buffer until it ends or is over the buffer's limit.
async fn keep(
    receiver: &mut Option<Receiver>,
    buffer: &mut SecretBuffer,
    stream: Stream,
) -> Result<(), StreamTrouble> {
    while let Some(open) = receiver {
        match open.read(buffer.room()).await.map_err(StreamTrouble::Io)? {
            0 => *receiver = None,
            read => buffer
                .filled(read)
                .map_err(|_| StreamTrouble::OverLimit(stream))?,
        }
    }
    Ok(())
}

/// How much is read at once of what is not a secret.
const PIECE: usize = 8 * 1024;

/// The next piece of a stream that is not a secret.
async fn next(receiver: &mut Option<Receiver>) -> Result<Option<Vec<u8>>, StreamTrouble> {
    let Some(open) = receiver else { return Ok(None) };
    open.readable().await.map_err(StreamTrouble::Io)?;
    let mut piece = Vec::with_capacity(PIECE);
    match open.read_buf(&mut piece).await.map_err(StreamTrouble::Io)? {
        0 => {
            *receiver = None;
            Ok(None)
        }
        _ => Ok(Some(piece)),
    }
}

/// The end of a stream of any length.
pub(crate) struct Tail {
    bytes: VecDeque<u8>,
    max: usize,
    skipped: u64,
}

impl Tail {
    pub(crate) fn new(max: usize) -> Self {
        Self {
            bytes: VecDeque::new(),
            max,
            skipped: 0,
        }
    }

    pub(crate) fn push(&mut self, piece: &[u8]) {
        let kept = &piece[piece.len().saturating_sub(self.max)..];
        let surplus = (self.bytes.len() + kept.len()).saturating_sub(self.max);
        self.bytes.drain(..surplus);
        self.bytes.extend(kept);
        self.skipped += (piece.len() - kept.len() + surplus) as u64;
    }

    fn total(&self) -> u64 {
        self.skipped + self.bytes.len() as u64
    }

    pub(crate) fn holds(&self, needle: &[u8]) -> bool {
        let (front, back) = self.bytes.as_slices();
        contains(&[front, back].concat(), needle)
    }

    /// As text without anything that could harm a terminal.
    pub(crate) fn text(&self) -> String {
        let (front, back) = self.bytes.as_slices();
        sanitize_text(&[front, back].concat())
    }
}

/// Whether `needle`, which is not empty, is somewhere in `haystack`.
pub(crate) fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_tail_is_the_end_and_a_count_of_the_rest(
            pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 0..20),
            max in 1_usize..60,
        ) {
            let mut tail = Tail::new(max);
            for piece in &pieces {
                tail.push(piece);
            }
            let all = pieces.concat();
            let end = &all[all.len().saturating_sub(max)..];
            prop_assert_eq!(tail.bytes.iter().copied().collect::<Vec<u8>>(), end);
            prop_assert_eq!(tail.skipped, (all.len() - end.len()) as u64);
        }
    }
}
