//! The audit log: one JSON line for every decision, written before the answer leaves.
//!
//! A certificate that is in nobody's log is a certificate that nobody can look for. So a certificate leaves only
//! after its line was written, and none leaves while lines cannot be.
//!
//! Every line ends with `"previous":"<SHA-256 of the line before it>"`, so that a line taken out or changed later is
//! found by [`verify`] (the last line excepted: keep its hash elsewhere to protect it too). The first line of all
//! carries 64 zeros.

mod chain;
mod syslog;

pub use chain::{BrokenChain, ChainCheck, verify};

use chain::{Link, hash, link_of, zeros};
use epithet_wire::policy::{Grounds, LoginFacts};
use rustix::fs::FlockOperation;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use syslog::Syslog;

/// Far longer than any line: fields are limited where they come in.
const LINE_MAX: u64 = 1024 * 1024;

/// How long a failed write counts.
pub const FAILING: Duration = Duration::from_secs(10);

/// Where the lines go.
#[derive(Debug)]
pub struct AuditLog(Mutex<Log>);

#[derive(Debug)]
struct Log {
    output: Output,
    previous: Link,
    /// The last write stopped in the middle of a line.
    torn: bool,
    /// When a line last could not be written; none since one could.
    failed: Option<Instant>,
}

#[derive(Debug)]
enum Output {
    Stdout,
    Stderr,
    File { path: PathBuf, file: File },
    Syslog(Syslog),
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
    Write(#[from] io::Error),
}

/// What a line says. Fields that do not apply are left out.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Entry<'a> {
    /// RFC 3339, UTC.
    pub(crate) time: String,
    pub(crate) request_id: &'a str,
    /// `issued` or `refused`.
    pub(crate) decision: &'static str,
    /// The HTTP status of the answer.
    pub(crate) status: u16,
    /// Why it was refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<&'a str>,
    /// The client's address as the socket says.
    pub(crate) client: String,
    pub(crate) host: &'a str,
    pub(crate) user: &'a str,
    pub(crate) port: u32,
    #[serde(skip_serializing_if = "str::is_empty")]
    pub(crate) jump: &'a str,
    /// The fingerprint of the key to be certified.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) key: Option<String>,
    /// The fingerprint of the CA key.
    pub(crate) ca: &'a str,
    #[serde(flatten)]
    pub(crate) grounds: Option<GroundsEntry<'a>>,
    #[serde(flatten)]
    pub(crate) certificate: Option<CertificateEntry<'a>>,
}

/// What a line says about the person, as far as policy told.
#[derive(Debug, Serialize)]
pub(crate) struct GroundsEntry<'a> {
    /// Who policy says it is; the key id begins with it.
    identity: &'a str,
    /// Those of their groups that the rules know.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    groups: &'a [String],
    /// How many more of these there are than fit.
    #[serde(skip_serializing_if = "Option::is_none")]
    groups_left_out: Option<u32>,
    /// How they logged in; left out when that is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    login: Option<&'a LoginFacts>,
    /// The rule that allowed or refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<&'a str>,
}

impl<'a> GroundsEntry<'a> {
    pub(crate) fn of(grounds: &'a Grounds) -> Self {
        Self {
            identity: &grounds.identity,
            groups: &grounds.groups,
            groups_left_out: Some(grounds.groups_left_out).filter(|number| *number > 0),
            login: grounds.login.as_ref(),
            rule: grounds.rule.as_deref(),
        }
    }
}

/// What a line says about a certificate.
#[derive(Debug, Serialize)]
pub(crate) struct CertificateEntry<'a> {
    /// As text: few programs read a number of 64 bits exactly.
    pub(crate) serial: String,
    pub(crate) key_id: &'a str,
    pub(crate) principals: Vec<&'a str>,
    pub(crate) valid_after: String,
    pub(crate) valid_before: String,
    /// The life that policy asked for, in seconds; the token's end and the CA's own limit may have cut it.
    pub(crate) ttl: u64,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) critical_options: BTreeMap<&'a str, &'a str>,
    pub(crate) extensions: BTreeMap<&'a str, &'a str>,
    /// The fingerprint of the whole certificate.
    pub(crate) certificate: String,
}

impl AuditLog {
    /// Lines on standard output.
    pub fn stdout() -> Self {
        Self::new(Output::Stdout, zeros())
    }

    /// Lines on standard error.
    pub fn stderr() -> Self {
        Self::new(Output::Stderr, zeros())
    }

