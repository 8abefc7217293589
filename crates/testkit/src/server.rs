//! A running `epithet server`, `epithet ca` or `epithet policy`.

use crate::daemon::{Daemon, NotReady};
use crate::home::Home;
use crate::log::Log;
use crate::wait::DEADLINE;
use std::ffi::OsStr;
use std::path::Path;
use std::process::{Command, ExitStatus};
use std::time::Duration;

/// What each of the servers says on stderr once it accepts connections.
const READY: &str = "ready: listening on ";

/// A server process. It ends with SIGTERM when dropped.
#[derive(Debug)]
pub struct Server {
    daemon: Daemon,
    url: String,
}

impl Server {
    /// Runs `PROGRAM ARGUMENTS` in `home`, the first argument being `server`, `ca` or `policy`, and returns once it
    /// listens. Let it listen on port 0.
    ///
    /// # Panics
    /// When it does not get there; the message has what it said.
    pub fn start<A: AsRef<OsStr>>(
        program: &Path,
        home: &Home,
        arguments: impl IntoIterator<Item = A>,
    ) -> Self {
        let mut command = home.command(program);
        command.args(arguments);
        Self::try_start(command).unwrap_or_else(|error| panic!("the server did not start: {error}"))
    }

    /// Runs a command that is a server: for more environment, and for starts that are meant to fail.
    ///
    /// # Errors
    /// How it ended and what it said, when it did not become ready.
    pub fn try_start(command: Command) -> Result<Self, NotReady> {
        let mut daemon = Daemon::start("the server", command, None);
        let stderr = daemon.stderr().clone();
        let url = daemon.wait_ready(&stderr, READY, DEADLINE)?;
        Ok(Self { daemon, url })
    }

    /// Where it listens, with its real port: `http://127.0.0.1:40123` or `unix:///...`.
    pub fn url(&self) -> &str {
        self.url.trim_end_matches('/')
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

    /// The process, for signals, its status and its memory.
    pub fn daemon(&mut self) -> &mut Daemon {
        &mut self.daemon
    }

    /// Ends it with SIGTERM and returns its status; after `patience` it is killed.
    pub fn stop(mut self, patience: Duration) -> Option<ExitStatus> {
        self.daemon.terminate(patience)
    }
}
