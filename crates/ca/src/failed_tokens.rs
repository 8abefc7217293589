//! How many tokens that nobody believes an address may send.
//!
//! Each costs the policy server a verification, and a guess is all that an attacker has. So an address whose tokens
//! were refused too often within a minute waits for that minute's end. This machine and Unix sockets have no limit:
//! there a proxy may stand in front of everybody (see `--trusted-proxy`).
//!
//! A token takes one of the address's places before it is looked at, and keeps it if it is refused: as many as may
//! fail are under way at once, and no more. Others wait for what becomes of those.

use epithet_serve::ClientAddress;
use epithet_wire::limits::{FAILED_TOKENS_ADDRESSES, FAILED_TOKENS_MAX, FAILED_TOKENS_WINDOW};
use std::collections::HashMap;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// Tokens by address: those that were refused, and those that are under way. Clones count together.
#[derive(Debug, Default, Clone)]
pub(crate) struct FailedTokens(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    addresses: Mutex<HashMap<IpAddr, Tries>>,
    /// Somebody's place was given back, or kept for good.
    decided: Notify,
}

#[derive(Debug)]
struct Tries {
    since: Instant,
    failed: usize,
    under_way: usize,
}

/// What there is for another token of an address.
enum Room {
    Place(Place),
    /// Too many failed; this is how long to wait.
    Spent(Duration),
    /// None until something becomes of those under way.
    Taken,
}

/// A token's place. It is free again when this is dropped, unless the token was refused.
#[derive(Debug)]
pub(crate) struct Place {
    tokens: FailedTokens,
    address: Option<IpAddr>,
    refused: bool,
}

impl FailedTokens {
    /// A place for another token of this client, waited for while others of its are being looked at.
    ///
    /// # Errors
    /// How long the client has to wait before another token of its is looked at.
    pub(crate) async fn place(&self, client: Option<&ClientAddress>) -> Result<Place, Duration> {
        let Some(address) = client.and_then(ClientAddress::counted_as) else {
            return Ok(self.uncounted());
        };
        loop {
            let mut decided = pin!(self.0.decided.notified());
            // Before looking, so that nothing is missed in between.
            decided.as_mut().enable();
            match self.room(address, Instant::now()) {
                Room::Place(place) => return Ok(place),
                Room::Spent(wait) => return Err(wait),
                Room::Taken => decided.await,
            }
        }
    }

    fn room(&self, address: IpAddr, now: Instant) -> Room {
        let mut addresses = self.addresses();
        if addresses.len() >= FAILED_TOKENS_ADDRESSES && !addresses.contains_key(&address) {
            addresses.retain(|_, tries| tries.under_way > 0 || tries.left(now).is_some());
            // Whoever has that many addresses gains nothing by one more; the others stay counted.
            if addresses.len() >= FAILED_TOKENS_ADDRESSES {
                return Room::Place(self.uncounted());
            }
        }
        let tries = addresses.entry(address).or_insert(Tries {
            since: now,
            failed: 0,
            under_way: 0,
        });
        let left = tries.left(now);
        if left.is_none() {
            (tries.since, tries.failed) = (now, 0);
        }
        match left {
            Some(left) if tries.failed >= FAILED_TOKENS_MAX => Room::Spent(left),
            _ if tries.failed + tries.under_way >= FAILED_TOKENS_MAX => Room::Taken,
            _ => {
                tries.under_way += 1;
                Room::Place(Place {
                    tokens: self.clone(),
                    address: Some(address),
                    refused: false,
                })
            }
        }
    }

    fn uncounted(&self) -> Place {
        Place {
            tokens: self.clone(),
            address: None,
            refused: false,
        }
    }

