//! Thousands of randomised runs of the hostile plugin, and what they leave behind: nothing.
//!
//! ```text
//! cargo build -p epithet-plugin --features host --bins --example soak
//! target/debug/examples/soak [RUNS [SEED [CHAINS]]]
//! ```
//!
//! Each of the chains behaves as a broker does: it keeps the state of its last success and presents it to the next run.
//! A model says what every mode must give; anything else is a fault. At the end processes, descriptors and memory are
//! compared with those before. Exit status 0 only when all is as it should be.
#![expect(clippy::print_stdout, reason = "prints its figures")]

use epithet_plugin::{
    Guard, PluginCommand, ProgressSink, RunError, RunLimits, Runner, STATE_MAX, TOKEN_MAX, progress_channel,
};
use epithet_wire::{PluginState, SecretBytes};
use std::collections::BTreeMap;
use std::error::Error;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// What is waited beyond deadline and SIGTERM's two stages before a run counts as having hung, on a machine under load.
const HANG: Duration = Duration::from_secs(3);
/// How much more memory than after the warm-up is no leak.
const MEMORY: u64 = 8 * 1024 * 1024;

/// What a mode must come to.
enum Expected {
    /// Token and new state.
    Success(Vec<u8>, Vec<u8>),
    /// The error's kind.
    Failure(&'static str),
    /// Either; only that it ends, and within its limits.
    Whatever,
}

struct Trial {
    words: Vec<String>,
    expected: Expected,
    deadline: Duration,
    /// Cancelled so long after its start.
    cancelled: Option<Duration>,
}

#[derive(Default)]
struct Figures {
    runs: BTreeMap<String, usize>,
    faults: Vec<String>,
    longest_beyond: Duration,
    successes: usize,
}

/// xorshift64*, so that a seed tells the whole story.
struct Dice(u64);

impl Dice {
    fn below(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % sides
    }
}

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|first| first == "guard") {
        return Ok(epithet_plugin::guard_main());
    }
    // As the broker does at its start.
    epithet_plugin::return_large_allocations();
    epithet_plugin::close_inherited_on_exec()?;
    let number = |index: usize, default| {
        arguments
            .get(index)
            .map_or(Ok(default), |text| text.parse::<u64>())
    };
    let (runs, seed, chains) = (number(0, 1_000)?, number(1, 1)?, number(2, 8)?);
    let hostile = std::env::current_exe()?
        .with_file_name("../epithet-hostile-plugin")
        .canonicalize()?;
    let hostile = hostile.display().to_string();
    let mark = format!("soak-{}", std::process::id());
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async {
        let guard = Arc::new(Guard::reexec(&["guard"])?);
        let soak = |runs: u64, seed: u64| {
            let figures = Arc::new(Mutex::new(Figures::default()));
            let (guard, hostile, mark) = (guard.clone(), hostile.clone(), mark.clone());
            async move {
                let tasks: Vec<_> = (0..chains)
                    .map(|index| {
                        let runner = move |words: Vec<String>, mark: &str, guard: &Arc<Guard>| {
                            Runner::new(PluginCommand::Argv(words))
                                .with_variable("SOAK_MARK", mark)
                                .with_guard(guard.clone())
                        };
                        let (figures, guard, hostile, mark) =
                            (figures.clone(), guard.clone(), hostile.clone(), mark.clone());
                        let dice = Dice((seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (index + 1)) | 1);
                        tokio::spawn(async move {
                            chain(dice, runs / chains, &figures, |words| {
                                let words = std::iter::once(hostile.clone()).chain(words).collect();
                                runner(words, &mark, &guard)
                            })
                            .await;
                        })
                    })
                    .collect();
                for task in tasks {
                    task.await?;
                }
                Ok::<_, Box<dyn Error>>(figures)
            }
        };

        // Threads, allocator and tables reach their working size.
        soak(runs.clamp(chains, 400), seed ^ 0xff).await?;
        settle(&mark).await;
        let before = Usage::now()?;
        let begun = Instant::now();
        let figures = soak(runs, seed).await?;
        let took = begun.elapsed();
        let left = settle(&mark).await;
        let after = Usage::now()?;

        let figures = std::mem::take(&mut *figures.lock().map_err(|_| "a chain panicked")?);
        println!(
            "{runs} runs in {chains} chains, seed {seed}: {took:.1?}, {} successes",
            figures.successes
        );
        for (what, count) in &figures.runs {
            println!("  {count:>6}  {what}");
        }
        for fault in figures.faults.iter().take(20) {
            println!("FAULT {fault}");
        }
        println!("faults: {}", figures.faults.len());
        println!(
            "longest beyond its deadline and grace: {:?}",
            figures.longest_beyond
        );
        println!("processes left: {left}, uncollected: {}", zombies()?);
        println!(
            "descriptors: {} before, {} after",
            before.descriptors, after.descriptors
        );
        println!("threads: {} before, {} after", before.threads, after.threads);
        println!(
            "resident: {} KiB before, {} KiB after, at most {} KiB",
            before.resident >> 10,
            after.resident >> 10,
            after.peak >> 10
        );
        let is_clean = figures.faults.is_empty()
            && left == 0
            && zombies()? == 0
            && after.descriptors <= before.descriptors
            && after.resident <= before.resident + MEMORY;
        println!("{}", if is_clean { "clean" } else { "NOT CLEAN" });
        Ok(if is_clean {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        })
    })
}

