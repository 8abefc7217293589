//! What a running CA tells, whom it lets wait, and what it writes down.

use crate::http::{exchange, request};
use crate::office::Office;
use epithet_testkit::{DEADLINE, wait_until};
use rustix::process::Signal;
use serde_json::Value;
use std::os::unix::net::UnixDatagram;

/// The value of a line of `/metrics` that begins so; 0 when there is none yet.
fn number(page: &str, name: &str) -> f64 {
    let line = page
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.map_or(0.0, |value| value.parse().expect("a number"))
}

/// What a Prometheus of today sends.
const PROMETHEUS: &str = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,\
    application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,\
    text/plain;version=0.0.4;q=0.2,*/*;q=0.1";

/// In the text format 0.0.4 every sample stands below the TYPE line of its own name, histograms excepted.
fn well_formed(page: &str) {
    let mut family = ("", "");
    for line in page.lines() {
        if let Some(named) = line.strip_prefix("# TYPE ") {
            family = named.split_once(' ').expect("a name and a kind");
        } else if !line.starts_with("# HELP ") {
            let name = line.split(['{', ' ']).next().expect("a name");
            let rest = name.strip_prefix(family.0);
            let parts: &[&str] = match family.1 {
                "histogram" => &["_bucket", "_sum", "_count"],
                "counter" | "gauge" => &[""],
                other => panic!("{other}: {page}"),
            };
            assert!(rest.is_some_and(|rest| parts.contains(&rest)), "{line}: {page}");
        }
    }
}

#[test]
fn numbers_for_prometheus_are_on_a_listener_of_their_own() {
    let office = Office::new();
    let key = office.key("ca").path().display().to_string();
    let mut ca = office.server([
        "--ca-key",
        &key,
        "--metrics-listen=127.0.0.1:0",
        "--audit-file=/dev/full",
    ]);
    let line = ca.server.wait_for_log("metrics: listening on ");
    let address = line.rsplit(' ').next().expect("an address").to_owned();
    let url = format!("http://{address}");
    let metrics_as = |accept: &[(&str, &str)]| exchange(&url, &request("GET", "/metrics", accept, b""));
    let metrics = || metrics_as(&[("accept", PROMETHEUS)]);
    assert_eq!(
        ca.ask("alice", &office.question()).status(),
        503,
        "nothing can be written down"
    );
    let page = metrics();
    assert!(
        page.header("content-type")
            .expect("a type")
            .starts_with("application/openmetrics-text"),
        "{page:?}"
    );
    assert!(page.body.ends_with("# EOF\n"), "{page:?}");
    assert_eq!(number(&page.body, "epithet_ca_audit_failures_total"), 1.0);
    assert_eq!(
        number(&page.body, "epithet_ca_requests_total{outcome=\"failed\"}"),
        1.0
    );
    let type_of = |page: &str, name: &str| page.contains(&format!("\n# TYPE {name}"));
    assert!(
        type_of(&page.body, "epithet_ca_audit_failures counter\n"),
        "{page:?}"
    );
    // Who does not ask for OpenMetrics gets the text that every collector reads.
    for accept in [
        &[][..],
        &[("accept", "text/plain;version=0.0.4")],
        &[("accept", "*/*")],
        &[(
            "accept",
            "text/plain;version=0.0.4;q=0.5,application/openmetrics-text;q=0.4",
        )],
        &[("accept", "application/openmetrics-text;q=0")],
    ] {
        let page = metrics_as(accept);
        let kind = page.header("content-type");
        assert_eq!(
            kind,
            Some("text/plain; version=0.0.4; charset=utf-8"),
            "{accept:?}"
        );
        assert!(
            !page.body.contains("# EOF") && !page.body.contains("# UNIT"),
            "{page:?}"
        );
        for line in [
            "# TYPE epithet_ca_audit_failures_total counter\n",
            "# HELP epithet_ca_audit_failures_total Lines ",
            "# TYPE epithet_policy_rules_reloads_total counter\nepithet_policy_rules_reloads_total 0",
            "# TYPE epithet_policy_rules_age_seconds gauge\n",
            "# TYPE epithet_ca_issue_seconds histogram\n",
            "epithet_ca_issue_seconds_bucket{le=\"+Inf\"} 0\n",
        ] {
            assert!(page.body.contains(line), "{line}: {page:?}");
        }
        assert_eq!(number(&page.body, "epithet_ca_audit_failures_total"), 1.0);
        well_formed(&page.body);
    }
    ca.server.daemon().signal(Signal::HUP);
    let reloaded = wait_until(DEADLINE, || {
        let page = metrics().body;
        (number(&page, "epithet_reloads_total{what=\"audit\",result=\"ok\"}") > 0.0
            && number(&page, "epithet_policy_rules_reloads_total") > 0.0)
            .then_some(())
    });
    assert!(reloaded.is_some(), "{}", metrics().body);
    // They are nobody else's concern.
    assert!(!ca.get("/metrics").body.contains("epithet_ca_requests"));
    let other = exchange(&format!("http://{address}"), &request("GET", "/", &[], b""));
    assert_eq!(other.status(), 404);

    let fine = office.server(["--ca-key", &key, "--metrics-listen=127.0.0.1:0"]);
    let line = fine.server.wait_for_log("metrics: listening on ");
    let address = line.rsplit(' ').next().expect("an address").to_owned();
    for (token, status) in [("alice", 200), ("alice", 200), ("mallory", 403)] {
        assert_eq!(fine.ask(token, &office.question()).status(), status);
    }
    let bad = exchange(
        fine.url(),
        &request("POST", "/", &[("authorization", "Bearer x")], b"{"),
    );
    assert_eq!(bad.status(), 400);
    let page = exchange(
        &format!("http://{address}"),
        &request("GET", "/metrics", &[], b""),
    )
    .body;
    for (name, value) in [
        ("epithet_ca_requests_total{outcome=\"issued\"}", 2.0),
        ("epithet_ca_requests_total{outcome=\"denied\"}", 1.0),
        ("epithet_ca_requests_total{outcome=\"bad_request\"}", 1.0),
        ("epithet_ca_issue_seconds_count", 2.0),
        ("epithet_ca_policy_seconds_count", 3.0),
        ("epithet_ca_audit_failures_total", 0.0),
    ] {
        assert_eq!(number(&page, name), value, "{name}: {page}");
    }
}

