//! What the CA says about itself: fetched in the background, tried again until it is known, kept fresh after that.

use crate::ca_pool::CaPool;
use epithet_wire::ca::Discovery;
use epithet_wire::limits::DISCOVERY_MAX_AGE;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Between two attempts while the CA is away: from one second to a minute.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// The newest answer.
#[derive(Debug, Clone, Default)]
pub(crate) enum Knowledge {
    #[default]
    Unknown,
    Unreachable(String),
    Known(Arc<Said>),
}

/// What the CAs say about themselves.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Said {
    /// Of the first CA that names its hosts, else of the first that answers; `None` when that one says nothing.
    pub(crate) discovery: Option<Discovery>,
    /// Whether there may be more to know: nobody named hosts, and not everybody answered.
    pub(crate) is_partial: bool,
}

impl Said {
    /// The hosts that were named; none are named by a CA that wants to be asked about every host.
    pub(crate) fn patterns(&self) -> &[String] {
        self.discovery
            .as_ref()
            .map(|discovery| discovery.match_patterns.as_slice())
            .unwrap_or_default()
    }
}

/// A handle on the background task.
#[derive(Debug, Clone)]
pub(crate) struct DiscoveryWatch {
    knowledge: watch::Receiver<Knowledge>,
    wanted: Arc<Notify>,
}

impl DiscoveryWatch {
    /// Starts asking.
    pub(crate) fn start(pool: Arc<CaPool>, ending: CancellationToken) -> Self {
        let (sender, knowledge) = watch::channel(Knowledge::Unknown);
        let wanted = Arc::new(Notify::new());
        let wake = Arc::clone(&wanted);
        tokio::spawn(async move {
            ending
                .run_until_cancelled(keep_asking(&pool, &sender, &wake))
                .await;
        });
        Self { knowledge, wanted }
    }

    /// What is known, waiting at most `patience` for a CA that has not answered yet.
    pub(crate) async fn get(&self, patience: Duration) -> Knowledge {
        let mut knowledge = self.knowledge.clone();
        if !matches!(*knowledge.borrow_and_update(), Knowledge::Known(_)) {
            self.wanted.notify_one();
            let known = knowledge.wait_for(|knowledge| matches!(knowledge, Knowledge::Known(_)));
            let _ = tokio::time::timeout(patience, known).await;
        }
        self.knowledge.borrow().clone()
    }

    /// What is known, waiting at most `patience` for the answer of a CA that has not said anything yet, whatever it is.
    pub(crate) async fn look(&self, patience: Duration) -> Knowledge {
        let mut knowledge = self.knowledge.clone();
        if !matches!(*knowledge.borrow_and_update(), Knowledge::Known(_)) {
            self.wanted.notify_one();
            let _ = tokio::time::timeout(patience, knowledge.changed()).await;
        }
        self.knowledge.borrow().clone()
    }

    /// What is known at this moment.
    pub(crate) fn now(&self) -> Knowledge {
        self.knowledge.borrow().clone()
    }

    /// A receiver that sees every change.
    pub(crate) fn changes(&self) -> watch::Receiver<Knowledge> {
        self.knowledge.clone()
    }
}

async fn keep_asking(pool: &CaPool, sender: &watch::Sender<Knowledge>, wanted: &Notify) {
    let mut pause = RETRY.0;
    let mut complained = false;
    loop {
        match pool.discovery().await {
            Ok(said) => {
                if complained {
                    tracing::info!("the CA answers again");
                }
                complained = false;
                pause = RETRY.0;
                let pause = if said.is_partial {
                    RETRY.1
                } else {
                    DISCOVERY_MAX_AGE
                };
                sender.send_replace(Knowledge::Known(Arc::new(said)));
                tokio::time::sleep(pause).await;
            }
            Err(problem) => {
                if !complained {
                    tracing::warn!(%problem, "cannot ask the CA about itself yet; trying again in the background");
                }
                complained = true;
                sender.send_if_modified(|knowledge| match knowledge {
                    // What was known stays known while the CA is away.
                    Knowledge::Known(_) => false,
                    _ => {
                        *knowledge = Knowledge::Unreachable(problem);
                        true
                    }
                });
                let failed = Instant::now();
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    // Whoever waits gets an answer at once, but nobody makes it hammer a CA that is away.
                    () = wanted.notified() => tokio::time::sleep_until(failed + RETRY.0 / 4).await,
                }
                pause = (pause * 2).min(RETRY.1);
            }
        }
    }
}
