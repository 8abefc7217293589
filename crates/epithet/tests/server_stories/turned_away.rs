//! What a CA refuses by itself, before policy is asked, is in its audit log as well: without room for a flood.

use crate::http::{Answer, exchange, request};
use crate::named::Named;
use epithet_testkit::{DEADLINE, Server, wait_until};
use epithet_wire::limits::{AUDIT_TURNED_AWAY, HTTP_BODY_MAX};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::time::Instant;

fn begin() -> (Named, Server, PathBuf) {
    let named = Named::new();
    let log = named.home.join("audit.jsonl");
    let server = named.server(&["--audit-file", log.to_str().unwrap()]);
    (named, server, log)
}

fn lines(log: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(log).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn post(server: &Server, headers: &[(&str, &str)], body: &[u8]) -> Answer {
    exchange(server.url(), &request("POST", "/", headers, body))
}

/// Headers, body, and the status and reason of the refusal.
type Case<'a> = (&'a [(&'a str, &'a str)], &'a [u8], u16, &'a str);

#[test]
fn what_the_ca_refuses_by_itself_has_a_line_too() {
    let (_named, server, log) = begin();
    let token = ("authorization", "Bearer alice");
    let no_key = json!({
        "publicKey": "ssh-ed25519 AAAA",
        "connection": {"remoteHost": "web.example.com", "remoteUser": "root", "port": 22},
    });
    let no_key = no_key.to_string();
    let large = vec![b' '; HTTP_BODY_MAX + 1];
    let cases: [Case<'_>; 4] = [
        (&[], b"{}", 401, "missing Authorization header"),
        (&[token], b"{", 400, "unable to parse body"),
        (&[token], no_key.as_bytes(), 400, "error generating crt"),
        (&[token], &large, 413, "Request body too large"),
    ];
    for (number, (headers, body, status, reason)) in cases.into_iter().enumerate() {
        let answer = post(&server, headers, body);
        assert_eq!(answer.status(), status, "{answer:?}");
        let line = lines(&log).swap_remove(number);
        assert_eq!(
            (line["decision"].as_str(), line["status"].as_u64()),
            (Some("refused"), Some(u64::from(status))),
            "{line}"
        );
        assert!(line["reason"].as_str().unwrap().starts_with(reason), "{line}");
        assert_eq!(line["request_id"].as_str(), answer.header("epithet-request-id"));
        assert_eq!(line["client"], "127.0.0.1");
    }
    assert_eq!(
        lines(&log)[2]["host"],
        "web.example.com",
        "as far as it can be read"
    );
}

#[test]
fn a_flood_of_refused_requests_is_a_few_lines_and_a_number() {
    const MANY: u64 = 300;
    let (_named, server, log) = begin();
    let begun = Instant::now();
    for _ in 0..MANY {
        assert_eq!(post(&server, &[], b"{}").status(), 401);
    }
    let all = |lines: &[Value]| -> u64 { lines.iter().map(|line| line["count"].as_u64().unwrap_or(1)).sum() };
    let counted = wait_until(DEADLINE, || Some(lines(&log)).filter(|lines| all(lines) == MANY));
    let counted = counted.expect("every request is a line or in a number");
    let seconds = usize::try_from(begun.elapsed().as_secs()).unwrap() + 2;
    assert!(
        counted.len() <= (AUDIT_TURNED_AWAY + 1) * seconds,
        "{}",
        counted.len()
    );
}

#[test]
fn two_certificates_never_have_the_same_request_id() {
    const CHOSEN: &str = "0123456789abcdef";
    let (named, server, log) = begin();
    let asking = String::from_utf8(named.asking("alice", "web.example.com")).unwrap();
    let asking = asking.replacen("\r\n", &format!("\r\nepithet-request-id: {CHOSEN}\r\n"), 1);
    let ids: Vec<String> = (0..2)
        .map(|_| {
            let answer = exchange(server.url(), asking.as_bytes());
            assert_eq!(answer.status(), 200, "{answer:?}");
            answer.header("epithet-request-id").unwrap().to_owned()
        })
        .collect();
    assert_eq!(ids[0], CHOSEN, "a client's own name is kept");
    assert_ne!(ids[1], CHOSEN);
    let lines = lines(&log);
    for (line, id) in lines.iter().zip(&ids) {
        assert_eq!(line["request_id"], id.as_str());
        assert!(line["key_id"].as_str().unwrap().ends_with(id.as_str()), "{line}");
    }
    assert_eq!(lines[0].get("client_request_id"), None);
    assert_eq!(lines[1]["client_request_id"], CHOSEN);
}
