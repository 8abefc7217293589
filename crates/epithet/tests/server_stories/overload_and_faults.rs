//! What is around a CA breaks: clients that never finish, a full disk, a policy server that says nothing, a provider
//! that is away. Nothing is issued that should not be, everything else goes on, and it recovers by itself.

use crate::http::{exchange, request};
use crate::named::{EPITHET, Named};
use epithet_testkit::devidp::{DevProvider, Settings};
use epithet_testkit::{DEADLINE, Server, wait_until};
use serde_json::json;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

fn get(server: &Server, path: &str) -> u16 {
    exchange(server.url(), &request("GET", path, &[], b"")).status()
}

#[test]
fn clients_that_never_finish_do_not_keep_others_from_certificates() {
    let named = Named::new();
    let log = named.home.join("audit.jsonl");
    let server = named.server(&["--audit-file", log.to_str().unwrap()]);
    let address = server.url().trim_start_matches("http://").to_owned();
    let whole = named.asking("alice", "web.example.com");
    // A third stop in the middle of the headers, a third in the body, and a third say nothing at all.
    let slow: Vec<TcpStream> = (0..300)
        .map(|index| {
            let mut stream = TcpStream::connect(&address).expect("the server accepts");
            let sent = [0, 40, whole.len() - 10][index % 3];
            stream.write_all(&whole[..sent]).expect("the server reads");
            stream
        })
        .collect();
    for _ in 0..50 {
        let answer = named.ask(&server, "alice", "web.example.com");
        assert_eq!(answer.status(), 200, "{answer:?}");
    }
    drop(slow);
    // Nobody who did not finish is in the log.
    let lines = std::fs::read_to_string(&log).unwrap();
    assert_eq!(lines.lines().count(), 50);
    assert_eq!(named.ask(&server, "alice", "web.example.com").status(), 200);
}

#[test]
fn clients_that_never_finish_are_hung_up_on() {
    let named = Named::new();
    let server = named.server(&[]);
    let address = server.url().trim_start_matches("http://").to_owned();
    let whole = named.asking("alice", "web.example.com");
    for sent in [40, whole.len() - 10] {
        let mut stream = TcpStream::connect(&address).unwrap();
        stream.write_all(&whole[..sent]).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        let mut answer = Vec::new();
        // Either a 408 or a plain end; what counts is that it ends.
        stream.read_to_end(&mut answer).expect("the server hangs up");
        assert!(
            !answer.starts_with(b"HTTP/1.1 200"),
            "{}",
            String::from_utf8_lossy(&answer)
        );
    }
}

#[test]
fn a_ca_whose_audit_log_cannot_be_written_issues_nothing_and_goes_on_when_it_can() {
    let named = Named::new();
    let log = named.home.join("audit.jsonl");
    std::os::unix::fs::symlink("/dev/full", &log).unwrap();
    let mut server = named.server(&["-v", "--audit-file", log.to_str().unwrap()]);
    for _ in 0..2 {
        let answer = named.ask(&server, "alice", "web.example.com");
        assert_eq!(answer.status(), 503, "{answer:?}");
        assert!(answer.body.contains("audit log"), "{answer:?}");
        assert!(!answer.body.contains("cert-v01"), "{answer:?}");
    }
    // A no is not said either when it cannot be written down.
    assert_eq!(named.ask(&server, "mallory", "web.example.com").status(), 503);
    assert_eq!(
        (
            get(&server, "/readyz"),
            get(&server, "/"),
            get(&server, "/healthz")
        ),
        (503, 200, 200)
    );
    std::fs::remove_file(&log).unwrap();
    let before = server.log().position();
    server.daemon().signal(rustix::process::Signal::HUP);
    server
        .daemon()
        .expect_line_after(before, "the audit log was opened again", DEADLINE);
    assert_eq!(named.ask(&server, "alice", "web.example.com").status(), 200);
    assert_eq!(get(&server, "/readyz"), 200);
    assert_eq!(std::fs::read_to_string(&log).unwrap().lines().count(), 1);
}

/// A file system of a few pages. It is taken away when dropped.
struct SmallDisk(std::path::PathBuf);

impl SmallDisk {
    /// `None` where the tests may not mount one.
    fn mount(at: std::path::PathBuf) -> Option<Self> {
        std::fs::create_dir(&at).expect("a folder in a home of ours");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=16k", "tmpfs"])
            .arg(&at)
            .output();
        mounted
            .is_ok_and(|output| output.status.success())
            .then_some(Self(at))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).output();
    }
}

