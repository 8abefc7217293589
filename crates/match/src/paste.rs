//! An address that a person pastes, and its way to the login that waits for it.
//!
//! The browser ended elsewhere on an address that leads nowhere there. Its query is the provider's answer to our own
//! listener, so it is delivered there as the browser would have done: by a GET. What it says is not looked at here.

use epithet_wire::LoopbackAddress;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

/// How long the listener, which is on this machine, may take to accept and to take the request.
const DELIVERY_DEADLINE: Duration = Duration::from_secs(2);
/// Enough of an HTTP response to see its status: `HTTP/1.1 200`.
const STATUS_LENGTH: usize = 12;
/// A terminal gives no longer line (`N_TTY_BUF_SIZE` on Linux, `MAX_CANON` on macOS); what is as long as this has lost its
/// end.
pub(crate) const LINE_MAX: usize = if cfg!(target_os = "macos") { 1023 } else { 4095 };

/// The query of a pasted address, if it is the kind of address on which a login ends.
///
/// # Errors
/// What to say to the person, one line.
pub(crate) fn query_of(line: &str) -> Result<&str, &'static str> {
    // Terminals may mark the beginning and end of what is pasted; people copy brackets and quotes along.
    let text = line.trim();
    let text = text.strip_prefix("\x1b[200~").unwrap_or(text);
    let text = text.strip_suffix("\x1b[201~").unwrap_or(text);
    let text = text.trim_matches(|c: char| c.is_whitespace() || "<>\"'`".contains(c));
    if line.len() >= LINE_MAX {
        return Err(
            "that address is too long for this terminal; let the browser find its way back instead (see `ssh -L` above)",
        );
    }
    let is_address = ["http://", "https://"].iter().any(|scheme| {
        text.get(..scheme.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(scheme))
    });
    if !is_address {
        return Err("that is not an address; paste the whole address (http...) on which the browser ended");
    }
    let (text, _) = text.split_once('#').unwrap_or((text, ""));
    let (_, query) = text.split_once('?').unwrap_or((text, ""));
    let has = |name: &str| {
        query.split('&').any(|pair| {
            pair.split_once('=')
                .is_some_and(|(found, value)| found == name && !value.is_empty())
        })
    };
    if !(has("state") && (has("code") || has("error"))) {
        return Err(
            "that is not the address on which the login ended: it has no `code` and `state`; log in first, then paste the last address",
        );
    }
    if !query.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(
            "that address has blanks or other characters in it that addresses do not have; paste it once more",
        );
    }
    Ok(query)
}

/// A request to the listener, whose answer has not come yet.
#[derive(Debug)]
pub(crate) struct Delivery {
    stream: TcpStream,
    head: Vec<u8>,
}

impl Delivery {
    /// Sends a query to the listener.
    pub(crate) fn send(deliver_to: &LoopbackAddress, query: &str) -> io::Result<Self> {
        let mut stream = connect(deliver_to)?;
        stream.set_write_timeout(Some(DELIVERY_DEADLINE))?;
        let request = format!(
            "GET {}?{query} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n",
            deliver_to.path(),
            deliver_to.authority()
        );
        stream.write_all(request.as_bytes())?;
        stream.set_nonblocking(true)?;
        Ok(Self {
            stream,
            head: Vec::new(),
        })
    }

    /// Takes what has come of the answer. `Some` when it is over: with what to say to the person, if there is anything.
    pub(crate) fn answer(&mut self) -> Option<Option<&'static str>> {
        let mut buffer = [0; 1024];
        match self.stream.read(&mut buffer) {
            Ok(0) => return Some(self.verdict()),
            Ok(count) => {
                let room = STATUS_LENGTH.saturating_sub(self.head.len());
                self.head.extend_from_slice(&buffer[..count.min(room)]);
            }
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                ) => {}
            Err(_) => return Some(self.verdict()),
        }
        None
    }

    /// A page that the listener shows for a login, good or bad, has status 200; the broker says how it went.
    fn verdict(&self) -> Option<&'static str> {
        match self.head.get(9..STATUS_LENGTH) {
            Some(b"200") => None,
            Some(b"400") => Some(
                "that address belongs to another login; paste the one on which the browser ended just now",
            ),
            Some(b"409") => Some("this login has been answered already"),
            _ => Some("the login did not take that address; start again"),
        }
    }
}

