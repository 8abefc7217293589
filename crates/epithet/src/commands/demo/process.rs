//! The demo's processes: each in a group of its own, so that Ctrl-C reaches the demo first and it can end them in order.

use super::sweeper::Sweeper;
use anyhow::{Context, bail};
use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::watch;

/// How long a process may take to say that it is ready.
const READY: Duration = Duration::from_secs(20);
/// How long it may take to end after SIGTERM.
const END: Duration = Duration::from_secs(5);

/// A running process whose stderr is read.
pub(super) struct Process {
    name: &'static str,
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
    news: watch::Receiver<usize>,
    sweeper: Arc<Sweeper>,
}

impl Process {
    /// Starts `command`. Should the demo be killed, `sweeper` ends it.
    pub(super) fn start(
        name: &'static str,
        mut command: Command,
        sweeper: &Arc<Sweeper>,
    ) -> anyhow::Result<Self> {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        if let Some(group) = child.id() {
            sweeper.started(group);
        }
        let stderr = child.stderr.take().context("its stderr is missing")?;
        let lines = Arc::new(Mutex::new(Vec::new()));
        let (sender, news) = watch::channel(0);
        let kept = Arc::clone(&lines);
        tokio::spawn(async move {
            let mut reader = BufReader::new(stderr).lines();
            while let Ok(Some(line)) = reader.next_line().await {
                let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
                kept.push(line);
                let count = kept.len();
                drop(kept);
                sender.send_replace(count);
            }
        });
        Ok(Self {
            name,
            child,
            lines,
            news,
            sweeper: Arc::clone(sweeper),
        })
    }

    /// Everything it has said.
    pub(super) fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits for a line that `find` wants, and returns what it makes of it.
    pub(super) async fn wait_for<T>(&self, find: impl Fn(&str) -> Option<T>) -> anyhow::Result<T> {
        let mut news = self.news.clone();
        let found = async {
            loop {
                if let Some(found) = self.lines().iter().find_map(|line| find(line)) {
                    return Some(found);
                }
                if news.changed().await.is_err() {
                    return self.lines().iter().find_map(|line| find(line));
                }
            }
        };
        match tokio::time::timeout(READY, found).await {
            Ok(Some(found)) => Ok(found),
            Ok(None) => bail!(
                "{} ended too early; it said:\n{}",
                self.name,
                self.lines().join("\n")
            ),
            Err(_) => bail!(
                "{} did not become ready; it said:\n{}",
                self.name,
                self.lines().join("\n")
            ),
        }
    }

    /// Ends it: SIGTERM, and SIGKILL when it does not listen.
    pub(super) async fn end(mut self) {
        use rustix::process::{Pid, Signal, kill_process};
        let id = self.child.id();
        let pid = id.and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
        if let Some(pid) = pid {
            let _ = kill_process(pid, Signal::TERM);
        }
        if tokio::time::timeout(END, self.child.wait()).await.is_err() {
            let _ = self.child.kill().await;
        }
        if let Some(group) = id {
            self.sweeper.ended(group);
        }
    }
}

/// Runs a short program and returns what it printed.
pub(super) async fn output(program: &str, arguments: &[&str]) -> anyhow::Result<String> {
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .with_context(|| format!("cannot run {program}"))?;
    if !output.status.success() {
        bail!(
            "{program} failed: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The first of some programs that is installed.
pub(super) fn installed(candidates: &[&str], remedy: &str) -> anyhow::Result<String> {
    let search = std::env::var_os("PATH").unwrap_or_default();
    for candidate in candidates {
        let found = match candidate.starts_with('/') {
            true => Path::new(candidate).is_file().then(|| (*candidate).to_owned()),
            false => std::env::split_paths(&search)
                .map(|dir| dir.join(candidate))
                .find(|path| path.is_file())
                .map(|path| path.display().to_string()),
        };
        if let Some(found) = found {
            return Ok(found);
        }
    }
    bail!(
        "{} is not installed; {remedy}",
        candidates.last().copied().unwrap_or_default()
    )
}