#[test]
fn a_ca_whose_disk_is_full_issues_again_as_soon_as_there_is_room_with_a_chain_that_holds() {
    let named = Named::new();
    let Some(disk) = SmallDisk::mount(named.home.join("disk")) else {
        return;
    };
    let log = disk.0.join("audit.jsonl");
    let server = named.server(&["--audit-file", log.to_str().unwrap()]);
    assert_eq!(named.ask(&server, "alice", "one.example.com").status(), 200);
    let ballast = disk.0.join("ballast");
    let _ = std::fs::write(&ballast, vec![0; 64 * 1024]);
    // What is left of the log's own page is used up first.
    let full = wait_until(DEADLINE, || {
        (named.ask(&server, "alice", "two.example.com").status() == 503).then_some(())
    });
    full.expect("the disk is full");
    assert_eq!(get(&server, "/readyz"), 503);
    let before = std::fs::read(&log).unwrap();
    assert!(before.ends_with(b"\n"), "half a line was taken back");
    std::fs::remove_file(&ballast).unwrap();
    assert_eq!(
        named.ask(&server, "alice", "three.example.com").status(),
        200,
        "nobody had to do anything"
    );
    assert_eq!(get(&server, "/readyz"), 200);
    let mut command = named.home.command(EPITHET);
    command.args(["audit", "verify"]).arg(&log);
    epithet_testkit::Finished::of(command, DEADLINE).success();
    drop(server);
}

#[test]
fn a_policy_server_that_says_nothing_costs_its_deadline_and_nothing_else() {
    let named = Named::new();
    let socket = named.home.join("policy.sock");
    // It accepts, as the system does for it, and never says a word.
    let hole = UnixListener::bind(&socket).unwrap();
    let ca = named.ca(&format!("unix://{}", socket.display()), &[]);
    let deadline = epithet_wire::limits::POLICY_DEADLINE;
    let begun = Instant::now();
    std::thread::scope(|scope| {
        let asked: Vec<_> = (0..40)
            .map(|_| scope.spawn(|| named.ask(&ca, "alice", "web.example.com")))
            .collect();
        // Meanwhile everything that needs no policy is answered.
        while asked.iter().any(|asked| !asked.is_finished()) {
            assert_eq!((get(&ca, "/"), get(&ca, "/healthz")), (200, 200));
        }
        for asked in asked {
            let answer = asked.join().unwrap();
            assert_eq!(answer.status(), 503, "{answer:?}");
            assert!(
                answer.body.contains("the policy server cannot be reached"),
                "{answer:?}"
            );
        }
    });
    let elapsed = begun.elapsed();
    assert!(
        elapsed >= deadline && elapsed < deadline + DEADLINE,
        "{elapsed:?}"
    );
    drop(hole);
    std::fs::remove_file(&socket).unwrap();
    let public = named.ca.public_path().display().to_string();
    let policy = Server::start(
        Path::new(EPITHET),
        &named.home,
        [
            "policy",
            "--listen",
            &format!("unix://{}", socket.display()),
            "--config",
            &named.home.join("rules.yaml").display().to_string(),
            "--ca-pubkey",
            &public,
        ],
    );
    assert_eq!(
        named.ask(&ca, "alice", "web.example.com").status(),
        200,
        "at once, without a pause"
    );
    drop(policy);
}

#[test]
fn while_the_provider_is_away_the_keys_that_were_fetched_serve() {
    let settings = Settings {
        id_token_life: Duration::from_secs(3600),
        ..Settings::default()
    };
    let provider = DevProvider::start(settings).expect("a loopback port is free");
    let named = Named::new();
    let rules = json!({"policy": {
        "oidc": {"issuer": provider.issuer(), "client-id": "epithet"},
        "users": {"alice@example.com": ["admin"]},
        "defaults": {"allow": {"root": ["admin"]}},
        "hosts": {"*.example.com": {}},
    }});
    let rules = named
        .home
        .write("oidc.json", rules.to_string())
        .display()
        .to_string();
    let key = named.ca.path().display().to_string();
    let arguments = [
        "server",
        "--listen=127.0.0.1:0",
        "--ca-key",
        &key,
        "--config",
        &rules,
    ];
    let server = Server::start(Path::new(EPITHET), &named.home, arguments);
    let token = provider.mint_id_token("alice", &json!({}));
    assert_eq!(named.ask(&server, &token, "web.example.com").status(), 200);
    drop(provider);
    for _ in 0..3 {
        assert_eq!(named.ask(&server, &token, "web.example.com").status(), 200);
    }
    // A token by a key that nobody knows makes nobody wait for a provider that is away.
    let (head, rest) = token.split_once('.').unwrap();
    let unknown = format!("{}.{rest}", head.chars().rev().collect::<String>());
    assert_eq!(named.ask(&server, &unknown, "web.example.com").status(), 401);
    assert_eq!(get(&server, "/readyz"), 200);
}
