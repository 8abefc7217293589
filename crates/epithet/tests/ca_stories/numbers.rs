//! What the pages of numbers say at `epithet ca`, `epithet policy` and `epithet server`, and that a provider's keys are
//! fetched again before they are stale.

use crate::http::{exchange, request};
use crate::office::EPITHET;
use epithet_testkit::devidp::{DevProvider, Settings};
use epithet_testkit::{DEADLINE, Finished, Home, KeyPair, Server, wait_until};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

/// A provider, rules for its people, and files for TLS.
struct Firm {
    provider: DevProvider,
    home: Home,
    key: KeyPair,
    rules: PathBuf,
}

/// A server that shows its numbers.
struct Shown {
    server: Server,
    metrics: String,
}

impl Firm {
    fn new() -> Self {
        let provider = DevProvider::start(Settings::default()).expect("a loopback port is free");
        let home = Home::new();
        let key = KeyPair::generate(home.path(), "ca.key");
        let rules = json!({"policy": {
            "oidc": {"issuer": provider.issuer(), "client-id": "epithet"},
            "users": {"alice@example.com": ["admin"]},
            "defaults": {"allow": {"root": ["admin"]}},
            "hosts": {"*.example.com": {}},
        }});
        let rules = home.write("rules.json", rules.to_string());
        Self {
            provider,
            home,
            key,
            rules,
        }
    }

    fn path(&self, name: &str) -> String {
        self.home.join(name).display().to_string()
    }

    /// A certificate for 127.0.0.1 that ends in two days.
    fn make_tls(&self) {
        let mut openssl = Command::new("openssl");
        openssl
            .args([
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:P-256",
                "-nodes",
            ])
            .args([
                "-days",
                "2",
                "-subj",
                "/CN=127.0.0.1",
                "-addext",
                "subjectAltName=IP:127.0.0.1",
            ])
            .args(["-addext", "basicConstraints=critical,CA:FALSE"])
            .args(["-keyout", &self.path("tls.key"), "-out", &self.path("tls.pem")]);
        Finished::of(openssl, DEADLINE).success();
    }

    fn start(&self, environment: &[(&str, &str)], arguments: &[&str]) -> Shown {
        let mut command = self.home.command(EPITHET);
        command
            .args(arguments)
            .args([
                "-v",
                "--listen=127.0.0.1:0",
                "--metrics-listen=127.0.0.1:0",
                "--config",
            ])
            .arg(&self.rules)
            .envs(environment.iter().copied());
        let server = Server::try_start(command).unwrap_or_else(|error| panic!("{error}"));
        let line = server.wait_for_log("metrics: listening on ");
        let metrics = format!("http://{}", line.rsplit(' ').next().expect("an address"));
        Shown { server, metrics }
    }

    /// What Alice sends for a certificate.
    fn question(&self, name: &str) -> Vec<u8> {
        let key = KeyPair::generate(self.home.path(), name).public_line();
        let connection = json!({"remoteHost": "web.example.com", "remoteUser": "root", "port": 22, "proxyJump": "", "hash": "0".repeat(40)});
        let body = json!({"publicKey": key, "connection": connection}).to_string();
        let authorization = format!("Bearer {}", self.provider.mint_id_token("alice", &json!({})));
        request("POST", "/", &[("authorization", &authorization)], body.as_bytes())
    }

    /// What a server says over TLS, by openssl.
    fn over_tls(&self, url: &str, question: &[u8]) -> String {
        let mut openssl = Command::new("openssl")
            .args([
                "s_client",
                "-quiet",
                "-verify_return_error",
                "-verify_ip",
                "127.0.0.1",
            ])
            .args([
                "-CAfile",
                &self.path("tls.pem"),
                "-connect",
                url.trim_start_matches("https://"),
            ])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("openssl is installed");
        // Its standard input stays open until the server has hung up: at its end openssl would end too.
        let mut stdin = openssl.stdin.take().expect("a pipe");
        stdin.write_all(question).expect("openssl reads");
        let mut said = String::new();
        let mut stdout = openssl.stdout.take().expect("a pipe");
        std::io::Read::read_to_string(&mut stdout, &mut said).expect("text");
        drop(stdin);
        openssl.wait().expect("openssl ends");
        said
    }
}

impl Shown {
    fn page(&self) -> String {
        exchange(&self.metrics, &request("GET", "/metrics", &[], b"")).body
    }

    /// The value of the line that begins so, if there is one.
    fn number(&self, name: &str) -> Option<f64> {
        number(&self.page(), name)
    }

