//! The asynchronous runtime, made only by commands that need one, and the signals that end them.

use anyhow::Context;
use std::future::Future;
use std::time::{Duration, Instant};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// How long after the first signal another one is taken for the same.
const TWICE: Duration = Duration::from_secs(1);

/// Runs `job` with a token that SIGINT or SIGTERM cancels. A further one, a second later or more, ends the process at
/// once.
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
        let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
        let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
        let cancel = ending.clone();
        tokio::spawn(async move {
            let mut first: Option<Instant> = None;
            loop {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                }
                // `timeout` and some shells send a signal twice; a person who presses Ctrl-C again does so later.
                match first {
                    Some(first) if first.elapsed() > TWICE => std::process::exit(130),
                    _ => first = first.or(Some(Instant::now())),
                }
                cancel.cancel();
            }
        });
        job(ending).await
    });
    runtime.shutdown_background();
    result
}