    fn addresses(&self) -> MutexGuard<'_, HashMap<IpAddr, Tries>> {
        self.0.addresses.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tries {
    /// What is left of the minute.
    fn left(&self, now: Instant) -> Option<Duration> {
        FAILED_TOKENS_WINDOW
            .checked_sub(now.saturating_duration_since(self.since))
            .filter(|left| !left.is_zero())
    }
}

impl Place {
    /// The token was not believed.
    pub(crate) fn refused(mut self) {
        self.refused = true;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some(address) = self.address else { return };
        let mut addresses = self.tokens.addresses();
        if let Some(tries) = addresses.get_mut(&address) {
            tries.under_way = tries.under_way.saturating_sub(1);
            tries.failed += usize::from(self.refused);
            if tries.under_way == 0 && tries.failed == 0 {
                addresses.remove(&address);
            }
        }
        drop(addresses);
        self.tokens.0.decided.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> ClientAddress {
        ClientAddress::Ip(text.parse().unwrap())
    }

    /// How long this client has to wait for a place at this moment; none when there is one.
    fn wait(tokens: &FailedTokens, client: &str, now: Instant) -> Option<Duration> {
        match tokens.room(ip(client).counted_as().unwrap(), now) {
            Room::Place(_) => None,
            Room::Spent(wait) => Some(wait),
            Room::Taken => panic!("nothing is under way"),
        }
    }

    fn refuse(tokens: &FailedTokens, client: &str, times: usize, now: Instant) {
        for _ in 0..times {
            match tokens.room(ip(client).counted_as().unwrap(), now) {
                Room::Place(place) => place.refused(),
                _ => panic!("there is a place"),
            }
        }
    }

    #[test]
    fn an_address_waits_for_the_end_of_its_minute_and_others_do_not() {
        let tokens = FailedTokens::default();
        let (now, bad) = (Instant::now(), "203.0.113.9");
        refuse(&tokens, bad, FAILED_TOKENS_MAX - 1, now);
        assert_eq!(wait(&tokens, bad, now), None);
        refuse(&tokens, bad, 1, now);
        assert_eq!(wait(&tokens, bad, now), Some(FAILED_TOKENS_WINDOW));
        assert_eq!(wait(&tokens, "203.0.113.10", now), None);
        let later = now + FAILED_TOKENS_WINDOW - Duration::from_secs(1);
        assert_eq!(wait(&tokens, bad, later), Some(Duration::from_secs(1)));
        refuse(&tokens, bad, 1, now + FAILED_TOKENS_WINDOW);
        assert_eq!(wait(&tokens, bad, now + FAILED_TOKENS_WINDOW), None);
    }

    #[tokio::test]
    async fn no_more_tokens_are_under_way_than_may_fail() {
        let tokens = FailedTokens::default();
        let client = ip("203.0.113.9");
        let mut places = Vec::new();
        for _ in 0..FAILED_TOKENS_MAX {
            places.push(tokens.place(Some(&client)).await.unwrap());
        }
        let waiting = |tokens: FailedTokens| tokio::spawn(async move { tokens.place(Some(&client)).await });
        let next = waiting(tokens.clone());
        tokio::task::yield_now().await;
        assert!(!next.is_finished());
        assert!(tokens.place(Some(&ip("203.0.113.10"))).await.is_ok());
        // One was believed: its place is the next one's.
        drop(places.pop());
        let next = next.await.unwrap().unwrap();
        // None of the others was: whoever waits is told how long.
        let last = waiting(tokens.clone());
        tokio::task::yield_now().await;
        places.push(next);
        places.into_iter().for_each(Place::refused);
        assert!(last.await.unwrap().is_err());
    }

    #[tokio::test]
    async fn an_ipv6_network_is_one_and_this_machine_has_no_limit() {
        let tokens = FailedTokens::default();
        refuse(&tokens, "2001:db8::1", FAILED_TOKENS_MAX, Instant::now());
        assert!(tokens.place(Some(&ip("2001:db8::2"))).await.is_err());
        assert!(tokens.place(Some(&ip("2001:db8:0:1::2"))).await.is_ok());
        for free in [
            Some(ip("127.0.0.1")),
            Some(ip("::1")),
            Some(ClientAddress::Unix { uid: 0 }),
            None,
        ] {
            for _ in 0..=FAILED_TOKENS_MAX {
                tokens.place(free.as_ref()).await.unwrap().refused();
            }
        }
    }

    #[test]
    fn memory_is_bounded() {
        let tokens = FailedTokens::default();
        let now = Instant::now();
        for number in 0..u32::try_from(FAILED_TOKENS_ADDRESSES).unwrap() + 100 {
            let address = IpAddr::from((0x0b00_0000 + number).to_be_bytes()).to_string();
            refuse(&tokens, &address, 1, now);
        }
        assert_eq!(tokens.addresses().len(), FAILED_TOKENS_ADDRESSES);
        refuse(&tokens, "203.0.113.9", 1, now + FAILED_TOKENS_WINDOW);
        assert_eq!(tokens.addresses().len(), 1);
        // Whoever is believed leaves nothing behind.
        assert_eq!(wait(&tokens, "203.0.113.10", now), None);
        assert_eq!(tokens.addresses().len(), 1);
    }
}
