//! Request ids of certificates, each of which has its own.
//!
//! A client may name its request, so that its log and ours say the same. But a name that it uses twice would let two
//! certificates pass for one in sshd's log: the second gets a name of ours, and its audit line says both.

use epithet_serve::new_request_id;
use epithet_wire::RequestId;
use epithet_wire::limits::REQUEST_IDS_MAX;
use std::collections::{HashSet, VecDeque};
use std::sync::{Mutex, PoisonError};

/// The ids of the last certificates.
#[derive(Debug, Default)]
pub(crate) struct IssuedIds(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    ids: HashSet<u64>,
    /// The oldest first.
    order: VecDeque<u64>,
}

impl IssuedIds {
    /// The id of a certificate for this request: the request's own unless another has it.
    pub(crate) fn own(&self, asked: &RequestId) -> RequestId {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut id = asked.clone();
        while !known.add(&id) {
            id = new_request_id();
        }
        id
    }
}

impl Known {
    /// Whether nobody had it.
    fn add(&mut self, id: &RequestId) -> bool {
        // An id is that many digits; one that is not is nobody's.
        let Ok(number) = u64::from_str_radix(id.as_str(), 16) else {
            return true;
        };
        if !self.ids.insert(number) {
            return false;
        }
        self.order.push_back(number);
        if self.order.len() > REQUEST_IDS_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.ids.remove(&oldest);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_given_once_while_it_is_remembered() {
        let issued = IssuedIds::default();
        let asked = RequestId::parse("00000000deadbeef").unwrap();
        assert_eq!(issued.own(&asked), asked);
        let other = issued.own(&asked);
        assert_ne!(other, asked);
        assert_ne!(issued.own(&other), other);
        for _ in 0..REQUEST_IDS_MAX - 3 {
            issued.own(&new_request_id());
        }
        assert_ne!(
            issued.own(&asked),
            asked,
            "the oldest of as many as are remembered"
        );
        assert_eq!(issued.own(&asked), asked, "one more");
        let known = issued.0.lock().unwrap();
        assert_eq!(
            (known.ids.len(), known.order.len()),
            (REQUEST_IDS_MAX, REQUEST_IDS_MAX)
        );
    }
}
