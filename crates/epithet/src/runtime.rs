//! The asynchronous runtime, made only by commands that need one, and the signals that end them.

use anyhow::Context;
use std::future::Future;
use std::time::{Duration, Instant};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// How long after the first signal another one is taken for the same.
const TWICE: Duration = Duration::from_secs(1);
/// How long the tasks of a job that was dropped may take to let go of what they have: processes, above all.
const LETTING_GO: Duration = Duration::from_millis(500);
/// The exit code of a job that was dropped, as shells say it of Ctrl-C.
const DROPPED: i32 = 130;

/// Runs a job that waits for the network and nothing else. Signals do what they always do: once they are caught, as below,
/// they stay caught, and Ctrl-C would mean nothing to a question that is asked afterwards.
pub(crate) fn briefly<T>(job: impl Future<Output = T>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let result = runtime.block_on(job);
    runtime.shutdown_background();
    Ok(result)
}

/// Runs `job` with a token that SIGINT or SIGTERM cancels. A further one, a second later or more, drops the job where it
/// stands, which still removes its files and kills its plugins, and ends the process.
pub(crate) fn run<F, T>(threads: usize, job: impl FnOnce(CancellationToken) -> F) -> anyhow::Result<T>
where
    F: Future<Output = anyhow::Result<T>>,
{
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let result = runtime.block_on(async {
        let ending = CancellationToken::new();
        let at_once = listen(&ending)?;
        tokio::select! {
            biased;
            () = at_once.cancelled() => Ok(None),
            result = job(ending) => result.map(Some),
        }
    });
    match result {
        Ok(None) => {
            runtime.shutdown_timeout(LETTING_GO);
            crate::logging::flush();
            std::process::exit(DROPPED)
        }
        Ok(Some(value)) => {
            runtime.shutdown_background();
            Ok(value)
        }
        Err(error) => {
            runtime.shutdown_background();
            Err(error)
        }
    }
}

/// Cancels `ending` at the first signal, and the returned token at a later one.
fn listen(ending: &CancellationToken) -> anyhow::Result<CancellationToken> {
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let (ending, at_once) = (ending.clone(), CancellationToken::new());
    let dropping = at_once.clone();
    tokio::spawn(async move {
        let mut first: Option<Instant> = None;
        loop {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            // `timeout` and some shells send a signal twice; a person who presses Ctrl-C again does so later.
            match first {
                Some(first) if first.elapsed() > TWICE => dropping.cancel(),
                _ => first = first.or(Some(Instant::now())),
            }
            ending.cancel();
        }
    });
    Ok(at_once)
}