/// One broker's life: runs one after another, keeping the state of the last success.
async fn chain(mut dice: Dice, runs: u64, figures: &Mutex<Figures>, runner: impl Fn(Vec<String>) -> Runner) {
    let mut state: Vec<u8> = Vec::new();
    for _ in 0..runs {
        let trial = trial(&mut dice, &state);
        let limits = RunLimits {
            deadline: trial.deadline,
            stream_grace: Duration::from_millis(50 + dice.below(100)),
            kill_after: Duration::from_millis(200),
        };
        let shown = trial.words.join(" ");
        let runner = runner(trial.words).with_limits(limits);
        let cancel = CancellationToken::new();
        let canceller = trial.cancelled.map(|after| {
            let cancel = cancel.clone();
            tokio::spawn(async move {
                tokio::time::sleep(after).await;
                cancel.cancel();
            })
        });
        let (sink, feed) = progress_channel();
        // Half of the time nobody reads progress.
        let reader = (dice.below(2) == 0).then(|| tokio::spawn(drain(feed)));
        let begun = Instant::now();
        let given = SecretBytes::new(state.clone());
        let outcome = observe(&runner, &given, sink, cancel, &mut dice).await;
        let took = begun.elapsed();
        for task in [canceller, reader].into_iter().flatten() {
            task.abort();
        }

        let allowed = limits.deadline + limits.stream_grace + 2 * limits.kill_after;
        let found = match &outcome {
            None => "dropped",
            Some(Ok(_)) => "success",
            Some(Err(error)) => kind(error),
        };
        let fault = match (&outcome, &trial.expected) {
            (None, _) | (_, Expected::Whatever) => None,
            (Some(Err(RunError::Cancelled { .. })), _) if trial.cancelled.is_some() => None,
            (Some(Ok(reply)), Expected::Success(token, new)) => (reply.token.expose() != token
                || reply.state.expose() != new)
                .then(|| "wrong token or state".to_owned()),
            (Some(Err(_)), Expected::Failure(expected)) => {
                (found != *expected).then(|| format!("expected {expected}, found {found}"))
            }
            (Some(Err(error)), Expected::Success(..)) => Some(error.explain()),
            (Some(Ok(_)), Expected::Failure(expected)) => Some(format!("expected {expected}, found success")),
        };
        let Ok(mut figures) = figures.lock() else { return };
        let mode = shown.split(' ').next().unwrap_or_default();
        *figures.runs.entry(format!("{mode:<18} {found}")).or_default() += 1;
        if let Some(fault) = fault {
            figures.faults.push(format!("{shown}: {fault}"));
        }
        let beyond = took.saturating_sub(allowed);
        figures.longest_beyond = figures.longest_beyond.max(beyond);
        if beyond > HANG {
            figures.faults.push(format!("{shown}: took {took:?}"));
        }
        if let Some(Ok(reply)) = outcome {
            figures.successes += 1;
            state = reply.state.expose().to_vec();
        }
    }
}

