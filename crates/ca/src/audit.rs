//! The audit log: one JSON line for every decision, written before the answer leaves.
//!
//! A certificate that is in nobody's log is a certificate that nobody can look for. So a certificate leaves only
//! after its line was written, and none leaves while lines cannot be. The other way round there may be a line without its
//! certificate: when the line took so long that its request was answered 503 meanwhile, or the client was gone.
//!
//! Every line ends with `"previous":"<SHA-256 of the line before it>"`, so that a line taken out or changed later is
//! found by [`verify`]. For the last line its hash stands beside the log ([`WrittenLast`]): keep it elsewhere too, against those
//! who can write both. The first line of all
//! carries 64 zeros.

mod chain;
mod entry;
mod file;
mod last;
mod syslog;
mod writer;

pub use chain::{BrokenChain, ChainCheck, Step, verify};
pub(crate) use entry::{CertificateEntry, Entry, GroundsEntry, timestamp};
pub use last::WrittenLast;

use chain::zeros;
use epithet_wire::limits::{AUDIT_DEADLINE, AUDIT_WAITING_MAX};
use file::{LogFile, Resumed};
use prometheus_client::metrics::counter::Counter;
use std::convert::Infallible;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, mpsc as std_mpsc};
use std::time::{Duration, Instant};
use syslog::Syslog;
use tokio::sync::{mpsc, oneshot};
use writer::{Job, Output, Progress, Waiting, Writer};

/// How long a failed write counts.
pub const FAILING: Duration = Duration::from_secs(10);

/// How long the end waits for a write that is under way.
const FAREWELL: Duration = Duration::from_millis(500);

/// Where the lines go. Its thread writes them one after the other.
#[derive(Debug)]
pub struct AuditLog {
    jobs: Option<mpsc::Sender<Job>>,
    progress: Arc<Progress>,
    /// Closed when the thread has ended.
    ended: Mutex<std_mpsc::Receiver<Infallible>>,
}

/// Why the audit log cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// The file cannot be opened.
    #[error("cannot open the audit log {}: {source}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// Two processes would break each other's chain.
    #[error("the audit log {} is in use by another process; give each CA a file of its own", .0.display())]
    InUse(PathBuf),
    /// A line could not be written.
    #[error("cannot write the audit log: {0}")]
    Write(#[source] Arc<io::Error>),
    /// Whatever the log is written to takes no lines, or takes them too slowly.
    #[error(
        "cannot write the audit log: it took no line for {} s; is whoever reads it still reading?",
        AUDIT_DEADLINE.as_secs()
    )]
    TooSlow,
    /// Its thread cannot be started, or has ended.
    #[error("the audit log has no thread to write it: {0}")]
    Thread(io::Error),
}

impl From<io::Error> for AuditError {
    fn from(error: io::Error) -> Self {
        Self::Write(Arc::new(error))
    }
}

impl AuditLog {
    /// Lines on standard output. A chain begins with each start.
    ///
    /// # Errors
    /// It is closed, or no thread can be started.
    pub fn stdout() -> Result<Self, AuditError> {
        Self::stream(io::stdout().as_fd())
    }

    /// Lines on standard error. A chain begins with each start.
    ///
    /// # Errors
    /// It is closed, or no thread can be started.
    pub fn stderr() -> Result<Self, AuditError> {
        Self::stream(io::stderr().as_fd())
    }

    fn stream(stream: std::os::fd::BorrowedFd<'_>) -> Result<Self, AuditError> {
        let stream = stream.try_clone_to_owned()?;
        Self::start(Output::Stream(File::from(stream)), zeros(), false)
    }

    /// Lines at the end of a file, which is created with mode 0600 if need be. The chain goes on from its last line, or from
    /// the one that the file `PATH.last` names when the log was rotated since.
    ///
    /// # Errors
    /// The file cannot be opened, or another process writes to it.
    pub fn file(path: &Path) -> Result<Self, AuditError> {
        let Resumed { file, previous, torn } = LogFile::resume(path)?;
        Self::start(Output::File(file), previous, torn)
    }

    /// Lines to the system's log, through its socket (`/dev/log`). A chain begins with each start.
    ///
    /// # Errors
    /// Nobody listens there.
    pub fn syslog(path: &Path) -> Result<Self, AuditError> {
        let syslog = Syslog::open(path).map_err(|source| AuditError::Open {
            path: path.to_owned(),
            source,
        })?;
        tracing::info!(path = %syslog.path().display(), "the audit log goes to the system's log");
        Self::start(Output::Syslog(syslog), zeros(), false)
    }

