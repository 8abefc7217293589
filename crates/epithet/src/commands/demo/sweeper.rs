//! What cleans up after a demo that is killed: a small process that waits for the demo's end, then ends what the demo had
//! started and removes its directory. After a demo that cleaned up itself it does nothing.
//!
//! The demo tells it by lines: `+GROUP` is running, `-GROUP` has ended, `done`. The end of the lines is the demo's end.

use super::stage::is_a_demo_directory;
use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process_group, test_kill_process_group};
use std::collections::BTreeSet;
use std::io::{BufRead, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitCode, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long the demo's processes may take to end after SIGTERM.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often they are looked at meanwhile.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// The line that says that nothing is left to do.
const DONE: &str = "done";

/// The demo's end of it.
pub(super) struct Sweeper {
    process: Child,
    lines: Mutex<ChildStdin>,
}

impl Sweeper {
    /// Starts it, in a group of its own: what ends the demo's terminal does not reach it.
    pub(super) fn start(directory: &Path) -> anyhow::Result<Self> {
        let binary = std::env::current_exe().context("cannot find the running program")?;
        let mut process = Command::new(binary)
            .args(["demo", "sweep"])
            .arg(directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .current_dir("/")
            .process_group(0)
            .spawn()
            .context("cannot start the process that cleans up after a killed demo")?;
        let lines = process.stdin.take().context("its stdin is missing")?;
        Ok(Self {
            process,
            lines: Mutex::new(lines),
        })
    }

    /// A process that leads a group was started.
    pub(super) fn started(&self, group: u32) {
        self.tell(&format!("+{group}"));
    }

    /// It has ended.
    pub(super) fn ended(&self, group: u32) {
        self.tell(&format!("-{group}"));
    }

    /// Everything has ended and the directory is gone.
    pub(super) fn done(mut self) {
        self.tell(DONE);
        drop(self.lines);
        let _ = self.process.wait();
    }

    fn tell(&self, line: &str) {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        // When it is gone, a killed demo leaves something behind; that is no reason to end one that is not killed.
        let _ = writeln!(lines, "{line}");
    }
}

/// The process itself.
pub(super) fn run(directory: &Path) -> anyhow::Result<ExitCode> {
    if !is_a_demo_directory(directory) {
        bail!("{} is not a demo's directory", directory.display());
    }
    if let Some(groups) = left_behind(std::io::stdin().lock()) {
        end(&groups);
        std::fs::remove_dir_all(directory)
            .with_context(|| format!("cannot remove {}", directory.display()))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Reads to the end: the groups that a killed demo left, or nothing when it said that it is done.
fn left_behind(lines: impl BufRead) -> Option<BTreeSet<i32>> {
    let mut groups = BTreeSet::new();
    for line in lines.lines().map_while(Result::ok) {
        let number = |digits: &str| digits.parse::<i32>().ok().filter(|group| *group > 1);
        match line.split_at_checked(1) {
            Some(("+", digits)) => groups.extend(number(digits)),
            Some(("-", digits)) => {
                number(digits).map(|group| groups.remove(&group));
            }
            _ if line == DONE => return None,
            _ => {}
        }
    }
    Some(groups)
}

fn end(groups: &BTreeSet<i32>) {
    let groups: Vec<Pid> = groups.iter().filter_map(|group| Pid::from_raw(*group)).collect();
    let signal = |signal| {
        for group in &groups {
            let _ = kill_process_group(*group, signal);
        }
    };
    signal(Signal::TERM);
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline && groups.iter().any(|group| test_kill_process_group(*group).is_ok()) {
        std::thread::sleep(LOOK_AGAIN);
    }
    signal(Signal::KILL);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_started_and_not_ended_is_left_unless_all_is_done() {
        for (lines, left) in [
            ("+10\n+11\n-10\n", Some(vec![11])),
            ("", Some(vec![])),
            ("+10\ndone\n", None),
            ("+1\n+0\n+-5\n+x\n-9\n\n+\u{e4}\n", Some(vec![])),
        ] {
            let found = left_behind(lines.as_bytes()).map(|groups| groups.into_iter().collect::<Vec<_>>());
            assert_eq!(found, left, "{lines:?}");
        }
    }

    #[test]
    fn nothing_but_a_demos_directory_is_removed() {
        for path in [
            "/",
            "/tmp",
            "/home/me",
            "/tmp/epithet-demo-",
            "epithet-demo-abcdef",
        ] {
            assert!(run(Path::new(path)).is_err(), "{path}");
        }
    }
}
