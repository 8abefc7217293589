//! The interface, line by line.

use crate::setup::{Ca, in_process, question, run};
use axum::Router;
use axum::routing::get;
use epithet_ssh::SubjectKey;
use serde_json::Value;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[tokio::test]
async fn the_public_key_is_at_every_path_with_links_for_every_client() {
    let (ca, _provider) = in_process().await;
    for path in ["/", "/anything", "/?debug=1"] {
        let answer = ca.get(path).await;
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.headers()["content-type"], "text/plain");
        assert_eq!(
            answer.headers()["link"],
            r#"</discovery>; rel="discovery", <discovery>; rel="https://epithet.dev/rel/auth""#
        );
        assert_eq!(
            answer.text().await.unwrap(),
            format!("{}\n", ca.key.public_line())
        );
    }
    assert_eq!(ca.get("/healthz").await.text().await.unwrap(), "ok\n");
}

/// Method, path, headers, body; status, and text (`=` for the whole text).
type Row<'a> = (&'a str, &'a str, Vec<(&'a str, &'a str)>, String, u16, &'a str);

#[tokio::test]
async fn requests_that_cannot_be_decided_get_the_documented_answers() {
    let (ca, _provider) = in_process().await;
    let key = SubjectKey::generate().unwrap().public_line();
    let good = question(&key, "root@h");
    let changed = |field: &str, value: Value| {
        let mut question: Value = serde_json::from_str(&good).unwrap();
        question["connection"][field] = value;
        question.to_string()
    };
    let bearer = ("Authorization", "Bearer token");
    let table: Vec<Row<'_>> = vec![
        (
            "POST",
            "/",
            vec![],
            good.clone(),
            401,
            "=missing Authorization header",
        ),
        (
            "POST",
            "/",
            vec![("Authorization", "Basic x")],
            good.clone(),
            401,
            "=Authorization header must use Bearer scheme",
        ),
        (
            "POST",
            "/",
            vec![("Authorization", "bearer x")],
            good.clone(),
            401,
            "=Authorization header must use Bearer scheme",
        ),
        (
            "POST",
            "/",
            vec![("Authorization", "Bearer ")],
            good.clone(),
            401,
            "=Authorization header must use Bearer scheme",
        ),
        (
            "POST",
            "/",
            vec![bearer, ("Epithet-Token-Encoding", "rot13")],
            good.clone(),
            400,
            "base64url",
        ),
        (
            "POST",
            "/",
            vec![
                ("Authorization", "Bearer !"),
                ("Epithet-Token-Encoding", "base64url"),
            ],
            good.clone(),
            400,
            "not base64url",
        ),
        (
            "POST",
            "/",
            vec![bearer],
            String::new(),
            400,
            "unable to parse body: ",
        ),
        (
            "POST",
            "/",
            vec![bearer],
            "nonsense".into(),
            400,
            "unable to parse body: ",
        ),
        (
            "POST",
            "/",
            vec![bearer],
            format!("{good}x"),
            400,
            "unable to parse body: ",
        ),
        (
            "POST",
            "/",
            vec![bearer],
            "{}".into(),
            400,
            "=publicKey and connection.remoteHost are required",
        ),
        (
            "POST",
            "/",
            vec![bearer],
            question("", "root@h"),
            400,
            "error generating crt: ",
        ),
        (
            "POST",
            "/",
            vec![bearer],
            question(&key, "root@"),
            400,
            "=publicKey and connection.remoteHost are required",
        ),
        (
            "POST",
            "/",
            vec![bearer],
            changed("remoteHost", "a b".into()),
            400,
            "connection.remoteHost: ",
        ),
        (
            "POST",
            "/",
            vec![bearer],
            changed("remoteUser", "a\nb".into()),
            400,
            "connection.remoteUser: ",
        ),
        (
            "POST",
            "/",
            vec![bearer],
            changed("port", 65_536.into()),
            400,
            "connection.port: ",
        ),
        (
            "POST",
            "/",
            vec![bearer],
            changed("proxyJump", "a\u{1b}b".into()),
            400,
            "connection.proxyJump: ",
        ),
        (
            "POST",
            "/",
            vec![bearer],
            changed("hash", "x".repeat(129).into()),
            400,
            "connection.hash: ",
        ),
        (
            "POST",
            "/",
            vec![bearer],
            "x".repeat(65_537),
            413,
            "=Request body too large",
        ),
        (
            "POST",
            "/",
            vec![bearer],
            "x".repeat(65_536),
            400,
            "unable to parse body: ",
        ),
        ("PUT", "/", vec![bearer], good.clone(), 405, "=Method not allowed"),
        ("DELETE", "/x", vec![], String::new(), 405, "=Method not allowed"),
        (
            "POST",
            "/discovery",
            vec![bearer],
            good.clone(),
            405,
            "=Method not allowed",
        ),
        (
            "POST",
            "/other",
            vec![],
            good.clone(),
            401,
            "=missing Authorization header",
        ),
    ];
    for (method, path, headers, body, status, expected) in table {
        let (found, text) = ca.send(method, path, &headers, &body).await;
        assert_eq!(found, status, "{method} {path} {headers:?}: {text}");
        match expected.strip_prefix('=') {
            Some(whole) => assert_eq!(text, whole),
            None => assert!(text.contains(expected), "{text}"),
        }
    }
    for (method, path) in [("HEAD", "/"), ("HEAD", "/discovery")] {
        assert_eq!(ca.send(method, path, &[], "").await.0, 405);
    }
    let lines = ca.audit_lines();
    assert!(!lines.is_empty());
    for line in lines {
        assert_eq!(line["decision"], "refused");
        assert!(line.get("identity").is_none(), "nobody decided: {line}");
    }
}

