//! The asynchronous runtime, made only by commands that need one, and the signals that end them.

use anyhow::Context;
use std::future::Future;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Runs `job` with a token that SIGINT or SIGTERM cancels. A second such signal ends the process at once.
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
            for attempt in 0.. {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                }
                if attempt > 0 {
                    std::process::exit(130);
                }
                cancel.cancel();
            }
        });
        job(ending).await
    });
    runtime.shutdown_background();
    result
}
