//! A policy server that says nothing, to some or to all: who asks it waits as long as was configured and no longer, so
//! many at once and no more, and everybody else is served meanwhile.

use crate::http::{exchange, request};
use crate::named::{EPITHET, Named};
use epithet_testkit::{DEADLINE, Finished, Server, wait_until};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const DECISION: &str =
    r#"{"certParams":{"identity":"alice","principals":["root"],"expiration":120000000000,"extensions":{}}}"#;

/// A policy server that does not answer requests in which `hole` stands, unless it is open; threads of its own, which end
/// with the process.
struct HalfDeaf {
    is_open: Arc<AtomicBool>,
    /// Whether it answers nobody any more.
    is_away: Arc<AtomicBool>,
    /// Connections that were accepted.
    accepted: Arc<AtomicUsize>,
}

impl HalfDeaf {
    fn listen(socket: &Path) -> Self {
        let listener = UnixListener::bind(socket).unwrap();
        let half_deaf = Self {
            is_open: Arc::default(),
            is_away: Arc::default(),
            accepted: Arc::default(),
        };
        let (is_open, accepted) = (Arc::clone(&half_deaf.is_open), Arc::clone(&half_deaf.accepted));
        let is_away = Arc::clone(&half_deaf.is_away);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                accepted.fetch_add(1, Ordering::SeqCst);
                let (is_open, is_away) = (Arc::clone(&is_open), Arc::clone(&is_away));
                std::thread::spawn(move || answer(&stream.unwrap(), &is_open, &is_away));
            }
        });
        half_deaf
    }
}

fn answer(mut stream: &UnixStream, is_open: &AtomicBool, is_away: &AtomicBool) {
    let mut seen = Vec::new();
    loop {
        let mut piece = [0; 4096];
        match stream.read(&mut piece) {
            Ok(0) | Err(_) => return,
            Ok(read) => seen.extend_from_slice(&piece[..read]),
        }
        let text = String::from_utf8_lossy(&seen).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            continue;
        };
        let length = head
            .to_ascii_lowercase()
            .lines()
            .find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
        if body.len() < length.unwrap_or(0) {
            continue;
        }
        if is_away.load(Ordering::SeqCst) {
            return;
        }
        if text.contains("hole.example") && !is_open.load(Ordering::SeqCst) {
            continue;
        }
        let body = if head.starts_with("GET") { "{}" } else { DECISION };
        let answer = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nCache-Control: max-age=1\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        if stream.write_all(answer.as_bytes()).is_err() {
            return;
        }
        seen.clear();
    }
}

fn get(server: &Server, path: &str) -> u16 {
    exchange(server.url(), &request("GET", path, &[], b"")).status()
}

#[test]
fn requests_that_policy_answers_are_served_while_others_wait_for_it_in_vain() {
    let named = Named::new();
    let socket = named.home.join("policy.sock");
    let policy = HalfDeaf::listen(&socket);
    let ca = named.ca(
        &format!("unix://{}", socket.display()),
        &["--policy-timeout", "2s"],
    );
    let (served, longest) = (AtomicUsize::new(0), Mutex::new(Duration::ZERO));
    std::thread::scope(|scope| {
        let waiting: Vec<_> = (0..40)
            .map(|_| {
                scope.spawn(|| {
                    let begun = Instant::now();
                    (named.ask(&ca, "alice", "hole.example.com"), begun.elapsed())
                })
            })
            .collect();
        while waiting.iter().any(|waiting| !waiting.is_finished()) {
            let begun = Instant::now();
            assert_eq!(named.ask(&ca, "alice", "web.example.com").status(), 200);
            for path in ["/", "/healthz", "/readyz", "/discovery", "/ca-keys"] {
                assert_eq!(get(&ca, path), 200, "{path}");
            }
            served.fetch_add(1, Ordering::SeqCst);
            let mut longest = longest.lock().unwrap();
            *longest = longest.max(begun.elapsed());
        }
        for waiting in waiting {
            let (answer, elapsed) = waiting.join().unwrap();
            assert_eq!(answer.status(), 503, "{answer:?}");
            assert!(elapsed >= Duration::from_secs(2), "{elapsed:?}");
        }
    });
    assert!(
        served.load(Ordering::SeqCst) > 1,
        "a round took {:?}",
        longest.lock().unwrap()
    );
    policy.is_open.store(true, Ordering::SeqCst);
    assert_eq!(
        named.ask(&ca, "alice", "hole.example.com").status(),
        200,
        "at once, without a pause"
    );
}