#[tokio::test]
async fn a_body_that_breaks_off_is_nobodys_certificate() {
    let (ca, _provider) = in_process().await;
    let mut stream = tokio::net::TcpStream::connect(&ca.address).await.unwrap();
    let head = "POST / HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer t\r\nContent-Length: 10\r\n\r\n{";
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(
        answer.is_empty() || answer.starts_with("HTTP/1.1 400"),
        "{answer}"
    );
}

#[tokio::test]
async fn the_discovery_document_is_fetched_once_for_everybody() {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    let document = get(move || {
        counted.fetch_add(1, Ordering::Relaxed);
        let body =
            r#"{ "auth": {"issuer": "https://i", "client_id": "c", "command": "rm -rf"}, "extra": 1 }"#;
        async move { ([("cache-control", "public, max-age=60")], body) }
    });
    let (address, _stop) = run("127.0.0.1:0", Router::new().route("/", document)).await;
    let ca = Ca::asking(&address).await;
    let (one, other) = tokio::join!(ca.get("/discovery"), ca.get("/discovery"));
    for answer in [one, other, ca.get("/discovery").await] {
        assert_eq!(answer.headers()["cache-control"], "public, max-age=60");
        assert!(answer.headers().get("vary").is_none());
        // A command never passes: it would be run on somebody's machine.
        assert_eq!(
            answer.text().await.unwrap(),
            r#"{"auth":{"issuer":"https://i","client_id":"c"}}"#
        );
    }
    assert_eq!(count.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_discovery_document_that_cannot_be_had_is_a_bad_gateway() {
    for (status, body, expected) in [
        (
            404,
            "discovery not configured",
            "=failed to fetch discovery: policy server returned 404 for discovery: discovery not configured",
        ),
        (
            200,
            "nonsense",
            "failed to fetch discovery: the policy server's answer cannot be used",
        ),
        (
            401,
            "request verification failed: x",
            "failed to fetch discovery: the policy server does not accept this CA",
        ),
    ] {
        let status = http::StatusCode::from_u16(status).unwrap();
        let (address, _stop) = run(
            "127.0.0.1:0",
            Router::new().fallback(move || async move { (status, body) }),
        )
        .await;
        let ca = Ca::asking(&address).await;
        let (found, text) = ca.send("GET", "/discovery", &[], "").await;
        assert_eq!(found, 502);
        match expected.strip_prefix('=') {
            Some(whole) => assert_eq!(text, whole),
            None => assert!(text.contains(expected), "{text}"),
        }
        assert_eq!(ca.send("GET", "/readyz", &[], "").await.0, 503);
        assert!(
            !text.contains(&address),
            "where the policy server is concerns nobody: {text}"
        );
    }
}
