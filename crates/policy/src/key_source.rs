//! Asking the CA for its keys when a request is signed by one that is not known: the key may have been exchanged.
//!
//! Anybody can send a token with a wrong signature, so the CA is asked rarely, however many come, and by one question at a
//! time. Who comes while it is under way waits for its end, which is never far; who comes later is answered at once.

use epithet_ssh::CaPublicKey;
use epithet_wire::limits::{CA_KEYS_ASK_DEADLINE, CA_KEYS_ASK_PAUSE};
use std::fmt;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// What the CA publishes now; `None` when it could not be learned, which whoever asked has logged.
pub type Asking = Pin<Box<dyn Future<Output = Option<Vec<CaPublicKey>>> + Send>>;

/// Where keys come from, and when they were last asked for because of a signature.
pub(crate) struct KeySource {
    ask: Box<dyn Fn() -> Asking + Send + Sync>,
    pause: Duration,
    last: Mutex<Option<Flight>>,
}

/// A question, under way or over.
struct Flight {
    began: Instant,
    /// Closed when it is over.
    over: watch::Receiver<()>,
}

impl KeySource {
    pub(crate) fn new(ask: impl Fn() -> Asking + Send + Sync + 'static) -> Self {
        Self {
            ask: Box::new(ask),
            pause: CA_KEYS_ASK_PAUSE,
            last: Mutex::new(None),
        }
    }

    /// Asks, unless that was done a moment ago, and waits until a question that is under way is over. It goes on when whoever
    /// waits goes away, so that hanging up keeps no keys from arriving. `take` gets what was learned.
    pub(crate) async fn ask(&self, take: impl FnOnce(Vec<CaPublicKey>) + Send + 'static) {
        let mut over = self.flight(take);
        // An error says that the question is over; nothing is ever sent.
        let _ = over.changed().await;
    }

    fn flight(&self, take: impl FnOnce(Vec<CaPublicKey>) + Send + 'static) -> watch::Receiver<()> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(flight) = last.as_ref().filter(|flight| flight.began.elapsed() < self.pause) {
            return flight.over.clone();
        }
        let (under_way, over) = watch::channel(());
        let answer = (self.ask)();
        tokio::spawn(async move {
            match tokio::time::timeout(CA_KEYS_ASK_DEADLINE, answer).await {
                Ok(Some(keys)) => take(keys),
                Ok(None) => {}
                Err(_) => tracing::error!(
                    seconds = CA_KEYS_ASK_DEADLINE.as_secs(),
                    "the CA did not say its keys in time; the old ones stay in force"
                ),
            }
            drop(under_way);
        });
        *last = Some(Flight {
            began: Instant::now(),
            over: over.clone(),
        });
        over
    }
}

impl fmt::Debug for KeySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeySource").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tokio::time::{sleep, timeout};

    fn counting(after: Duration) -> (Arc<AtomicUsize>, KeySource) {
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        let source = KeySource::new(move || {
            count.fetch_add(1, Ordering::Relaxed);
            Box::pin(async move {
                sleep(after).await;
                Some(Vec::new())
            })
        });
        (asked, source)
    }

    #[tokio::test]
    async fn however_many_ask_there_is_one_question_in_each_pause() {
        let (asked, mut source) = counting(Duration::from_millis(10));
        source.pause = Duration::from_secs(3600);
        let source = Arc::new(source);
        let crowd: Vec<_> = (0..100)
            .map(|_| {
                let source = Arc::clone(&source);
                tokio::spawn(async move { source.ask(drop).await })
            })
            .collect();
        for one in crowd {
            one.await.unwrap();
        }
        source.ask(drop).await;
        assert_eq!(asked.load(Ordering::Relaxed), 1);
        let mut source = Arc::into_inner(source).unwrap();
        source.pause = Duration::ZERO;
        source.ask(drop).await;
        assert_eq!(asked.load(Ordering::Relaxed), 2);
    }

    #[tokio::test]
    async fn a_question_goes_on_when_whoever_asked_hangs_up_and_ends_in_time() {
        let (_, source) = counting(Duration::from_millis(200));
        let (tell, mut learned) = watch::channel(false);
        let take = move |_| {
            let _ = tell.send(true);
        };
        let hung_up = timeout(Duration::from_millis(1), source.ask(take)).await;
        assert!(hung_up.is_err());
        learned.changed().await.unwrap();
        assert!(*learned.borrow());

        let (_, silent) = counting(Duration::from_secs(3600));
        let patience = CA_KEYS_ASK_DEADLINE + Duration::from_secs(60);
        let ended = timeout(patience, silent.ask(|_| panic!("nothing was learned"))).await;
        assert!(ended.is_ok());
    }

    const _: () = assert!(CA_KEYS_ASK_DEADLINE.as_secs() < CA_KEYS_ASK_PAUSE.as_secs());
}