impl AsFd for Delivery {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

/// Connects to this machine and no other: names are not resolved.
fn connect(to: &LoopbackAddress) -> io::Result<TcpStream> {
    let (v4, v6) = (
        SocketAddr::from((Ipv4Addr::LOCALHOST, to.port())),
        SocketAddr::from((Ipv6Addr::LOCALHOST, to.port())),
    );
    let try_one = |address| TcpStream::connect_timeout(&address, DELIVERY_DEADLINE);
    match to.host() {
        "127.0.0.1" => try_one(v4),
        "[::1]" => try_one(v6),
        _ => try_one(v4).or_else(|_| try_one(v6)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn the_address_of_a_login_is_known_by_its_query_however_it_was_pasted() {
        let wanted = "code=a%2Fb&state=s-1";
        for line in [
            "http://127.0.0.1:4/callback?code=a%2Fb&state=s-1",
            "  HTTPS://elsewhere.example/cb?code=a%2Fb&state=s-1#_=_\r\n",
            "<http://localhost:4/?code=a%2Fb&state=s-1>",
            "\x1b[200~http://localhost:4/?code=a%2Fb&state=s-1\x1b[201~",
            "'http://[::1]:4?code=a%2Fb&state=s-1'",
        ] {
            assert_eq!(query_of(line), Ok(wanted), "{line:?}");
        }
        let refused = "http://127.0.0.1:4/?error=access_denied&error_description=no%20way&state=s";
        assert!(query_of(refused).unwrap().starts_with("error="));
    }

    #[test]
    fn whatever_else_is_pasted_gets_one_line_that_says_what_to_do() {
        let long = format!("http://127.0.0.1/?code={}&state=s", "x".repeat(LINE_MAX));
        for (line, word) in [
            ("yes", "not an address"),
            ("code=a&state=b", "not an address"),
            ("ftp://x/?code=a&state=b", "not an address"),
            ("http://\u{e4}", "no `code`"),
            ("http://127.0.0.1:4/callback", "no `code`"),
            ("https://idp.example/auth?client_id=x&state=b", "no `code`"),
            ("http://127.0.0.1:4/?code=&state=b", "no `code`"),
            ("http://127.0.0.1:4/?xcode=a&state=b", "no `code`"),
            ("http://127.0.0.1:4/?code=a&state=b c", "blanks"),
            ("http://127.0.0.1:4/?code=a&state=b\x1b[A", "blanks"),
            (&long, "too long"),
        ] {
            let said = query_of(line).unwrap_err();
            assert!(said.contains(word) && !said.contains('\n'), "{line:?}: {said}");
        }
    }

    #[test]
    fn a_delivery_is_the_request_of_a_browser_and_its_status_is_explained() {
        for (status, word) in [
            ("200 OK", None),
            ("400 Bad Request", Some("another login")),
            ("409 Conflict", Some("already")),
            ("500 Oh", Some("start again")),
        ] {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            let port = listener.local_addr().unwrap().port();
            for host in ["127.0.0.1", "localhost"] {
                let address = format!("http://{host}:{port}/callback").parse().unwrap();
                let mut delivery = Delivery::send(&address, "code=a&state=b").unwrap();
                let (mut stream, _) = listener.accept().unwrap();
                let mut request = vec![0; 4096];
                let length = stream.read(&mut request).unwrap();
                assert_eq!(
                    String::from_utf8_lossy(&request[..length]),
                    format!(
                        "GET /callback?code=a&state=b HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n"
                    )
                );
                assert_eq!(delivery.answer(), None);
                write!(stream, "HTTP/1.1 {status}\r\nContent-Length: 5\r\n\r\nhello").unwrap();
                drop(stream);
                let said = loop {
                    if let Some(said) = delivery.answer() {
                        break said;
                    }
                };
                assert_eq!(said.is_some(), word.is_some(), "{status}");
                assert!(
                    said.unwrap_or_default().contains(word.unwrap_or_default()),
                    "{status}"
                );
            }
        }
    }
}