    /// Lines at the end of a file, which is created with mode 0600 if need be. The chain goes on from its last line.
    ///
    /// # Errors
    /// The file cannot be opened, or another process writes to it.
    pub fn file(path: &Path) -> Result<Self, AuditError> {
        let mut file = open(path)?;
        let previous = last_link(&mut file).map_err(|source| AuditError::Open {
            path: path.to_owned(),
            source,
        })?;
        let torn = !ends_with_line_end(&mut file)?;
        let log = Self::new(
            Output::File {
                path: path.to_owned(),
                file,
            },
            previous.unwrap_or_else(zeros),
        );
        log.0.lock().unwrap_or_else(PoisonError::into_inner).torn = torn;
        Ok(log)
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
        Ok(Self::new(Output::Syslog(syslog), zeros()))
    }

    fn new(output: Output, previous: Link) -> Self {
        Self(Mutex::new(Log {
            output,
            previous,
            torn: false,
            failed: None,
        }))
    }

    /// Opens the file again by its name, after a log rotation moved it away. The chain goes on in the new file.
    ///
    /// # Errors
    /// The new file cannot be opened; the old one stays in use.
    pub fn reopen(&self) -> Result<(), AuditError> {
        let mut log = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Output::Syslog(syslog) = &mut log.output {
            syslog.reopen();
        }
        if let Output::File { path, file } = &mut log.output {
            // Opening the same file twice would meet our own lock.
            if is_same(file, path) {
                return Ok(());
            }
            *file = open(path)?;
            log.torn = false;
        }
        Ok(())
    }

    /// Whether a line could not be written just now. After [`FAILING`] without another try the answer is no again:
    /// a CA that gets no requests because it is not ready would otherwise never be.
    pub fn is_failing(&self) -> bool {
        let log = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        log.failed.is_some_and(|at| at.elapsed() < FAILING)
    }

    /// Writes one line. When this returns, the system has it.
    pub(crate) fn record(&self, entry: &Entry<'_>) -> Result<(), AuditError> {
        let mut line = serde_json::to_vec(entry).map_err(io::Error::from)?;
        let mut log = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let written = log.write(&mut line);
        log.failed = written.is_err().then(Instant::now);
        written
    }
}

impl Log {
    fn write(&mut self, line: &mut Vec<u8>) -> Result<(), AuditError> {
        // The line is a JSON object; its closing brace makes room for the link.
        line.pop();
        write!(line, ",\"previous\":\"{}\"}}", self.previous)?;
        let link = hash(line);
        line.push(b'\n');
        if self.torn {
            line.insert(0, b'\n');
        }
        let written = match &mut self.output {
            Output::Stdout => write_whole(&mut io::stdout().lock(), line),
            Output::Stderr => write_whole(&mut io::stderr().lock(), line),
            Output::Syslog(syslog) => syslog
                .send(line.trim_ascii())
                // A datagram goes whole or not at all.
                .map_err(|error| (error, 0)),
            Output::File { file, .. } => {
                write_whole(file, line).map_err(|(error, written)| (error, left_behind(file, written)))
            }
        };
        self.torn = match &written {
            Ok(()) => false,
            Err((_, written)) => self.torn || *written > 0,
        };
        written.map_err(|(error, _)| error)?;
        self.previous = link;
        Ok(())
    }
}

/// Writes all of it, or says how much was.
fn write_whole(output: &mut impl Write, mut bytes: &[u8]) -> Result<(), (io::Error, usize)> {
    let whole = bytes.len();
    while !bytes.is_empty() {
        match output.write(bytes) {
            Ok(0) => return Err((io::ErrorKind::WriteZero.into(), whole - bytes.len())),
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err((error, whole - bytes.len())),
        }
    }
    output.flush().map_err(|error| (error, whole))
}

/// Removes the part of a line that went into a file before its disk was full, and returns how much of it is still
/// there. Nobody else writes to the file.
fn left_behind(file: &File, written: usize) -> usize {
    let taken_back = || {
        let metadata = file.metadata().ok().filter(std::fs::Metadata::is_file)?;
        file.set_len(metadata.len().saturating_sub(written as u64)).ok()
    };
    match written {
        0 => 0,
        _ if taken_back().is_some() => 0,
        written => written,
    }
}

fn open(path: &Path) -> Result<File, AuditError> {
    let failed = |source: io::Error| AuditError::Open {
        path: path.to_owned(),
        source,
    };
    let mut options = OpenOptions::new();
    options.append(true).create(true).mode(0o600);
    // Reading is for going on with the chain; what cannot be read (a terminal, a pipe) has none.
    let file = options
        .clone()
        .read(true)
        .open(path)
        .or_else(|_| options.open(path))
        .map_err(failed)?;
    if file.metadata().map_err(failed)?.is_file() {
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(AuditError::InUse(path.to_owned())),
            Err(error) => return Err(failed(error.into())),
        }
    }
    Ok(file)
}

