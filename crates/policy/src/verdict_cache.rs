//! Answers about tokens, kept for a moment, because asking is slow. Tokens themselves are not kept: only their hashes.

use crate::token_check::{Bearer, TokenRefusal};
use aws_lc_rs::digest::{SHA256, digest};
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Answers kept at once; some hundred bytes each.
const ANSWERS_MAX: usize = 10_000;
/// How long a no is kept: somebody who was just given access should not wait.
const NO_FOR: u64 = 5;

type Answer = Result<Bearer, TokenRefusal>;

/// See the module. Times are seconds since 1970.
#[derive(Debug)]
pub(crate) struct VerdictCache {
    keep: u64,
    answers: Mutex<HashMap<[u8; 32], (u64, Answer)>>,
}

impl VerdictCache {
    /// A cache that keeps a yes for at most `keep`; zero keeps nothing.
    pub(crate) fn new(keep: Duration) -> Self {
        Self {
            keep: keep.as_secs(),
            answers: Mutex::default(),
        }
    }

    pub(crate) fn get(&self, token: &[u8], now: u64) -> Option<Answer> {
        let answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        answers
            .get(&key(token))
            .filter(|(until, _)| now < *until)
            .map(|(_, answer)| answer.clone())
    }

    /// Keeps an answer, a yes never past the token's own end.
    pub(crate) fn put(&self, token: &[u8], answer: &Answer, now: u64) {
        let until = match answer {
            Ok(bearer) => (now + self.keep).min(bearer.expires_at.unwrap_or(u64::MAX)),
            Err(TokenRefusal::Invalid(_) | TokenRefusal::Insufficient(_)) => now + self.keep.min(NO_FOR),
            // Nobody could tell: the next one asks again.
            Err(TokenRefusal::Unavailable(_)) => return,
        };
        if until <= now {
            return;
        }
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        if answers.len() >= ANSWERS_MAX {
            // Whoever sends rubbish makes room for nobody: what is good outlives it.
            answers.retain(|_, (until, answer)| now < *until && answer.is_ok());
            if answers.len() >= ANSWERS_MAX {
                if answer.is_err() {
                    return;
                }
                answers.clear();
            }
        }
        answers.insert(key(token), (until, answer.clone()));
    }
}

fn key(token: &[u8]) -> [u8; 32] {
    let mut key = [0; 32];
    key.copy_from_slice(digest(&SHA256, token).as_ref());
    key
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decision::Person;

    fn yes(expires_at: Option<u64>) -> Answer {
        Ok(Bearer {
            person: Person {
                identity: "alice".into(),
                groups: vec![],
                ..Person::default()
            },
            expires_at,
        })
    }

    #[test]
    fn a_yes_is_kept_no_longer_than_the_token_lives() {
        let cache = VerdictCache::new(Duration::from_secs(60));
        cache.put(b"short", &yes(Some(1010)), 1000);
        cache.put(b"long", &yes(Some(9999)), 1000);
        cache.put(b"endless", &yes(None), 1000);
        assert!(cache.get(b"short", 1009).is_some());
        assert!(cache.get(b"short", 1010).is_none());
        for token in [&b"long"[..], b"endless"] {
            assert!(cache.get(token, 1059).is_some());
            assert!(cache.get(token, 1060).is_none());
        }
        assert!(cache.get(b"other", 1000).is_none());
    }

    #[test]
    fn rubbish_neither_fills_the_memory_nor_drives_out_what_is_good() {
        let cache = VerdictCache::new(Duration::from_secs(60));
        cache.put(b"good", &yes(None), 1000);
        for n in 0..3 * ANSWERS_MAX {
            cache.put(&n.to_le_bytes(), &Err(TokenRefusal::Invalid("no".into())), 1000);
        }
        let kept = |cache: &VerdictCache| cache.answers.lock().unwrap().len();
        assert!(kept(&cache) <= ANSWERS_MAX);
        assert!(cache.get(b"good", 1000).is_some());
        for n in 0..3 * ANSWERS_MAX {
            cache.put(&n.to_le_bytes(), &yes(None), 1000);
        }
        assert!(kept(&cache) <= ANSWERS_MAX);
    }

    #[test]
    fn a_no_is_kept_for_seconds_and_no_answer_not_at_all() {
        let cache = VerdictCache::new(Duration::from_secs(60));
        cache.put(b"no", &Err(TokenRefusal::Invalid("no".into())), 1000);
        cache.put(b"down", &Err(TokenRefusal::Unavailable("down".into())), 1000);
        assert!(cache.get(b"no", 1004).is_some());
        assert!(cache.get(b"no", 1005).is_none());
        assert!(cache.get(b"down", 1000).is_none());
        let off = VerdictCache::new(Duration::ZERO);
        off.put(b"t", &yes(None), 1000);
        assert!(off.get(b"t", 1000).is_none());
    }
}
