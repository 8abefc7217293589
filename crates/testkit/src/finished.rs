//! A command that was run to its end.

use crate::daemon::Daemon;
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

/// How a command ended, and what it said.
#[derive(Debug)]
pub struct Finished {
    /// Its status.
    pub status: ExitStatus,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
    /// How long it ran.
    pub elapsed: Duration,
}

impl Finished {
    /// Runs `command` to its end. What it leaves running in the background does not hold this up for long.
    ///
    /// # Panics
    /// When it cannot be started, or still runs after `timeout`; then it is ended and the message says what it said.
    pub fn of(command: Command, timeout: Duration) -> Self {
        let name = command.get_program().to_string_lossy().into_owned();
        let start = Instant::now();
        let mut process = Daemon::start(&name, command, None);
        let status = process.wait(timeout);
        let elapsed = start.elapsed();
        // A grandchild may hold the streams; what the command itself said is there within a moment of its end.
        let grace = Duration::from_millis(500);
        let stdout = process
            .stdout()
            .wait_for_end(grace)
            .unwrap_or_else(|| process.stdout().text());
        let stderr = process
            .stderr()
            .wait_for_end(grace)
            .unwrap_or_else(|| process.stderr().text());
        match status {
            Some(status) => Self {
                status,
                stdout,
                stderr,
                elapsed,
            },
            None => panic!("{name} still ran after {timeout:?}\n--- stdout\n{stdout}\n--- stderr\n{stderr}"),
        }
    }

    /// The exit code; `None` when a signal ended it.
    pub fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// The same, when it succeeded.
    ///
    /// # Panics
    /// When it failed; the message has what it said.
    #[track_caller]
    pub fn success(self) -> Self {
        assert!(
            self.status.success(),
            "it ended with {}\n--- stdout\n{}\n--- stderr\n{}",
            self.status,
            self.stdout,
            self.stderr
        );
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DEADLINE;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn both_streams_and_the_status_are_kept() {
        let finished = Finished::of(shell("echo out; echo err >&2; exit 3"), DEADLINE);
        assert_eq!(finished.code(), Some(3));
        assert_eq!(
            (finished.stdout.as_str(), finished.stderr.as_str()),
            ("out\n", "err\n")
        );
    }

    #[test]
    #[should_panic(expected = "it said this")]
    fn a_command_that_hangs_is_ended_and_quoted() {
        Finished::of(
            shell("echo it said this; exec sleep 600"),
            Duration::from_millis(300),
        );
    }
}
