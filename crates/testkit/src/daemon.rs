//! A process that runs beside a test: started, heard, signalled, ended.

use crate::log::Log;
use crate::wait::wait_until;
use rustix::process::{Pid, Signal, kill_process};
use std::fmt;
use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// How long a process may take to end after SIGTERM before it is killed, when its fixture is dropped.
const DROP_PATIENCE: Duration = Duration::from_secs(5);
/// Between two looks at whether a process has ended while its readiness is waited for.
const LOOK: Duration = Duration::from_millis(50);

/// A process with both output streams captured. Ends with SIGTERM when dropped.
///
/// It stays in the tests' process group, so that ending the tests from a terminal ends it as well.
#[derive(Debug)]
pub struct Daemon {
    name: String,
    child: Child,
    stdout: Log,
    stderr: Log,
    status: Option<ExitStatus>,
}

/// A process that did not become ready, and what it said.
#[derive(Debug)]
pub struct NotReady {
    /// Its status, when it ended; `None` when it was still silent after the deadline and was ended then.
    pub status: Option<ExitStatus>,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

impl fmt::Display for NotReady {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.status {
            Some(status) => write!(f, "it ended with {status}")?,
            None => f.write_str("it was not ready in time")?,
        }
        write!(f, "\n--- stdout\n{}\n--- stderr\n{}", self.stdout, self.stderr)
    }
}

impl std::error::Error for NotReady {}

impl Daemon {
    /// Starts `command`, with the stdin that it was given; commands of a [`TestUser`](crate::TestUser) or a
    /// [`Home`](crate::Home) have an empty one.
    ///
    /// `name` is for messages. What it says on stderr is also copied to the file `log`.
    ///
    /// # Panics
    /// When the program cannot be started.
    pub fn start(name: &str, mut command: Command, log: Option<&Path>) -> Self {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {name} ({command:?}): {error}"));
        let file = log.map(|path| {
            File::create(path).unwrap_or_else(|error| panic!("cannot write {}: {error}", path.display()))
        });
        let stdout = Log::capture(child.stdout.take().expect("stdout is a pipe"), None);
        let stderr = Log::capture(child.stderr.take().expect("stderr is a pipe"), file);
        Self {
            name: name.to_owned(),
            child,
            stdout,
            stderr,
            status: None,
        }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it says on stdout.
    pub fn stdout(&self) -> &Log {
        &self.stdout
    }

    /// What it says on stderr.
    pub fn stderr(&self) -> &Log {
        &self.stderr
    }

    /// The writing end of its stdin, once, when the command made it a pipe.
    pub fn take_stdin(&mut self) -> Option<std::process::ChildStdin> {
        self.child.stdin.take()
    }

    /// Waits for a line that contains `text` on `stream` and returns what follows it, trimmed. A process that ends or
    /// stays silent is an error, and is ended.
    pub fn wait_ready(&mut self, stream: &Log, text: &str, timeout: Duration) -> Result<String, NotReady> {
        let end = Instant::now() + timeout;
        loop {
            let ended = self.try_status().is_some();
            if let Some(line) = stream.wait_for_line(text, LOOK) {
                let after = line.split_once(text).map_or("", |(_, after)| after);
                return Ok(after.trim().to_owned());
            }
            if ended || Instant::now() >= end {
                let status = self.try_status();
                self.terminate(DROP_PATIENCE);
                return Err(NotReady {
                    status,
                    stdout: self.stdout.text(),
                    stderr: self.stderr.text(),
                });
            }
        }
    }

    /// Its status, when it has ended.
    pub fn try_status(&mut self) -> Option<ExitStatus> {
        if self.status.is_none() {
            self.status = self.child.try_wait().ok().flatten();
        }
        self.status
    }

    /// Waits for its end; `None` when it still runs after `timeout`.
    pub fn wait(&mut self, timeout: Duration) -> Option<ExitStatus> {
        wait_until(timeout, || self.try_status())
    }

    /// Sends it a signal, and nobody else. Nothing happens when it has ended.
    pub fn signal(&mut self, signal: Signal) {
        if self.try_status().is_none()
            && let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw)
        {
            // It is our child and was not waited for, so the id is still its own.
            let _ = kill_process(pid, signal);
        }
    }

    /// Ends it as an operator does, with SIGTERM, and returns its status. After `patience` it is killed.
    pub fn terminate(&mut self, patience: Duration) -> Option<ExitStatus> {
        self.signal(Signal::TERM);
        self.wait(patience).or_else(|| self.kill())
    }

    /// Ends it as a crash does, with SIGKILL.
    pub fn kill(&mut self) -> Option<ExitStatus> {
        self.signal(Signal::KILL);
        self.wait(DROP_PATIENCE)
    }

    /// Waits for a line on stderr that contains `text` and returns it.
    ///
    /// # Panics
    /// When no such line comes; the message has the whole log.
    pub fn expect_line(&self, text: &str, timeout: Duration) -> String {
        self.expect_line_after(0, text, timeout)
    }

    /// As [`expect_line`](Self::expect_line), for what is said after `position`.
    ///
    /// # Panics
    /// When no such line comes; the message has the whole log.
    pub fn expect_line_after(&self, position: usize, text: &str, timeout: Duration) -> String {
        self.stderr
            .wait_for_line_after(position, text, timeout)
            .unwrap_or_else(|| {
                panic!(
                    "{} did not say {text:?} within {timeout:?}; its log:\n{}",
                    self.name, self.stderr
                )
            })
    }

    /// The memory that it has resident now, in bytes (Linux).
    pub fn resident_bytes(&self) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        line.trim()
            .strip_suffix(" kB")?
            .trim()
            .parse::<u64>()
            .ok()
            .map(|kib| kib * 1024)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.terminate(DROP_PATIENCE);
    }
}