async fn drain(mut feed: epithet_plugin::ProgressFeed) {
    while feed.next().await.is_some() {}
}

/// Runs, or once in a while drops the run in the middle, as a caller does whose own task is ended.
async fn observe(
    runner: &Runner,
    state: &PluginState,
    sink: ProgressSink,
    cancel: CancellationToken,
    dice: &mut Dice,
) -> Option<Result<epithet_plugin::Reply, RunError>> {
    let invocation = Default::default();
    let run = runner.run(state, &invocation, sink, cancel);
    if dice.below(20) > 0 {
        return Some(run.await);
    }
    tokio::time::timeout(Duration::from_millis(dice.below(30)), run)
        .await
        .ok()
}

fn kind(error: &RunError) -> &'static str {
    match error {
        RunError::NotFound { .. } => "not found",
        RunError::NotExecutable { .. } => "not executable",
        RunError::BadInterpreter { .. } => "bad interpreter",
        RunError::Spawn { .. } => "spawn",
        RunError::Exited { .. } => "exited",
        RunError::Killed { .. } => "killed",
        RunError::EmptyToken { .. } => "empty token",
        RunError::TokenTooLarge { .. } => "token too large",
        RunError::StateTooLarge { .. } => "state too large",
        RunError::Timeout { .. } => "timeout",
        RunError::Cancelled { .. } => "cancelled",
        RunError::Io { .. } => "io",
    }
}

/// A mode by chance, and what it must come to with this state.
fn trial(dice: &mut Dice, state: &[u8]) -> Trial {
    let words = |text: String| text.split(' ').map(str::to_owned).collect::<Vec<String>>();
    let success = |token: &str, new: &[u8]| Expected::Success(token.as_bytes().to_vec(), new.to_vec());
    let zeros = |bytes: usize| vec![b'x'; bytes];
    // A mode that works has all the time it needs, on any machine.
    let ample = Duration::from_secs(60);
    let short = Duration::from_millis(50 + dice.below(150));
    let (text, expected, deadline) = match dice.below(100) {
        0..30 => {
            let before: u64 = String::from_utf8_lossy(state).parse().unwrap_or(0);
            let new = (before + 1).to_string();
            (
                "count".to_owned(),
                success(&format!("token-{before}"), new.as_bytes()),
                ample,
            )
        }
        30..36 => ("round-trip".to_owned(), success("token", state), ample),
        36..40 => ("unread".to_owned(), success("token", b""), ample),
        40..44 => ("dribble".to_owned(), success("dribbled", b"dribbled"), ample),
        44..46 => ("state-after-token".to_owned(), success("token", b"state"), ample),
        46..49 => ("leave hang-alone 1".to_owned(), success("token", b"state"), ample),
        49..50 => ("leave-late-writer".to_owned(), Expected::Whatever, ample),
        50..58 => (
            format!("random {}", dice.below(u64::MAX)),
            Expected::Whatever,
            ample,
        ),
        58..64 => (
            format!("fail {}", 1 + dice.below(100)),
            Expected::Failure("exited"),
            ample,
        ),
        64..68 => {
            let signal = ["KILL", "TERM", "SEGV"][usize::try_from(dice.below(3)).unwrap_or(0)];
            (format!("die {signal}"), Expected::Failure("killed"), ample)
        }
        68..69 => (
            format!("write 3 {STATE_MAX}"),
            success("token", &zeros(STATE_MAX)),
            ample,
        ),
        69..70 => (
            format!("write 3 {} hang", STATE_MAX + 1),
            Expected::Failure("state too large"),
            ample,
        ),
        70..72 => ("flood 3".to_owned(), Expected::Failure("state too large"), ample),
        72..75 => (
            format!("write 1 {TOKEN_MAX}"),
            Expected::Success(zeros(TOKEN_MAX), Vec::new()),
            ample,
        ),
        75..77 => (
            format!("write 1 {} hang", TOKEN_MAX + 1),
            Expected::Failure("token too large"),
            ample,
        ),
        77..79 => ("flood 1".to_owned(), Expected::Failure("token too large"), ample),
        79..81 => ("flood 2".to_owned(), Expected::Failure("timeout"), short),
        81..83 => ("flood 4".to_owned(), Expected::Failure("timeout"), short),
        83..88 => ("hang".to_owned(), Expected::Failure("timeout"), short),
        88..91 => ("hang-deaf".to_owned(), Expected::Failure("timeout"), short),
        91..93 => ("stop".to_owned(), Expected::Failure("timeout"), short),
        93..94 => ("farewell".to_owned(), Expected::Failure("timeout"), short),
        94..96 => ("forks 3".to_owned(), Expected::Failure("timeout"), short),
        _ => (
            format!("slow {}", dice.below(40)),
            success("token", b"state"),
            ample,
        ),
    };
    let cancelled = (dice.below(10) == 0).then(|| Duration::from_millis(dice.below(60)));
    Trial {
        words: words(text),
        expected,
        deadline,
        cancelled,
    }
}

