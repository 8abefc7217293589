//! What a process says, read as it comes.

use std::fmt;
use std::fs::File;
use std::io::{Read, Write as _};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A stream of a process, kept whole. Clones see the same stream.
#[derive(Clone)]
pub struct Log {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    content: Mutex<Content>,
    changed: Condvar,
}

#[derive(Default)]
struct Content {
    bytes: Vec<u8>,
    has_ended: bool,
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Log")
            .field("bytes", &self.lock().bytes.len())
            .finish()
    }
}

impl fmt::Display for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text())
    }
}

impl Log {
    /// Reads `stream` to its end on a thread of its own, copying it to `file` when there is one.
    pub fn capture(mut stream: impl Read + Send + 'static, mut file: Option<File>) -> Self {
        let log = Self {
            shared: Arc::default(),
        };
        let shared = Arc::clone(&log.shared);
        std::thread::spawn(move || {
            let mut buffer = [0; 8192];
            loop {
                let count = stream.read(&mut buffer).unwrap_or(0);
                if let Some(file) = &mut file {
                    // The copy is for people who look at a failed test; the test itself reads the memory.
                    let _ = file.write_all(&buffer[..count]);
                }
                let mut content = shared.content.lock().unwrap_or_else(PoisonError::into_inner);
                content.bytes.extend_from_slice(&buffer[..count]);
                content.has_ended = count == 0;
                shared.changed.notify_all();
                if count == 0 {
                    return;
                }
            }
        });
        log
    }

    fn lock(&self) -> MutexGuard<'_, Content> {
        self.shared.content.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Everything that was said so far.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.lock().bytes).into_owned()
    }

    /// Everything that was said so far, byte for byte.
    pub fn bytes(&self) -> Vec<u8> {
        self.lock().bytes.clone()
    }

    /// How much was said so far, in bytes: a place to wait from, see [`wait_for_line_after`](Self::wait_for_line_after).
    pub fn position(&self) -> usize {
        self.lock().bytes.len()
    }

    /// How many complete lines contain `text`.
    pub fn count(&self, text: &str) -> usize {
        self.text().lines().filter(|line| line.contains(text)).count()
    }

    /// Waits for a line that contains `text`, those already there included, and returns the first one.
    /// `None` when the time is over or the stream ended without it.
    pub fn wait_for_line(&self, text: &str, timeout: Duration) -> Option<String> {
        self.wait_for_line_after(0, text, timeout)
    }

    /// As [`wait_for_line`](Self::wait_for_line), for what is said after `position`.
    pub fn wait_for_line_after(&self, position: usize, text: &str, timeout: Duration) -> Option<String> {
        let end = Instant::now() + timeout;
        let mut content = self.lock();
        loop {
            let new = content.bytes.get(position..).unwrap_or_default();
            if let Some(line) = find_line(new, text, content.has_ended) {
                return Some(line);
            }
            let left = end.saturating_duration_since(Instant::now());
            if content.has_ended || left.is_zero() {
                return None;
            }
            content = self
                .shared
                .changed
                .wait_timeout(content, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// Waits until the stream has ended, and returns all of it; `None` when it is still open after `timeout`.
    pub fn wait_for_end(&self, timeout: Duration) -> Option<String> {
        let content = self.lock();
        let (content, _) = self
            .shared
            .changed
            .wait_timeout_while(content, timeout, |content| !content.has_ended)
            .unwrap_or_else(PoisonError::into_inner);
        content
            .has_ended
            .then(|| String::from_utf8_lossy(&content.bytes).into_owned())
    }

    /// Whether the stream has ended.
    pub fn has_ended(&self) -> bool {
        self.lock().has_ended
    }
}

/// The first line with `text` in it. A last line without its end counts once nothing can follow it.
fn find_line(bytes: &[u8], text: &str, has_ended: bool) -> Option<String> {
    let complete = if has_ended {
        bytes
    } else {
        &bytes[..bytes.iter().rposition(|byte| *byte == b'\n')?]
    };
    String::from_utf8_lossy(complete)
        .lines()
        .find(|line| line.contains(text))
        .map(ToOwned::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DEADLINE;

    #[test]
    fn a_line_is_seen_when_it_is_complete_or_the_last_one() {
        let (reader, mut writer) = std::io::pipe().unwrap();
        let log = Log::capture(reader, None);
        writer.write_all(b"one\ntw").unwrap();
        assert_eq!(log.wait_for_line("one", DEADLINE).as_deref(), Some("one"));
        assert_eq!(log.wait_for_line("tw", Duration::ZERO), None);
        let waiting = log.clone();
        let waiter = std::thread::spawn(move || waiting.wait_for_line_after(4, "two", DEADLINE));
        writer.write_all(b"o\nlast").unwrap();
        assert_eq!(waiter.join().unwrap().as_deref(), Some("two"));
        drop(writer);
        assert_eq!(log.wait_for_end(DEADLINE).as_deref(), Some("one\ntwo\nlast"));
        assert_eq!(log.wait_for_line("last", DEADLINE).as_deref(), Some("last"));
        assert_eq!(log.wait_for_line("never", DEADLINE), None);
        assert_eq!((log.count("o"), log.position(), log.has_ended()), (2, 12, true));
    }
}
