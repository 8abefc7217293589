//! Waiting, and ports.

use std::net::{Ipv4Addr, TcpListener};
use std::time::{Duration, Instant};

/// How long a fixture waits for something that ought to happen: long enough for a busy machine with two cores, short
/// enough that a hanging test is noticed.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// Between two looks at something that gives no sign when it changes.
const PAUSE: Duration = Duration::from_millis(2);

/// Asks again and again until `look` has an answer, or gives up after `timeout`.
///
/// Only for what gives no event to wait for, such as a file that another process makes.
pub fn wait_until<T>(timeout: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + timeout;
    loop {
        if let Some(found) = look() {
            return Some(found);
        }
        if Instant::now() >= end {
            return None;
        }
        std::thread::sleep(PAUSE);
    }
}

/// A TCP port on 127.0.0.1 that was free a moment ago: for programs that cannot choose one themselves.
///
/// Somebody else may take it before it is used; whoever uses it must be ready to try another.
///
/// # Panics
/// When the machine has no port left.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a loopback port is free");
    listener.local_addr().expect("a listener has an address").port()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_ends_with_the_answer_or_with_the_time() {
        let mut looks = 0;
        let found = wait_until(DEADLINE, || {
            looks += 1;
            (looks == 3).then_some(looks)
        });
        assert_eq!(found, Some(3));
        assert_eq!(wait_until(Duration::ZERO, || None::<()>), None);
        assert_ne!(free_port(), 0);
    }
}
