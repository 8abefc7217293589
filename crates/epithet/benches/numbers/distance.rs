//! A CA that is not on this machine: a relay that holds every byte back for a while, in both directions.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

/// Listens on loopback and relays to `target`; what it reads it passes on `one_way` later. Returns its port.
pub(crate) fn relay(target: SocketAddr, one_way: Duration) -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a loopback port is free");
    let port = listener.local_addr().expect("a listener has an address").port();
    thread::spawn(move || {
        for near in listener.incoming().flatten() {
            let Ok(far) = TcpStream::connect(target) else {
                continue;
            };
            for stream in [&near, &far] {
                stream.set_nodelay(true).expect("a TCP socket");
            }
            let copy = |stream: &TcpStream| stream.try_clone().expect("a descriptor is free");
            carry(copy(&near), copy(&far), one_way);
            carry(far, near, one_way);
        }
    });
    port
}

/// Passes on one direction until it ends.
fn carry(mut from: TcpStream, mut to: TcpStream, one_way: Duration) {
    let (sender, due) = mpsc::channel::<(Instant, Vec<u8>)>();
    thread::spawn(move || {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            if sender
                .send((Instant::now() + one_way, buffer[..count].to_vec()))
                .is_err()
            {
                return;
            }
        }
    });
    thread::spawn(move || {
        for (when, bytes) in due {
            thread::sleep(when.saturating_duration_since(Instant::now()));
            if to.write_all(&bytes).is_err() {
                break;
            }
        }
        // The other side may have gone already.
        let _ = to.shutdown(Shutdown::Write);
    });
}
