//! One run of a plugin, from start to collected process.

use super::command::Diagnosis;
use super::error::{Evidence, RunError};
use super::group::{Exits, Group};
use super::progress::ProgressSink;
use super::runner::{Observation, Reply, Runner};
use super::start::start;
use super::stdin::Writing;
use super::streams::{Exit, Stream, StreamTrouble, Streams, Transcript};
use crate::{Action, Invocation};
use epithet_wire::{PluginState, Token, TokenError};
use std::ffi::OsString;
use std::io;
use std::time::Duration;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

/// A run with everything it needs, so that it can outlive whoever asked for it.
pub(super) struct Run {
    pub(super) runner: Runner,
    pub(super) state: PluginState,
    pub(super) invocation: Invocation,
    pub(super) progress: ProgressSink,
    pub(super) path: OsString,
}

/// What ended a run before the plugin's own exit counted.
enum Interruption {
    Cancelled,
    Deadline,
    Start(io::Error),
    Streams(StreamTrouble),
    Wait(io::Error),
}

impl Run {
    /// The whole job: start, listen, judge, end or let go, collect.
    pub(super) async fn complete(self, stop: CancellationToken) -> Observation {
        let begun = Instant::now();
        let deadline = begun + self.runner.limits.deadline;
        let mut heard = Transcript::new();
        let ended = self.converse(&mut heard, &stop, deadline, begun).await;
        heard.elapsed = begun.elapsed();
        let outcome = self.judge(&heard, ended).and_then(|()| self.reply(&heard));
        match &outcome {
            Ok(_) => tracing::debug!(elapsed = ?heard.elapsed, "plugin.succeeded"),
            Err(RunError::EmptyToken { .. }) if self.runner.action == Action::LogOut => {
                tracing::debug!(elapsed = ?heard.elapsed, "plugin.logged_out");
            }
            Err(error) => tracing::debug!(%error, elapsed = ?heard.elapsed, "plugin.failed"),
        }
        Observation {
            transcript: heard,
            outcome,
        }
    }

    /// Starts the plugin, hears it out and sees it gone.
    async fn converse(
        &self,
        heard: &mut Transcript,
        stop: &CancellationToken,
        deadline: Instant,
        begun: Instant,
    ) -> Result<(), Interruption> {
        let mut exits = Exits::subscribe().map_err(Interruption::Start)?;
        let (group, mut streams) = tokio::select! {
            biased;
            () = stop.cancelled() => return Err(Interruption::Cancelled),
            started = start(&self.runner, &self.invocation, &self.path) => started.map_err(Interruption::Start)?,
            () = sleep_until(deadline) => return Err(Interruption::Deadline),
        };
        let writing = Writing::begin(streams.stdin.take(), &self.state, self.runner.stdin);
        let listened = tokio::select! {
            biased;
            () = stop.cancelled() => Err(Interruption::Cancelled),
            listened = self.listen(heard, &mut streams, &group, &mut exits, deadline) => listened,
        };
        heard.elapsed = begun.elapsed();
        heard.state_accepted = writing.accepted();
        let patience = match &listened {
            // It exited in peace with a token: what it left running is meant to run.
            Ok(()) if heard.exit == Some(Exit::Status(0)) && !heard.token_bytes().is_empty() => {
                group.release();
                return Ok(());
            }
            // It floods us; every further moment is more of it.
            Err(Interruption::Streams(StreamTrouble::OverLimit(_))) => Duration::ZERO,
            _ => self.runner.limits.kill_after,
        };
        heard.forced = self.end(group, exits, patience, heard, &mut streams).await;
        // Not before: the end of its stdin is not what is to end a plugin.
        drop(writing);
        listened
    }

    /// Ends the group, and meanwhile listens to what it says about that. Returns whether it had to be killed.
    async fn end(
        &self,
        group: Group,
        mut exits: Exits,
        patience: Duration,
        heard: &mut Transcript,
        streams: &mut Streams,
    ) -> bool {
        let forced = {
            let mut ending = Box::pin(group.end(&mut exits, patience));
            let mut reading = Box::pin(heard.read_to_the_end(streams, &self.progress));
            let mut listens = !patience.is_zero();
            loop {
                tokio::select! {
                    forced = &mut ending => break forced,
                    _ = &mut reading, if listens => listens = false,
                }
            }
        };
        // Its last words are in the pipe, also when its end was noticed first. More than words cannot be wrong with them.
        let _ = heard.sweep_messages(streams);
        forced
    }

