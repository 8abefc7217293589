//! One run of a plugin, from start to collected process.

use super::command::{Diagnosis, PluginCommand, search_path};
use super::error::{Evidence, RunError};
use super::group::{Exits, Group};
use super::guard::Guard;
use super::progress::ProgressSink;
use super::streams::{Exit, Stream, StreamTrouble, Streams, Transcript};
use crate::fd::start_clean;
use crate::{Invocation, PROGRESS_FD, STATE_FD};
use command_fds::{CommandFdExt, FdMapping};
use epithet_wire::limits::{PLUGIN_DEADLINE, PLUGIN_KILL_AFTER, PLUGIN_STREAM_GRACE};
use epithet_wire::{PluginState, SecretBytes, Token, TokenError};
use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::unix::pipe::{Receiver, Sender};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{Instant, sleep, sleep_until};
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
    command: PluginCommand,
    limits: RunLimits,
    guard: Option<Arc<Guard>>,
    variables: Vec<(OsString, OsString)>,
    directory: Option<PathBuf>,
    stdin: Stdin,
}

/// What becomes of a plugin's stdin when the state is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stdin {
    /// It ends, as the protocol says.
    Ends,
    /// It stays open, so that a plugin that reads its state can be watched while it waits.
    StaysOpen,
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

/// A run with everything it needs, so that it can outlive whoever asked for it.
struct Run {
    runner: Runner,
    state: PluginState,
    invocation: Invocation,
    progress: ProgressSink,
    path: OsString,
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
    async fn complete(self, stop: CancellationToken) -> Observation {
        let begun = Instant::now();
        let deadline = begun + self.runner.limits.deadline;
        let mut heard = Transcript::new();
        let ended = self.converse(&mut heard, &stop, deadline, begun).await;
        heard.elapsed = begun.elapsed();
        let outcome = self.judge(&heard, ended).and_then(|()| self.reply(&heard));
        match &outcome {
            Ok(_) => tracing::debug!(elapsed = ?heard.elapsed, "plugin.succeeded"),
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
            started = self.start() => started.map_err(Interruption::Start)?,
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
        let mut ending = Box::pin(group.end(&mut exits, patience));
        let mut reading = Box::pin(heard.read_to_the_end(streams, &self.progress));
        let mut listens = !patience.is_zero();
        loop {
            tokio::select! {
                forced = &mut ending => return forced,
                _ = &mut reading, if listens => listens = false,
            }
        }
    }

    /// Starts the process on a thread that may wait for a slow file system.
    async fn start(&self) -> io::Result<(Group, Streams)> {
        let runner = self.runner.clone();
        let (invocation, path) = (self.invocation.clone(), self.path.clone());
        let (group, pipes) = spawn_blocking(move || spawn(&runner, &invocation, path))
            .await
            .map_err(io::Error::other)??;
        let receiver = |pipe: OwnedFd| Receiver::from_owned_fd(pipe).map(Some);
        let streams = Streams {
            stdin: Some(Sender::from_owned_fd(pipes.stdin)?),
            token: receiver(pipes.token)?,
            messages: receiver(pipes.messages)?,
            state: receiver(pipes.state)?,
            progress: receiver(pipes.progress)?,
        };
        Ok((group, streams))
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
        let token = Token::new(heard.token.to_exact()).map_err(|error| match error {
            TokenError::Empty => RunError::EmptyToken {
                evidence: Evidence::of(&self.runner.command, heard),
            },
            _ => RunError::over_limit(Stream::Token, Evidence::of(&self.runner.command, heard)),
        })?;
        Ok(Reply {
            token,
            state: SecretBytes::new(heard.state.to_exact()),
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

/// Our ends of the five pipes.
struct Pipes {
    stdin: OwnedFd,
    token: OwnedFd,
    messages: OwnedFd,
    state: OwnedFd,
    progress: OwnedFd,
}

/// Starts the program in a clean process with its five streams and its place on the guard's list.
fn spawn(runner: &Runner, invocation: &Invocation, path: OsString) -> io::Result<(Group, Pipes)> {
    let listing = runner.guard.as_ref().and_then(|guard| {
        guard
            .list()
            .inspect_err(|error| tracing::warn!(%error, "plugin_guard.not_started"))
            .ok()
    });
    let (stdin, to_stdin) = io::pipe()?;
    let (from_stdout, stdout) = io::pipe()?;
    let (from_stderr, stderr) = io::pipe()?;
    let (from_state, state) = io::pipe()?;
    let (from_progress, progress) = io::pipe()?;

    let mut command = runner.command.to_command();
    command
        .env("PATH", path)
        .envs(invocation.variables())
        .envs(runner.variables.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::from(stdin))
        .stdout(Stdio::from(stdout))
        .stderr(Stdio::from(stderr));
    if let Some(directory) = &runner.directory {
        command.current_dir(directory);
    }
    let announcement = listing.as_ref().map(super::guard::Listing::announcement);
    // First, so that the guard's socket is announced to before its number may be taken by the mapping.
    start_clean(&mut command, 5, move || {
        if let Some(announce) = &announcement {
            announce();
        }
    });
    let mapping = |parent_fd: OwnedFd, child_fd| FdMapping { parent_fd, child_fd };
    command
        .fd_mappings(vec![
            mapping(state.into(), STATE_FD),
            mapping(progress.into(), PROGRESS_FD),
        ])
        .map_err(io::Error::other)?;
    let leader = command.spawn()?;
    // Its ends live in the command; as long as one is open here, no stream ends.
    drop(command);
    let pipes = Pipes {
        stdin: to_stdin.into(),
        token: from_stdout.into(),
        messages: from_stderr.into(),
        state: from_state.into(),
        progress: from_progress.into(),
    };
    Ok((Group::of(leader, listing), pipes))
}

/// The state on its way to a plugin that may never read it. Given up when dropped.
struct Writing {
    task: Option<JoinHandle<()>>,
    accepted: Arc<AtomicUsize>,
}

impl Writing {
    fn begin(stdin: Option<Sender>, state: &PluginState, then: Stdin) -> Self {
        let accepted = Arc::new(AtomicUsize::new(0));
        let task = stdin
            .filter(|_| !state.is_empty() || then == Stdin::StaysOpen)
            .map(|stdin| tokio::spawn(write(stdin, state.clone(), then, accepted.clone())));
        Self { task, accepted }
    }

    fn accepted(&self) -> usize {
        self.accepted.load(Ordering::Relaxed)
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

/// Writes until everything is taken or the plugin no longer listens, which is its right.
async fn write(mut stdin: Sender, state: PluginState, then: Stdin, accepted: Arc<AtomicUsize>) {
    let mut rest = state.expose();
    while !rest.is_empty() {
        match stdin.write(rest).await {
            Ok(written) if written > 0 => {
                accepted.fetch_add(written, Ordering::Relaxed);
                rest = &rest[written..];
            }
            _ => return,
        }
    }
    if then == Stdin::StaysOpen {
        std::future::pending::<()>().await;
    }
}
