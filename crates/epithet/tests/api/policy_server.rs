//! The policy server as a CA of another version sees it: the requests are made here, byte for byte as epithet 0.19
//! makes them.

use crate::http::{Answer, exchange};
use crate::setups::Company;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use epithet_ssh::CaKey;
use epithet_testkit::Server;
use serde_json::{Value, json};
use std::sync::atomic::{AtomicU64, Ordering};

/// A policy server, and a CA that it believes.
struct Asked {
    company: Company,
    key: CaKey,
    policy: Server,
    count: AtomicU64,
}

/// What a service token says about its request; each test changes what it is about.
struct Claims {
    method: String,
    target: String,
    body: String,
    age: i64,
    audience: &'static str,
}

impl Asked {
    fn begin() -> Self {
        let company = Company::new();
        let key = CaKey::load(company.key.path(), || None).unwrap();
        let policy = company.serve(&[
            "policy",
            "--listen=127.0.0.1:0",
            "--ca-pubkey",
            &company.public_path(),
        ]);
        Self {
            company,
            key,
            policy,
            count: AtomicU64::new(0),
        }
    }

    /// The right claims for a request.
    fn claims(&self, method: &str, path: &str, body: &str) -> Claims {
        Claims {
            method: method.to_owned(),
            target: format!("{}{path}", self.authority()),
            body: body.to_owned(),
            age: 0,
            audience: "epithet-policy",
        }
    }

    fn authority(&self) -> &str {
        self.policy.url().trim_start_matches("http://")
    }

    /// The service token, with the claims in the order in which epithet 0.19 writes them.
    fn token(&self, claims: &Claims) -> String {
        let iat = jiff::Timestamp::now().as_second() - claims.age;
        let hash = sha256(claims.body.as_bytes());
        let jti = self.count.fetch_add(1, Ordering::Relaxed);
        let claims = format!(
            r#"{{"iss":"{}","aud":"{}","iat":{iat},"exp":{},"jti":"{jti:032x}","bh":"{hash}","htm":"{}","htu":"{}"}}"#,
            self.key.fingerprint(),
            claims.audience,
            iat + 60,
            claims.method,
            claims.target
        );
        let signed = format!(
            "{}.{}",
            URL_SAFE_NO_PAD.encode(r#"{"alg":"EdDSA"}"#),
            URL_SAFE_NO_PAD.encode(claims)
        );
        let signature = self.key.sign_jws(signed.as_bytes()).unwrap();
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    /// Sends a request with this `Authorization`.
    fn send(&self, method: &str, path: &str, authorization: Option<&str>, body: &str) -> Answer {
        let authorization =
            authorization.map_or_else(String::new, |value| format!("Authorization: {value}\r\n"));
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n{authorization}\r\n{body}",
            self.authority(),
            body.len()
        );
        exchange(self.policy.url(), request.as_bytes())
    }

    /// Sends a request as the CA.
    fn ask(&self, method: &str, path: &str, body: &str) -> Answer {
        let token = self.token(&self.claims(method, path, body));
        self.send(method, path, Some(&format!("Bearer {token}")), body)
    }

    /// The body of a request for a decision.
    fn question(&self, user: &str, host: &str) -> String {
        let token = self.company.token();
        format!(
            r#"{{"token":"{token}","connection":{{"localHost":"","remoteHost":"{host}","remoteUser":"{user}","port":22,"proxyJump":"","hash":"x"}}}}"#
        )
    }
}

fn sha256(bytes: &[u8]) -> String {
    // By coreutils, so that nothing of ours vouches for ours; of nothing it is a constant.
    if bytes.is_empty() {
        return "47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU".to_owned();
    }
    let mut command = std::process::Command::new("sha256sum");
    let mut child = command
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("coreutils are installed");
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), bytes).unwrap();
    let output = child.wait_with_output().unwrap();
    let hex = String::from_utf8(output.stdout).unwrap();
    let digest: Vec<u8> = (0..32)
        .map(|at| u8::from_str_radix(&hex[at * 2..at * 2 + 2], 16).unwrap())
        .collect();
    URL_SAFE_NO_PAD.encode(digest)
}