    #[track_caller]
    fn reaches(&self, name: &str, is_right: impl Fn(f64) -> bool) {
        let found = wait_until(DEADLINE, || self.number(name).filter(|value| is_right(*value)));
        assert!(found.is_some(), "{name}: {}", self.page());
    }
}

fn number(page: &str, name: &str) -> Option<f64> {
    let line = page
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.map(|value| value.parse().expect("a number"))
}

fn now() -> f64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.expect("it is after 1970").as_secs_f64()
}

const DAY: f64 = 86_400.0;
const TLS_END: &str = "epithet_tls_certificate_not_after_seconds";
const KEYS_AGE: &str = "epithet_policy_jwks_age_seconds";
const RULES_AGE: &str = "epithet_policy_rules_age_seconds";
const ALLOWED: &str = "epithet_policy_decisions_total{outcome=\"allowed\"}";
const ISSUED: &str = "epithet_ca_requests_total{outcome=\"issued\"}";

fn reloads(what: &str, result: &str) -> String {
    format!("epithet_reloads_total{{what=\"{what}\",result=\"{result}\"}}")
}

#[test]
fn keys_certificates_and_reloads_stand_on_every_page_that_they_concern() {
    let firm = Firm::new();
    firm.make_tls();
    let (pem, tls_key) = (firm.path("tls.pem"), firm.path("tls.key"));
    let tls = ["--tls-cert", &pem, "--tls-key", &tls_key];
    let (key, public) = (
        firm.key.path().display().to_string(),
        firm.key.public_path().display().to_string(),
    );
    let [audit, other_audit] =
        ["ca.jsonl", "server.jsonl"].map(|name| format!("--audit-file={}", firm.path(name)));
    let mut policy = firm.start(&[], &[&["policy", "--ca-pubkey", &public][..], &tls].concat());
    let url = policy.server.url().to_owned();
    let roots = format!("--tls-ca-cert={pem}");
    let mut ca = firm.start(
        &[],
        &[&["ca", "--key", &key, "--policy", &url, &roots, &audit][..], &tls].concat(),
    );
    let mut together = firm.start(
        &[],
        &[&["server", "--ca-key", &key, &other_audit][..], &tls].concat(),
    );

    // Keys are not fetched before they are needed.
    for shown in [&policy, &together] {
        assert_eq!(shown.number(KEYS_AGE), None, "{}", shown.page());
    }
    for (place, shown) in [&ca, &together].into_iter().enumerate() {
        let said = firm.over_tls(shown.server.url(), &firm.question(&format!("key{place}")));
        assert!(said.starts_with("HTTP/1.1 200 OK"), "{said}");
    }
    for (shown, decides, issues) in [
        (&policy, true, false),
        (&ca, false, true),
        (&together, true, true),
    ] {
        let page = shown.page();
        let end = number(&page, TLS_END).expect("TLS ends");
        assert!(
            (now() + 1.9 * DAY..now() + 2.1 * DAY).contains(&end),
            "{end}: {page}"
        );
        assert_eq!(number(&page, ALLOWED), decides.then_some(1.0), "{page}");
        assert_eq!(number(&page, ISSUED), issues.then_some(1.0), "{page}");
        for age in [KEYS_AGE, RULES_AGE] {
            let age = number(&page, age);
            assert_eq!(age.is_some(), decides, "{page}");
            assert!(age.is_none_or(|age| (0.0..300.0).contains(&age)), "{age:?}");
        }
        let count = number(&page, "epithet_policy_decision_seconds_count");
        assert_eq!(count, decides.then_some(1.0), "{page}");
        let sum = number(&page, "epithet_policy_decision_seconds_sum");
        assert!(sum.is_none_or(|sum| sum > 0.0 && sum < 60.0), "{page}");
    }

    // What never happened is 0, so that the first time is an increase.
    for (shown, name) in [
        (&ca, "epithet_ca_requests_total{outcome=\"failed\"}"),
        (&together, "epithet_ca_requests_total{outcome=\"too_many\"}"),
        (&policy, "epithet_policy_decisions_total{outcome=\"unavailable\"}"),
        (&policy, &reloads("ca_keys", "failed")),
        (&ca, &reloads("audit", "failed")),
        (&together, &reloads("rules", "failed")),
        (&policy, "epithet_policy_rules_failed_reloads_total"),
    ] {
        assert_eq!(shown.number(name), Some(0.0), "{name}: {}", shown.page());
    }
    assert_eq!(
        ca.number(&reloads("ca_keys", "ok")),
        None,
        "none are read again there"
    );

    // A request that is not the CA's, and a token that is nobody's.
    firm.over_tls(policy.server.url(), &request("POST", "/", &[], b"{}"));
    policy.reaches(
        "epithet_policy_decisions_total{outcome=\"not_the_ca\"}",
        |count| count == 1.0,
    );

    for shown in [&mut policy, &mut ca, &mut together] {
        shown.server.daemon().signal(Signal::HUP);
    }
    for (shown, whats) in [
        (&policy, &["tls", "rules", "ca_keys"][..]),
        (&ca, &["tls", "audit"]),
        (&together, &["tls", "audit", "rules"]),
    ] {
        for what in whats {
            shown.reaches(&reloads(what, "ok"), |count| count == 1.0);
            assert_eq!(shown.number(&reloads(what, "failed")), Some(0.0));
        }
    }
    assert_eq!(ca.number(&reloads("rules", "ok")), None);
    for shown in [&policy, &together] {
        shown.reaches("epithet_policy_rules_reloads_total", |count| count == 1.0);
    }

    // What cannot be used is counted, and the rules in force grow older.
    firm.home.write("rules.json", "{\"policy\": {\"users\": 3}}");
    firm.home.write("tls.pem", "no certificate");
    for shown in [&mut policy, &mut together] {
        shown.server.daemon().signal(Signal::HUP);
    }
    for shown in [&policy, &together] {
        shown.reaches(&reloads("rules", "failed"), |count| count >= 1.0);
        shown.reaches(&reloads("tls", "failed"), |count| count == 1.0);
        shown.reaches("epithet_policy_rules_failed_reloads_total", |count| count >= 1.0);
        assert_eq!(shown.number("epithet_policy_rules_reloads_total"), Some(1.0));
        assert!(
            shown.number(TLS_END).is_some_and(|end| end > now() + 1.9 * DAY),
            "the old one stays"
        );
    }
}

