//! How many tokens that nobody believes an address may send.
//!
//! Each costs the policy server a verification, and a guess is all that an attacker has. So an address whose tokens
//! were refused too often within a minute waits for that minute's end. This machine and Unix sockets have no limit:
//! there a proxy may stand in front of everybody (see `--trusted-proxy`).

use epithet_serve::ClientAddress;
use epithet_wire::limits::{FAILED_TOKENS_ADDRESSES, FAILED_TOKENS_MAX, FAILED_TOKENS_WINDOW};
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Refused tokens by address.
#[derive(Debug, Default)]
pub(crate) struct FailedTokens(Mutex<HashMap<IpAddr, Failures>>);

#[derive(Debug)]
struct Failures {
    since: Instant,
    count: usize,
}

impl FailedTokens {
    /// How long this client has to wait before another token of its is looked at; `None` when it need not.
    pub(crate) fn wait(&self, client: Option<&ClientAddress>, now: Instant) -> Option<Duration> {
        let address = client?.counted_as()?;
        let addresses = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let failures = addresses.get(&address)?;
        let left = FAILED_TOKENS_WINDOW.checked_sub(now.saturating_duration_since(failures.since))?;
        (failures.count >= FAILED_TOKENS_MAX && !left.is_zero()).then_some(left)
    }

    /// Notes that a token of this client was not believed.
    pub(crate) fn note(&self, client: Option<&ClientAddress>, now: Instant) {
        let Some(address) = client.and_then(ClientAddress::counted_as) else {
            return;
        };
        let mut addresses = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if addresses.len() >= FAILED_TOKENS_ADDRESSES && !addresses.contains_key(&address) {
            addresses
                .retain(|_, failures| now.saturating_duration_since(failures.since) < FAILED_TOKENS_WINDOW);
            // Whoever has that many addresses gains nothing by one more; the others stay counted.
            if addresses.len() >= FAILED_TOKENS_ADDRESSES {
                return;
            }
        }
        let failures = addresses
            .entry(address)
            .or_insert(Failures { since: now, count: 0 });
        if now.saturating_duration_since(failures.since) >= FAILED_TOKENS_WINDOW {
            *failures = Failures { since: now, count: 0 };
        }
        failures.count += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> ClientAddress {
        ClientAddress::Ip(text.parse().unwrap())
    }

    #[test]
    fn an_address_waits_for_the_end_of_its_minute_and_others_do_not() {
        let failed = FailedTokens::default();
        let (now, bad) = (Instant::now(), ip("203.0.113.9"));
        for _ in 1..FAILED_TOKENS_MAX {
            failed.note(Some(&bad), now);
        }
        assert_eq!(failed.wait(Some(&bad), now), None);
        failed.note(Some(&bad), now);
        assert_eq!(failed.wait(Some(&bad), now), Some(FAILED_TOKENS_WINDOW));
        assert_eq!(failed.wait(Some(&ip("203.0.113.10")), now), None);
        let later = now + FAILED_TOKENS_WINDOW - Duration::from_secs(1);
        assert_eq!(failed.wait(Some(&bad), later), Some(Duration::from_secs(1)));
        assert_eq!(failed.wait(Some(&bad), now + FAILED_TOKENS_WINDOW), None);
        failed.note(Some(&bad), now + FAILED_TOKENS_WINDOW);
        assert_eq!(failed.wait(Some(&bad), now + FAILED_TOKENS_WINDOW), None);
    }

    #[test]
    fn an_ipv6_network_is_one_and_this_machine_has_no_limit() {
        let failed = FailedTokens::default();
        let now = Instant::now();
        for client in ["2001:db8::1", "127.0.0.1", "::1"] {
            for _ in 0..FAILED_TOKENS_MAX {
                failed.note(Some(&ip(client)), now);
            }
        }
        assert!(failed.wait(Some(&ip("2001:db8::2")), now).is_some());
        assert!(failed.wait(Some(&ip("2001:db8:0:1::2")), now).is_none());
        for free in [
            Some(ip("127.0.0.1")),
            Some(ip("::1")),
            Some(ClientAddress::Unix { uid: 0 }),
            None,
        ] {
            assert_eq!(failed.wait(free.as_ref(), now), None);
        }
    }

    #[test]
    fn memory_is_bounded() {
        let failed = FailedTokens::default();
        let now = Instant::now();
        for number in 0..u32::try_from(FAILED_TOKENS_ADDRESSES).unwrap() + 100 {
            let address = ClientAddress::Ip(IpAddr::from((0x0b00_0000 + number).to_be_bytes()));
            failed.note(Some(&address), now);
        }
        assert_eq!(failed.0.lock().unwrap().len(), FAILED_TOKENS_ADDRESSES);
        failed.note(Some(&ip("203.0.113.9")), now + FAILED_TOKENS_WINDOW);
        assert_eq!(failed.0.lock().unwrap().len(), 1);
    }
}
