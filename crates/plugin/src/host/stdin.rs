//! The old state on its way to a plugin that may never read it.

use epithet_wire::PluginState;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::io::AsyncWriteExt;
use tokio::net::unix::pipe::Sender;
use tokio::task::JoinHandle;

/// What becomes of a plugin's stdin when the state is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stdin {
    /// It ends, as the protocol says.
    Ends,
    /// It stays open, so that a plugin that reads its state can be watched while it waits.
    StaysOpen,
}

/// The state on its way to a plugin that may never read it. Given up when dropped.
pub(super) struct Writing {
    task: Option<JoinHandle<()>>,
    accepted: Arc<AtomicUsize>,
}

impl Writing {
    pub(super) fn begin(stdin: Option<Sender>, state: &PluginState, then: Stdin) -> Self {
        let accepted = Arc::new(AtomicUsize::new(0));
        let task = stdin
            .filter(|_| !state.is_empty() || then == Stdin::StaysOpen)
            .map(|stdin| tokio::spawn(write(stdin, state.clone(), then, accepted.clone())));
        Self { task, accepted }
    }

    pub(super) fn accepted(&self) -> usize {
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