/// A command of rules under which the token `bad` is believed by nobody.
const DISTRUSTFUL: &str = r#"policy:
  command: 'read -r token || true; [ "$token" != bad ] || exit 1; printf "{\"identity\": \"%s\"}" "$token"'
"#;

#[test]
fn proxies_that_were_named_say_who_asks_and_nobody_else_does() {
    let office = Office::new();
    let key = office.key("ca").path().display().to_string();
    let mut ca = office.server(["--ca-key", &key]);
    let forged = [("x-forwarded-for", "203.0.113.9")];
    let answer = ca.ask_with("alice", &office.question(), &forged);
    assert_eq!(ca.audit_line(&answer)["client"], "127.0.0.1");

    let mut ca = office.server(["--ca-key", &key, "--trusted-proxy=127.0.0.1,10.0.0.0/8"]);
    for (header, client) in [
        ("203.0.113.9", "203.0.113.9"),
        ("1.2.3.4, 203.0.113.9, 10.1.1.1", "203.0.113.9"),
        ("nonsense", "127.0.0.1"),
    ] {
        let answer = ca.ask_with("alice", &office.question(), &[("x-forwarded-for", header)]);
        assert_eq!(ca.audit_line(&answer)["client"], client, "{header}");
    }
    let wrong = office.epithet(&["server", "--ca-key", &key, "--trusted-proxy=10.0.0.0/33"]);
    assert_eq!(wrong.code(), Some(80));
    assert!(wrong.stderr.contains("10.0.0.0/8 or 2001:db8::/32"), "{wrong:?}");
}

#[test]
fn tokens_that_are_sent_at_once_do_not_outrun_the_limit() {
    const MAX: usize = epithet_wire::limits::FAILED_TOKENS_MAX;
    let office = Office::new();
    office.home.write(".epithet/rules2.yaml", DISTRUSTFUL);
    let key = office.key("ca").path().display().to_string();
    let ca = office.server(["--ca-key", &key, "--trusted-proxy=127.0.0.1"]);
    let question = office.question();
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let ask = || {
            ca.ask_with("bad", &question, &[("x-forwarded-for", "203.0.113.9")])
                .status()
        };
        let asked: Vec<_> = (0..2 * MAX).map(|_| scope.spawn(ask)).collect();
        asked.into_iter().map(|one| one.join().unwrap()).collect()
    });
    let refused = statuses.iter().filter(|status| **status == 401).count();
    let late = statuses.iter().filter(|status| **status == 429).count();
    assert_eq!((refused, late), (MAX, MAX));
}

#[test]
fn an_address_that_sends_token_after_token_that_nobody_believes_has_to_wait() {
    let office = Office::new();
    office.home.write(".epithet/rules2.yaml", DISTRUSTFUL);
    let key = office.key("ca").path().display().to_string();
    let ca = office.server(["--ca-key", &key, "--trusted-proxy=127.0.0.1"]);
    let question = office.question();
    let ask = |token: &str, address: &str| ca.ask_with(token, &question, &[("x-forwarded-for", address)]);
    for number in 0..epithet_wire::limits::FAILED_TOKENS_MAX {
        let answer = ask("bad", "203.0.113.9");
        assert_eq!(answer.status(), 401, "{number}: {answer:?}");
    }
    let refused = ask("alice", "203.0.113.9");
    assert_eq!(refused.status(), 429, "{refused:?}");
    let wait: u64 = refused
        .header("retry-after")
        .expect("a time")
        .parse()
        .expect("seconds");
    assert!((1..=60).contains(&wait), "{wait}");
    assert_eq!(
        ask("alice", "203.0.113.10").status(),
        200,
        "others are not concerned"
    );
}

