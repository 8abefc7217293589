//! What anybody may read of a CA: its public key, and where to log in.

use crate::setups::Company;
use serde_json::{Value, json};

const LINKS: &str = "</discovery>; rel=\"discovery\", <discovery>; rel=\"https://epithet.dev/rel/auth\"";

#[test]
fn every_path_but_discovery_is_the_public_key_without_a_comment_and_with_a_line_end() {
    let company = Company::new();
    let line = company.key.public_line();
    let expected: Vec<_> = line.split(' ').take(2).collect();
    let expected = expected.join(" ") + "\n";
    for setup in company.every_setup() {
        for path in ["/", "/anything", "/anything/else?x=y", "/discovery/"] {
            let answer = setup.exchange("GET", path, &[], "");
            assert_eq!(answer.status_line, "HTTP/1.1 200 OK", "{}: {path}", setup.name);
            assert_eq!(answer.body, expected, "{}: {path}", setup.name);
            assert_eq!(
                answer.telling_headers(),
                [("content-type", "text/plain"), ("link", LINKS)],
                "{}: {path}",
                setup.name
            );
        }
    }
}

#[test]
fn discovery_is_compact_json_to_be_kept_for_five_minutes_and_the_same_for_everybody() {
    let company = Company::new();
    let auth = format!(
        r#"{{"auth":{{"type":"oidc","issuer":"{}","client_id":"epithet","scopes":["openid","profile","email"]}},"matchPatterns":["#,
        company.provider.issuer()
    );
    for setup in company.every_setup() {
        let token = format!("Bearer {}", company.token());
        let headers: [&[(&str, &str)]; 3] = [
            &[],
            &[("authorization", &token)],
            &[("authorization", "Bearer nonsense")],
        ];
        let answers = headers.map(|headers| setup.exchange("GET", "/discovery", headers, ""));
        for answer in &answers {
            assert_eq!(answer.status_line, "HTTP/1.1 200 OK", "{}", setup.name);
            assert_eq!(
                answer.telling_headers(),
                [
                    ("cache-control", "max-age=300"),
                    ("content-type", "application/json")
                ],
                "{}: nothing varies by token",
                setup.name
            );
            assert!(answer.body.starts_with(&auth), "{}: {}", setup.name, answer.body);
            assert_eq!(answer.body, answers[0].body);
        }
        let document: Value = serde_json::from_str(&answers[0].body).unwrap();
        let mut patterns: Vec<_> = document["matchPatterns"].as_array().unwrap().clone();
        patterns.sort_by_key(ToString::to_string);
        assert_eq!(patterns, [json!("*.example.com"), json!("web.example.com")]);
    }
}

#[test]
fn other_methods_are_405_and_the_answer_names_those_that_are_not() {
    let company = Company::new();
    for setup in company.every_setup() {
        let cases = [
            ("PUT", "/", "GET, POST"),
            ("DELETE", "/", "GET, POST"),
            ("OPTIONS", "/anything", "GET, POST"),
            ("PATCH", "/", "GET, POST"),
            ("POST", "/discovery", "GET"),
            ("PUT", "/discovery", "GET"),
        ];
        for (method, path, allowed) in cases {
            let answer = setup.exchange(method, path, &[], "");
            let what = format!("{}: {method} {path}", setup.name);
            assert_eq!(answer.status_line, "HTTP/1.1 405 Method Not Allowed", "{what}");
            assert_eq!(answer.body, "Method not allowed", "{what}");
            assert_eq!(
                answer.telling_headers(),
                [("allow", allowed), ("content-type", "text/plain")],
                "{what}"
            );
        }
        for path in ["/", "/discovery"] {
            let answer = setup.exchange("HEAD", path, &[], "");
            assert_eq!(
                (answer.status(), answer.body.as_str()),
                (405, ""),
                "{}",
                setup.name
            );
        }
    }
}

#[test]
fn every_answer_carries_the_requests_name_and_takes_a_legal_one_from_the_client() {
    let company = Company::new();
    for setup in company.every_setup() {
        let given = setup.exchange("GET", "/", &[("epithet-request-id", "0123456789abcdef")], "");
        assert_eq!(given.header("epithet-request-id"), Some("0123456789abcdef"));
        let names: Vec<_> = ["", "not a name", "x".repeat(2000).as_str()]
            .into_iter()
            .map(|name| {
                let answer = setup.exchange("GET", "/", &[("epithet-request-id", name)], "");
                answer.header("epithet-request-id").expect("a name").to_owned()
            })
            .collect();
        for name in &names {
            assert_eq!(name.len(), 16, "{name}");
            assert!(name.bytes().all(|byte| byte.is_ascii_hexdigit()), "{name}");
        }
        assert_ne!(names[0], names[1]);
    }
}

#[test]
fn health_and_readiness_are_for_whoever_keeps_it_running() {
    let company = Company::new();
    for setup in company.every_setup() {
        let answer = setup.exchange("GET", "/healthz", &[], "");
        assert_eq!(
            (answer.status(), answer.body.as_str()),
            (200, "ok\n"),
            "{}",
            setup.name
        );
        let answer = setup.exchange("GET", "/readyz", &[], "");
        assert_eq!(
            (answer.status(), answer.body.as_str()),
            (200, "ready\n"),
            "{}",
            setup.name
        );
    }
}
