//! A CA that answers what a story tells it to, byte for byte, and remembers what it was asked. Its certificates are real.

use epithet_ssh::{CaKey, CertificateSpec, SubjectPublicKey};
use epithet_wire::ca::CertificateRequest;
use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

/// A request as it came.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) method: String,
    headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Asked {
    pub(crate) fn header(&self, name: &str) -> &str {
        let found = (self.headers.iter()).find(|(header, _)| header.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str()).unwrap_or_default()
    }
}

/// See the module. It listens until the test's process ends.
#[derive(Debug)]
pub(crate) struct FakeCa {
    port: u16,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl FakeCa {
    /// Answers each request with the bytes that `answer` returns, on a thread of its own.
    pub(crate) fn start(answer: impl Fn(&Asked) -> String + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a loopback port is free");
        let port = listener.local_addr().expect("an address").port();
        let asked: Arc<Mutex<Vec<Asked>>> = Arc::default();
        let (record, answer) = (Arc::clone(&asked), Arc::new(answer));
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (record, answer) = (Arc::clone(&record), Arc::clone(&answer));
                std::thread::spawn(move || converse(stream, &record, &*answer).ok());
            }
        });
        Self { port, asked }
    }

    /// Certifies with this key; each certificate ends after `life`.
    pub(crate) fn certifying(key: &Arc<CaKey>, life: Duration) -> Self {
        let key = Arc::clone(key);
        Self::start(move |asked| certificate(&key, asked, life))
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The requests for certificates so far.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        let asked = self.asked.lock().expect("nobody panicked");
        asked
            .iter()
            .filter(|asked| asked.method == "POST")
            .cloned()
            .collect()
    }
}

fn converse(
    stream: TcpStream,
    record: &Mutex<Vec<Asked>>,
    answer: &(impl Fn(&Asked) -> String + ?Sized),
) -> std::io::Result<()> {
    let mut reader = BufReader::new(&stream);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let method = line.split(' ').next().unwrap_or_default().to_owned();
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        match line.trim_end().split_once(": ") {
            Some((name, value)) => headers.push((name.to_owned(), value.to_owned())),
            None => break,
        }
    }
    let mut asked = Asked {
        method,
        headers,
        body: Vec::new(),
    };
    asked.body = vec![0; asked.header("content-length").parse().unwrap_or(0)];
    reader.read_exact(&mut asked.body)?;
    record.lock().expect("nobody panicked").push(asked.clone());
    (&stream).write_all(answer(&asked).as_bytes())
}

/// An answer with this status line, headers and body.
pub(crate) fn answer(status: &str, headers: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\n{headers}connection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// The certificate that was asked for, as a CA answers it; to a `GET`, its public key.
pub(crate) fn certificate(key: &CaKey, asked: &Asked, life: Duration) -> String {
    if asked.method == "GET" {
        return answer("200 OK", "content-type: text/plain\r\n", &key.public_line());
    }
    let request: CertificateRequest = serde_json::from_slice(&asked.body).expect("a request");
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .expect("past 1970")
        .as_secs();
    let certificate = CertificateSpec {
        subject: SubjectPublicKey::parse(request.public_key.trim_end()).expect("a public key"),
        serial: now,
        key_id: "story".parse().expect("a key id"),
        principals: vec![request.connection.remote_user.parse().expect("a user")],
        valid_after: now - 60,
        valid_before: now + life.as_secs(),
        critical_options: BTreeMap::new(),
        extensions: BTreeMap::from([("permit-pty".to_owned(), String::new())]),
    }
    .sign(key)
    .expect("every field is in order");
    let body = serde_json::json!({"certificate": format!("{}\n", certificate.line())});
    answer("200 OK", "content-type: application/json\r\n", &body.to_string())
}
