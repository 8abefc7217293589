//! The thread that writes the audit log, alone: whatever the log is written to may take its time, and nobody but those who
//! wait for a line may wait for it.
//!
//! What came while the last lines were being written is written together.

use super::chain::{Link, hash};
use super::file::{LogFile, Partly, write_whole};
use super::syslog::Syslog;
use super::{AuditError, FAILING};
use prometheus_client::metrics::counter::Counter;
use std::fs::File;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};

/// Lines are written together up to about this size.
const BATCH: usize = 256 * 1024;

/// What the thread is asked for.
pub(super) enum Job {
    Line(Waiting),
    Reopen(oneshot::Sender<Result<(), AuditError>>),
}

/// A line that somebody waits for.
pub(super) struct Waiting {
    /// A JSON object, without the link.
    pub(super) line: Vec<u8>,
    /// When whoever waits has given up. A line that nobody began to write by then is not written.
    pub(super) due: Instant,
    pub(super) done: oneshot::Sender<Result<(), AuditError>>,
}

/// Where the lines go.
#[derive(Debug)]
pub(super) enum Output {
    /// Standard output or error. Not through the standard library, whose lock others would wait for.
    Stream(File),
    File(LogFile),
    Syslog(Syslog),
}

/// How the thread fares, for those who look.
#[derive(Debug)]
pub(super) struct Progress {
    since: Instant,
    /// A write is under way.
    writing: AtomicBool,
    /// Somebody who waited for it has given up.
    given_up: AtomicBool,
    /// When a line last could not be written, in milliseconds from `since`; 0 once one could.
    failed: AtomicU64,
    /// How often the log's file was gone.
    pub(super) files_lost: Counter,
}

impl Default for Progress {
    fn default() -> Self {
        Self {
            since: Instant::now(),
            writing: AtomicBool::new(false),
            given_up: AtomicBool::new(false),
            failed: AtomicU64::new(0),
            files_lost: Counter::default(),
        }
    }
}

impl Progress {
    fn now(&self) -> u64 {
        u64::try_from(self.since.elapsed().as_millis()).map_or(u64::MAX, |now| now.max(1))
    }

    /// Whether a write has been under way for longer than somebody waited.
    pub(super) fn is_stalled(&self) -> bool {
        self.given_up.load(Ordering::Acquire) && self.writing.load(Ordering::Acquire)
    }

    /// Whether a line could not be written just now.
    pub(super) fn has_failed(&self) -> bool {
        match self.failed.load(Ordering::Acquire) {
            0 => false,
            then => Duration::from_millis(self.now().saturating_sub(then)) < FAILING,
        }
    }

    /// Notes that somebody does not wait any longer.
    pub(super) fn give_up(&self) {
        self.given_up.store(true, Ordering::Release);
    }

    fn begin(&self) {
        self.writing.store(true, Ordering::Release);
    }

    fn end(&self, worked: bool) {
        let failed = if worked { 0 } else { self.now() };
        self.failed.store(failed, Ordering::Release);
        self.writing.store(false, Ordering::Release);
        self.given_up.store(false, Ordering::Release);
    }
}

/// The log as the thread has it.
#[derive(Debug)]
pub(super) struct Writer {
    pub(super) output: Output,
    pub(super) previous: Link,
    /// The last write stopped in the middle of a line.
    pub(super) torn: bool,
    pub(super) progress: Arc<Progress>,
}

impl Writer {
    /// Writes until nobody can ask any more.
    pub(super) fn run(mut self, mut jobs: mpsc::Receiver<Job>) {
        while let Some(job) = jobs.blocking_recv() {
            let (mut lines, mut size, mut next) = (Vec::new(), 0, Some(job));
            while let Some(job) = next.take() {
                match job {
                    Job::Line(waiting) => {
                        size += waiting.line.len();
                        lines.push(waiting);
                    }
                    Job::Reopen(done) => {
                        self.write(std::mem::take(&mut lines));
                        let _ = done.send(self.reopen());
                    }
                }
                if size < BATCH {
                    next = jobs.try_recv().ok();
                }
            }
            self.write(lines);
        }
    }