/// Waits until nothing with the mark is left; returns how many are left after a time in which all should be gone.
async fn settle(mark: &str) -> usize {
    let variable = format!("SOAK_MARK={mark}");
    let begun = Instant::now();
    loop {
        let left = processes()
            .filter(|folder| {
                std::fs::read(folder.join("environ"))
                    .is_ok_and(|all| all.split(|byte| *byte == 0).any(|one| one == variable.as_bytes()))
            })
            .count();
        let uncollected = zombies().unwrap_or(0);
        if left + uncollected == 0 || begun.elapsed() > Duration::from_secs(20) {
            // Tasks that were told to end hold descriptors until they are next run.
            tokio::time::sleep(Duration::from_millis(200)).await;
            return left;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn processes() -> impl Iterator<Item = std::path::PathBuf> {
    let all = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    all.map(|entry| entry.path()).filter(|folder| {
        folder
            .file_name()
            .is_some_and(|name| name.to_string_lossy().parse::<u32>().is_ok())
    })
}

fn zombies() -> Result<usize, Box<dyn Error>> {
    let own = format!("PPid:\t{}\n", std::process::id());
    Ok(processes()
        .filter_map(|folder| std::fs::read_to_string(folder.join("status")).ok())
        .filter(|status| status.contains(&own) && status.contains("State:\tZ"))
        .count())
}

struct Usage {
    descriptors: usize,
    threads: usize,
    resident: u64,
    peak: u64,
}

impl Usage {
    fn now() -> Result<Self, Box<dyn Error>> {
        let status = std::fs::read_to_string("/proc/self/status")?;
        let field = |name: &str| {
            status
                .lines()
                .find_map(|line| {
                    line.strip_prefix(name)?
                        .split_ascii_whitespace()
                        .next()?
                        .parse::<u64>()
                        .ok()
                })
                .unwrap_or(0)
        };
        Ok(Self {
            descriptors: std::fs::read_dir("/proc/self/fd")?.count(),
            threads: usize::try_from(field("Threads:"))?,
            resident: field("VmRSS:") * 1024,
            peak: field("VmHWM:") * 1024,
        })
    }
}