    /// Reads the streams until the plugin has exited, and then for a grace.
    async fn listen(
        &self,
        heard: &mut Transcript,
        streams: &mut Streams,
        group: &Group,
        exits: &mut Exits,
        deadline: Instant,
    ) -> Result<(), Interruption> {
        let exit = {
            let mut reading = Box::pin(heard.read_to_the_end(streams, &self.progress));
            let mut all_read = false;
            // In no order: a flood on one stream must not win against the deadline for ever.
            let exit = loop {
                tokio::select! {
                    read = &mut reading, if !all_read => {
                        read.map_err(Interruption::Streams)?;
                        all_read = true;
                    }
                    exit = group.exit(exits) => break exit.map_err(Interruption::Wait)?,
                    () = sleep_until(deadline) => return Err(Interruption::Deadline),
                }
            };
            if !all_read {
                tokio::select! {
                    read = &mut reading => read.map_err(Interruption::Streams)?,
                    () = sleep(self.runner.limits.stream_grace) => {}
                }
            }
            exit
        };
        heard.exit = Some(exit);
        heard.left_open = streams.open();
        heard.sweep(streams).map_err(Interruption::Streams)
    }

    /// What the run amounts to.
    fn judge(&self, heard: &Transcript, ended: Result<(), Interruption>) -> Result<(), RunError> {
        let evidence = Evidence::of(&self.runner.command, heard);
        let forced = heard.forced;
        match ended {
            Err(Interruption::Cancelled) => Err(RunError::Cancelled { forced, evidence }),
            Err(Interruption::Deadline) => Err(RunError::Timeout {
                after: self.runner.limits.deadline,
                forced,
                evidence,
            }),
            Err(Interruption::Start(source)) => Err(self.not_started(source, evidence)),
            Err(Interruption::Streams(StreamTrouble::OverLimit(stream))) => {
                Err(RunError::over_limit(stream, evidence))
            }
            Err(Interruption::Streams(StreamTrouble::Io(source))) => Err(RunError::Io {
                doing: "reading its streams",
                source,
                evidence,
            }),
            Err(Interruption::Wait(source)) => Err(RunError::Io {
                doing: "waiting for it",
                source,
                evidence,
            }),
            Ok(()) => match heard.exit {
                Some(Exit::Status(0)) if heard.token_bytes().is_empty() => {
                    Err(RunError::EmptyToken { evidence })
                }
                Some(Exit::Status(0)) => Ok(()),
                Some(Exit::Status(status)) => Err(self.exited(status, evidence)),
                Some(Exit::Signal(signal)) => Err(RunError::Killed { signal, evidence }),
                None => Err(RunError::Io {
                    doing: "waiting for it",
                    source: io::ErrorKind::UnexpectedEof.into(),
                    evidence,
                }),
            },
        }
    }

    fn reply(&self, heard: &Transcript) -> Result<Reply, RunError> {
        let token = Token::of(heard.token.to_secret()).map_err(|error| match error {
            TokenError::Empty => RunError::EmptyToken {
                evidence: Evidence::of(&self.runner.command, heard),
            },
            _ => RunError::over_limit(Stream::Token, Evidence::of(&self.runner.command, heard)),
        })?;
        Ok(Reply {
            token,
            state: heard.state.to_secret(),
            stderr: heard.stderr(),
            elapsed: heard.elapsed,
        })
    }

    /// Why the program was not even started.
    fn not_started(&self, source: io::Error, evidence: Box<Evidence>) -> RunError {
        match source.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied => self
                .diagnosed(Box::clone(&evidence))
                .unwrap_or(RunError::Spawn { source, evidence }),
            _ => RunError::Spawn { source, evidence },
        }
    }

    /// A shell says by 126 and 127 what the system says by an error.
    fn exited(&self, status: i32, evidence: Box<Evidence>) -> RunError {
        let diagnosed = || self.diagnosed(Box::clone(&evidence));
        match status {
            127 => diagnosed()
                .filter(|error| !matches!(error, RunError::NotExecutable { .. }))
                .unwrap_or(RunError::NotFound {
                    program: None,
                    evidence,
                }),
            126 => diagnosed()
                .filter(|error| !matches!(error, RunError::NotFound { .. }))
                .unwrap_or(RunError::NotExecutable {
                    program: None,
                    evidence,
                }),
            _ => RunError::Exited { status, evidence },
        }
    }

    fn diagnosed(&self, evidence: Box<Evidence>) -> Option<RunError> {
        let directory = self.runner.directory.as_deref();
        match self.runner.command.diagnose(&self.path, directory) {
            Diagnosis::Missing(program) => Some(RunError::NotFound {
                program: Some(program),
                evidence,
            }),
            Diagnosis::NotExecutable(file) => Some(RunError::NotExecutable {
                program: Some(file.display().to_string()),
                evidence,
            }),
            Diagnosis::BadInterpreter { file, interpreter } => Some(RunError::BadInterpreter {
                program: file.display().to_string(),
                interpreter,
                evidence,
            }),
            Diagnosis::Unknown => None,
        }
    }
}
