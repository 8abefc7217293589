//! Every answer that the documents describe is provoked, and no other is given.

use crate::document::Document;
use crate::http::{Answer, exchange, request};
use crate::named::EPITHET;
use crate::service_token::Claims;
use epithet_ssh::CaKey;
use epithet_testkit::devidp::{DevProvider, Settings};
use epithet_testkit::{Home, KeyPair, Server};
use serde_json::json;
use std::path::Path;

struct Company {
    home: Home,
    key: KeyPair,
    token: String,
    /// One of a provider that is not there.
    lost_token: String,
    rules: String,
    _provider: DevProvider,
}

impl Company {
    fn new() -> Self {
        let provider = DevProvider::start(Settings::default()).expect("a loopback port is free");
        let home = Home::new();
        let key = KeyPair::generate(home.path(), "ca.key");
        let rules = |issuer: &str| {
            json!({"policy": {
                "oidc": {"issuer": issuer, "client-id": "epithet", "scopes": ["openid", "email"]},
                "users": {"alice@example.com": ["admin"]},
                "defaults": {"allow": {"root": ["admin"]}, "expiration": "5m"},
                "hosts": {"*.example.com": {}},
            }})
            .to_string()
        };
        let token = provider.mint_id_token("alice", &json!({}));
        let lost_token = provider.mint_id_token("alice", &json!({"iss": "http://127.0.0.1:1"}));
        home.write("lost.json", rules("http://127.0.0.1:1"));
        let rules = home
            .write("rules.json", rules(provider.issuer()))
            .display()
            .to_string();
        Self {
            home,
            key,
            token,
            lost_token,
            rules,
            _provider: provider,
        }
    }

    fn serve(&self, arguments: &[&str], rules: &str) -> Server {
        Server::start(
            Path::new(EPITHET),
            &self.home,
            [arguments, &["--config", rules]].concat(),
        )
    }

    fn policy(&self, rules: &str) -> Server {
        let public = self.key.public_path().display().to_string();
        self.serve(&["policy", "--listen=127.0.0.1:0", "--ca-pubkey", &public], rules)
    }

    fn ca(&self, policy: &str, more: &[&str]) -> Server {
        let key = self.key.path().display().to_string();
        self.serve(
            &[
                &["ca", "--listen=127.0.0.1:0", "--key", &key, "--policy", policy],
                more,
            ]
            .concat(),
            &self.rules,
        )
    }

    fn lost(&self) -> String {
        self.home.join("lost.json").display().to_string()
    }
}

fn question(token: &str, user: &str) -> String {
    let connection = json!({"remoteHost": "web.example.com", "remoteUser": user, "port": 22, "proxyJump": "", "hash": "x"});
    json!({"token": token, "connection": connection}).to_string()
}

