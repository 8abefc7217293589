//! What the tests of running plugins share: the hostile program, and a way to find what it left behind.
#![expect(dead_code, reason = "every test file uses its part")]
#![expect(clippy::unwrap_used, reason = "only tests call these functions")]

use epithet_plugin::{
    Invocation, Observation, PluginCommand, ProgressSink, Reply, RunError, RunLimits, Runner,
};
use epithet_wire::SecretBytes;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

pub(crate) const HOSTILE: &str = env!("CARGO_BIN_EXE_epithet-hostile-plugin");
/// Longer than anything takes on a machine under load; only ever waited for in full by a test that fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// What a plugin that never ends is given in these tests.
pub(crate) const SHORT: RunLimits = RunLimits {
    deadline: Duration::from_millis(500),
    stream_grace: Duration::from_millis(300),
    kill_after: Duration::from_millis(300),
};

/// A runner of the hostile program and a mark that everything it starts carries in its environment.
pub(crate) struct Hostile {
    pub(crate) runner: Runner,
    mark: String,
}

pub(crate) fn hostile(mode: &[&str]) -> Hostile {
    let words = [HOSTILE].iter().chain(mode).map(|word| (*word).to_owned());
    marked(PluginCommand::Argv(words.collect()))
}

pub(crate) fn shell(text: &str) -> Hostile {
    marked(PluginCommand::Shell(text.to_owned()))
}

fn marked(command: PluginCommand) -> Hostile {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let mark = format!("{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    Hostile {
        runner: Runner::new(command)
            .with_variable("HOSTILE_MARK", &mark)
            .with_variable("HOSTILE", HOSTILE),
        mark,
    }
}

impl Hostile {
    pub(crate) fn with_limits(mut self, limits: RunLimits) -> Self {
        self.runner = self.runner.with_limits(limits);
        self
    }

    pub(crate) async fn run(&self, state: &[u8]) -> Result<Reply, RunError> {
        self.observe(state).await.outcome
    }

    pub(crate) async fn observe(&self, state: &[u8]) -> Observation {
        let state = SecretBytes::new(state.to_vec());
        self.runner
            .observe(
                &state,
                &Invocation::default(),
                ProgressSink::discard(),
                CancellationToken::new(),
            )
            .await
    }

    /// The processes that are still there, zombies included.
    pub(crate) fn left(&self) -> Vec<u32> {
        marked_processes(&format!("HOSTILE_MARK={}", self.mark))
    }

    /// What the kernel is still taking down has a moment to be gone.
    pub(crate) fn assert_nothing_is_left(&self) {
        let deadline = Instant::now() + Duration::from_secs(1);
        while !self.left().is_empty() && Instant::now() < deadline {
            std::thread::yield_now();
        }
        let left = self.left();
        let states: Vec<_> = left
            .iter()
            .map(|process| std::fs::read_to_string(format!("/proc/{process}/stat")))
            .collect();
        assert_eq!(
            left,
            [0; 0],
            "processes that outlived {}: {states:?}",
            self.runner.command()
        );
    }

    /// Ends what a test meant to be left.
    pub(crate) fn end_what_is_left(&self) {
        for process in self.left() {
            let process = rustix::process::Pid::from_raw(process.try_into().unwrap()).unwrap();
            let _ = rustix::process::kill_process(process, rustix::process::Signal::KILL);
        }
    }
}

fn marked_processes(mark: &str) -> Vec<u32> {
    let processes = std::fs::read_dir("/proc").unwrap();
    processes
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok())
        .filter(|process| {
            std::fs::read(format!("/proc/{process}/environ")).is_ok_and(|environ| {
                environ
                    .split(|byte| *byte == 0)
                    .any(|variable| variable == mark.as_bytes())
            })
        })
        .collect()
}

/// The unreaped children of this process.
pub(crate) fn zombies() -> Vec<String> {
    let own = format!("PPid:\t{}", std::process::id());
    let processes = std::fs::read_dir("/proc").unwrap();
    processes
        .filter_map(|entry| std::fs::read_to_string(entry.ok()?.path().join("status")).ok())
        .filter(|status| status.contains("State:\tZ") && status.lines().any(|line| line == own))
        .collect()
}

pub(crate) fn is_alive(process: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{process}/stat"))
        .is_ok_and(|stat| !stat.rsplit(") ").next().unwrap_or("").starts_with('Z'))
}

/// Waits for something to become true.
pub(crate) async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
