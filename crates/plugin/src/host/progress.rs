//! Progress on its way from the plugin to whoever shows it: bounded, harmless, and never a reason to wait.

use super::directive::{Directive, Sieve, Sifted};
use epithet_wire::display::sanitize_text;
use epithet_wire::limits::{DIRECTIVES_MAX, PROGRESS_MAX};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::Notify;

/// A new pair: what the runner writes into and what the one who shows progress reads from.
///
/// At most [`PROGRESS_MAX`] bytes wait in between; then the oldest go. Drop the feed if nobody looks.
pub fn progress_channel() -> (ProgressSink, ProgressFeed) {
    let shared = Arc::new(Shared::default());
    (
        ProgressSink(Arc::new(Writer(shared.clone()))),
        ProgressFeed(shared),
    )
}

/// The runner's end.
#[derive(Clone)]
pub struct ProgressSink(Arc<Writer>);

/// The other end.
pub struct ProgressFeed(Arc<Shared>);

/// A piece of progress.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// Text, line ends included, with every control character made harmless.
    pub text: String,
    /// How many bytes before it were dropped because nobody read in time.
    pub skipped: u64,
    /// What the plugin said to the broker meanwhile, and not to people.
    pub directives: Vec<Directive>,
}

struct Writer(Arc<Shared>);

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    arrival: Notify,
}

#[derive(Default)]
struct Queue {
    pieces: VecDeque<String>,
    bytes: usize,
    skipped: u64,
    /// The end of the last chunk, when its meaning depends on the next one.
    undecided: Vec<u8>,
    sieve: Sieve,
    directives: Vec<Directive>,
    closed: bool,
}

/// Pieces smaller than this are joined, so that a plugin that writes byte by byte costs no more than one that doesn't.
const PIECE: usize = 4 * 1024;

impl ProgressSink {
    /// A sink for progress that nobody wants to see.
    pub fn discard() -> Self {
        progress_channel().0
    }

    pub(crate) fn push(&self, bytes: &[u8]) {
        let shared = &self.0.0;
        shared
            .queue
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(bytes);
        shared.arrival.notify_one();
    }
}

impl ProgressFeed {
    /// The next piece, or `None` when the run is over and everything was read.
    pub async fn next(&mut self) -> Option<Progress> {
        loop {
            let arrival = self.0.arrival.notified();
            {
                let mut queue = self.0.queue.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(progress) = queue.pop() {
                    return Some(progress);
                }
                if queue.closed {
                    return None;
                }
            }
            arrival.await;
        }
    }
}

impl Queue {
    fn push(&mut self, bytes: &[u8]) {
        let mut chunk = std::mem::take(&mut self.undecided);
        chunk.extend_from_slice(bytes);
        self.undecided = chunk.split_off(chunk.len() - undecided_length(&chunk));
        self.store(&chunk);
    }

    fn close(&mut self) {
        let rest = std::mem::take(&mut self.undecided);
        self.store(&rest);
        let last = self.sieve.finish();
        self.keep(last);
        self.closed = true;
    }

    fn store(&mut self, chunk: &[u8]) {
        let sifted = self.sieve.sift(&sanitize_text(chunk));
        self.keep(sifted);
    }

    fn keep(&mut self, sifted: Sifted) {
        let Sifted { text, directives } = sifted;
        let room = DIRECTIVES_MAX - self.directives.len();
        self.directives.extend(directives.into_iter().take(room));
        if text.is_empty() {
            return;
        }
        self.bytes += text.len();
        match self.pieces.back_mut() {
            Some(last) if last.len() + text.len() <= PIECE => last.push_str(&text),
            _ => self.pieces.push_back(text),
        }
        while self.bytes > PROGRESS_MAX {
            let Some(oldest) = self.pieces.pop_front() else {
                break;
            };
            self.bytes -= oldest.len();
            self.skipped += oldest.len() as u64;
        }
    }

    fn pop(&mut self) -> Option<Progress> {
        if self.pieces.is_empty() && self.directives.is_empty() {
            return None;
        }
        let text = self.pieces.pop_front().unwrap_or_default();
        self.bytes -= text.len();
        Some(Progress {
            text,
            skipped: std::mem::take(&mut self.skipped),
            directives: std::mem::take(&mut self.directives),
        })
    }
}

/// Everything that comes out of a feed whose plugin wrote these pieces. For the fuzzers.
#[doc(hidden)]
pub fn through<'p>(pieces: impl IntoIterator<Item = &'p [u8]>) -> (String, Vec<Directive>) {
    let mut queue = Queue::default();
    for piece in pieces {
        queue.push(piece);
    }
    queue.close();
    let (mut text, mut directives) = (String::new(), Vec::new());
    while let Some(progress) = queue.pop() {
        text.push_str(&progress.text);
        directives.extend(progress.directives);
    }
    (text, directives)
}

