//! A program that is run to be looked at: in a process group of its own, which ends with it, in a bounded time, and with
//! bounded ears.
//!
//! ssh writes its own log into a pipe that nobody else knows of (`ssh -E`). On its stderr speak others, too: the host's
//! banner, the ssh of a jump host, a `ProxyCommand`. OpenSSH 8.0 to 10.x all keep them apart like that.

use anyhow::{Context, ensure};
use epithet_wire::limits::{DOCTOR_SAID_MAX, SSH_PRINT_MAX};
use rustix::process::{Pid, Signal, kill_process_group};
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::net::unix::pipe;
use tokio::process::{Child, Command};
use tokio_util::sync::CancellationToken;

/// How long the last words of a program may take that has ended.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// How a trial went.
#[derive(Debug, Clone, Default)]
pub(super) struct Trial {
    /// The exit code; `None` when it was ended.
    pub(super) code: Option<i32>,
    /// What ssh logged itself (`ssh -E`); empty for other programs.
    pub(super) log: String,
    /// Its stdout.
    pub(super) out: String,
    /// Its stderr: whoever wrote there.
    pub(super) err: String,
}

/// When a trial is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Until {
    /// When the program has ended.
    Ended,
    /// When it has written something, too.
    Heard,
}

/// The process groups of the trials under way and where they log, for whoever ends this process in the middle of them.
static UNDER_WAY: Mutex<Vec<(Pid, Option<PathBuf>)>> = Mutex::new(Vec::new());

/// Ends every trial that is under way, and leaves nothing of it behind.
pub(super) fn end_all() {
    let groups = UNDER_WAY.lock().unwrap_or_else(PoisonError::into_inner);
    for (group, log) in groups.iter() {
        let _ = kill_process_group(*group, Signal::KILL);
        let _ = log.as_ref().map(std::fs::remove_dir_all);
    }
}

/// A process group that ends when this is dropped, whoever has joined it.
struct Group(Option<Pid>);

impl Group {
    fn of(child: &Child, log: Option<&TempDir>) -> Self {
        let leader = child
            .id()
            .and_then(|id| i32::try_from(id).ok())
            .and_then(Pid::from_raw);
        let mut groups = UNDER_WAY.lock().unwrap_or_else(PoisonError::into_inner);
        groups.extend(leader.map(|leader| (leader, log.map(|dir| dir.path().to_owned()))));
        Self(leader)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            let _ = kill_process_group(group, Signal::KILL);
            let mut groups = UNDER_WAY.lock().unwrap_or_else(PoisonError::into_inner);
            groups.retain(|(other, _)| *other != group);
        }
    }
}

/// Where ssh logs to: a named pipe in a directory that is for its owner only. Nothing of it is ever on a disk.
pub(super) struct Log {
    dir: TempDir,
    reading: pipe::Receiver,
    // Keeps the pipe open until ssh has opened it.
    writing: pipe::Sender,
}

impl Log {
    pub(super) async fn new() -> anyhow::Result<Self> {
        Self::make().await.context("cannot make a place for ssh's log")
    }

    async fn make() -> anyhow::Result<Self> {
        let dir = tempfile::Builder::new().prefix("epithet-doctor-").tempdir()?;
        let path = dir.path().join("log");
        // Not every system has a call for it that works in a directory.
        let mut mkfifo = Command::new("mkfifo");
        let made = mkfifo.args(["-m", "600"]).arg(&path).status().await?;
        ensure!(made.success(), "mkfifo {} fails", path.display());
        let reading = pipe::OpenOptions::new().open_receiver(&path)?;
        let writing = pipe::OpenOptions::new().open_sender(&path)?;
        Ok(Self {
            dir,
            reading,
            writing,
        })
    }

    /// For `ssh -E`.
    pub(super) fn path(&self) -> PathBuf {
        self.dir.path().join("log")
    }
}

/// Runs a command to its end, or ends it.
pub(super) async fn ended(command: Command, deadline: Duration) -> anyhow::Result<Trial> {
    tried(command, None, Until::Ended, deadline).await
}