fn is_same(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let identity = |metadata: &std::fs::Metadata| (metadata.dev(), metadata.ino());
    match (file.metadata(), std::fs::metadata(path)) {
        (Ok(open), Ok(there)) => identity(&open) == identity(&there),
        _ => false,
    }
}

/// The hash of the last whole line, from which the chain goes on.
fn last_link(file: &mut File) -> io::Result<Option<Link>> {
    if !file.metadata()?.is_file() {
        return Ok(None);
    }
    let end = file.seek(SeekFrom::End(0))?;
    file.seek(SeekFrom::Start(end.saturating_sub(LINE_MAX)))?;
    let mut tail = Vec::new();
    file.take(LINE_MAX).read_to_end(&mut tail)?;
    let whole = tail
        .iter()
        .rposition(|byte| *byte == b'\n')
        .map_or(&[][..], |end| &tail[..end]);
    Ok(whole
        .split(|byte| *byte == b'\n')
        .rfind(|line| !line.is_empty() && link_of(line).is_some())
        .map(hash))
}

fn ends_with_line_end(file: &mut File) -> Result<bool, AuditError> {
    if !file.metadata()?.is_file() || file.seek(SeekFrom::End(0))? == 0 {
        return Ok(true);
    }
    let mut last = [0];
    file.seek(SeekFrom::End(-1))?;
    file.read_exact(&mut last)?;
    Ok(last == *b"\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(reason: &str) -> Entry<'_> {
        Entry {
            decision: "refused",
            reason: Some(reason),
            ..Entry::default()
        }
    }

    fn write(path: &Path, reasons: &[&str]) {
        let log = AuditLog::file(path).unwrap();
        for reason in reasons {
            log.record(&entry(reason)).unwrap();
        }
    }

    #[test]
    fn the_chain_goes_on_when_the_process_is_another() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("audit.jsonl");
        write(&path, &["one", "two"]);
        write(&path, &["three\n\u{1b}[2J"]);
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

    #[test]
    fn a_line_that_was_taken_out_or_changed_is_found() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("audit.jsonl");
        write(&path, &["one", "two", "three"]);
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        let broken = |lines: &[&str]| verify(lines.join("\n").as_bytes()).unwrap_err().to_string();
        assert!(broken(&[lines[0], lines[2]]).starts_with("line 2 "));
        assert!(broken(&[lines[0], &lines[1].replace("two", "owt"), lines[2]]).starts_with("line 3 "));
        assert!(broken(&[lines[1], lines[0]]).starts_with("line 2 "));
        assert!(broken(&[lines[0], "{}", lines[1]]).starts_with("line 2 is not"));
        assert_eq!(verify(lines[1..].join("\n").as_bytes()).unwrap(), 2);
        assert_eq!(verify(&b""[..]).unwrap(), 0);
    }

    #[test]
    fn a_full_disk_is_an_error_every_time() {
        let log = AuditLog::file(Path::new("/dev/full")).unwrap();
        for _ in 0..2 {
            let error = log.record(&entry("x")).unwrap_err();
            assert!(matches!(error, AuditError::Write(_)), "{error}");
        }
    }

    #[test]
    fn a_torn_line_does_not_swallow_the_next() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("audit.jsonl");
        write(&path, &["one"]);
        OpenOptions::new()
            .append(true)
            .open(&path)
            .unwrap()
            .write_all(b"{\"time\":\"20")
            .unwrap();
        write(&path, &["two"]);
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

    #[test]
    fn a_rotated_log_goes_on_in_the_new_file_and_a_file_has_one_writer() {
        let directory = tempfile::tempdir().unwrap();
        let (path, old) = (
            directory.path().join("audit.jsonl"),
            directory.path().join("audit.jsonl.1"),
        );
        let log = AuditLog::file(&path).unwrap();
        assert!(matches!(AuditLog::file(&path), Err(AuditError::InUse(_))));
        log.record(&entry("one")).unwrap();
        log.reopen().unwrap();
        std::fs::rename(&path, &old).unwrap();
        log.reopen().unwrap();
        log.record(&entry("two")).unwrap();
        let both = [std::fs::read(&old).unwrap(), std::fs::read(&path).unwrap()].concat();
        assert_eq!(verify(&both[..]).unwrap(), 2);
    }
}