/// How many bytes at the end wait for the next chunk: a character that has begun, or a carriage return that may belong
/// to a line feed.
fn undecided_length(chunk: &[u8]) -> usize {
    if chunk.last() == Some(&b'\r') {
        return 1;
    }
    let tail = &chunk[chunk.len().saturating_sub(3)..];
    let begun = tail.iter().rposition(|byte| *byte >= 0xc0).filter(|start| {
        let needed = match tail[*start] {
            0xc0..=0xdf => 2,
            0xe0..=0xef => 3,
            _ => 4,
        };
        tail.len() - start < needed && tail[start + 1..].iter().all(|byte| byte & 0xc0 == 0x80)
    });
    begun.map_or(0, |start| tail.len() - start)
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.0
            .queue
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .close();
        self.0.arrival.notify_one();
    }
}

impl std::fmt::Debug for ProgressSink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ProgressSink")
    }
}

impl std::fmt::Debug for ProgressFeed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ProgressFeed")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn through(chunks: &[&[u8]]) -> (String, u64) {
        let mut queue = Queue::default();
        for chunk in chunks {
            queue.push(chunk);
        }
        queue.close();
        let (mut text, mut skipped) = (String::new(), 0);
        while let Some(progress) = queue.pop() {
            text.push_str(&progress.text);
            skipped += progress.skipped;
        }
        assert_eq!(queue.bytes, 0);
        (text, skipped)
    }

    #[test]
    fn characters_and_line_ends_survive_being_cut() {
        for (chunks, text) in [
            (
                &[&b"gr\xc3"[..], b"\xbc\xc3", b"\x9fe\r", b"\nzwei\r", b"drei"][..],
                "gr\u{fc}\u{df}e\nzwei\ndrei",
            ),
            (&[b"\xf0\x9f\x91", b"\x8d"], "\u{1f44d}"),
            (&[b"\xf0\x9f", b"x"], "\u{fffd}x"),
            (&[b"end\xe2\x82"], "end\u{fffd}"),
            (&[b"\x1b", b"[2J\x07"], "[2J"),
        ] {
            assert_eq!(through(chunks), (text.to_owned(), 0));
        }
    }

    #[test]
    fn the_oldest_progress_goes_when_nobody_reads() {
        let chunk = [b'x'; 1000];
        let fits = PROGRESS_MAX / 1000;
        assert_eq!(through(&vec![&chunk[..]; fits]).1, 0);
        let (text, skipped) = through(&vec![&chunk[..]; 1000]);
        assert!(text.len() <= PROGRESS_MAX && text.len() > PROGRESS_MAX - 2 * PIECE);
        assert_eq!(text.len() as u64 + skipped, 1_000_000);
    }

    #[test]
    fn directives_survive_a_flood_of_text_and_a_flood_of_directives_is_bounded() {
        let mut queue = Queue::default();
        queue.push(b"#epithet: can-log-out\n");
        for _ in 0..1000 {
            queue.push(&[b'x'; 1000]);
        }
        assert_eq!(queue.pop().unwrap().directives, [Directive::CanLogOut]);
        for _ in 0..1000 {
            queue.push(b"\n#epithet: can-log-out\r\n");
        }
        assert_eq!(queue.pop().unwrap().directives.len(), DIRECTIVES_MAX);
    }

    #[test]
    fn writing_byte_by_byte_makes_few_pieces() {
        let mut queue = Queue::default();
        for _ in 0..PIECE {
            queue.push(b"x");
        }
        assert_eq!(queue.pieces.len(), 1);
    }

    proptest! {
        #[test]
        fn cutting_changes_nothing(text in "\\PC{0,40}(\r\n|\r|\u{1b}|\u{e9})?\\PC{0,40}", cuts in proptest::collection::vec(0_usize..200, 0..6)) {
            let bytes = text.as_bytes();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let chunks: Vec<&[u8]> = cuts.windows(2).map(|cut| &bytes[cut[0]..cut[1]]).collect();
            prop_assert_eq!(through(&chunks).0, sanitize_text(bytes));
        }
    }

    #[tokio::test]
    async fn a_feed_ends_when_the_last_sink_is_gone() {
        let (sink, mut feed) = progress_channel();
        sink.push(b"one\n");
        drop(sink.clone());
        assert_eq!(feed.next().await.unwrap().text, "one\n");
        let waiting = tokio::spawn(async move { (feed.next().await, feed.next().await) });
        tokio::task::yield_now().await;
        sink.push(b"two");
        drop(sink);
        let (two, end) = waiting.await.unwrap();
        assert_eq!((two.unwrap().text.as_str(), end), ("two", None));
    }
}
