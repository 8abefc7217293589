//! Every size at its limit and one past it.

use crate::setups::{Company, asking};
use epithet_wire::limits::{HTTP_BODY_MAX, TOKEN_MAX};
use serde_json::Value;

/// A request of exactly this many bytes.
fn of_size(mut body: Value, size: usize) -> String {
    body["padding"] = "".into();
    let missing = size - body.to_string().len();
    body["padding"] = "x".repeat(missing).into();
    let text = body.to_string();
    assert_eq!(text.len(), size);
    text
}

#[test]
fn a_body_at_the_limit_is_read_and_one_byte_more_is_413() {
    let company = Company::new();
    let body = asking(&company.subject("subject"), "root", "db.example.com");
    let authorization = format!("Bearer {}", company.token());
    let headers = [("authorization", authorization.as_str())];
    for setup in company.every_setup() {
        let answer = setup.exchange("POST", "/", &headers, of_size(body.clone(), HTTP_BODY_MAX));
        assert_eq!(answer.status(), 200, "{}: {answer:?}", setup.name);
        for size in [HTTP_BODY_MAX + 1, 10 * HTTP_BODY_MAX] {
            let answer = setup.exchange("POST", "/", &headers, of_size(body.clone(), size));
            assert_eq!(
                answer.status_line, "HTTP/1.1 413 Payload Too Large",
                "{}",
                setup.name
            );
            assert_eq!(answer.body, "Request body too large", "{}", setup.name);
            assert_eq!(
                answer.telling_headers(),
                [("content-type", "text/plain")],
                "{}",
                setup.name
            );
        }
        // The same without an announcement: in chunks.
        let chunk = "x".repeat(HTTP_BODY_MAX + 1);
        let request = format!(
            "POST / HTTP/1.1\r\nhost: ca\r\nconnection: close\r\nauthorization: {authorization}\r\n\
             transfer-encoding: chunked\r\n\r\n{:x}\r\n{chunk}\r\n0\r\n\r\n",
            chunk.len()
        );
        let answer = crate::http::exchange(&setup.url, request.as_bytes());
        assert_eq!(
            (answer.status(), answer.body.as_str()),
            (413, "Request body too large"),
            "{}",
            setup.name
        );
    }
}

#[test]
fn a_token_at_the_limit_is_policys_to_refuse_and_one_byte_more_is_400() {
    let company = Company::new();
    let body = asking(&company.subject("subject"), "root", "db.example.com");
    for setup in company.every_setup() {
        let answer = setup.post(&"t".repeat(TOKEN_MAX), &body);
        assert_eq!(answer.status(), 401, "{}: {answer:?}", setup.name);
        assert!(
            answer.body.starts_with("Invalid token: "),
            "{}: {answer:?}",
            setup.name
        );
        let answer = setup.post(&"t".repeat(TOKEN_MAX + 1), &body);
        assert_eq!(answer.status(), 400, "{}: {answer:?}", setup.name);
        // Far past it the headers end the conversation before anybody reads them.
        let answer = setup.post(&"t".repeat(4 * TOKEN_MAX), &body);
        assert_eq!(answer.status(), 431, "{}: {answer:?}", setup.name);
    }
}

#[test]
fn names_that_no_host_has_are_400_and_go_nowhere() {
    let company = Company::new();
    let key = company.subject("subject");
    let token = company.token();
    let long = "a".repeat(300);
    for setup in company.every_setup() {
        let mut with_port = asking(&key, "root", "db.example.com");
        with_port["connection"]["port"] = 65536.into();
        let cases = [
            asking(&key, "root", &long),
            asking(&key, "root", "db.example.com\n"),
            asking(&key, "root", "a b"),
            asking(&key, "ro\u{1b}ot", "db.example.com"),
            asking(&key, &"u".repeat(129), "db.example.com"),
            with_port,
        ];
        for body in cases {
            let answer = setup.post(&token, &body);
            assert_eq!(answer.status(), 400, "{}: {body}: {answer:?}", setup.name);
            assert!(
                answer.body.starts_with("connection."),
                "{}: the field is named: {answer:?}",
                setup.name
            );
            assert!(!answer.body.contains('\u{1b}'), "{answer:?}");
        }
    }
}
