//! What a server does for and against its clients, seen from their side of the socket.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use axum::Router;
use axum::extract::Request;
use axum::routing::{get, post};
use epithet_serve::{ClientAddress, Listen, Settings, read_body, serve};
use epithet_wire::limits::{HTTP_HEADER_MAX, HTTP_ROOM};
use http::StatusCode;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

const LIMIT: usize = 64 * 1024;

struct Running {
    address: SocketAddr,
    stop: CancellationToken,
    ended: tokio::task::JoinHandle<()>,
}

async fn start(router: Router, settings: Settings) -> Running {
    let listener = Listen::parse("127.0.0.1:0").unwrap().bind().await.unwrap();
    let address = listener.tcp_address().unwrap();
    let stop = CancellationToken::new();
    let ended = tokio::spawn(serve(listener, router, settings, stop.clone()));
    Running { address, stop, ended }
}

fn echo() -> Router {
    Router::new()
        .route("/", get(|| async { "hello" }))
        .route(
            "/who",
            get(|axum::Extension(client): axum::Extension<ClientAddress>| async move { client.to_string() }),
        )
        .route(
            "/",
            post(|request: Request| async move {
                let (head, body) = request.into_parts();
                match read_body(body, &head, LIMIT).await {
                    Ok(bytes) => (StatusCode::OK, bytes.len().to_string()),
                    Err(error) => (error.status(), error.to_string()),
                }
            }),
        )
}