/// A clock that goes ahead by as many seconds as a file says, put between a program and the system.
const CLOCK: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>
int clock_gettime(clockid_t id, struct timespec *now) {
    int (*real)(clockid_t, struct timespec *) = dlsym(RTLD_NEXT, "clock_gettime");
    int result = real(id, now);
    char text[32] = {0};
    const char *name = getenv("TEST_CLOCK");
    int file = id == CLOCK_REALTIME && name ? open(name, O_RDONLY | O_CLOEXEC) : -1;
    if (file >= 0) {
        if (read(file, text, sizeof text - 1) > 0) now->tv_sec += atol(text);
        close(file);
    }
    return result;
}
"#;

#[test]
fn a_provider_s_keys_are_fetched_before_they_are_stale_without_anybody_asking() {
    let firm = Firm::new();
    let source = firm.home.write("clock.c", CLOCK);
    let (library, ahead) = (firm.path("clock.so"), firm.path("ahead"));
    let mut compiler = Command::new("cc");
    compiler
        .args(["-shared", "-fPIC", "-o", &library])
        .arg(source)
        .arg("-ldl");
    Finished::of(compiler, DEADLINE).success();
    // Put in place as a whole: the server reads it at any time.
    let go_ahead = |seconds: u64| {
        firm.home.write("ahead.new", seconds.to_string());
        std::fs::rename(firm.home.join("ahead.new"), &ahead).expect("a file of ours");
    };
    go_ahead(0);
    let key = firm.key.path().display().to_string();
    let clock = [("LD_PRELOAD", library.as_str()), ("TEST_CLOCK", ahead.as_str())];
    let shown = firm.start(&clock, &["server", "--ca-key", &key]);
    let fetches = || firm.provider.requests().key_sets;

    let answer = exchange(shown.server.url(), &firm.question("key"));
    assert_eq!(answer.status(), 200, "{answer:?}");
    let body: Value = serde_json::from_str(&answer.body).expect("JSON");
    assert!(body["certificate"].is_string());
    assert_eq!(fetches(), 1);

    // The provider says that they are good for five minutes. Nobody logs in, and after four and a half they are new.
    go_ahead(200);
    assert!(
        shown
            .number(KEYS_AGE)
            .is_some_and(|age| (200.0..260.0).contains(&age)),
        "{}",
        shown.page()
    );
    go_ahead(280);
    assert!(
        wait_until(DEADLINE, || (fetches() == 2).then_some(())).is_some(),
        "{} fetches",
        fetches()
    );
    shown.reaches(KEYS_AGE, |age| age < 60.0);

    // The provider goes away for a while: the old keys stay, and it is asked again after a minute or so.
    firm.provider.set_down(true);
    go_ahead(580);
    shown.server.wait_for_log("provider keys could not be loaded");
    shown.reaches(KEYS_AGE, |age| age > 200.0);
    firm.provider.set_down(false);
    go_ahead(700);
    shown.reaches(KEYS_AGE, |age| age < 60.0);
}
