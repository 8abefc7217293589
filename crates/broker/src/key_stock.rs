//! Keys made ahead, so that a connection does not wait for one.

use epithet_ssh::{NoRandomness, SubjectKey};
use epithet_wire::limits::KEYS_AHEAD;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A few fresh keys that nobody has used. Each is taken by one connection; those left are wiped when this is dropped.
#[derive(Debug, Default)]
pub(crate) struct KeyStock {
    keys: Mutex<Vec<SubjectKey>>,
}

impl KeyStock {
    /// A key, made ahead or just now, and a new one made in its place meanwhile.
    pub(crate) fn take(self: &Arc<Self>) -> Result<SubjectKey, NoRandomness> {
        let ready = self.keys().pop();
        self.refill();
        ready.map_or_else(SubjectKey::generate, Ok)
    }

    /// Makes keys in the background until there are [`KEYS_AHEAD`].
    pub(crate) fn refill(self: &Arc<Self>) {
        let stock = Arc::clone(self);
        // Without randomness there is nothing to keep; whoever takes a key is told.
        tokio::task::spawn_blocking(move || {
            while stock.keys().len() < KEYS_AHEAD {
                let Ok(key) = SubjectKey::generate() else { return };
                stock.keys().push(key);
            }
        });
    }

    fn keys(&self) -> MutexGuard<'_, Vec<SubjectKey>> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[tokio::test]
    async fn every_key_is_taken_once() {
        let stock = Arc::new(KeyStock::default());
        stock.refill();
        let keys: HashSet<String> = (0..5 * KEYS_AHEAD)
            .map(|_| stock.take().unwrap().public_line())
            .collect();
        assert_eq!(keys.len(), 5 * KEYS_AHEAD);
    }
}