/// Sends raw bytes and returns everything the server says until it closes.
async fn exchange(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

const GET: &str = "GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";

#[tokio::test]
async fn every_reply_carries_a_request_id_of_its_own() {
    let server = start(echo(), Settings::default()).await;
    let id = |answer: &str| {
        let line = answer
            .lines()
            .find(|line| line.starts_with("epithet-request-id: "))
            .expect("a request id");
        line.split_once(' ').unwrap().1.to_owned()
    };
    let (first, second) = (
        exchange(server.address, GET).await,
        exchange(server.address, GET).await,
    );
    assert!(
        first.starts_with("HTTP/1.1 200 OK\r\n") && first.ends_with("hello"),
        "{first}"
    );
    assert_eq!(id(&first).len(), 16);
    assert_ne!(id(&first), id(&second));
}

#[tokio::test]
async fn a_handler_learns_who_asks() {
    let server = start(echo(), Settings::default()).await;
    let answer = exchange(
        server.address,
        "GET /who HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n",
    )
    .await;
    assert!(answer.ends_with("\r\n127.0.0.1"), "{answer}");
}

#[tokio::test]
async fn a_body_at_the_limit_is_read_and_one_byte_more_is_refused() {
    let server = start(echo(), Settings::default()).await;
    let url = format!("http://{}/", server.address);
    let client = reqwest::Client::new();
    for (size, status, text) in [
        (0, 200, "0"),
        (LIMIT, 200, "65536"),
        (LIMIT + 1, 413, "Request body too large"),
        (LIMIT * 8, 413, "Request body too large"),
    ] {
        let answer = client.post(&url).body(vec![b'x'; size]).send().await.unwrap();
        assert_eq!(answer.status().as_u16(), status, "{size}");
        assert_eq!(answer.text().await.unwrap(), text);
    }
    // The same without an announced length.
    let chunk = format!("{:x}\r\n{}\r\n", LIMIT, "x".repeat(LIMIT));
    for (chunks, status) in [(1, "200"), (2, "413")] {
        let answer = exchange(
            server.address,
            &format!(
                "POST / HTTP/1.1\r\nHost: h\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n{}0\r\n\r\n",
                chunk.repeat(chunks)
            ),
        )
        .await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
    }
}

#[tokio::test]
async fn smuggling_and_garbage_get_no_handler() {
    let server = start(echo(), Settings::default()).await;
    let attacks = [
        "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
        "garbage\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: h\r\nbad header\r\n\r\n",
    ];
    for attack in attacks {
        let answer = exchange(server.address, attack).await;
        assert!(
            answer.is_empty() || answer.starts_with("HTTP/1.1 400"),
            "{attack:?}: {answer}"
        );
    }
    let huge = format!("GET / HTTP/1.1\r\nHost: h\r\nX: {}\r\n\r\n", "x".repeat(200_000));
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let _ = stream.write_all(huge.as_bytes()).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    assert!(
        !answer.starts_with(b"HTTP/1.1 200"),
        "{}",
        String::from_utf8_lossy(&answer)
    );
    assert!(exchange(server.address, GET).await.ends_with("hello"));
}

#[tokio::test]
async fn a_client_that_does_not_finish_its_headers_is_disconnected() {
    let settings = Settings {
        read_deadline: Duration::from_millis(100),
        ..Settings::default()
    };
    let server = start(echo(), settings).await;
    for beginning in ["", "GET / HTTP/1.1\r\nHost:"] {
        let begun = Instant::now();
        let answer = exchange(server.address, beginning).await;
        assert!(!answer.contains("200"), "{answer}");
        assert!(
            begun.elapsed() >= Duration::from_millis(90),
            "{:?}",
            begun.elapsed()
        );
    }
}

#[tokio::test]
async fn a_full_server_answers_when_somebody_leaves() {
    let settings = Settings {
        connections: 1,
        ..Settings::default()
    };
    let server = start(echo(), settings).await;
    let mut first = TcpStream::connect(server.address).await.unwrap();
    first
        .write_all(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        .await
        .unwrap();
    let mut seen = [0; 15];
    first.read_exact(&mut seen).await.unwrap();
    let waiting = tokio::spawn(exchange(server.address, GET));
    tokio::task::yield_now().await;
    assert!(!waiting.is_finished());
    drop(first);
    assert!(waiting.await.unwrap().ends_with("hello"));
}

#[tokio::test]
async fn a_request_in_flight_is_answered_after_the_stop() {
    let (arrived, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (arrived_in, go_in) = (Arc::clone(&arrived), Arc::clone(&go));
    let slow = Router::new().route(
        "/",
        get(move || async move {
            arrived_in.notify_one();
            go_in.notified().await;
            "done"
        }),
    );
    let server = start(slow, Settings::default()).await;
    // A connection that has nothing to say must not hold up the end.
    let _idle = TcpStream::connect(server.address).await.unwrap();
    let request = tokio::spawn(exchange(server.address, "GET / HTTP/1.1\r\nHost: h\r\n\r\n"));
    arrived.notified().await;
    server.stop.cancel();
    go.notify_one();
    assert!(request.await.unwrap().ends_with("done"));
    tokio::time::timeout(Duration::from_secs(5), server.ended)
        .await
        .expect("the end")
        .unwrap();
    assert!(TcpStream::connect(server.address).await.is_err());
}

#[tokio::test]
async fn a_handler_that_never_ends_is_abandoned_when_the_drain_is_over() {
    let arrived = Arc::new(Notify::new());
    let arrived_in = Arc::clone(&arrived);
    let stuck = Router::new().route(
        "/",
        get(move || async move {
            arrived_in.notify_one();
            std::future::pending::<&str>().await
        }),
    );
    let settings = Settings {
        drain: Duration::from_millis(50),
        ..Settings::default()
    };
    let server = start(stuck, settings).await;
    let request = tokio::spawn(exchange(server.address, GET));
    arrived.notified().await;
    server.stop.cancel();
    tokio::time::timeout(Duration::from_secs(5), server.ended)
        .await
        .expect("the end")
        .unwrap();
    assert_eq!(request.await.unwrap(), "");
}

#[tokio::test]
async fn a_panic_in_a_handler_costs_one_connection() {
    let router = echo().route(
        "/panic",
        get(|| async { if true { panic!("on purpose") } else { "" } }),
    );
    let server = start(router, Settings::default()).await;
    assert_eq!(
        exchange(server.address, "GET /panic HTTP/1.1\r\nHost: h\r\n\r\n").await,
        ""
    );
    assert!(exchange(server.address, GET).await.ends_with("hello"));
}

async fn ask_unix(path: &Path) -> String {
    let mut stream = UnixStream::connect(path).await.unwrap();
    stream
        .write_all(GET.replace("GET / ", "GET /who ").as_bytes())
        .await
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn a_unix_socket_is_private_and_leaves_nothing_behind() {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("policy.sock");
    let listen = Listen::parse(&format!("unix://{}", path.display())).unwrap();
    let listener = listen.bind().await.unwrap();
    assert_eq!(
        std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777,
        0o600
    );
    let in_use = listen.bind().await.unwrap_err().to_string();
    assert!(in_use.contains("running process"), "{in_use}");
    let uid = std::fs::metadata(&path).unwrap().uid();
    let stop = CancellationToken::new();
    let ended = tokio::spawn(serve(listener, echo(), Settings::default(), stop.clone()));
    assert!(ask_unix(&path).await.ends_with(&format!("unix:uid={uid}")));
    stop.cancel();
    ended.await.unwrap();
    assert!(!path.exists());
}

#[tokio::test]
async fn a_dead_socket_is_taken_over_and_anything_else_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s");
    let listen = Listen::parse(&format!("unix://{}", path.display())).unwrap();
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    drop(listen.bind().await.unwrap());
    std::fs::write(&path, "precious").unwrap();
    let error = listen.bind().await.unwrap_err().to_string();
    assert!(error.contains("not a socket"), "{error}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
}

mod tls {
    use super::*;
    use epithet_serve::{Tls, TlsError};

    fn fixture(name: &str) -> std::path::PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tls").join(name)
    }

    /// The files in a directory of their own, the key readable by its owner alone.
    fn install(directory: &Path, prefix: &str) {
        use std::os::unix::fs::PermissionsExt;
        for name in ["certificate.pem", "key.pem"] {
            std::fs::copy(fixture(&format!("{prefix}{name}")), directory.join(name)).unwrap();
        }
        std::fs::set_permissions(directory.join("key.pem"), std::fs::Permissions::from_mode(0o600)).unwrap();
    }

    fn client(certificate: &str) -> reqwest::Client {
        let pem = std::fs::read(fixture(certificate)).unwrap();
        reqwest::Client::builder()
            .tls_certs_only([reqwest::Certificate::from_pem(&pem).unwrap()])
            .pool_max_idle_per_host(0)
            .build()
            .unwrap()
    }

    #[tokio::test]
    async fn both_versions_of_http_are_served_and_new_files_take_effect_while_running() {
        let directory = tempfile::tempdir().unwrap();
        install(directory.path(), "");
        let (certificate, key) = (
            directory.path().join("certificate.pem"),
            directory.path().join("key.pem"),
        );
        let tls = Tls::load(&certificate, &key).unwrap();
        let server = start(
            echo(),
            Settings {
                tls: Some(tls.clone()),
                ..Settings::default()
            },
        )
        .await;
        let url = format!("https://localhost:{}/", server.address.port());
        let (old, new) = (client("certificate.pem"), client("second-certificate.pem"));
        let answer = old.get(&url).send().await.unwrap();
        assert_eq!(answer.version(), http::Version::HTTP_2);
        assert_eq!(answer.text().await.unwrap(), "hello");
        assert!(new.get(&url).send().await.is_err());
        install(directory.path(), "second-");
        tls.reload().unwrap();
        assert_eq!(new.get(&url).send().await.unwrap().text().await.unwrap(), "hello");
        std::fs::write(&certificate, "broken").unwrap();
        assert!(matches!(tls.reload(), Err(TlsError::NoCertificate(_))));
        assert!(
            new.get(&url).send().await.is_ok(),
            "the last good certificate stays"
        );
    }

    #[tokio::test]
    async fn a_key_that_everybody_can_read_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().unwrap();
        install(directory.path(), "");
        let (certificate, key) = (
            directory.path().join("certificate.pem"),
            directory.path().join("key.pem"),
        );
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
        let error = Tls::load(&certificate, &key).unwrap_err().to_string();
        assert!(error.contains("chmod"), "{error}");
        let missing = Tls::load(&directory.path().join("none.pem"), &key)
            .unwrap_err()
            .to_string();
        assert!(missing.contains("none.pem"), "{missing}");
    }

    #[tokio::test]
    async fn silence_instead_of_a_handshake_ends_the_connection() {
        let directory = tempfile::tempdir().unwrap();
        install(directory.path(), "");
        let tls = Tls::load(
            &directory.path().join("certificate.pem"),
            &directory.path().join("key.pem"),
        )
        .unwrap();
        let settings = Settings {
            tls: Some(tls),
            read_deadline: Duration::from_millis(100),
            ..Settings::default()
        };
        let server = start(echo(), settings).await;
        assert_eq!(exchange(server.address, "").await, "");
    }
}

/// The status of the first answer to these bytes.
async fn status(address: SocketAddr, request: &str) -> u16 {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await.unwrap();
    std::str::from_utf8(&answer[9..]).unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_head_at_the_limit_is_read_and_one_byte_more_is_refused() {
    let server = start(echo(), Settings::default()).await;
    let begin = "GET / HTTP/1.1\r\nHost: h\r\nX: ";
    for (more, expected) in [(0, 200), (1, 431), (10_000, 431)] {
        let value = "a".repeat(HTTP_HEADER_MAX - begin.len() - 4 + more);
        let request = format!("{begin}{value}\r\n\r\n");
        assert_eq!(status(server.address, &request).await, expected, "{more}");
    }
}

#[tokio::test]
async fn a_request_names_one_host_and_one_token() {
    let server = start(echo(), Settings::default()).await;
    let token = "Authorization: Bearer t\r\n";
    for (headers, expected) in [
        (format!("Host: h\r\n{token}"), 200),
        (String::new(), 400),
        ("Host: h\r\nHost: h\r\n".to_owned(), 400),
        (format!("Host: h\r\n{token}{token}"), 400),
    ] {
        let request = format!("GET / HTTP/1.1\r\n{headers}\r\n");
        assert_eq!(status(server.address, &request).await, expected, "{headers}");
    }
}

#[tokio::test]
async fn whoever_announces_too_much_is_told_before_sending_it() {
    // 408 comes much later than this test may take.
    let server = start(echo(), Settings::default()).await;
    for headers in [
        "Content-Length: 99999999999999\r\n".to_owned(),
        format!("Content-Length: {}\r\nExpect: 100-continue\r\n", LIMIT + 1),
        format!("Content-Length: {}\r\n", LIMIT + 1),
    ] {
        let request = format!("POST / HTTP/1.1\r\nHost: h\r\n{headers}\r\n");
        assert_eq!(status(server.address, &request).await, 413, "{headers}");
    }
    let leave =
        format!("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: {LIMIT}\r\nExpect: 100-continue\r\n\r\n");
    assert_eq!(status(server.address, &leave).await, 100);
}

#[tokio::test]
async fn requests_beyond_the_servers_room_are_put_off_and_there_is_room_when_others_have_gone() {
    let server = start(echo(), Settings::default()).await;
    // All but the last byte of each body is there, so that the server waits with it in its hands.
    let whole = format!(
        "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: {LIMIT}\r\n\r\n{}",
        "x".repeat(LIMIT)
    );
    let (answered, mut answers) = tokio::sync::mpsc::unbounded_channel();
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..=HTTP_ROOM / LIMIT {
        let (address, begun) = (server.address, whole[..whole.len() - 1].to_owned());
        let answered = answered.clone();
        clients.spawn(async move { answered.send(status(address, &begun).await) });
    }
    assert_eq!(answers.recv().await, Some(503), "one more than there is room for");
    clients.shutdown().await;
    let begun = Instant::now();
    while status(server.address, &whole).await != 200 {
        assert!(begun.elapsed() < Duration::from_secs(20), "there is room again");
    }
}
