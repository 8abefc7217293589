//! Requests that come again: a client whose answer was lost asks once more with the same `Idempotency-Key`, and gets the
//! same certificate, not a second one.
//!
//! Remembered are the last certificates, for as long as they are good, in this process only. A key stands for one
//! question: the same key with another body is a mistake of the client's while the first certificate is good. With
//! another token it is a new request, since the first answer may have been lost to a login that ended meanwhile.

use crate::issuing::Issued;
use aws_lc_rs::digest::{SHA256, digest};
use epithet_wire::Token;
use epithet_wire::limits::{IDEMPOTENCY_KEY_MAX, REPEATS_MAX};
use http::{HeaderMap, HeaderValue};
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

/// The header with the key.
const IDEMPOTENCY_KEY: &str = "idempotency-key";

type Hash = [u8; 32];

/// The last certificates by the key of their request.
#[derive(Debug, Default)]
pub(crate) struct Repeats(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    by_key: HashMap<String, Arc<Slot>>,
    /// The oldest first. A key that was used anew stands there twice, once with a slot that is no longer the key's.
    order: VecDeque<(String, Arc<Slot>)>,
}

/// One question, and its certificate once there is one. Whoever asks the same meanwhile waits for the lock.
#[derive(Debug)]
pub(crate) struct Slot {
    token: Hash,
    body: Hash,
    pub(crate) answer: tokio::sync::Mutex<Option<Arc<Issued>>>,
}

/// The key was used for something else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OtherQuestion;

/// The key of a request; `Err` for what cannot be one.
pub(crate) fn key(headers: &HeaderMap) -> Result<Option<String>, ()> {
    let mut values = headers.get_all(IDEMPOTENCY_KEY).iter().map(HeaderValue::as_bytes);
    let (first, second) = (values.next(), values.next());
    match (first, second) {
        (None, _) => Ok(None),
        (Some(value), None) => {
            // The draft standard has it as a quoted string; many clients leave the quotes out.
            let bare = value
                .strip_prefix(b"\"")
                .and_then(|rest| rest.strip_suffix(b"\""))
                .unwrap_or(value);
            let is_key = (1..=IDEMPOTENCY_KEY_MAX).contains(&bare.len())
                && bare.iter().all(|byte| byte.is_ascii_graphic() && *byte != b'"');
            let text = std::str::from_utf8(bare).map_err(|_| ())?;
            is_key.then(|| Some(text.to_owned())).ok_or(())
        }
        (Some(_), Some(_)) => Err(()),
    }
}

fn hash(bytes: &[u8]) -> Hash {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, bytes).as_ref());
    hash
}

impl Repeats {
    /// The place of this question: the one it had before, or a new one. `now` is in seconds since 1970.
    pub(crate) fn slot(
        &self,
        key: String,
        token: &Token,
        body: &[u8],
        now: u64,
    ) -> Result<Arc<Slot>, OtherQuestion> {
        let (token, body) = (hash(token.expose()), hash(body));
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = known.by_key.get(&key) {
            if (slot.token, slot.body) == (token, body) {
                return Ok(Arc::clone(slot));
            }
            if slot.body != body && slot.is_in_use(now) {
                return Err(OtherQuestion);
            }
        }
        let slot = Arc::new(Slot {
            token,
            body,
            answer: tokio::sync::Mutex::new(None),
        });
        known.by_key.insert(key.clone(), Arc::clone(&slot));
        known.order.push_back((key, Arc::clone(&slot)));
        while known.order.len() > REPEATS_MAX {
            let Some((key, oldest)) = known.order.pop_front() else {
                break;
            };
            if known
                .by_key
                .get(&key)
                .is_some_and(|slot| Arc::ptr_eq(slot, &oldest))
            {
                known.by_key.remove(&key);
            }
        }
        Ok(slot)
    }
}

impl Slot {
    /// Whether it is being answered, or its certificate is good.
    fn is_in_use(&self, now: u64) -> bool {
        self.answer.try_lock().map_or(true, |answer| {
            answer.as_ref().is_some_and(|issued| issued.is_good(now))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(values: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(IDEMPOTENCY_KEY, HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    #[test]
    fn a_key_is_one_word() {
        assert_eq!(key(&headers(&[])), Ok(None));
        assert_eq!(
            key(&headers(&["0123456789abcdef"])),
            Ok(Some("0123456789abcdef".into()))
        );
        assert_eq!(key(&headers(&["\"a-b\""])), Ok(Some("a-b".into())));
        let longest = "k".repeat(IDEMPOTENCY_KEY_MAX);
        assert_eq!(key(&headers(&[&longest])), Ok(Some(longest.clone())));
        for bad in [
            vec![""],
            vec!["\"\""],
            vec!["a b"],
            vec!["a", "b"],
            vec!["a\"b"],
            vec!["\""],
        ] {
            assert_eq!(key(&headers(&bad)), Err(()), "{bad:?}");
        }
        assert_eq!(key(&headers(&[&(longest + "k")])), Err(()));
    }

    #[tokio::test]
    async fn a_key_stands_for_one_question_while_it_is_being_answered() {
        let repeats = Repeats::default();
        let [one, two] = [&b"one"[..], b"two"].map(|bytes| Token::new(bytes.to_vec()).unwrap());
        let slot = |token: &Token, body: &[u8]| repeats.slot("k".into(), token, body, 1);
        let first = slot(&one, b"body").unwrap();
        assert!(Arc::ptr_eq(&first, &slot(&one, b"body").unwrap()));
        // Nobody is at it and it came to nothing: the key is free.
        assert!(slot(&one, b"other").is_ok());
        let again = slot(&one, b"body").unwrap();
        let answering = again.answer.lock().await;
        assert_eq!(slot(&one, b"other").unwrap_err(), OtherQuestion);
        let anew = slot(&two, b"body").unwrap();
        assert!(!Arc::ptr_eq(&again, &anew), "another token is another request");
        drop(answering);
    }

    #[test]
    fn only_the_last_ones_are_remembered() {
        let repeats = Repeats::default();
        let token = Token::new(b"t".to_vec()).unwrap();
        for number in 0..REPEATS_MAX + 10 {
            repeats.slot(number.to_string(), &token, b"", 1).unwrap();
            repeats
                .slot("again".into(), &token, number.to_string().as_bytes(), 1)
                .unwrap();
        }
        let known = repeats.0.lock().unwrap();
        assert!(known.by_key.len() <= REPEATS_MAX && known.order.len() <= REPEATS_MAX);
        assert!(known.by_key.contains_key("again") && !known.by_key.contains_key("0"));
    }
}
