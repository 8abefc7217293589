//! Starting a plugin: a clean process with exactly its five streams.

use super::group::Group;
use super::guard::Listing;
use super::runner::Runner;
use super::streams::Streams;
use crate::fd::start_clean;
use crate::{Action, Invocation, PROGRESS_FD, STATE_FD};
use command_fds::{CommandFdExt, FdMapping};
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::OwnedFd;
use std::process::Stdio;
use tokio::net::unix::pipe::{Receiver, Sender};
use tokio::task::spawn_blocking;

/// Starts the process on a thread that may wait for a slow file system.
pub(super) async fn start(
    runner: &Runner,
    invocation: &Invocation,
    path: &OsStr,
) -> io::Result<(Group, Streams)> {
    let (runner, invocation, path) = (runner.clone(), invocation.clone(), path.to_owned());
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
        .env(Action::VARIABLE, runner.action.value())
        .envs(runner.variables.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::from(stdin))
        .stdout(Stdio::from(stdout))
        .stderr(Stdio::from(stderr));
    if let Some(directory) = &runner.directory {
        command.current_dir(directory);
    }
    let announcement = listing.as_ref().map(Listing::announcement);
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
