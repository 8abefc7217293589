//! Audit lines to the system's log: a datagram each, in the form that the C library uses (RFC 3164 without a host).

use rustix::net::SocketAddrUnix;
use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Facility `authpriv`, severity `info`.
const PRIORITY: u8 = 10 * 8 + 6;
/// How long the log may take for a line; certificates wait for it.
const PATIENCE: Duration = Duration::from_millis(500);

/// A connection to the system's log.
#[derive(Debug)]
pub(super) struct Syslog {
    path: PathBuf,
    socket: Option<UnixDatagram>,
}

impl Syslog {
    /// Connects to the log's socket.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        // For the error's sake: a path that is too long says so here.
        SocketAddrUnix::new(path)?;
        Ok(Self {
            path: path.to_owned(),
            socket: Some(connect(path)?),
        })
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Connects anew at the next line.
    pub(super) fn reopen(&mut self) {
        self.socket = None;
    }

    /// Sends a line, which has no line end. A log that was restarted is found again.
    pub(super) fn send(&mut self, line: &[u8]) -> io::Result<()> {
        // In Greenwich: the log has its own clock, and the line its own time.
        let time = jiff::Timestamp::now().strftime("%b %e %H:%M:%S").to_string();
        let head = format!("<{PRIORITY}>{time} epithet[{}]: ", std::process::id());
        let message = [head.as_bytes(), line].concat();
        let kept = self.socket.take();
        if let Some(socket) = kept.filter(|socket| socket.send(&message).is_ok()) {
            self.socket = Some(socket);
            return Ok(());
        }
        let socket = connect(&self.path)?;
        socket.send(&message)?;
        self.socket = Some(socket);
        Ok(())
    }
}

fn connect(path: &Path) -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    socket.connect(path)?;
    socket.set_write_timeout(Some(PATIENCE))?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_a_datagram_and_a_restarted_log_gets_the_next() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        assert!(Syslog::open(&path).is_err());
        let receive = |log: &UnixDatagram| {
            let mut bytes = [0; 256];
            let length = log.recv(&mut bytes).unwrap();
            String::from_utf8_lossy(&bytes[..length]).into_owned()
        };
        let log = UnixDatagram::bind(&path).unwrap();
        let mut syslog = Syslog::open(&path).unwrap();
        syslog.send(b"{\"a\":1}").unwrap();
        let line = receive(&log);
        assert!(
            line.starts_with("<86>") && line.ends_with("]: {\"a\":1}"),
            "{line}"
        );
        assert!(
            line.contains(&format!(" epithet[{}]: ", std::process::id())),
            "{line}"
        );
        drop(log);
        std::fs::remove_file(&path).unwrap();
        assert!(syslog.send(b"lost").is_err());
        let log = UnixDatagram::bind(&path).unwrap();
        syslog.send(b"back").unwrap();
        assert!(receive(&log).ends_with("back"));
    }

    #[test]
    fn a_log_that_does_not_read_costs_a_moment_and_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let _log = UnixDatagram::bind(&path).unwrap();
        let mut syslog = Syslog::open(&path).unwrap();
        let failed = (0..10_000).find_map(|_| syslog.send(&[b'x'; 4096]).err());
        assert!(failed.is_some(), "the queue is bounded");
    }
}
