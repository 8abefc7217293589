//! `POST /`: every way to be refused, in the order in which it is checked, and the certificate.

use crate::setups::{Company, Setup, asking};
use serde_json::{Value, json};

/// Asserts a refusal: its status, its words as plain text, and nothing else that a program could go by.
#[track_caller]
fn refused(setup: &Setup, answer: &crate::http::Answer, status: u16, words: &str) {
    assert_eq!(
        (answer.status(), answer.body.as_str()),
        (status, words),
        "{}",
        setup.name
    );
    assert_eq!(
        answer.telling_headers(),
        [("content-type", "text/plain")],
        "{}",
        setup.name
    );
}

#[test]
fn a_request_without_a_proper_bearer_token_is_401_whatever_else_is_wrong_with_it() {
    let company = Company::new();
    for setup in company.every_setup() {
        let cases: [(&[(&str, &str)], &str); 6] = [
            (&[], "missing Authorization header"),
            (
                &[("authorization", "Basic YTpi")],
                "Authorization header must use Bearer scheme",
            ),
            (
                &[("authorization", "bearer x")],
                "Authorization header must use Bearer scheme",
            ),
            (
                &[("authorization", "BearerX x")],
                "Authorization header must use Bearer scheme",
            ),
            // The blank after it is gone before anybody can look at it.
            (
                &[("authorization", "Bearer ")],
                "Authorization header must use Bearer scheme",
            ),
            (
                &[("authorization", "Token Bearer x")],
                "Authorization header must use Bearer scheme",
            ),
        ];
        for (headers, words) in cases {
            for (path, body) in [("/", "not JSON"), ("/", ""), ("/anything", "{}")] {
                let answer = setup.exchange("POST", path, headers, body);
                refused(&setup, &answer, 401, words);
            }
        }
    }
}

#[test]
fn a_body_that_asks_for_nothing_is_400_and_says_what_is_missing() {
    let company = Company::new();
    let key = company.subject("subject");
    let required = "publicKey and connection.remoteHost are required";
    for setup in company.every_setup() {
        let incomplete = [
            json!({}),
            json!({"publicKey": key}),
            json!({"publicKey": "", "connection": {"remoteHost": "web.example.com"}}),
            json!({"publicKey": key, "connection": {"remoteHost": "", "remoteUser": "root"}}),
            json!({"publicKey": key, "connection": null}),
            json!({"publicKey": null, "connection": null}),
            json!({"connection": {"remoteHost": "web.example.com"}}),
        ];
        for body in incomplete {
            refused(&setup, &setup.post("any", &body), 400, required);
        }
        let unparsable = [
            "",
            "not JSON",
            "\"text\"",
            "{\"publicKey\":1}",
            "{\"publicKey\":\"a\"",
            "{} {}",
        ];
        for body in unparsable {
            let answer = setup.exchange("POST", "/", &[("authorization", "Bearer any")], body);
            assert_eq!(answer.status(), 400, "{}: {body}: {answer:?}", setup.name);
            assert!(
                answer.body.starts_with("unable to parse body: "),
                "{}: {body}: {answer:?}",
                setup.name
            );
        }
    }
}

#[test]
fn a_no_of_policy_is_passed_on_with_its_status_and_words() {
    let company = Company::new();
    let key = company.subject("subject");
    let mallory = company.provider.mint_id_token("mallory", &json!({}));
    let token = company.token();
    for setup in company.every_setup() {
        let answer = setup.post("nonsense", &asking(&key, "root", "web.example.com"));
        assert_eq!(answer.status(), 401, "{}: {answer:?}", setup.name);
        assert!(
            answer
                .body
                .starts_with("Invalid token: token verification failed: "),
            "{}: {answer:?}",
            setup.name
        );
        let cases = [
            (
                &mallory,
                "root",
                "web.example.com",
                "User mallory@example.com not in users list",
            ),
            (
                &token,
                "daemon",
                "web.example.com",
                "User alice@example.com not authorized for daemon@web.example.com",
            ),
            (
                &token,
                "deploy",
                "db.example.com",
                "User alice@example.com not authorized for deploy@db.example.com",
            ),
            (
                &token,
                "root",
                "elsewhere.net",
                "User alice@example.com not authorized for root@elsewhere.net",
            ),
            (
                &token,
                "root,deploy",
                "web.example.com",
                "User alice@example.com not authorized for root,deploy@web.example.com",
            ),
            (
                &token,
                "",
                "web.example.com",
                "User alice@example.com not authorized for @web.example.com",
            ),
        ];
        for (token, user, host, words) in cases {
            refused(&setup, &setup.post(token, &asking(&key, user, host)), 403, words);
        }
    }
}

