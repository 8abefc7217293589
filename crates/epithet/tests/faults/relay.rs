//! What lies between a laptop and its CA: a long way, a hotel's login page, a proxy.

use std::io::{Read, Write, copy};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

/// How it treats a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// Passes it on.
    Straight,
    /// Passes it on after a time, each way; connecting takes one of each. Where the network itself loses nothing, every
    /// twentieth piece arrives as late as what has to be sent again does.
    Far { each_way: Duration, stalls: bool },
    /// Answers with this instead.
    Answers(&'static str),
    /// As a proxy does: reads where it should lead (`CONNECT`), and leads to its one target.
    Tunnel,
}

/// How late a piece is that had to be sent again: TCP waits at least 200 ms beyond a round trip (RFC 6298, as Linux has it).
const SENT_AGAIN: Duration = Duration::from_millis(500);
/// One in so many is sent again.
const LOSS: usize = 20;
const PIECE: usize = 16 * 1024;

/// See the module. It listens as long as the test's process lives.
#[derive(Debug, Clone)]
pub(crate) struct Relay {
    address: SocketAddr,
    way: Arc<Mutex<Way>>,
    asked: Arc<AtomicUsize>,
}

impl Relay {
    /// Listens on a free port of `ip`, and leads to `target`, which is `host:port`, or a URL of that.
    pub(crate) fn start(ip: IpAddr, target: &str, way: Way) -> Self {
        let listener = TcpListener::bind((ip, 0)).expect("a loopback port is free");
        let address = listener.local_addr().expect("a listener has an address");
        let target = target.rsplit('/').next().unwrap_or(target).to_owned();
        let relay = Self {
            address,
            way: Arc::new(Mutex::new(way)),
            asked: Arc::default(),
        };
        let own = relay.clone();
        thread::spawn(move || {
            for near in listener.incoming().flatten() {
                own.asked.fetch_add(1, Ordering::Relaxed);
                let (way, target) = (own.way(), target.clone());
                thread::spawn(move || treat(near, &target, way));
            }
        });
        relay
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    /// How often somebody connected.
    pub(crate) fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }

    /// New connections are treated like this.
    pub(crate) fn change(&self, way: Way) {
        *self.way.lock().unwrap_or_else(PoisonError::into_inner) = way;
    }

    fn way(&self) -> Way {
        *self.way.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// Whoever asked may have gone at any moment, and so may the target.
fn treat(mut near: TcpStream, target: &str, way: Way) {
    let _ = near.set_nodelay(true);
    match way {
        Way::Straight => {
            pass_on(near, target, Duration::ZERO, false);
        }
        Way::Far { each_way, stalls } => {
            thread::sleep(2 * each_way);
            pass_on(near, target, each_way, stalls);
        }
        Way::Answers(text) => {
            if read_head(&mut near).is_some() {
                let _ = near.write_all(text.as_bytes());
            }
        }
        Way::Tunnel => {
            let led = read_head(&mut near)
                .filter(|head| head.starts_with("CONNECT "))
                .and_then(|_| {
                    near.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")
                        .ok()
                });
            if led.is_some() {
                pass_on(near, target, Duration::ZERO, false);
            }
        }
    }
}

/// Reads a request's head and whatever of its body came along.
fn read_head(stream: &mut TcpStream) -> Option<String> {
    let _ = stream.set_read_timeout(Some(Duration::from_secs(5)));
    let (mut head, mut buffer) = (Vec::new(), [0; PIECE]);
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        let count = stream.read(&mut buffer).ok().filter(|count| *count > 0)?;
        head.extend_from_slice(&buffer[..count]);
    }
    let _ = stream.set_read_timeout(None);
    Some(String::from_utf8_lossy(&head).into_owned())
}

fn pass_on(near: TcpStream, target: &str, each_way: Duration, stalls: bool) {
    let Ok(far) = TcpStream::connect(target) else {
        return;
    };
    let _ = far.set_nodelay(true);
    let (Ok(near_too), Ok(far_too)) = (near.try_clone(), far.try_clone()) else {
        return;
    };
    thread::spawn(move || pump(near_too, far_too, each_way, stalls));
    pump(far, near, each_way, stalls);
}

fn pump(mut from: TcpStream, mut to: TcpStream, each_way: Duration, stalls: bool) {
    static PIECES: AtomicUsize = AtomicUsize::new(0);
    if each_way.is_zero() {
        let _ = copy(&mut from, &mut to);
    } else {
        let mut buffer = [0; PIECE];
        while let Some(count) = from.read(&mut buffer).ok().filter(|count| *count > 0) {
            thread::sleep(each_way);
            if stalls && PIECES.fetch_add(1, Ordering::Relaxed).is_multiple_of(LOSS) {
                thread::sleep(SENT_AGAIN);
            }
            if to.write_all(&buffer[..count]).is_err() {
                break;
            }
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}