    fn reopen(&mut self) -> Result<(), AuditError> {
        match &mut self.output {
            Output::Stream(_) => {}
            Output::Syslog(syslog) => syslog.reopen(),
            Output::File(file) => self.torn &= !file.reopen()?,
        }
        Ok(())
    }

    /// Writes lines together, and tells each that waits what became of its own.
    fn write(&mut self, lines: Vec<Waiting>) {
        let now = Instant::now();
        let (lines, late): (Vec<_>, Vec<_>) = lines.into_iter().partition(|line| now < line.due);
        for waiting in late {
            let _ = waiting.done.send(Err(AuditError::TooSlow));
        }
        if lines.is_empty() {
            return;
        }
        self.progress.begin();
        let (written, error) = self.write_chained(&lines);
        self.progress.end(error.is_none());
        let error = error.map(Arc::new);
        for (number, waiting) in lines.into_iter().enumerate() {
            let result = match &error {
                Some(error) if number >= written => Err(AuditError::Write(Arc::clone(error))),
                _ => Ok(()),
            };
            let _ = waiting.done.send(result);
        }
    }

    /// Writes lines, each with the link to the one before. Says how many are there, and why not all of them.
    fn write_chained(&mut self, lines: &[Waiting]) -> (usize, Option<io::Error>) {
        let chained = Chained::new(lines, &self.previous, self.torn);
        let lost = || {
            self.progress.files_lost.inc();
        };
        let outcome = match &mut self.output {
            Output::Stream(stream) => write_whole(stream, &chained.bytes),
            Output::File(file) => file.append(&chained.bytes, &lost),
            Output::Syslog(syslog) => chained.each(|line| syslog.send(line)),
        };
        let (there, error) = match outcome {
            Ok(()) => (chained.bytes.len(), None),
            Err((error, there)) => (there, Some(error)),
        };
        let whole = chained.whole(there);
        self.torn = chained.is_torn(there, whole, self.torn);
        if let Some((_, link)) = whole.checked_sub(1).map(|last| &chained.ends[last]) {
            self.previous.clone_from(link);
            if let Output::File(file) = &mut self.output {
                file.keep(link);
            }
        }
        (whole, error)
    }
}

/// Lines with their links, as they are written.
struct Chained {
    bytes: Vec<u8>,
    /// What stands before the first line: the end of one that was torn.
    before: usize,
    /// Where each line ends, its line end included, and its link.
    ends: Vec<(usize, Link)>,
}

impl Chained {
    fn new(lines: &[Waiting], previous: &Link, torn: bool) -> Self {
        let mut bytes = Vec::with_capacity(lines.iter().map(|one| one.line.len() + 96).sum());
        if torn {
            bytes.push(b'\n');
        }
        let (before, mut ends) = (bytes.len(), Vec::<(usize, Link)>::with_capacity(lines.len()));
        for Waiting { line, .. } in lines {
            let begin = bytes.len();
            let previous = ends.last().map_or(previous, |(_, link)| link);
            // The line is a JSON object; its closing brace makes room for the link.
            bytes.extend_from_slice(line.strip_suffix(b"}").unwrap_or(line));
            let _ = write!(bytes, ",\"previous\":\"{previous}\"}}");
            let link = hash(&bytes[begin..]);
            bytes.push(b'\n');
            ends.push((bytes.len(), link));
        }
        Self { bytes, before, ends }
    }

    /// Sends line by line, without line ends. After the first that cannot be sent the others are not tried: each may take a
    /// while.
    fn each(&self, mut send: impl FnMut(&[u8]) -> io::Result<()>) -> Result<(), Partly> {
        let mut begin = self.before;
        for (end, _) in &self.ends {
            send(&self.bytes[begin..end - 1]).map_err(|error| (error, begin))?;
            begin = *end;
        }
        Ok(())
    }

    /// How many lines are whole when this many bytes are there.
    fn whole(&self, there: usize) -> usize {
        self.ends.iter().take_while(|(end, _)| *end <= there).count()
    }

    /// Whether they end in the middle of a line, given whether something before them did.
    fn is_torn(&self, there: usize, whole: usize, was_torn: bool) -> bool {
        let end = whole.checked_sub(1).map_or(self.before, |last| self.ends[last].0);
        match there {
            0 => was_torn,
            there => there > end,
        }
    }
}
