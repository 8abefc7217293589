//! The audit log in a file: found again when it was deleted, gone on with when it was rotated.

use super::AuditError;
use super::chain::{Link, hash, link_of, zeros};
use super::last::LastLink;
use rustix::fs::FlockOperation;
use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Far longer than any line: fields are limited where they come in.
const LINE_MAX: u64 = 1024 * 1024;

/// What went wrong while bytes were written, and how many of them are there all the same.
pub(super) type Partly = (io::Error, usize);

/// The open file, and the link of its last line beside it.
#[derive(Debug)]
pub(super) struct LogFile {
    path: PathBuf,
    file: File,
    last: Option<LastLink>,
}

/// Where a log that is opened goes on.
pub(super) struct Resumed {
    pub(super) file: LogFile,
    pub(super) previous: Link,
    /// It ends in the middle of a line.
    pub(super) torn: bool,
}

impl LogFile {
    /// Opens a log, which is made when it is missing, and finds where its chain goes on.
    pub(super) fn resume(path: &Path) -> Result<Resumed, AuditError> {
        let mut file = open(path)?;
        let failed = |source| AuditError::Open {
            path: path.to_owned(),
            source,
        };
        let tail = tail(&mut file).map_err(failed)?;
        let (last, kept) = last_link(path, &file);
        let previous = go_on(path, &tail, kept);
        if let Some(last) = &last {
            // From now on the two agree, whatever they said before.
            let _ = last.keep(&previous);
        }
        let torn = tail.last().is_some_and(|byte| *byte != b'\n');
        let path = path.to_owned();
        Ok(Resumed {
            file: Self { path, file, last },
            previous,
            torn,
        })
    }

    /// Opens the file that has the name now, unless it is this one. Says whether it did.
    pub(super) fn reopen(&mut self) -> Result<bool, AuditError> {
        // Opening the same file twice would meet our own lock.
        if is_same(&self.file, &self.path) {
            return Ok(false);
        }
        self.file = open(&self.path)?;
        (self.last, _) = last_link(&self.path, &self.file);
        Ok(true)
    }

    /// Writes all of it at the end. A file that has no name any more is nobody's: then it goes to the file that has the name
    /// now, which is made when there is none. `lost` is told.
    pub(super) fn append(&mut self, bytes: &[u8], lost: &dyn Fn()) -> Result<(), Partly> {
        self.put(bytes)?;
        if !is_deleted(&self.file) {
            return Ok(());
        }
        lost();
        let path = self.path.display();
        tracing::error!(
            %path,
            "the audit log's file was deleted, and with it every line that was not copied; the log goes on in a new file"
        );
        match self.reopen() {
            Ok(_) => self.put(bytes.strip_prefix(b"\n").unwrap_or(bytes)),
            Err(error) => Err((io::Error::other(error.to_string()), 0)),
        }
    }

    /// Notes the link of the last line beside the log.
    pub(super) fn keep(&mut self, previous: &Link) {
        let Some(Err(error)) = self.last.as_ref().map(|last| last.keep(previous)) else {
            return;
        };
        self.last = None;
        let path = LastLink::path(&self.path);
        // One that names an old line would say of the next log that lines were taken from its end.
        let _ = std::fs::remove_file(&path);
        tracing::warn!(path = %path.display(), %error, "{NO_LAST}");
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), Partly> {
        write_whole(&mut self.file, bytes)
            .map_err(|(error, written)| (error, left_behind(&self.file, written)))
    }
}

const NO_LAST: &str = "the last line's hash cannot be kept beside the audit log; if the log is rotated while the CA is stopped, a new chain \
    begins";

/// Opens the file with the last link, and reads it. What is no file, a pipe or a terminal, has none.
fn last_link(path: &Path, file: &File) -> (Option<LastLink>, Option<Link>) {
    if !file.metadata().is_ok_and(|metadata| metadata.is_file()) {
        return (None, None);
    }
    match LastLink::open(path) {
        Ok((last, kept)) => (Some(last), kept),
        Err(error) => {
            tracing::warn!(path = %LastLink::path(path).display(), %error, "{NO_LAST}");
            (None, None)
        }
    }
}

/// The link that the next line carries: that of the last line, by what the log and the file beside it say.
fn go_on(path: &Path, tail: &[u8], kept: Option<Link>) -> Link {
    let mut links = links(tail);
    let Some(newest) = links.next_back() else {
        return kept.unwrap_or_else(zeros);
    };
    match kept {
        // The second is a CA that was killed between writing to the one and to the other.
        None => newest,
        Some(kept) if kept == newest || links.any(|link| link == kept) => newest,
        Some(kept) => {
            tracing::error!(
                path = %path.display(),
                missing = kept,
                "the audit log does not hold the line that was written last: its end was taken away, or it is another file; the chain goes on \
                from that line, and `epithet audit verify` shows the place"
            );
            kept
        }
    }
}

/// The hashes of whole lines, the oldest first.
fn links(tail: &[u8]) -> impl DoubleEndedIterator<Item = Link> {
    let whole = tail
        .iter()
        .rposition(|byte| *byte == b'\n')
        .map_or(&[][..], |end| &tail[..end]);
    whole
        .split(|byte| *byte == b'\n')
        .filter(|line| link_of(line).is_some())
        .map(hash)
}

/// The end of a file; nothing of what is none.
fn tail(file: &mut File) -> io::Result<Vec<u8>> {
    let mut tail = Vec::new();
    if file.metadata()?.is_file() {
        let end = file.seek(SeekFrom::End(0))?;
        file.seek(SeekFrom::Start(end.saturating_sub(LINE_MAX)))?;
        file.take(LINE_MAX).read_to_end(&mut tail)?;
    }
    Ok(tail)
}

/// Writes all of it, or says how much was.
pub(super) fn write_whole(output: &mut impl Write, mut bytes: &[u8]) -> Result<(), Partly> {
    let whole = bytes.len();
    while !bytes.is_empty() {
        match output.write(bytes) {
            Ok(0) => return Err((io::ErrorKind::WriteZero.into(), whole - bytes.len())),
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err((error, whole - bytes.len())),
        }
    }
    Ok(())
}

/// Removes what went into a file before its disk was full, and returns how much of it is still there. Nobody else writes to
/// the file.
fn left_behind(file: &File, written: usize) -> usize {
    let taken_back = || {
        let metadata = file.metadata().ok().filter(Metadata::is_file)?;
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
    let identity = |metadata: &Metadata| (metadata.dev(), metadata.ino());
    match (file.metadata(), std::fs::metadata(path)) {
        (Ok(open), Ok(there)) => identity(&open) == identity(&there),
        _ => false,
    }
}

fn is_deleted(file: &File) -> bool {
    file.metadata()
        .is_ok_and(|metadata| metadata.is_file() && metadata.nlink() == 0)
}