/// Runs a command that writes its log into `log`, until it is over, or ends it.
pub(super) async fn tried(
    mut command: Command,
    log: Option<Log>,
    until: Until,
    deadline: Duration,
) -> anyhow::Result<Trial> {
    let program = command.as_std().get_program().to_owned();
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command.process_group(0).kill_on_drop(true);
    let mut child = command
        .spawn()
        .with_context(|| format!("cannot run {}", program.display()))?;
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let (stop, heard, unheard) = <(CancellationToken, CancellationToken, CancellationToken)>::default();
    let (reading, writing, dir) = match log {
        Some(log) => (Some(log.reading), Some(log.writing), Some(log.dir)),
        None => (None, None, None),
    };
    let group = Group::of(&child, dir.as_ref());
    let listening = async {
        tokio::join!(
            listen(out, SSH_PRINT_MAX, &stop, &heard),
            listen(err, DOCTOR_SAID_MAX, &stop, &unheard),
            listen(reading, DOCTOR_SAID_MAX, &stop, &unheard),
        )
    };
    let waiting = async {
        let over = async {
            tokio::select! {
                status = child.wait() => status.ok(),
                () = heard.cancelled(), if until == Until::Heard => None,
            }
        };
        let status = tokio::time::timeout(deadline, over).await.ok().flatten();
        drop((group, writing));
        // Something that has left the group may hold on to the pipes.
        tokio::spawn({
            let stop = stop.clone();
            async move {
                tokio::time::sleep(LAST_WORDS).await;
                stop.cancel();
            }
        });
        status.and_then(|status| status.code())
    };
    let ((out, err, log), code) = tokio::join!(listening, waiting);
    drop(dir);
    Ok(Trial { code, log, out, err })
}

/// The first `max` bytes of what is said there; the rest goes nowhere.
async fn listen(
    from: Option<impl AsyncRead + Unpin>,
    max: usize,
    stop: &CancellationToken,
    heard: &CancellationToken,
) -> String {
    let Some(mut from) = from else {
        return String::new();
    };
    let (mut said, mut piece) = (Vec::new(), vec![0; 8192]);
    while let Some(Ok(count @ 1..)) = stop.run_until_cancelled(from.read(&mut piece)).await {
        heard.cancel();
        let room = max - said.len();
        said.extend_from_slice(&piece[..count.min(room)]);
    }
    String::from_utf8_lossy(&said).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use epithet_wire::limits::DOCTOR_PRINT;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]);
        command
    }

    #[tokio::test]
    async fn what_is_said_is_read_to_a_limit_and_the_log_by_itself() {
        for count in [DOCTOR_SAID_MAX, DOCTOR_SAID_MAX + 1, SSH_PRINT_MAX + 1] {
            let log = Log::new().await.unwrap();
            let path = log.path();
            let script = format!(
                "head -c {count} /dev/zero >&2; head -c {count} /dev/zero; head -c {count} /dev/zero >'{}'; exit 7",
                path.display()
            );
            let trial = tried(shell(&script), Some(log), Until::Ended, DOCTOR_PRINT)
                .await
                .unwrap();
            assert_eq!(trial.code, Some(7));
            let kept = count.min(DOCTOR_SAID_MAX);
            assert_eq!([trial.log.len(), trial.err.len()], [kept, kept]);
            assert_eq!(trial.out.len(), count.min(SSH_PRINT_MAX));
            assert!(!path.exists());
        }
    }

    #[tokio::test]
    async fn what_it_started_ends_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let fifo = folder.path().join("held");
        let made = std::process::Command::new("mkfifo").arg(&fifo).status();
        assert!(made.unwrap().success());
        let mut held = pipe::OpenOptions::new().open_receiver(&fifo).unwrap();
        let script = format!(
            "exec 3>'{}'; echo x >&3; sleep 600 & exec 3>&-; echo said; exec sleep 600",
            fifo.display()
        );
        let trial = tried(shell(&script), None, Until::Heard, DOCTOR_PRINT)
            .await
            .unwrap();
        assert_eq!((trial.code, trial.out.as_str()), (None, "said\n"));
        // The end of the pipe comes when the last who holds it is gone.
        let mut rest = Vec::new();
        tokio::time::timeout(DOCTOR_PRINT, held.read_to_end(&mut rest))
            .await
            .unwrap()
            .unwrap();
        let trial = ended(shell("sleep 600"), LAST_WORDS).await.unwrap();
        assert_eq!(trial.code, None);
    }
}