#[test]
fn a_decision_is_json_with_an_indent_and_whole_nanoseconds() {
    let asked = Asked::begin();
    let answer = asked.ask("POST", "/", &asked.question("root", "db.example.com"));
    assert_eq!(answer.status_line, "HTTP/1.1 200 OK", "{answer:?}");
    assert_eq!(answer.telling_headers(), [("content-type", "application/json")]);
    let head = "{\n  \"certParams\": {\n    \"identity\": \"alice@example.com\",\n    \"principals\": [\n      \"root\"\n    ],\n    \"expiration\": 300000000000,\n";
    assert!(answer.body.starts_with(head), "{}", answer.body);
    let decision: Value = serde_json::from_str(&answer.body).unwrap();
    let params = &decision["certParams"];
    assert_eq!(
        params["extensions"],
        json!({"permit-agent-forwarding": "", "permit-pty": "", "permit-user-rc": ""})
    );
    let not_after = params["notAfter"].as_str().unwrap();
    assert!(not_after.parse::<jiff::Timestamp>().is_ok(), "{not_after}");
    assert!(
        params.get("criticalOptions").is_none(),
        "absent when there are none: {params}"
    );
}

#[test]
fn discovery_is_for_the_ca_and_to_be_kept() {
    let asked = Asked::begin();
    let answer = asked.ask("GET", "/", "");
    assert_eq!(answer.status(), 200, "{answer:?}");
    assert_eq!(
        answer.telling_headers(),
        [
            ("cache-control", "max-age=300"),
            ("content-type", "application/json")
        ]
    );
    let document: Value = serde_json::from_str(&answer.body).unwrap();
    assert_eq!(document["auth"]["client_id"], "epithet");
    assert_eq!(document["auth"]["issuer"], asked.company.provider.issuer());
}

#[test]
fn refusals_have_the_statuses_and_words_that_the_ca_passes_on() {
    let asked = Asked::begin();
    let cases = [
        ("POST", "not JSON".to_owned(), 400, "Invalid JSON: "),
        ("POST", String::new(), 400, "Invalid JSON: "),
        (
            "POST",
            r#"{"token":"x","connection":{}}"#.to_owned(),
            401,
            "Invalid token: token verification failed: ",
        ),
        (
            "POST",
            asked.question("daemon", "db.example.com"),
            403,
            "User alice@example.com not authorized for daemon@db.example.com",
        ),
        ("PUT", String::new(), 405, "Method not allowed"),
    ];
    for (method, body, status, words) in cases {
        let answer = asked.ask(method, "/", &body);
        assert_eq!(answer.status(), status, "{answer:?}");
        assert!(answer.body.starts_with(words), "{answer:?}");
        assert_eq!(answer.header("content-type"), Some("text/plain"));
        assert_eq!(
            answer.header("epithet-error"),
            None,
            "these are about the user: {answer:?}"
        );
    }
}

#[test]
fn a_request_that_is_not_the_cas_is_401_and_marked_so_that_nobody_logs_in_again_for_it() {
    let asked = Asked::begin();
    let body = asked.question("root", "db.example.com");
    let right = || asked.claims("POST", "/", &body);
    let missing = "request verification failed: missing or malformed Authorization header";
    for authorization in [None, Some("Bearer"), Some("Basic YTpi"), Some("bearer x")] {
        for method in ["GET", "POST", "PUT"] {
            let answer = asked.send(method, "/", authorization, &body);
            assert_eq!((answer.status(), answer.body.as_str()), (401, missing));
            assert_eq!(answer.header("epithet-error"), Some("service-auth"));
        }
    }
    let other = CaKey::generate_ed25519().unwrap();
    let wrong = [
        Claims {
            method: "GET".into(),
            ..right()
        },
        Claims {
            target: "policy.example.com/".into(),
            ..right()
        },
        Claims {
            target: format!("{}/other", asked.authority()),
            ..right()
        },
        Claims {
            body: String::new(),
            ..right()
        },
        Claims { age: 120, ..right() },
        Claims { age: -120, ..right() },
        Claims {
            audience: "somebody-else",
            ..right()
        },
    ];
    let mut tokens: Vec<_> = wrong.iter().map(|claims| asked.token(claims)).collect();
    let good = asked.token(&right());
    let (signed, _) = good.rsplit_once('.').unwrap();
    let forged = other.sign_jws(signed.as_bytes()).unwrap();
    tokens.push(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(forged)));
    tokens.push(signed.to_owned());
    tokens.push(format!("{signed}."));
    for token in tokens {
        let answer = asked.send("POST", "/", Some(&format!("Bearer {token}")), &body);
        assert_eq!(answer.status(), 401, "{answer:?}");
        assert!(
            answer.body.starts_with("request verification failed: "),
            "{answer:?}"
        );
        assert_eq!(answer.header("epithet-error"), Some("service-auth"));
    }
    // What was only carried along with a wrong signature has not used up the right one; the right one is for one use.
    let authorization = format!("Bearer {good}");
    assert_eq!(asked.send("POST", "/", Some(&authorization), &body).status(), 200);
    let again = asked.send("POST", "/", Some(&authorization), &body);
    assert_eq!(again.status(), 401, "{again:?}");
    assert!(again.body.contains("used before"), "{again:?}");
}
