//! Clients that want the server for themselves: floods of HTTP/2 frames, connections on which nothing is asked, answers that
//! nobody reads. Each costs its own connection, and everybody else is served. And the end of a server with requests in
//! flight, in both versions of HTTP.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use axum::Router;
use axum::routing::get;
use epithet_serve::{Listen, Settings, Tls, serve};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Notify, Semaphore};
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::{ClientConfig, RootCertStore, pki_types};
use tokio_util::sync::CancellationToken;

/// How long a test waits for what has to happen.
const DEADLINE: Duration = Duration::from_secs(60);
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
/// GET / over https, for localhost.
const GET: &[u8] = b"\x82\x84\x87\x41\x09localhost";

struct Running {
    address: SocketAddr,
    tls: Tls,
    stop: CancellationToken,
    ended: tokio::task::JoinHandle<()>,
    folder: tempfile::TempDir,
}

fn fixture(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tls").join(name)
}

/// Puts a certificate and its key into a folder, the key readable by its owner alone.
fn install(folder: &Path, prefix: &str) {
    use std::os::unix::fs::PermissionsExt;
    for name in ["certificate.pem", "key.pem"] {
        std::fs::copy(fixture(&format!("{prefix}{name}")), folder.join(name)).unwrap();
    }
    std::fs::set_permissions(folder.join("key.pem"), std::fs::Permissions::from_mode(0o600)).unwrap();
}

async fn start(router: Router, settings: Settings) -> Running {
    let folder = tempfile::tempdir().unwrap();
    install(folder.path(), "");
    let tls = Tls::load(
        &folder.path().join("certificate.pem"),
        &folder.path().join("key.pem"),
    )
    .unwrap();
    let settings = Settings {
        tls: Some(tls.clone()),
        ..settings
    };
    let listener = Listen::parse("127.0.0.1:0").unwrap().bind().await.unwrap();
    let address = listener.tcp_address().unwrap();
    let stop = CancellationToken::new();
    let ended = tokio::spawn(serve(listener, router, settings, stop.clone()));
    Running {
        address,
        tls,
        stop,
        ended,
        folder,
    }
}

fn hello() -> Router {
    Router::new().route("/", get(|| async { "hello" }))
}

fn client(certificate: &str) -> reqwest::Client {
    let pem = std::fs::read(fixture(certificate)).unwrap();
    reqwest::Client::builder()
        .tls_certs_only([reqwest::Certificate::from_pem(&pem).unwrap()])
        .build()
        .unwrap()
}

impl Running {
    fn url(&self) -> String {
        format!("https://localhost:{}/", self.address.port())
    }

    async fn serves_others(&self) {
        let answer = client("certificate.pem").get(self.url()).send().await.unwrap();
        assert_eq!(answer.text().await.unwrap(), "hello");
    }

    /// A connection on which HTTP/2 has begun.
    async fn http2(&self) -> TlsStream<TcpStream> {
        use pki_types::pem::PemObject;
        let mut roots = RootCertStore::empty();
        let certificate = pki_types::CertificateDer::from_pem_file(fixture("certificate.pem")).unwrap();
        roots.add(certificate).unwrap();
        let mut config = ClientConfig::builder()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        let stream = TcpStream::connect(self.address).await.unwrap();
        let name = pki_types::ServerName::try_from("localhost").unwrap();
        let mut stream = connector.connect(name, stream).await.unwrap();
        stream
            .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
            .await
            .unwrap();
        stream.write_all(&frame(SETTINGS, 0, 0, b"")).await.unwrap();
        stream
    }
}

/// RFC 9113 section 4.1.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// The kinds of frames that came until the server closed the connection.
async fn kinds(stream: &mut TlsStream<TcpStream>) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut piece = [0; 4096];
    let all = async {
        // However it ends, it ends.
        while let Ok(read @ 1..) = stream.read(&mut piece).await {
            bytes.extend_from_slice(&piece[..read]);
        }
    };
    tokio::time::timeout(DEADLINE, all)
        .await
        .expect("the server hangs up");
    let (mut kinds, mut rest) = (Vec::new(), &bytes[..]);
    while let [a, b, c, kind, ..] = *rest {
        kinds.push(kind);
        let length = usize::try_from(u32::from_be_bytes([0, a, b, c])).unwrap();
        rest = rest.get(9 + length..).unwrap_or_default();
    }
    kinds
}

/// Sends these frames for as long as the server takes them, and returns what it said until it hung up.
async fn flood(server: &Running, mut frames: impl FnMut(u32) -> Vec<u8>) -> Vec<u8> {
    let mut stream = server.http2().await;
    for number in 0..20_000 {
        if stream.write_all(&frames(number)).await.is_err() {
            break;
        }
    }
    kinds(&mut stream).await
}

#[tokio::test]
async fn requests_that_are_taken_back_at_once_end_their_connection() {
    let server = start(hello(), Settings::default()).await;
    let said = flood(&server, |number| {
        let stream = 2 * number + 1;
        [
            frame(HEADERS, END_STREAM | END_HEADERS, stream, GET),
            frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes()),
        ]
        .concat()
    })
    .await;
    assert!(said.is_empty() || said.contains(&GOAWAY), "{said:?}");
    server.serves_others().await;
}

#[tokio::test]
async fn headers_that_never_end_end_their_connection() {
    for payload in [&b""[..], b"\x00\x03aaa\x03bbb"] {
        let server = start(hello(), Settings::default()).await;
        let said = flood(&server, |number| match number {
            0 => frame(HEADERS, END_STREAM, 1, GET),
            _ => frame(CONTINUATION, 0, 1, payload),
        })
        .await;
        assert!(said.is_empty() || said.contains(&GOAWAY), "{said:?}");
        server.serves_others().await;
    }
}

