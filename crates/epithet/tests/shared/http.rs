//! HTTP as it goes over the wire: bytes out, bytes in, nothing added and nothing hidden.

use epithet_testkit::DEADLINE;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;

/// An answer, taken apart but not interpreted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    /// `HTTP/1.1 200 OK`
    pub(crate) status_line: String,
    /// In the order in which they came, names in lower case.
    pub(crate) headers: Vec<(String, String)>,
    /// The body.
    pub(crate) body: String,
}

impl Answer {
    /// The status.
    pub(crate) fn status(&self) -> u16 {
        let status = self
            .status_line
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok());
        status.expect("a status line has a status")
    }

    /// The value of a header that comes once or not at all.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.iter().filter(|(header, _)| header == name);
        let value = values.next().map(|(_, value)| value.as_str());
        assert!(
            values.next().is_none(),
            "{name} comes more than once: {:?}",
            self.headers
        );
        value
    }

    /// The headers that a program could go by: without those that differ each time and those that frame the body.
    pub(crate) fn telling_headers(&self) -> Vec<(&str, &str)> {
        let mut headers: Vec<_> = self
            .headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .filter(|(name, _)| {
                !["date", "content-length", "connection", "epithet-request-id"].contains(name)
            })
            .collect();
        headers.sort_unstable();
        headers
    }
}

/// A request with a body, its `Host` and `Content-Length` in front of `headers`, and the connection to be closed.
pub(crate) fn request(method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut text = format!(
        "{method} {path} HTTP/1.1\r\nhost: ca.example.com\r\nconnection: close\r\ncontent-length: {}\r\n",
        body.len()
    );
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text.push_str("\r\n");
    [text.as_bytes(), body].concat()
}

/// Sends bytes to a server at `http://127.0.0.1:PORT` or `unix:///PATH`, and reads its answer to the end.
pub(crate) fn exchange(url: &str, request: &[u8]) -> Answer {
    let bytes = if let Some(path) = url.strip_prefix("unix://") {
        let stream = UnixStream::connect(path).unwrap_or_else(|error| panic!("{url}: {error}"));
        stream.set_read_timeout(Some(DEADLINE)).expect("a socket");
        converse(stream, request)
    } else {
        let address = url.strip_prefix("http://").expect("an http URL");
        let stream = TcpStream::connect(address).unwrap_or_else(|error| panic!("{url}: {error}"));
        stream.set_read_timeout(Some(DEADLINE)).expect("a socket");
        converse(stream, request)
    };
    parse(&bytes)
}

fn converse(mut stream: impl Read + Write, request: &[u8]) -> Vec<u8> {
    // A server that has seen enough may stop reading; its answer is there all the same.
    let _ = stream.write_all(request);
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes);
    bytes
}

fn parse(bytes: &[u8]) -> Answer {
    let text = String::from_utf8(bytes.to_vec()).expect("every answer is UTF-8");
    let Some((head, body)) = text.split_once("\r\n\r\n") else {
        panic!("not an HTTP answer: {text:?}")
    };
    let mut lines = head.split("\r\n");
    let status_line = lines.next().expect("split gives one piece at least").to_owned();
    let headers = lines
        .map(|line| {
            let (name, value) = line
                .split_once(": ")
                .unwrap_or_else(|| panic!("not a header: {line:?}"));
            (name.to_ascii_lowercase(), value.to_owned())
        })
        .collect();
    Answer {
        status_line,
        headers,
        body: body.to_owned(),
    }
}
