//! How many connections may be open: in all, and from one address.
//!
//! When the server is full, accepting waits for somebody to leave, and the system's own queue holds those who come.
//! An address that has its share already is turned away at once: it must not keep the others waiting.

use crate::request::ClientAddress;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Counts open connections.
#[derive(Debug)]
pub(crate) struct Admission {
    room: Arc<Semaphore>,
    per_address: usize,
    by_address: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

/// Room for one connection, given back when dropped.
#[derive(Debug)]
pub(crate) struct Admitted {
    _permit: OwnedSemaphorePermit,
    _share: Option<Share>,
}

#[derive(Debug)]
struct Share {
    address: IpAddr,
    by_address: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

impl Admission {
    pub(crate) fn new(connections: usize, per_address: usize) -> Self {
        Self {
            room: Arc::new(Semaphore::new(connections)),
            per_address,
            by_address: Arc::default(),
        }
    }

    /// Waits until the server has room for one more connection.
    pub(crate) async fn room(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.room).acquire_owned().await.ok()
    }

    /// Lets a client in unless its address has its share already. This machine itself has no share, and neither have
    /// trusted proxies (`is_proxy`): behind them is everybody.
    pub(crate) fn admit(
        &self,
        permit: OwnedSemaphorePermit,
        client: ClientAddress,
        is_proxy: bool,
    ) -> Option<Admitted> {
        let share = match client.counted_as() {
            Some(address) if !is_proxy => Some(self.share(address)?),
            _ => None,
        };
        Some(Admitted {
            _permit: permit,
            _share: share,
        })
    }

    fn share(&self, address: IpAddr) -> Option<Share> {
        let mut counts = self.by_address.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(address).or_default();
        if *count >= self.per_address {
            return None;
        }
        *count += 1;
        Some(Share {
            address,
            by_address: Arc::clone(&self.by_address),
        })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut counts = self.by_address.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.address);
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

    #[tokio::test]
    async fn an_address_gets_its_share_and_gets_it_back() {
        let admission = Admission::new(10, 2);
        let mut held = Vec::new();
        for _ in 0..2 {
            let permit = admission.room().await.unwrap();
            held.push(
                admission
                    .admit(permit, ip("192.0.2.1"), false)
                    .expect("within the share"),
            );
        }
        let permit = admission.room().await.unwrap();
        assert!(admission.admit(permit, ip("192.0.2.1"), false).is_none());
        let permit = admission.room().await.unwrap();
        held.push(
            admission
                .admit(permit, ip("192.0.2.2"), false)
                .expect("another address"),
        );
        held.remove(0);
        let permit = admission.room().await.unwrap();
        assert!(admission.admit(permit, ip("192.0.2.1"), false).is_some());
        drop(held);
        assert!(admission.by_address.lock().unwrap().is_empty());
        assert_eq!(admission.room.available_permits(), 10);
    }

    #[tokio::test]
    async fn an_ipv6_network_counts_as_one_and_this_machine_not_at_all() {
        let admission = Admission::new(100, 1);
        let permit = admission.room().await.unwrap();
        let _held = admission.admit(permit, ip("2001:db8::1"), false).unwrap();
        let permit = admission.room().await.unwrap();
        assert!(admission.admit(permit, ip("2001:db8::2"), false).is_none());
        let permit = admission.room().await.unwrap();
        assert!(admission.admit(permit, ip("2001:db8:0:1::2"), false).is_some());
        let mut local = Vec::new();
        for _ in 0..5 {
            let permit = admission.room().await.unwrap();
            local.push(admission.admit(permit, ip("127.0.0.1"), false).expect("loopback"));
            let permit = admission.room().await.unwrap();
            local.push(admission.admit(permit, ip("192.0.2.9"), true).expect("a proxy"));
        }
    }
}
