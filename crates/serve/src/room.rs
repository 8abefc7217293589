//! How many bytes of requests are in memory at once: in all, and from one address.
//!
//! A request is held until it is answered, and most of that time before anybody knows who sent it. Counted are bytes that
//! have arrived: announcing much takes no room from others. This machine has no share of its own, as with connections.

use crate::request::ClientAddress;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The room of one server. Clones are the same room.
#[derive(Debug, Clone)]
pub(crate) struct Room {
    all: usize,
    per_address: usize,
    taken: Arc<Mutex<Taken>>,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    by_address: HashMap<IpAddr, usize>,
}

/// There is no room for more; there will be when others are answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NoRoom;

/// What one request takes, given back when dropped.
#[derive(Debug)]
pub(crate) struct Held {
    room: Room,
    address: Option<IpAddr>,
    bytes: usize,
}

impl Room {
    pub(crate) fn new(all: usize, per_address: usize) -> Self {
        Self {
            all,
            per_address,
            taken: Arc::default(),
        }
    }

    /// Nothing yet, for a request of this client.
    pub(crate) fn hold(&self, client: ClientAddress) -> Held {
        Held {
            room: self.clone(),
            address: client.counted_as(),
            bytes: 0,
        }
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    /// Takes this many bytes more, or none.
    pub(crate) fn take(&mut self, bytes: usize) -> Result<(), NoRoom> {
        let mut taken = self.room.taken();
        let all = taken.all.saturating_add(bytes);
        if all > self.room.all {
            return Err(NoRoom);
        }
        if let Some(address) = self.address {
            let share = taken.by_address.get(&address).copied().unwrap_or(0);
            let share = share.saturating_add(bytes);
            if share > self.room.per_address {
                return Err(NoRoom);
            }
            taken.by_address.insert(address, share);
        }
        taken.all = all;
        self.bytes += bytes;
        Ok(())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut taken = self.room.taken();
        taken.all = taken.all.saturating_sub(self.bytes);
        let Some(address) = self.address else { return };
        if let Some(share) = taken.by_address.get_mut(&address) {
            *share = share.saturating_sub(self.bytes);
            if *share == 0 {
                taken.by_address.remove(&address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> ClientAddress {
        ClientAddress::Ip(text.parse().unwrap())
    }

    #[test]
    fn everybody_has_a_share_of_the_room_and_gives_it_back() {
        let room = Room::new(100, 40);
        let mut one = room.hold(ip("192.0.2.1"));
        one.take(30).unwrap();
        let mut again = room.hold(ip("192.0.2.1"));
        assert_eq!(again.take(11), Err(NoRoom));
        again.take(10).unwrap();
        let mut other = room.hold(ip("192.0.2.2"));
        other.take(40).unwrap();
        // This machine has no share, but there is no more than there is.
        let mut local = room.hold(ip("127.0.0.1"));
        assert_eq!(local.take(21), Err(NoRoom));
        local.take(20).unwrap();
        assert_eq!(room.hold(ip("192.0.2.3")).take(1), Err(NoRoom));
        drop(one);
        again.take(30).unwrap();
        drop((again, other, local));
        let taken = room.taken();
        assert!(taken.all == 0 && taken.by_address.is_empty());
    }
}