    fn start(output: Output, previous: String, torn: bool) -> Result<Self, AuditError> {
        let progress = Arc::new(Progress::default());
        let writer = Writer {
            output,
            previous,
            torn,
            progress: Arc::clone(&progress),
        };
        let (jobs, received) = mpsc::channel(AUDIT_WAITING_MAX);
        let (running, ended) = std_mpsc::channel();
        std::thread::Builder::new()
            .name("audit".to_owned())
            .spawn(move || {
                writer.run(received);
                drop(running);
            })
            .map_err(AuditError::Thread)?;
        Ok(Self {
            jobs: Some(jobs),
            progress,
            ended: Mutex::new(ended),
        })
    }

    /// Opens the file again by its name, after a log rotation moved it away. The chain goes on in the new file.
    ///
    /// # Errors
    /// The new file cannot be opened, or a write to the old one does not end; the old one stays in use.
    pub async fn reopen(&self) -> Result<(), AuditError> {
        let (done, reopened) = oneshot::channel();
        self.ask(Job::Reopen(done))?;
        self.answer(reopened, Instant::now() + AUDIT_DEADLINE).await
    }

    /// Why lines cannot be written just now, if they cannot. [`FAILING`] after the last try that failed, nothing is known
    /// against the log: a CA that gets no requests because it is not ready would otherwise never be.
    pub fn trouble(&self) -> Option<&'static str> {
        if self.progress.is_stalled() {
            Some("the audit log cannot be written: it takes no lines; is whoever reads it still reading?")
        } else if self.progress.has_failed() {
            Some("the audit log cannot be written")
        } else {
            None
        }
    }

    /// How often the log's file was deleted while it was in use.
    pub fn files_lost(&self) -> Counter {
        self.progress.files_lost.clone()
    }

    /// Writes one line. When this returns, the system has it. One whose caller is gone is written all the same.
    ///
    /// # Errors
    /// It cannot be written, or was not within [`AUDIT_DEADLINE`]. A line that was being written then may be there later.
    pub(crate) async fn record(&self, entry: &Entry<'_>) -> Result<(), AuditError> {
        let line = serde_json::to_vec(entry).map_err(io::Error::from)?;
        // Nobody need wait to be told what is known, and no memory be filled with lines for nobody.
        if self.progress.is_stalled() {
            return Err(AuditError::TooSlow);
        }
        let due = Instant::now() + AUDIT_DEADLINE;
        let (done, written) = oneshot::channel();
        self.ask(Job::Line(Waiting { line, due, done }))?;
        self.answer(written, due).await
    }

    fn ask(&self, job: Job) -> Result<(), AuditError> {
        match self.jobs.as_ref().map(|jobs| jobs.try_send(job)) {
            Some(Ok(())) => Ok(()),
            Some(Err(mpsc::error::TrySendError::Full(_))) => Err(AuditError::TooSlow),
            Some(Err(mpsc::error::TrySendError::Closed(_))) | None => Err(ended()),
        }
    }

    async fn answer(
        &self,
        done: oneshot::Receiver<Result<(), AuditError>>,
        due: Instant,
    ) -> Result<(), AuditError> {
        match tokio::time::timeout_at(due.into(), done).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(ended()),
            Err(_) => {
                self.progress.give_up();
                Err(AuditError::TooSlow)
            }
        }
    }
}

/// The thread is gone.
fn ended() -> AuditError {
    AuditError::Thread(io::ErrorKind::BrokenPipe.into())
}

