//! A plugin that is ready to be run: its command, its limits, its guard.

use super::command::{PluginCommand, search_path};
use super::error::{Evidence, RunError};
use super::guard::Guard;
use super::progress::ProgressSink;
use super::run::Run;
use super::stdin::Stdin;
use super::streams::Transcript;
use crate::{Action, Invocation};
use epithet_wire::limits::{PLUGIN_DEADLINE, PLUGIN_KILL_AFTER, PLUGIN_STREAM_GRACE};
use epithet_wire::{PluginState, Token};
use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How long things may take. Sizes are fixed by the protocol; see [`epithet_wire::limits`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunLimits {
    /// The whole run, until the plugin's process has exited.
    pub deadline: Duration,
    /// After that exit, how long streams may stay open in somebody else's hands.
    pub stream_grace: Duration,
    /// Between SIGTERM and SIGKILL.
    pub kill_after: Duration,
}

impl Default for RunLimits {
    fn default() -> Self {
        Self {
            deadline: PLUGIN_DEADLINE,
            stream_grace: PLUGIN_STREAM_GRACE,
            kill_after: PLUGIN_KILL_AFTER,
        }
    }
}

/// What a successful run gave.
#[derive(Debug, Clone)]
pub struct Reply {
    /// The token, byte for byte as printed.
    pub token: Token,
    /// The state for the next run; replaces the old one also when it is empty.
    pub state: PluginState,
    /// The end of what the plugin wrote to stderr, harmless for a terminal; for the log.
    pub stderr: String,
    /// From start to the last stream's end.
    pub elapsed: Duration,
}

/// What a successful logout left to say.
#[derive(Debug, Clone)]
pub struct Farewell {
    /// The end of what the plugin wrote to stderr, harmless for a terminal; for the person.
    pub stderr: String,
    /// From start to the last stream's end.
    pub elapsed: Duration,
}

/// One run in full: what went over the streams, and what it amounts to.
#[derive(Debug)]
pub struct Observation {
    /// What the plugin said and did, also when it failed.
    pub transcript: Transcript,
    /// What a broker would go by.
    pub outcome: Result<Reply, RunError>,
}

/// Runs one plugin, any number of times. It keeps nothing between runs: state and token are the caller's.
#[derive(Debug, Clone)]
pub struct Runner {
    pub(super) command: PluginCommand,
    pub(super) limits: RunLimits,
    pub(super) guard: Option<Arc<Guard>>,
    pub(super) variables: Vec<(OsString, OsString)>,
    pub(super) directory: Option<PathBuf>,
    pub(super) stdin: Stdin,
    pub(super) action: Action,
}

impl Runner {
    /// A runner with the default limits and no guard.
    pub fn new(command: PluginCommand) -> Self {
        Self {
            command,
            limits: RunLimits::default(),
            guard: None,
            variables: Vec::new(),
            directory: None,
            stdin: Stdin::Ends,
            action: Action::LogIn,
        }
    }

    /// The same with other limits.
    #[must_use]
    pub fn with_limits(mut self, limits: RunLimits) -> Self {
        self.limits = limits;
        self
    }

    /// The same with a guard, so that the plugin does not outlive a broker that is killed.
    #[must_use]
    pub fn with_guard(mut self, guard: Arc<Guard>) -> Self {
        self.guard = Some(guard);
        self
    }

    /// The same with one more environment variable for the plugin.
    #[must_use]
    pub fn with_variable(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.variables.push((name.into(), value.into()));
        self
    }

    /// The same, run in `directory` instead of this process's own.
    #[must_use]
    pub fn in_directory(mut self, directory: impl Into<PathBuf>) -> Self {
        self.directory = Some(directory.into());
        self
    }

    #[must_use]
    pub(crate) fn with_stdin(mut self, stdin: Stdin) -> Self {
        self.stdin = stdin;
        self
    }

    /// The command this runs.
    pub fn command(&self) -> &PluginCommand {
        &self.command
    }

    /// Runs the plugin once. See [`observe`](Self::observe), of which this is the outcome.
    ///
    /// # Errors
    /// One [`RunError`] per situation. A failed run changes nothing: keep the old state and token.
    pub async fn run(
        &self,
        state: &PluginState,
        invocation: &Invocation,
        progress: ProgressSink,
        cancel: CancellationToken,
    ) -> Result<Reply, RunError> {
        self.observe(state, invocation, progress, cancel).await.outcome
    }

    /// Runs the plugin once to revoke what `state` stands for ([`Action::LogOut`]). Only for a plugin that offered it.
    ///
    /// No token is expected; what it prints all the same, and any new state, is dropped.
    ///
    /// # Errors
    /// As [`run`](Self::run). The state is as good as spent in any case.
    pub async fn log_out(
        &self,
        state: &PluginState,
        invocation: &Invocation,
        progress: ProgressSink,
        cancel: CancellationToken,
    ) -> Result<Farewell, RunError> {
        let mut runner = self.clone();
        runner.action = Action::LogOut;
        let observation = runner.observe(state, invocation, progress, cancel).await;
        match observation.outcome {
            Ok(_) | Err(RunError::EmptyToken { .. }) => Ok(Farewell {
                stderr: observation.transcript.stderr(),
                elapsed: observation.transcript.elapsed,
            }),
            Err(error) => Err(error),
        }
    }

    /// Runs the plugin once and tells everything about it.
    ///
    /// Returns when the process and, unless the run succeeded, everything it started are gone: at the latest
    /// `deadline + kill_after` and a second later. `cancel` ends the run early. Dropping the future does too, and the
    /// process is then ended and collected by a task of its own.
    pub async fn observe(
        &self,
        state: &PluginState,
        invocation: &Invocation,
        progress: ProgressSink,
        cancel: CancellationToken,
    ) -> Observation {
        let stop = cancel.child_token();
        let _stops_when_dropped = stop.clone().drop_guard();
        let run = Run {
            runner: self.clone(),
            state: state.clone(),
            invocation: invocation.clone(),
            progress,
            path: search_path(own_folder().as_deref(), std::env::var_os("PATH")),
        };
        match tokio::spawn(run.complete(stop)).await {
            Ok(observation) => observation,
            Err(lost) => {
                let transcript = Transcript::new();
                let evidence = Evidence::of(&self.command, &transcript);
                let outcome = Err(if lost.is_cancelled() {
                    RunError::Cancelled {
                        forced: true,
                        evidence,
                    }
                } else {
                    RunError::Io {
                        doing: "supervising it",
                        source: io::Error::other(lost),
                        evidence,
                    }
                });
                Observation { transcript, outcome }
            }
        }
    }
}

/// The folder of the running program.
fn own_folder() -> Option<PathBuf> {
    std::env::current_exe().ok()?.parent().map(PathBuf::from)
}