#[tokio::test]
async fn a_connection_on_which_nothing_is_asked_is_closed_politely() {
    let settings = Settings {
        idle: Duration::from_millis(200),
        ..Settings::default()
    };
    let server = start(hello(), settings).await;
    let mut stream = server.http2().await;
    stream
        .write_all(&frame(HEADERS, END_STREAM | END_HEADERS, 1, GET))
        .await
        .unwrap();
    let said = kinds(&mut stream).await;
    let position = |kind| said.iter().position(|said| *said == kind);
    assert!(
        position(HEADERS).unwrap() < position(GOAWAY).unwrap(),
        "answered first: {said:?}"
    );
    server.serves_others().await;
}

#[tokio::test]
async fn a_client_that_does_not_read_its_answers_is_hung_up_on() {
    let settings = Settings {
        write_deadline: Duration::from_millis(300),
        ..Settings::default()
    };
    // Without TLS, so that nothing is between the client and the system's buffers.
    let listener = Listen::parse("127.0.0.1:0").unwrap().bind().await.unwrap();
    let address = listener.tcp_address().unwrap();
    let stop = CancellationToken::new();
    let large = "x".repeat(64 * 1024);
    let router = Router::new().route("/", get(move || async move { large }));
    let ended = tokio::spawn(serve(listener, router, settings, stop.clone()));
    let mut stream = TcpStream::connect(address).await.unwrap();
    let many = "GET / HTTP/1.1\r\nHost: h\r\n\r\n".repeat(100);
    // Until the server has had enough: nothing is read meanwhile.
    let asking = async { while stream.write_all(many.as_bytes()).await.is_ok() {} };
    tokio::time::timeout(DEADLINE, asking)
        .await
        .expect("the server hangs up");
    stop.cancel();
    ended.await.unwrap();
}

#[tokio::test]
async fn whatever_was_asked_before_the_stop_is_answered_in_both_versions() {
    const EACH: usize = 8;
    let (arrived, go) = (Arc::new(Semaphore::new(0)), Arc::new(Notify::new()));
    let (arrived_in, go_in) = (Arc::clone(&arrived), Arc::clone(&go));
    let slow = Router::new().route(
        "/",
        get(move || async move {
            let gone = go_in.notified();
            arrived_in.add_permits(1);
            gone.await;
            "hello"
        }),
    );
    let settings = Settings {
        drain: DEADLINE,
        ..Settings::default()
    };
    let server = start(slow, settings).await;
    let pem = std::fs::read(fixture("certificate.pem")).unwrap();
    let old_client = reqwest::Client::builder()
        .http1_only()
        .tls_certs_only([reqwest::Certificate::from_pem(&pem).unwrap()])
        .build()
        .unwrap();
    let mut asked = Vec::new();
    for client in [client("certificate.pem"), old_client] {
        for _ in 0..EACH {
            asked.push(tokio::spawn(client.get(server.url()).send()));
        }
    }
    let all = arrived.acquire_many(u32::try_from(2 * EACH).unwrap()).await;
    drop(all.unwrap());
    server.stop.cancel();
    tokio::task::yield_now().await;
    go.notify_waiters();
    for asked in asked {
        let answer = asked.await.unwrap().expect("no request is dropped");
        assert_eq!(answer.text().await.unwrap(), "hello");
    }
    tokio::time::timeout(DEADLINE, server.ended)
        .await
        .expect("idle connections keep nobody waiting")
        .unwrap();
}

#[tokio::test]
async fn a_request_that_comes_with_the_stop_is_answered_as_the_last_of_its_connection() {
    let listener = Listen::parse("127.0.0.1:0").unwrap().bind().await.unwrap();
    let address = listener.tcp_address().unwrap();
    let stop = CancellationToken::new();
    let settings = Settings {
        last_call: Duration::from_secs(2),
        goodbye: DEADLINE,
        drain: DEADLINE,
        ..Settings::default()
    };
    let ended = tokio::spawn(serve(listener, hello(), settings, stop.clone()));
    let ask = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n";
    let mut kept = TcpStream::connect(address).await.unwrap();
    kept.write_all(ask).await.unwrap();
    let mut first = [0; 4096];
    let read = kept.read(&mut first).await.unwrap();
    let first = String::from_utf8_lossy(&first[..read]).into_owned();
    assert!(
        first.ends_with("hello") && !first.contains("connection: close"),
        "{first}"
    );
    // One connection that was used before, and one that the server has not accepted yet.
    stop.cancel();
    let mut fresh = TcpStream::connect(address).await.unwrap();
    for stream in [&mut kept, &mut fresh] {
        stream.write_all(ask).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(
            answer.contains("connection: close") && answer.ends_with("hello"),
            "{answer}"
        );
    }
    tokio::time::timeout(DEADLINE, ended)
        .await
        .expect("the end")
        .unwrap();
}

#[tokio::test]
async fn connections_live_on_while_the_certificate_is_exchanged_and_new_ones_get_the_new_one() {
    let server = start(hello(), Settings::default()).await;
    let (old, new) = (client("certificate.pem"), client("second-certificate.pem"));
    assert!(old.get(server.url()).send().await.is_ok());
    install(server.folder.path(), "second-");
    server.tls.reload().unwrap();
    // The same connection: a new one would meet a certificate that this client does not know.
    let answer = old.get(server.url()).send().await.unwrap();
    assert_eq!(answer.text().await.unwrap(), "hello");
    assert!(new.get(server.url()).send().await.is_ok());
    assert!(client("certificate.pem").get(server.url()).send().await.is_err());
}