impl Drop for AuditLog {
    /// What waits is written, unless the log takes nothing: then the process ends without it.
    fn drop(&mut self) {
        self.jobs = None;
        let ended = self.ended.get_mut().unwrap_or_else(PoisonError::into_inner);
        let _ = ended.recv_timeout(FAREWELL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::OpenOptions;
    use std::io::{Read, Write};

    fn entry(reason: &str) -> Entry<'_> {
        Entry {
            decision: "refused",
            reason: Some(reason),
            ..Entry::default()
        }
    }

    async fn write(path: &Path, reasons: &[&str]) {
        let log = AuditLog::file(path).unwrap();
        for reason in reasons {
            log.record(&entry(reason)).await.unwrap();
        }
    }

    #[tokio::test]
    async fn the_chain_goes_on_when_the_process_is_another() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("audit.jsonl");
        write(&path, &["one", "two"]).await;
        write(&path, &["three\n\u{1b}[2J"]).await;
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().count(), 3);
        assert!(
            text.lines()
                .next()
                .unwrap()
                .contains(&format!("\"previous\":\"{}\"", "0".repeat(64)))
        );
        assert!(!text.contains('\u{1b}'));
        assert_eq!(verify(text.as_bytes()).unwrap(), 3);
        for line in text.lines() {
            let value: serde_json::Value = serde_json::from_str(line).unwrap();
            assert_eq!(value["decision"], "refused");
        }
    }

    #[tokio::test]
    async fn a_line_that_was_taken_out_or_changed_is_found() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("audit.jsonl");
        write(&path, &["one", "two", "three"]).await;
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        let broken = |lines: &[&str]| verify(lines.join("\n").as_bytes()).unwrap_err().to_string();
        assert!(broken(&[lines[0], lines[2]]).starts_with("line 2 "));
        assert!(broken(&[lines[0], &lines[1].replace("two", "owt"), lines[2]]).starts_with("line 3 "));
        assert!(broken(&[lines[1], lines[0]]).starts_with("a new chain begins at line 2:"));
        assert!(broken(&[lines[0], "{}", lines[1]]).starts_with("line 2 is not"));
        assert_eq!(verify(lines[1..].join("\n").as_bytes()).unwrap(), 2);
        assert_eq!(verify(&b""[..]).unwrap(), 0);
    }

    #[tokio::test]
    async fn a_full_disk_is_an_error_every_time() {
        let log = AuditLog::file(Path::new("/dev/full")).unwrap();
        for _ in 0..2 {
            let error = log.record(&entry("x")).await.unwrap_err();
            assert!(matches!(error, AuditError::Write(_)), "{error}");
        }
    }

    #[tokio::test]
    async fn a_torn_line_does_not_swallow_the_next() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("audit.jsonl");
        write(&path, &["one"]).await;
        OpenOptions::new()
            .append(true)
            .open(&path)
            .unwrap()
            .write_all(b"{\"time\":\"20")
            .unwrap();
        write(&path, &["two"]).await;
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[1], "{\"time\":\"20");
        assert_eq!(verify([lines[0], lines[2]].join("\n").as_bytes()).unwrap(), 2);
        assert!(
            verify(text.as_bytes())
                .unwrap_err()
                .to_string()
                .starts_with("line 2 is not")
        );
    }

    #[tokio::test]
    async fn a_rotated_log_goes_on_in_the_new_file_and_a_file_has_one_writer() {
        let directory = tempfile::tempdir().unwrap();
        let (path, old) = (
            directory.path().join("audit.jsonl"),
            directory.path().join("audit.jsonl.1"),
        );
        let log = AuditLog::file(&path).unwrap();
        assert!(matches!(AuditLog::file(&path), Err(AuditError::InUse(_))));
        log.record(&entry("one")).await.unwrap();
        log.reopen().await.unwrap();
        std::fs::rename(&path, &old).unwrap();
        log.reopen().await.unwrap();
        log.record(&entry("two")).await.unwrap();
        let both = [std::fs::read(&old).unwrap(), std::fs::read(&path).unwrap()].concat();
        assert_eq!(verify(&both[..]).unwrap(), 2);
    }

    fn text(path: &Path) -> String {
        std::fs::read_to_string(path).unwrap()
    }

    #[tokio::test]
    async fn the_chain_goes_over_a_rotation_and_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let [path, old] = ["audit.jsonl", "audit.jsonl.1"].map(|name| directory.path().join(name));
        write(&path, &["one", "two"]).await;
        std::fs::rename(&path, &old).unwrap();
        write(&path, &["three"]).await;
        assert_eq!(verify((text(&old) + &text(&path)).as_bytes()).unwrap(), 3);
        // The same file by the log's own word, when what is beside it is gone, or older: the CA was killed in between.
        let last = directory.path().join("audit.jsonl.last");
        let before = text(&last);
        write(&path, &["four"]).await;
        std::fs::write(&last, before).unwrap();
        write(&path, &["five"]).await;
        std::fs::remove_file(&last).unwrap();
        write(&path, &["six"]).await;
        assert_eq!(verify((text(&old) + &text(&path)).as_bytes()).unwrap(), 6);
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(last.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[tokio::test]
    async fn a_log_that_was_cut_or_exchanged_while_the_ca_was_stopped_shows_it() {
        let directory = tempfile::tempdir().unwrap();
        let [path, other] = ["audit.jsonl", "other.jsonl"].map(|name| directory.path().join(name));
        write(&path, &["one", "two", "three"]).await;
        write(&other, &["x", "y"]).await;
        let whole = text(&path);
        let cut = whole
            .lines()
            .take(2)
            .fold(String::new(), |text, line| text + line + "\n");
        for (changed, broken) in [(cut, 3), (text(&other), 3)] {
            std::fs::write(&path, &changed).unwrap();
            std::fs::write(directory.path().join("audit.jsonl.last"), last_of(&whole)).unwrap();
            write(&path, &["four"]).await;
            let problem = verify(text(&path).as_bytes()).unwrap_err().to_string();
            assert!(
                problem.starts_with(&format!("line {broken} does not follow")),
                "{problem}"
            );
        }
    }

    fn last_of(log: &str) -> String {
        chain::hash(log.lines().next_back().unwrap().as_bytes()) + "\n"
    }

    #[tokio::test]
    async fn a_deleted_file_is_made_again_and_a_renamed_one_is_gone_on_with() {
        let directory = tempfile::tempdir().unwrap();
        let [path, moved] = ["audit.jsonl", "moved"].map(|name| directory.path().join(name));
        let log = AuditLog::file(&path).unwrap();
        log.record(&entry("one")).await.unwrap();
        std::fs::remove_file(&path).unwrap();
        log.record(&entry("two")).await.unwrap();
        assert!(text(&path).contains("\"two\""), "{}", text(&path));
        assert_eq!(log.files_lost().get(), 1);
        std::fs::rename(&path, &moved).unwrap();
        log.record(&entry("three")).await.unwrap();
        assert!(!path.exists() && text(&moved).contains("\"three\""));
        assert_eq!(log.files_lost().get(), 1);
        // Nowhere to write is an error until there is.
        let inner = directory.path().join("inner");
        std::fs::create_dir(&inner).unwrap();
        let log = AuditLog::file(&inner.join("log")).unwrap();
        std::fs::remove_dir_all(&inner).unwrap();
        assert!(log.record(&entry("lost")).await.is_err());
        assert!(log.trouble().is_some());
        std::fs::create_dir(&inner).unwrap();
        log.record(&entry("back")).await.unwrap();
        assert!(log.trouble().is_none());
        assert_eq!(verify(text(&inner.join("log")).as_bytes()).unwrap(), 1);
    }

    #[tokio::test]
    async fn a_reader_that_stops_costs_a_deadline_and_the_log_goes_on_when_it_reads_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pipe");
        rustix::fs::mkfifoat(
            rustix::fs::CWD,
            &path,
            rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
        )
        .unwrap();
        let mut reader = OpenOptions::new().read(true).write(true).open(&path).unwrap();
        let log = AuditLog::file(&path).unwrap();
        let long = "x".repeat(8 * 1024);
        let mut written = 0;
        let error = loop {
            match log.record(&entry(&long)).await {
                Ok(()) => written += 1,
                Err(error) => break error,
            }
        };
        assert!(matches!(error, AuditError::TooSlow), "{error}");
        assert!(written < 100, "a pipe holds 64 KiB");
        assert!(
            log.trouble()
                .is_some_and(|trouble| trouble.contains("still reading"))
        );
        let asked = Instant::now();
        assert!(log.record(&entry("at once")).await.is_err());
        assert!(asked.elapsed() < AUDIT_DEADLINE, "nobody waits for what is known");
        let reading = std::thread::spawn(move || {
            let mut bytes = Vec::new();
            let mut piece = [0; 4096];
            while !bytes.ends_with(b"\"}\n") || !bytes.windows(6).any(|at| at == b"\"back\"") {
                let read = reader.read(&mut piece).unwrap();
                bytes.extend_from_slice(&piece[..read]);
            }
            bytes
        });
        while log.record(&entry("back")).await.is_err() {}
        assert!(log.trouble().is_none());
        let lines = reading.join().unwrap();
        // The line that was being written meanwhile is there, without a certificate.
        assert_eq!(verify(&lines[..]).unwrap(), written + 2);
    }

    #[tokio::test]
    async fn lines_that_come_together_are_chained_in_one_order() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("audit.jsonl");
        let log = Arc::new(AuditLog::file(&path).unwrap());
        let many: Vec<_> = (0..500)
            .map(|number| {
                let log = Arc::clone(&log);
                tokio::spawn(async move { log.record(&entry(&number.to_string())).await })
            })
            .collect();
        for one in many {
            one.await.unwrap().unwrap();
        }
        assert_eq!(verify(text(&path).as_bytes()).unwrap(), 500);
    }
}
