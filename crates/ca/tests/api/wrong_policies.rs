//! Policy servers that are hostile, broken, slow, or gone: never a certificate, always an entry in the audit log.

use crate::setup::{Ca, run};
use axum::Router;
use axum::body::Body;
use axum::response::Response;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// A CA whose policy server answers everything like this.
async fn ca_with(answer: impl Fn() -> Response + Clone + Send + Sync + 'static) -> (Ca, impl Drop) {
    let routes = Router::new().fallback(move || {
        let answer = answer.clone();
        async move { answer() }
    });
    let (address, stop) = run("127.0.0.1:0", routes).await;
    (Ca::asking(&address).await, stop)
}

fn response(status: u16, body: impl Into<Body>) -> Response {
    Response::builder().status(status).body(body.into()).unwrap()
}

async fn refused(ca: &Ca, status: u16, expected: &str) {
    let (found, body) = ca.ask("token", "root@h").await;
    assert_eq!(found, status, "{expected}: {body}");
    assert!(body.contains(expected), "{expected}: {body}");
    assert!(!body.contains("ssh-ed25519-cert"), "{body}");
    let last = ca.audit_lines().pop().unwrap();
    assert_eq!(
        (&last["decision"], &last["status"]),
        (&json!("refused"), &json!(status))
    );
    assert!(last.get("serial").is_none());
}

#[tokio::test]
async fn a_decision_beyond_the_limits_is_not_signed() {
    let good = json!({"identity": "alice", "principals": ["root"], "expiration": 300_000_000_000_i64,
                      "extensions": {"permit-pty": ""}, "notAfter": "0001-01-01T00:00:00Z"});
    let many: Vec<String> = (0..1000).map(|n| format!("u{n}")).collect();
    for (field, value, expected) in [
        ("expiration", json!(0), "no time to live"),
        ("expiration", json!(-1), "no time to live"),
        ("expiration", Value::Null, "no time to live"),
        (
            "expiration",
            json!(9_223_372_036_854_775_808_u64),
            "cannot be used",
        ),
        ("expiration", json!("5m0s"), "cannot be used"),
        ("expiration", json!(1.5), "cannot be used"),
        ("principals", json!([]), "0 principals"),
        ("principals", Value::Null, "0 principals"),
        ("principals", json!([""]), "principal"),
        ("principals", json!(["*"]), "principal"),
        ("principals", json!(["root,admin"]), "principal"),
        ("principals", json!(["root\nadmin"]), "principal"),
        ("principals", json!(["a\"b"]), "principal"),
        ("principals", json!(["u".repeat(129)]), "principal"),
        ("principals", json!(many), "1000 principals"),
        ("principals", json!(["admin"]), "without the user"),
        ("principals", json!(["root", "root"]), "twice"),
        ("principals", json!("root"), "cannot be used"),
        ("identity", json!(""), "key id"),
        ("identity", json!("a\nb"), "key id"),
        ("identity", json!("a".repeat(513)), "key id"),
        (
            "extensions",
            json!({"permit-everything": ""}),
            "permit-everything",
        ),
        ("extensions", json!({"force-command": "x"}), "force-command"),
        ("extensions", json!({"permit-pty": "x"}), "permit-pty"),
        (
            "criticalOptions",
            json!({"unknown@example.com": ""}),
            "unknown@example.com",
        ),
        (
            "criticalOptions",
            json!({"source-address": "everywhere"}),
            "source-address",
        ),
        ("notAfter", json!("yesterday"), "cannot be used"),
        ("notAfter", json!("9999-12-31"), "cannot be used"),
        ("login", json!(["urn:mfa"]), "cannot be used"),
    ] {
        let mut params = good.clone();
        params[field] = value;
        let reply = json!({"certParams": params}).to_string();
        let (ca, _stop) = ca_with(move || response(200, reply.clone())).await;
        refused(&ca, 502, expected).await;
    }
}

#[tokio::test]
async fn a_life_that_is_too_long_is_cut_and_a_role_cannot_be_chosen() {
    let params = json!({"identity": "alice", "principals": ["root"], "expiration": 315_360_000_000_000_000_i64,
                        "certType": "host", "role": 2});
    let reply = json!({"certParams": params, "policy": {"hostUsers": {}}}).to_string();
    let (ca, _stop) = ca_with(move || response(200, reply.clone())).await;
    let (status, body) = ca.ask("token", "root@h").await;
    assert_eq!(status, 200, "{body}");
    // Parsing takes user certificates only.
    let certificate = crate::setup::certificate(&body);
    assert_eq!(certificate.valid_before() - certificate.valid_after(), 660);
}

#[tokio::test]
async fn the_last_second_of_the_year_9999_is_a_time_like_any_other() {
    for never in ["9999-12-31T23:59:59Z", "9999-12-31T23:59:59.999999999Z"] {
        let params = json!({"identity": "alice", "principals": ["root"], "expiration": 300_000_000_000_i64,
                            "notAfter": never});
        let reply = json!({"certParams": params}).to_string();
        let (ca, _stop) = ca_with(move || response(200, reply.clone())).await;
        let (status, body) = ca.ask("token", "root@h").await;
        assert_eq!(status, 200, "{never}: {body}");
        let certificate = crate::setup::certificate(&body);
        assert_eq!(certificate.valid_before() - certificate.valid_after(), 360);
    }
}

