//! What a running server tells of rules that it cannot use: in its log, at `/readyz` and in its numbers.

use crate::operated::{EPITHET, Operated, rules};
use epithet_testkit::{DEADLINE, Home, KeyPair, Server, wait_until};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;

/// The answer to `GET`, whole.
fn get(address: &str, path: &str) -> String {
    let address = address.trim_start_matches("http://");
    let mut stream = TcpStream::connect(address).expect("the server listens");
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn a_bad_rule_is_told_by_a_server_with_its_place_and_counted() {
    let operated = Operated::with_rules(&rules("alice"), &["--metrics-listen=127.0.0.1:0"]);
    let line = operated.server.wait_for_log("metrics: listening on ");
    let metrics = line
        .rsplit(' ')
        .next()
        .unwrap()
        .trim_start_matches("http://")
        .to_owned();
    let failed = || {
        let page = get(&metrics, "/metrics");
        let line = page
            .lines()
            .find(|line| line.starts_with("epithet_policy_rules_failed_reloads_total"));
        line.and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
    };
    assert_eq!(failed(), Some(0.0));
    let bad = rules("alice").replace("{}", "{ttl: soon}");
    std::fs::write(&operated.rules, bad).unwrap();
    let line = operated.server.wait_for_log("the rules cannot be used");
    assert!(
        line.contains("server.yaml:7:28: `soon` is not a duration"),
        "{line}"
    );
    assert!(wait_until(DEADLINE, || failed().filter(|number| *number > 0.0)).is_some());
    let ready = get(operated.server.url(), "/readyz");
    assert!(
        ready.starts_with("HTTP/1.1 200") && ready.contains("the last reload failed (server.yaml:7:28)"),
        "{ready}"
    );
    assert!(!ready.contains("soon"), "{ready}");
    assert_eq!(operated.ask("alice"), 200);
}

#[test]
fn a_bad_rule_is_told_by_a_policy_server_with_its_place() {
    let home = Home::new();
    let key = KeyPair::generate(home.path(), "ca.key");
    let file = home.write("policy.yaml", rules("alice"));
    let server = Server::start(
        Path::new(EPITHET),
        &home,
        [
            "policy".to_owned(),
            "-v".to_owned(),
            "--listen=127.0.0.1:0".to_owned(),
            format!("--config={}", file.display()),
            format!("--ca-pubkey={}", key.public_path().display()),
        ],
    );
    let ready = || get(server.url(), "/readyz");
    assert!(ready().ends_with("ready\n"), "{}", ready());
    std::fs::write(&file, rules("alice").replace("{}", "{ttl: soon}")).unwrap();
    let line = server.wait_for_log("the rules cannot be used");
    assert!(
        line.contains("policy.yaml:7:28: `soon` is not a duration"),
        "{line}"
    );
    let said = wait_until(DEADLINE, || Some(ready()).filter(|said| said.contains("failed")));
    let said = said.expect("/readyz tells");
    assert!(
        said.starts_with("HTTP/1.1 200") && said.contains("(policy.yaml:7:28)"),
        "{said}"
    );
    std::fs::write(&file, rules("bob")).unwrap();
    server.wait_for_log("the rules were read again");
    let good = wait_until(DEADLINE, || {
        Some(ready()).filter(|said| said.ends_with("\r\n\r\nready\n"))
    });
    assert!(good.is_some(), "{}", ready());
}
