//! A CA that dies in the middle of a word, in every way that a word has a middle; and what is no CA at all.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

/// How it breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Breaks {
    /// Takes the connection and ends it at once.
    AtOnce,
    /// Ends it when it has the request.
    AfterTheRequest,
    /// Ends it within its own headers.
    WithinHeaders,
    /// Ends it where the body should begin.
    AfterHeaders,
    /// Ends it within the body.
    WithinBody,
    /// Sends something that is no HTTP.
    Garbage,
    /// A captive portal: a page, with status 200.
    Portal,
    /// A captive portal of the other kind: leads to a page elsewhere.
    Redirect,
    /// A proxy in front of a CA that is down.
    BadGateway,
}

impl Breaks {
    pub(crate) const ALL: [Self; 9] = [
        Self::AtOnce,
        Self::AfterTheRequest,
        Self::WithinHeaders,
        Self::AfterHeaders,
        Self::WithinBody,
        Self::Garbage,
        Self::Portal,
        Self::Redirect,
        Self::BadGateway,
    ];

    fn answer(self) -> &'static str {
        match self {
            Self::AtOnce | Self::AfterTheRequest => "",
            Self::WithinHeaders => "HTTP/1.1 200 OK\r\nContent-Ty",
            Self::AfterHeaders => {
                "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 900\r\n\r\n"
            }
            Self::WithinBody => {
                "HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n{\"certificate\":\"ssh-ed25519-cert-v01"
            }
            Self::Garbage => "\x16\x03\x01 SSH-2.0-OpenSSH_9.2\r\n\r\n\r\n",
            Self::Portal => {
                "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 48\r\n\r\n<html><body>Welcome to our hotel</body></html>\r\n"
            }
            Self::Redirect => {
                "HTTP/1.1 302 Found\r\nLocation: http://portal.invalid/login\r\nContent-Length: 0\r\n\r\n"
            }
            Self::BadGateway => "HTTP/1.1 502 Bad Gateway\r\nContent-Length: 3\r\n\r\nno\n",
        }
    }
}

/// See the module. It listens as long as the test's process lives.
#[derive(Debug)]
pub(crate) struct BrokenCa {
    port: u16,
    asked: Arc<AtomicUsize>,
}

impl BrokenCa {
    /// Listens on loopback. Even connections are ended in order, odd ones reset.
    pub(crate) fn start(breaks: Breaks) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a loopback port is free");
        let port = listener.local_addr().expect("a listener has an address").port();
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let number = count.fetch_add(1, Ordering::Relaxed);
                thread::spawn(move || answer(stream, breaks, number % 2 == 1));
            }
        });
        Self { port, asked }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// How often somebody connected.
    pub(crate) fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

fn answer(mut stream: TcpStream, breaks: Breaks, resets: bool) {
    let _ = stream.set_read_timeout(Some(Duration::from_secs(5)));
    if breaks != Breaks::AtOnce && read_request(&mut stream).is_some() {
        // Whoever asked may have gone.
        let _ = stream.write_all(breaks.answer().as_bytes());
    }
    if resets {
        // Ending a socket that holds unread bytes, or that lingers for no time at all, resets the connection.
        let linger = rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO));
        linger.expect("a TCP socket");
    }
}

/// Reads a request to its end, as its length says.
fn read_request(stream: &mut TcpStream) -> Option<()> {
    let (mut request, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        let count = stream.read(&mut buffer).ok().filter(|count| *count > 0)?;
        request.extend_from_slice(&buffer[..count]);
        let text = String::from_utf8_lossy(&request).to_ascii_lowercase();
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            continue;
        };
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
        if body.len() >= length.unwrap_or(0) {
            return Some(());
        }
    }
}
