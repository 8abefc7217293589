//! The lock of a profile: one broker holds it for as long as it lives, and writes down who it is and where it can be asked.
//!
//! What is written there counts only while the lock is held; so a process id in it is never that of a stranger.

use crate::file_id::FileId;
use crate::run_dir::RunDirError;
use epithet_wire::ProfileName;
use epithet_wire::limits::SOCKET_PATH_MAX;
use rustix::fs::{FlockOperation, Mode, OFlags};
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// The file's name in the run directory.
const NAME: &str = "lock";
/// A process id, a line's end, a socket's path and another line's end.
const TEXT_MAX: usize = 10 + 1 + SOCKET_PATH_MAX + 1;

/// The lock, held.
#[derive(Debug)]
pub(crate) struct Lock {
    file: File,
    path: PathBuf,
}

/// Whose the lock of a run directory is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    /// This process's.
    Us,
    /// Nobody's: the file is not there.
    Nobody,
    /// There is another file by now.
    Other,
}

impl Lock {
    /// Takes the lock, and makes sure that the file it was taken on is still the one in the directory.
    pub(crate) fn take(dir: &Path, profile: &ProfileName) -> Result<Self, RunDirError> {
        let path = dir.join(NAME);
        let io_error = |error: io::Error| RunDirError::Io {
            path: path.clone(),
            error,
        };
        loop {
            let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let file = File::from(
                rustix::fs::open(&path, flags, Mode::RUSR | Mode::WUSR)
                    .map_err(|error| io_error(error.into()))?,
            );
            match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(rustix::io::Errno::WOULDBLOCK) => return Err(RunDirError::Running(profile.clone())),
                Err(error) => return Err(io_error(error.into())),
            }
            // Else its last owner removed it between our open and our lock: begin again.
            if FileId::at(&path) == Some(FileId::of(&file).map_err(io_error)?) {
                return Ok(Self { file, path });
            }
        }
    }

    /// Writes down who holds it: this process, which listens at `socket`.
    pub(crate) fn sign(&self, socket: &Path) -> Result<(), RunDirError> {
        let mut text = format!("{}\n", std::process::id()).into_bytes();
        text.extend_from_slice(socket.as_os_str().as_bytes());
        text.push(b'\n');
        let sign = || {
            self.file.set_len(0)?;
            self.file.write_all_at(&text, 0)
        };
        sign().map_err(|error| RunDirError::Io {
            path: self.path.clone(),
            error,
        })
    }

    /// Whose the lock in the directory is now: others can remove the file, and make another one.
    pub(crate) fn owner(&self) -> Owner {
        match (FileId::at(&self.path), FileId::of(&self.file)) {
            (None, _) => Owner::Nobody,
            (Some(there), Ok(ours)) if there == ours => Owner::Us,
            _ => Owner::Other,
        }
    }

    /// Removes the file, if it is still this one, and lets go of the lock.
    pub(crate) fn release(&self) {
        if self.owner() == Owner::Us {
            let _ = std::fs::remove_file(&self.path);
        }
        let _ = rustix::fs::flock(self.file.as_fd(), FlockOperation::Unlock);
    }
}

/// The broker that holds a profile's lock, as it wrote itself down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// Its process.
    pub process: u32,
    /// Where it listens.
    pub socket: PathBuf,
}

/// What can be said of a lock without taking it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    /// Nobody holds it.
    Free,
    /// Somebody does, and has not written who (yet).
    Held(Option<Holder>),
}

/// Looks at the lock of a run directory.
pub(crate) fn look(dir: &Path) -> Seen {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let Ok(lock) = rustix::fs::open(dir.join(NAME), flags, Mode::empty()) else {
        return Seen::Free;
    };
    // Held for a moment only; a broker that starts in this very moment would have to be started again.
    match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockShared) {
        Err(rustix::io::Errno::WOULDBLOCK) => {}
        _ => return Seen::Free,
    }
    let mut text = Vec::new();
    let limit = u64::try_from(TEXT_MAX + 1).unwrap_or(u64::MAX);
    let read = File::from(lock).take(limit).read_to_end(&mut text);
    Seen::Held(read.ok().and_then(|_| Holder::parse(&text)))
}

impl Holder {
    fn parse(text: &[u8]) -> Option<Self> {
        let mut lines = text.strip_suffix(b"\n")?.splitn(2, |byte| *byte == b'\n');
        let process = std::str::from_utf8(lines.next()?).ok()?.parse().ok()?;
        let socket = PathBuf::from(OsStr::from_bytes(lines.next()?));
        (process > 1 && socket.is_absolute() && text.len() <= TEXT_MAX).then_some(Self { process, socket })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_holder_is_read_only_while_it_holds_the_lock() {
        let dir = tempfile::tempdir().unwrap();
        let profile = ProfileName::default();
        assert_eq!(look(dir.path()), Seen::Free);
        let lock = Lock::take(dir.path(), &profile).unwrap();
        assert_eq!(look(dir.path()), Seen::Held(None));
        lock.sign(Path::new("/run/user/1/epithet/default/broker.sock"))
            .unwrap();
        lock.sign(Path::new("/run/b.sock")).unwrap();
        let holder = Holder {
            process: std::process::id(),
            socket: "/run/b.sock".into(),
        };
        assert_eq!(look(dir.path()), Seen::Held(Some(holder)));
        assert!(matches!(
            Lock::take(dir.path(), &profile),
            Err(RunDirError::Running(_))
        ));
        drop(lock);
        assert!(dir.path().join("lock").exists(), "a killed one leaves it");
        assert_eq!(look(dir.path()), Seen::Free);
    }

    #[test]
    fn a_lock_that_another_one_took_the_place_of_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let profile = ProfileName::default();
        let first = Lock::take(dir.path(), &profile).unwrap();
        assert_eq!(first.owner(), Owner::Us);
        std::fs::remove_file(dir.path().join("lock")).unwrap();
        assert_eq!(first.owner(), Owner::Nobody);
        let second = Lock::take(dir.path(), &profile).unwrap();
        assert_eq!((first.owner(), second.owner()), (Owner::Other, Owner::Us));
        first.release();
        assert_eq!(second.owner(), Owner::Us);
        second.release();
        assert!(!dir.path().join("lock").exists());
    }

    #[test]
    fn what_no_broker_wrote_names_nobody() {
        for text in [
            "",
            "12",
            "12\n",
            "x\n/s\n",
            "1\n/s\n",
            "0\n/s\n",
            "-5\n/s\n",
            "12\nrelative\n",
            "12\n/s",
        ] {
            assert_eq!(Holder::parse(text.as_bytes()), None, "{text:?}");
        }
        let longest = |length: usize| format!("4294967295\n/{}\n", "s".repeat(length - 1));
        assert!(Holder::parse(longest(SOCKET_PATH_MAX).as_bytes()).is_some());
        assert!(Holder::parse(longest(SOCKET_PATH_MAX + 1).as_bytes()).is_none());
    }
}
