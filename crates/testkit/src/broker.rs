//! A running `epithet agent`.

use crate::daemon::{Daemon, NotReady};
use crate::home::Home;
use crate::log::Log;
use crate::wait::DEADLINE;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

/// What `epithet agent` says on stderr once its socket listens.
const READY: &str = "ready: broker socket ";

/// A broker process. It ends with SIGTERM when dropped.
#[derive(Debug)]
pub struct Broker {
    daemon: Daemon,
    socket: PathBuf,
}

impl Broker {
    /// Runs `PROGRAM agent ARGUMENTS` in `home` and returns once its socket listens.
    ///
    /// # Panics
    /// When it does not get there; the message has what it said.
    pub fn start<A: AsRef<OsStr>>(
        program: &Path,
        home: &Home,
        arguments: impl IntoIterator<Item = A>,
    ) -> Self {
        let mut command = home.command(program);
        command.arg("agent").args(arguments);
        Self::try_start(command).unwrap_or_else(|error| panic!("the broker did not start: {error}"))
    }

    /// Runs a command that is, or becomes, a broker: for more environment, and for starts that are meant to fail.
    ///
    /// # Errors
    /// How it ended and what it said, when it did not become ready.
    pub fn try_start(command: Command) -> Result<Self, NotReady> {
        let mut daemon = Daemon::start("the broker", command, None);
        let stderr = daemon.stderr().clone();
        let socket = daemon.wait_ready(&stderr, READY, DEADLINE)?;
        Ok(Self {
            daemon,
            socket: PathBuf::from(socket),
        })
    }

    /// The socket that `epithet match` asks.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// The run directory, with `ssh-config.conf` and the agents' sockets.
    pub fn run_dir(&self) -> &Path {
        self.socket.parent().unwrap_or(Path::new("/"))
    }

    /// What it says on stderr.
    pub fn log(&self) -> &Log {
        self.daemon.stderr()
    }

    /// Waits for a line of its log that contains `text`, and returns it.
    ///
    /// # Panics
    /// When no such line comes; the message has the whole log.
    pub fn wait_for_log(&self, text: &str) -> String {
        self.daemon.expect_line(text, DEADLINE)
    }

    /// As [`wait_for_log`](Self::wait_for_log), for what is logged after `position` (see [`Log::position`]).
    ///
    /// # Panics
    /// When no such line comes; the message has the whole log.
    pub fn wait_for_log_after(&self, position: usize, text: &str) -> String {
        self.daemon.expect_line_after(position, text, DEADLINE)
    }

    /// The process, for signals, its status and its memory.
    pub fn daemon(&mut self) -> &mut Daemon {
        &mut self.daemon
    }

    /// Ends it with SIGTERM and returns its status; after `patience` it is killed.
    pub fn stop(mut self, patience: Duration) -> Option<ExitStatus> {
        self.daemon.terminate(patience)
    }

    /// Ends it with SIGKILL, as a crash does: its sockets and files stay behind.
    pub fn kill(mut self) -> Option<ExitStatus> {
        self.daemon.kill()
    }
}