#[test]
fn so_many_requests_wait_for_policy_and_one_more_is_told_to_come_later() {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let raised = rustix::process::Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, raised).unwrap();
    let named = Named::new();
    let socket = named.home.join("policy.sock");
    // Accepts and says nothing.
    let listener = UnixListener::bind(&socket).unwrap();
    let held: Arc<Mutex<Vec<UnixStream>>> = Arc::default();
    let holding = Arc::clone(&held);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            holding.lock().unwrap().push(stream.unwrap());
        }
    });
    let ca = named.ca(
        &format!("unix://{}", socket.display()),
        &["--policy-timeout", "10s", "-v"],
    );
    let address = ca.url().trim_start_matches("http://").to_owned();
    let asking = named.asking("alice", "hole.example.com");
    let room = epithet_wire::limits::POLICY_WAITING_MAX;
    let waiting: Vec<_> = (0..room)
        .map(|_| {
            let mut stream = TcpStream::connect(&address).unwrap();
            stream.write_all(&asking).unwrap();
            stream
        })
        .collect();
    // On a machine on which that takes longer than the deadline there would never be so many.
    let all_wait = wait_until(DEADLINE, || (held.lock().unwrap().len() >= room).then_some(()));
    all_wait.expect("every request has a connection to the policy server");
    // On a slow machine the first one is let in to find out whether newcomers are answered; the next one is not.
    let mut let_in = Vec::new();
    let one_more = wait_until(DEADLINE, || {
        let mut stream = TcpStream::connect(&address).unwrap();
        stream.write_all(&asking).unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        let mut answer = String::new();
        let read = stream.read_to_string(&mut answer);
        let_in.push(stream);
        read.ok().map(|_| answer)
    });
    let one_more = one_more.expect("somebody is refused at once");
    assert!(one_more.starts_with("HTTP/1.1 503"), "{one_more}");
    assert!(one_more.contains("\r\nretry-after: 1\r\n"), "{one_more}");
    assert!(one_more.contains("does not keep up"), "{one_more}");
    assert_eq!((get(&ca, "/"), get(&ca, "/healthz")), (200, 200));
    ca.wait_for_log("the policy server does not keep up");
    drop((waiting, let_in));
    // Whoever gave up waits no more.
    let room_again = wait_until(DEADLINE, || {
        let mut stream = TcpStream::connect(&address).unwrap();
        stream.write_all(&asking).unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).is_err().then_some(())
    });
    room_again.expect("places are free again");
}

#[test]
fn a_policy_server_that_is_away_is_noticed_by_readyz_and_its_last_discovery_document_serves() {
    let named = Named::new();
    let socket = named.home.join("policy.sock");
    let policy = HalfDeaf::listen(&socket);
    let ca = named.ca(&format!("unix://{}", socket.display()), &[]);
    assert_eq!((get(&ca, "/readyz"), get(&ca, "/discovery")), (200, 200));
    policy.is_away.store(true, Ordering::SeqCst);
    let becomes = |status: u16| {
        let became = wait_until(DEADLINE, || (get(&ca, "/readyz") == status).then_some(()));
        became.unwrap_or_else(|| panic!("/readyz does not become {status}"));
    };
    becomes(503);
    // It may be kept for a second, which is over by now.
    assert_eq!(get(&ca, "/discovery"), 200);
    policy.is_away.store(false, Ordering::SeqCst);
    becomes(200);
    assert_eq!(named.ask(&ca, "alice", "web.example.com").status(), 200);
    // A CA that never saw one has none to give.
    policy.is_away.store(true, Ordering::SeqCst);
    let other = named.ca(&format!("unix://{}", socket.display()), &[]);
    assert_eq!((get(&other, "/discovery"), get(&other, "/readyz")), (502, 503));
}

#[test]
fn a_time_limit_that_makes_no_sense_is_refused_with_the_reason() {
    let named = Named::new();
    let key = named.ca.path().display().to_string();
    for wrong in ["500ms", "11s"] {
        let mut command = named.home.command(EPITHET);
        command.env("EPITHET_CONFIG_ONLY", "1").args([
            "ca",
            "--listen=127.0.0.1:0",
            "--policy=http://127.0.0.1:9",
            "--key",
            &key,
            "--policy-timeout",
            wrong,
        ]);
        let refused = Finished::of(command, DEADLINE);
        assert_eq!(refused.code(), Some(1), "{wrong}");
        assert!(
            refused.stderr.contains("--policy-timeout must be from 1s to 10s"),
            "{}",
            refused.stderr
        );
    }
    let file = named.home.write("ca.yaml", "ca: {policy-timeout: 30s}\n");
    let mut command = named.home.command(EPITHET);
    command
        .env("EPITHET_CONFIG_ONLY", "1")
        .args(["ca", "--key", &key]);
    command
        .args(["--policy=http://127.0.0.1:9", "--config"])
        .arg(file);
    let refused = Finished::of(command, DEADLINE);
    assert!(refused.stderr.contains("from 1s to 10s"), "{}", refused.stderr);
}
