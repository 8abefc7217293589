//! The terminal of the person who waits, for the one line that they may paste.

use crate::paste::LINE_MAX;
use rustix::fs::{Mode, OFlags};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// A terminal that is asked for lines and never waited for.
///
/// It is opened anew, so that not waiting is this program's own affair and not that of the shell that shares it.
#[derive(Debug)]
pub(crate) struct Terminal {
    file: OwnedFd,
    line: Vec<u8>,
}

/// What was typed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Typed {
    /// Whole lines, without their ends; possibly none yet.
    Lines(Vec<String>),
    /// Nothing more will come.
    End,
}

impl Terminal {
    /// The terminal that this process belongs to, if there is one.
    pub(crate) fn open() -> Option<Self> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = if cfg!(target_os = "macos") {
            // `poll` does not work on /dev/tty there, but on the terminal by its own name.
            let name = rustix::termios::ttyname(std::io::stderr(), Vec::new()).ok()?;
            rustix::fs::open(name, flags, Mode::empty())
        } else {
            rustix::fs::open("/dev/tty", flags, Mode::empty())
        };
        Some(Self {
            file: file.ok()?,
            line: Vec::new(),
        })
    }

    /// Whether this process may read: a background job that does so is stopped.
    pub(crate) fn is_ours_to_read(&self) -> bool {
        rustix::termios::tcgetpgrp(&self.file).is_ok_and(|group| group == rustix::process::getpgrp())
    }

    /// Takes what was typed up to now.
    pub(crate) fn read(&mut self) -> Typed {
        let mut buffer = [0; 1 + LINE_MAX];
        match rustix::io::read(&self.file, &mut buffer) {
            Ok(0) => Typed::End,
            Ok(count) => Typed::Lines(self.take(&buffer[..count])),
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => Typed::Lines(Vec::new()),
            Err(_) => Typed::End,
        }
    }

    fn take(&mut self, bytes: &[u8]) -> Vec<String> {
        let mut lines = Vec::new();
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            // Of a line that is too long, enough is kept to see that.
            let room = (LINE_MAX + 1).saturating_sub(self.line.len());
            self.line.extend_from_slice(&piece[..piece.len().min(room)]);
            if piece.ends_with(b"\n") {
                let line = std::mem::take(&mut self.line);
                lines.push(String::from_utf8_lossy(&line).trim_end().to_owned());
            }
        }
        lines
    }
}

impl AsFd for Terminal {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_whole_whatever_the_pieces() {
        let (reader, _writer) = std::io::pipe().unwrap();
        let mut terminal = Terminal {
            file: reader.into(),
            line: Vec::new(),
        };
        assert!(terminal.take(b"http://").is_empty());
        assert_eq!(terminal.take(b"x\r\n\nsecond\nthi"), ["http://x", "", "second"]);
        assert_eq!(terminal.take(b"rd\n"), ["third"]);
        assert!(terminal.take(&[b'x'; 100_000]).is_empty());
        assert!(terminal.line.len() <= LINE_MAX + 1);
        assert!(terminal.take(b"\n").is_empty() || terminal.line.is_empty());
    }
}