#[test]
fn a_key_that_must_not_be_certified_is_400_and_nobody_is_asked() {
    let company = Company::new();
    let key = company.subject("subject");
    let weak = epithet_testkit::KeyPair::generate_kind(company.home.path(), "weak", "rsa", Some(1024));
    let certified = epithet_testkit::KeyPair::generate(company.home.path(), "certified");
    let certificate = company.key.certify(&certified, "x", "root", 1, "+5m");
    let certificate = std::fs::read_to_string(certificate).unwrap();
    let keys = [
        "ssh-ed25519 AAAA".to_owned(),
        "nonsense".to_owned(),
        format!("{key}{key}"),
        format!("command=\"id\" {key}"),
        weak.public_line(),
        certificate,
    ];
    for setup in company.every_setup() {
        for key in &keys {
            // A token that policy would refuse with 401, had it been asked.
            let answer = setup.post("nonsense", &asking(key, "root", "web.example.com"));
            assert_eq!(answer.status(), 400, "{}: {key}: {answer:?}", setup.name);
            assert!(
                answer.body.starts_with("error generating crt: "),
                "{}: {key}: {answer:?}",
                setup.name
            );
        }
    }
}

#[test]
fn a_certificate_has_the_one_principal_that_was_asked_for_and_the_terms_of_its_rule() {
    let company = Company::new();
    let key = company.subject("subject");
    let token = company.token();
    for setup in company.every_setup() {
        let cases = [
            (
                "root",
                "db.example.com",
                "permit-agent-forwarding\n                permit-pty\n                permit-user-rc\n",
            ),
            ("deploy", "web.example.com", "(none)\n"),
            (
                "root",
                "WEB.Example.com",
                "permit-agent-forwarding\n                permit-pty\n                permit-user-rc\n",
            ),
        ];
        for (user, host, extensions) in cases {
            let answer = setup.post(&token, &asking(&key, user, host));
            assert_eq!(
                answer.status_line, "HTTP/1.1 200 OK",
                "{}: {answer:?}",
                setup.name
            );
            assert_eq!(
                answer.telling_headers(),
                [("content-type", "application/json")],
                "{}",
                setup.name
            );
            let line = only_certificate(&answer.body);
            let described = company.described(&line);
            let principals =
                format!("Principals: \n                {user}\n        Critical Options: (none)");
            for part in [
                "Key ID: \"alice@example.com",
                principals.as_str(),
                &company.key.fingerprint(),
            ] {
                assert!(
                    described.contains(part),
                    "{}: {part} is not in {described}",
                    setup.name
                );
            }
            if host != "WEB.Example.com" {
                assert!(
                    described.trim_end().ends_with(extensions.trim_end()),
                    "{}: {described}",
                    setup.name
                );
            }
        }
    }
}

/// The certificate of `{"certificate":"...\n"}`, which is compact and has nothing else.
#[track_caller]
fn only_certificate(body: &str) -> String {
    let value: Value = serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {body}"));
    let line = value["certificate"].as_str().expect("a certificate").to_owned();
    assert_eq!(body, format!("{{\"certificate\":{}}}", value["certificate"]));
    assert!(
        line.starts_with("ssh-ed25519-cert-v01@openssh.com AAAA"),
        "{line}"
    );
    assert!(
        line.ends_with('\n') && line.trim_end().lines().count() == 1,
        "{line}"
    );
    assert_eq!(line.trim_end().split(' ').count(), 2, "no comment: {line}");
    line
}

#[test]
fn what_older_and_newer_clients_send_is_understood() {
    let company = Company::new();
    let key = company.subject("subject");
    let token = company.token();
    let connection = json!({"localHost": "laptop", "remoteHost": "db.example.com", "remoteUser": "root", "port": 22, "proxyJump": null, "hash": "x", "new": {"a": 1}});
    for setup in company.every_setup() {
        let body = json!({"publicKey": key.trim_end(), "connection": connection, "unknown": [1, 2]});
        let answer = setup.post(&token, &body);
        assert_eq!(answer.status(), 200, "{}: {answer:?}", setup.name);

        let encoded = {
            use base64::Engine as _;
            base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(&token)
        };
        let authorization = format!("Bearer {encoded}");
        let headers = |encoding| {
            [
                ("authorization", authorization.as_str()),
                ("epithet-token-encoding", encoding),
            ]
        };
        let answer = setup.exchange("POST", "/", &headers("base64url"), body.to_string());
        assert_eq!(answer.status(), 200, "{}: {answer:?}", setup.name);
        let answer = setup.exchange("POST", "/", &headers("rot13"), body.to_string());
        assert_eq!(answer.status(), 400, "{}: {answer:?}", setup.name);
    }
}