#[tokio::test]
async fn an_array_is_no_document() {
    let params = r#"["alice",["root"],300000000000,{},"0001-01-01T00:00:00Z"]"#;
    for reply in [
        "[]".to_owned(),
        format!("[{params}]"),
        format!("{{\"certParams\":{params}}}"),
    ] {
        let said = reply.clone();
        let (ca, _stop) = ca_with(move || response(200, reply.clone())).await;
        refused(&ca, 502, "cannot be used").await;
        let discovery = ca.get("/discovery").await;
        let is_object = said.starts_with('{');
        assert_eq!(
            discovery.status().as_u16(),
            if is_object { 200 } else { 502 },
            "{said}"
        );
    }
    for document in [r#"{"auth":["https://i","c"]}"#, "[]", "[null,null]"] {
        let (ca, _stop) = ca_with(move || response(200, document)).await;
        let discovery = ca.get("/discovery").await;
        assert_eq!(discovery.status().as_u16(), 502, "{document}");
        let text = discovery.text().await.unwrap();
        assert!(text.contains("cannot be used"), "{document}: {text}");
    }
    // Nor is it a question.
    let (ca, _stop) = ca_with(|| response(500, "not asked")).await;
    for question in ["[]", r#"["ssh-ed25519 AAAA",{"remoteHost":"h"}]"#] {
        let headers = [("Authorization", "Bearer token")];
        let (status, body) = ca.send("POST", "/", &headers, question).await;
        assert_eq!(status, 400, "{question}: {body}");
        assert!(body.contains("expected an object"), "{question}: {body}");
    }
}

#[tokio::test]
async fn a_token_that_ended_is_a_reason_to_log_in_again() {
    let params = json!({"identity": "alice", "principals": ["root"], "expiration": 300_000_000_000_i64,
                        "notAfter": "2020-01-01T00:00:00Z"});
    let reply = json!({"certParams": params}).to_string();
    let (ca, _stop) = ca_with(move || response(200, reply.clone())).await;
    refused(&ca, 401, "error generating crt: the token has expired").await;
}

#[tokio::test]
async fn an_answer_that_is_none_is_a_bad_gateway() {
    for (status, body) in [
        (200, String::new()),
        (200, "<html>please sign in</html>".to_owned()),
        (200, "[]".to_owned()),
        (200, "{}".to_owned()),
        (200, format!("{}1{}", "[".repeat(20_000), "]".repeat(20_000))),
        (
            200,
            format!("{{\"certParams\":{{\"identity\":\"{}\"}}}}", "x".repeat(70_000)),
        ),
        (204, String::new()),
        (302, "elsewhere".to_owned()),
    ] {
        let (ca, _stop) = ca_with(move || response(status, body.clone())).await;
        refused(&ca, 502, "the policy server's answer cannot be used").await;
    }
}

#[tokio::test]
async fn a_no_is_passed_on_as_it_is() {
    for (status, body) in [
        (401, "Invalid token: x"),
        (403, "User a not authorized"),
        (422, "not mine"),
        (500, "oh"),
        (503, "later"),
    ] {
        let (ca, _stop) = ca_with(move || response(status, body)).await;
        let (found, text) = ca.ask("token", "root@h").await;
        assert_eq!((found, text.as_str()), (status, body));
    }
}

#[tokio::test]
async fn a_policy_server_that_distrusts_the_ca_is_not_the_users_problem() {
    let marked = || {
        let mut answer = response(401, "no");
        answer
            .headers_mut()
            .insert("epithet-error", http::HeaderValue::from_static("service-auth"));
        answer
    };
    let (ca, _stop) = ca_with(marked).await;
    refused(&ca, 502, "the policy server does not accept this CA").await;
    // Without the mark, as other implementations answer.
    let (ca, _stop) = ca_with(|| response(401, "request verification failed: token expired")).await;
    refused(&ca, 502, "the policy server does not accept this CA").await;
    let reason = ca.audit_lines().pop().unwrap()["reason"].to_string();
    assert!(reason.contains("token expired"), "{reason}");
}

#[tokio::test]
async fn a_policy_server_that_does_not_answer_in_time_or_at_all_is_unavailable() {
    let silent = Router::new().fallback(|| async { std::future::pending::<Response>().await });
    let (address, _stop) = run("127.0.0.1:0", silent).await;
    let ca = Ca::asking(&address).await;
    let begun = Instant::now();
    refused(&ca, 503, "the policy server cannot be reached").await;
    assert!(begun.elapsed() < Duration::from_secs(5));
    assert!(
        !ca.audit_lines().pop().unwrap()["reason"]
            .to_string()
            .contains("token")
    );

    let (gone, stop) = run("127.0.0.1:0", Router::new()).await;
    drop(stop);
    // It takes in whoever is at the door before it closes.
    while tokio::net::TcpStream::connect(&gone).await.is_ok() {
        tokio::task::yield_now().await;
    }
    let directory = tempfile::tempdir().unwrap();
    let socket = format!("unix://{}/none.sock", directory.path().display());
    for nowhere in [gone, socket] {
        let ca = Ca::asking(&nowhere).await;
        refused(&ca, 503, "the policy server cannot be reached").await;
        let (_, body) = ca.ask("token", "root@h").await;
        assert!(!body.contains(&nowhere) && !body.contains("none.sock"), "{body}");
    }
}