#[test]
fn the_audit_log_goes_to_the_systems_log_and_nothing_is_issued_without_it() {
    let office = Office::new();
    let key = office.key("ca").path().display().to_string();
    let path = office.home.join("log.sock");
    let log = UnixDatagram::bind(&path).expect("a socket");
    log.set_read_timeout(Some(DEADLINE)).expect("a socket");
    let ca = office.server(["--ca-key", &key, &format!("--audit-syslog={}", path.display())]);
    let answer = ca.ask("alice", &office.question());
    assert_eq!(answer.status(), 200, "{answer:?}");
    let mut bytes = [0; 64 * 1024];
    let length = log.recv(&mut bytes).expect("a line");
    let line = String::from_utf8_lossy(&bytes[..length]).into_owned();
    let (head, json) = line.split_once("]: ").expect("a head");
    assert!(head.starts_with("<86>") && head.contains(" epithet["), "{line}");
    let entry: Value = serde_json::from_str(json).expect("JSON");
    assert_eq!(entry["decision"], "issued");
    assert_eq!(entry["request_id"].as_str(), answer.header("epithet-request-id"));

    drop(log);
    std::fs::remove_file(&path).expect("a socket's file");
    let refused = ca.ask("alice", &office.question());
    assert_eq!(refused.status(), 503, "{refused:?}");
    assert!(
        refused.body.contains("audit log") && !refused.body.contains("ssh-"),
        "{refused:?}"
    );
    assert_eq!(ca.get("/readyz").status(), 503);
    let _log = UnixDatagram::bind(&path).expect("a socket");
    assert_eq!(ca.ask("alice", &office.question()).status(), 200);

    let missing = office.epithet(&["server", "--ca-key", &key, "--audit-syslog=/nowhere/log"]);
    assert_eq!(missing.code(), Some(1));
    assert!(missing.stderr.contains("/nowhere/log"), "{missing:?}");
    let both = office.epithet(&[
        "server",
        "--ca-key",
        &key,
        "--audit-syslog=/dev/log",
        "--audit-file=/dev/null",
    ]);
    assert_eq!(both.code(), Some(80), "{both:?}");
}

#[test]
fn a_request_that_comes_again_gets_the_same_certificate() {
    let office = Office::new();
    let key = office.key("ca").path().display().to_string();
    let mut ca = office.server(["--ca-key", &key]);
    let (question, other) = (office.question(), office.question());
    let named = [("idempotency-key", "0123456789abcdef")];
    let first = ca.ask_with("alice", &question, &named);
    assert_eq!(first.status(), 200, "{first:?}");
    let again = ca.ask_with("alice", &question, &named);
    assert_eq!(again.body, first.body);
    let (first_line, again_line) = (ca.audit_line(&first), ca.audit_line(&again));
    assert_eq!(first_line["decision"], "issued");
    assert_eq!(again_line["decision"], "repeated");
    for field in [
        "serial",
        "key_id",
        "principals",
        "certificate",
        "identity",
        "rule",
    ] {
        assert_eq!(again_line[field], first_line[field], "{field}");
    }
    // Another key, no key and another token are other requests; another body under the same key is a mistake.
    for (token, headers, status) in [
        ("alice", &[("idempotency-key", "another")][..], 200),
        ("alice", &[], 200),
        ("mallory", &named, 403),
    ] {
        let answer = ca.ask_with(token, &question, headers);
        assert_eq!(answer.status(), status, "{answer:?}");
        assert_ne!(answer.body, first.body);
    }
    let first = ca.ask_with("alice", &question, &named);
    assert_eq!(first.status(), 200);
    let conflict = ca.ask_with("alice", &other, &named);
    assert_eq!(conflict.status(), 409, "{conflict:?}");
    assert!(conflict.body.contains("Idempotency-Key"), "{conflict:?}");
    let malformed = ca.ask_with("alice", &question, &[("idempotency-key", "a b")]);
    assert_eq!(malformed.status(), 400, "{malformed:?}");
    assert!(malformed.body.contains("Idempotency-Key"), "{malformed:?}");
}

#[test]
fn only_extensions_on_the_list_are_signed() {
    let office = Office::new();
    let key = office.key("ca").path().display().to_string();
    office.home.write(
        ".epithet/rules2.yaml",
        "policy: {defaults: {extensions: {permit-pty: '', 'login@example.com': 'alice'}}}\n",
    );
    let ca = office.server(["--ca-key", &key]);
    let refused = ca.ask("alice", &office.question());
    assert_eq!(refused.status(), 502, "{refused:?}");
    assert!(
        refused.body.contains("login@example.com") && refused.body.contains("--allow-extension"),
        "{refused:?}"
    );
    let ca = office.server(["--ca-key", &key, "--allow-extension=permit-pty,login@example.com"]);
    let told = office.described(&ca.ask("alice", &office.question()));
    let (pty, login) = (told.find("permit-pty"), told.find("login@example.com"));
    assert!(login.is_some() && login < pty, "sorted by name: {told}");
    let wrong = office.epithet(&["server", "--ca-key", &key, "--allow-extension=a b"]);
    assert!(wrong.stderr.contains("--allow-extension"), "{wrong:?}");
}