#[test]
fn the_policy_server_answers_as_its_document_says() {
    let mut document = Document::read("policy-server-api.yaml");
    let company = Company::new();
    let key = CaKey::load(company.key.path(), || None).unwrap();
    let (policy, lost) = (company.policy(&company.rules), company.policy(&company.lost()));
    let ask = |server: &Server, method: &str, path: &str, body: &str, is_signed: bool| -> Answer {
        let authority = server.url().trim_start_matches("http://");
        let signed = Claims::of(&key, method, &format!("{authority}{path}"), body).signed_by(&key);
        let authorization = if is_signed {
            signed
        } else {
            "Bearer none".to_owned()
        };
        let headers = format!(
            "{method} {path} HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\nAuthorization: {authorization}\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        exchange(server.url(), headers.as_bytes())
    };
    let yes = question(&company.token, "root");
    document.asks("/", &yes);
    let large = "x".repeat(epithet_wire::limits::POLICY_BODY_MAX + 1);
    let cases: [(&Server, &str, &str, &str, bool, u16); 12] = [
        (&policy, "GET", "/", "", true, 200),
        (&policy, "GET", "/", "", false, 401),
        (&policy, "POST", "/", &yes, true, 200),
        (&policy, "POST", "/", &yes, false, 401),
        (&policy, "POST", "/", &question("nonsense", "root"), true, 401),
        (
            &policy,
            "POST",
            "/",
            &question(&company.token, "daemon"),
            true,
            403,
        ),
        (&policy, "POST", "/", "not JSON", true, 400),
        (&policy, "POST", "/", &large, true, 413),
        (
            &lost,
            "POST",
            "/",
            &question(&company.lost_token, "root"),
            true,
            503,
        ),
        (&policy, "GET", "/healthz", "", false, 200),
        (&policy, "GET", "/readyz", "", false, 200),
        (&lost, "GET", "/readyz", "", false, 503),
    ];
    for (server, method, path, body, is_signed, status) in cases {
        let answer = ask(server, method, path, body, is_signed);
        assert_eq!(answer.status(), status, "{method} {path}: {answer:?}");
        document.saw(method, path, &answer);
    }
    document.has_nothing_that_was_not_seen();
}

#[test]
fn the_ca_answers_as_its_document_says() {
    let mut document = Document::read("ca-api.yaml");
    let company = Company::new();
    let policy = company.policy(&company.rules);
    let other = KeyPair::generate(company.home.path(), "other.key")
        .public_path()
        .display()
        .to_string();
    let distrustful = company.serve(
        &["policy", "--listen=127.0.0.1:0", "--ca-pubkey", &other],
        &company.rules,
    );
    let audit = company.home.join("audit.log").display().to_string();
    let ca = company.ca(policy.url(), &["--audit-file", &audit]);
    let distrusted = company.ca(distrustful.url(), &[]);
    let alone = company.ca("http://127.0.0.1:1", &[]);
    let subject = KeyPair::generate(company.home.path(), "subject").public_line();
    let asking = |user: &str, key: &str| {
        let connection = json!({"remoteHost": "web.example.com", "remoteUser": user, "port": 22, "proxyJump": "", "hash": "x"});
        json!({"publicKey": key, "connection": connection}).to_string()
    };
    let yes = asking("root", &subject);
    document.asks("/", &yes);
    let large = "x".repeat(epithet_wire::limits::HTTP_BODY_MAX + 1);
    let cases: [(&Server, &str, &str, &str, &str, u16); 16] = [
        (&ca, "GET", "/", "", "", 200),
        (&ca, "GET", "/ca-keys", "", "", 200),
        (&ca, "POST", "/", &yes, &company.token, 200),
        (&ca, "POST", "/", &yes, "nonsense", 401),
        (&ca, "POST", "/", &yes, "", 401),
        (&ca, "POST", "/", &asking("daemon", &subject), &company.token, 403),
        (
            &ca,
            "POST",
            "/",
            &asking("root", "ssh-dss AAAA"),
            &company.token,
            400,
        ),
        (&ca, "POST", "/", "not JSON", &company.token, 400),
        (&ca, "POST", "/", &large, &company.token, 413),
        (&distrusted, "POST", "/", &yes, &company.token, 502),
        (&alone, "POST", "/", &yes, &company.token, 503),
        (&ca, "GET", "/discovery", "", "", 200),
        (&alone, "GET", "/discovery", "", "", 502),
        (&ca, "GET", "/healthz", "", "", 200),
        (&ca, "GET", "/readyz", "", "", 200),
        (&alone, "GET", "/readyz", "", "", 503),
    ];
    for (server, method, path, body, token, status) in cases {
        let authorization = format!("Bearer {token}");
        let headers = [("authorization", authorization.as_str())];
        let headers = if token.is_empty() { &[][..] } else { &headers[..] };
        let answer = exchange(server.url(), &request(method, path, headers, body.as_bytes()));
        assert_eq!(answer.status(), status, "{method} {path}: {answer:?}");
        document.saw(method, path, &answer);
    }

    let authorization = format!("Bearer {}", company.token);
    let again = [
        ("authorization", authorization.as_str()),
        ("idempotency-key", "one"),
    ];
    for (body, status) in [(&yes, 200), (&yes, 200), (&asking("daemon", &subject), 409)] {
        let answer = exchange(ca.url(), &request("POST", "/", &again, body.as_bytes()));
        assert_eq!(answer.status(), status, "{answer:?}");
        document.saw("POST", "/", &answer);
    }

    let behind = company.ca(policy.url(), &["--trusted-proxy", "127.0.0.1/32"]);
    let stranger = [
        ("authorization", "Bearer nonsense"),
        ("x-forwarded-for", "203.0.113.9"),
    ];
    let refused = (0..1000)
        .map(|_| exchange(behind.url(), &request("POST", "/", &stranger, yes.as_bytes())))
        .find(|answer| answer.status() != 401)
        .expect("too many");
    assert_eq!(refused.status(), 429, "{refused:?}");
    document.saw("POST", "/", &refused);
    document.has_nothing_that_was_not_seen();
}
