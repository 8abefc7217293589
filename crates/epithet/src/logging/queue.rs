//! Lines on their way to whoever reads them: a terminal, a pipe, a disk. Any of these may stop taking them, and a server
//! does not wait for that: what finds no room is counted, and the number is logged once there is room again.

use epithet_wire::limits::LOG_WAITING_MAX;
use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The queue before one output. Clones are the same queue.
#[derive(Debug, Clone)]
pub(super) struct Queue(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    waiting: Vec<Vec<u8>>,
    lost: u64,
    is_writing: bool,
}

impl Queue {
    /// Starts the thread that writes. `tell` is told how many lines were lost, once others can be written again.
    pub(super) fn start(
        output: impl Write + Send + 'static,
        tell: impl Fn(u64) + Send + 'static,
    ) -> io::Result<Self> {
        let queue = Self(Arc::default());
        let shared = Arc::clone(&queue.0);
        std::thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || shared.write_all(output, &tell))?;
        Ok(queue)
    }

    /// Adds a line, if there is room.
    pub(super) fn push(&self, line: Vec<u8>) {
        let mut state = self.0.lock();
        if state.waiting.len() < LOG_WAITING_MAX {
            state.waiting.push(line);
            drop(state);
            self.0.changed.notify_all();
        } else {
            state.lost += 1;
        }
    }

    /// Waits until everything is written, but no longer than this.
    pub(super) fn flush(&self, patience: Duration) {
        let is_busy = |state: &mut State| state.is_writing || !state.waiting.is_empty();
        let waited = self
            .0
            .changed
            .wait_timeout_while(self.0.lock(), patience, is_busy);
        drop(waited);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_all(&self, mut output: impl Write, tell: &impl Fn(u64)) {
        let mut lost = 0;
        loop {
            let mut worked = false;
            for line in self.take() {
                // Nobody there to read it is no reason not to go on.
                worked = output.write_all(&line).is_ok();
                lost += u64::from(!worked);
            }
            let has_room = {
                let mut state = self.lock();
                lost += std::mem::take(&mut state.lost);
                state.waiting.len() < LOG_WAITING_MAX / 2
            };
            // Otherwise the news would be lost itself.
            if lost > 0 && worked && has_room {
                tell(std::mem::take(&mut lost));
            }
            self.lock().is_writing = false;
            self.changed.notify_all();
        }
    }

    /// Waits for lines, and takes all that are there.
    fn take(&self) -> Vec<Vec<u8>> {
        let waited = self
            .changed
            .wait_while(self.lock(), |state| state.waiting.is_empty());
        let mut state = waited.unwrap_or_else(PoisonError::into_inner);
        state.is_writing = true;
        std::mem::take(&mut state.waiting)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader};
    use std::sync::mpsc::channel;

    #[test]
    fn a_reader_that_stops_keeps_nobody_waiting_and_is_told_what_it_missed() {
        let (reader, writer) = io::pipe().unwrap();
        let (told, tells) = channel();
        let queue = Queue::start(writer, move |lost| told.send(lost).unwrap_or_default()).unwrap();
        // More than a pipe and the queue hold: 64 KiB, what the thread took before that was full, and what waits.
        let line = [&[b'x'; 99][..], b"\n"].concat();
        let all = 4 * LOG_WAITING_MAX;
        for _ in 0..all {
            queue.push(line.clone());
        }
        queue.flush(Duration::from_millis(1));
        let reading = std::thread::spawn(move || BufReader::new(reader).lines().count());
        let lost = usize::try_from(tells.recv().unwrap()).unwrap();
        assert!((1..all).contains(&lost), "{lost}");
        queue.flush(Duration::from_secs(30));
        assert!(!reading.is_finished(), "the queue goes on");
    }

    #[test]
    fn everything_is_written_in_order_before_the_end() {
        let (reader, writer) = io::pipe().unwrap();
        let queue = Queue::start(writer, |_| {}).unwrap();
        for number in 0..100 {
            queue.push(format!("{number}\n").into_bytes());
        }
        queue.flush(Duration::from_secs(30));
        let lines: Vec<String> = BufReader::new(reader)
            .lines()
            .take(100)
            .map(Result::unwrap)
            .collect();
        let expected: Vec<String> = (0..100).map(|number| number.to_string()).collect();
        assert_eq!(lines, expected);
    }
}
