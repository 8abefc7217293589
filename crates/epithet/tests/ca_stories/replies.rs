//! The CA believes only its own policy server, and of that only the answer to its question.

use crate::office::Office;
use epithet_testkit::{KeyPair, TestUser};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

fn path(key: &KeyPair) -> String {
    key.path().display().to_string()
}

fn public(key: &KeyPair) -> String {
    key.public_path().display().to_string()
}

#[test]
fn a_signed_answer_is_believed_and_another_keys_is_not() {
    let office = Office::new();
    let [ca_key, reply_key, other] = ["ca", "reply", "other"].map(|name| office.key(name));
    let policy = |more: &[&str]| {
        let known = public(&ca_key);
        office.policy([&["--listen=127.0.0.1:0", "--ca-pubkey", &known][..], more].concat())
    };
    let (signing, silent) = (policy(&["--reply-key", &path(&reply_key)]), policy(&[]));
    let ca = |policy: &str, keys: &[&KeyPair]| {
        let mut arguments = vec!["--key".to_owned(), path(&ca_key)];
        arguments.extend(
            keys.iter()
                .flat_map(|key| ["--policy-key".to_owned(), public(key)]),
        );
        office.ca(policy, arguments)
    };
    let question = office.question();
    for keys in [&[&reply_key][..], &[&other, &reply_key], &[]] {
        let ca = ca(signing.url(), keys);
        assert_eq!(ca.ask("alice", &question).status(), 200);
        assert_eq!(
            ca.ask("mallory", &question).status(),
            403,
            "refusals are signed too"
        );
        assert_eq!(ca.get("/discovery").status(), 200);
        assert_eq!(ca.get("/readyz").status(), 200);
    }
    for (url, key, reason) in [
        (
            signing.url(),
            &other,
            "not signed by a key that --policy-key names",
        ),
        (silent.url(), &reply_key, "it is not signed"),
    ] {
        let mut ca = ca(url, &[key]);
        let answer = ca.ask("alice", &question);
        assert_eq!(answer.status(), 502, "{answer:?}");
        assert!(
            !answer.body.contains("policy-key"),
            "that is for the log: {answer:?}"
        );
        let line = ca.audit_line(&answer);
        assert!(
            line["reason"].as_str().expect("a reason").contains(reason),
            "{line}"
        );
        ca.server.wait_for_log(reason);
        assert_eq!(ca.get("/readyz").status(), 503);
    }
    let wrong = office.epithet(&[
        "ca",
        "--key",
        &path(&ca_key),
        "--policy",
        silent.url(),
        "--policy-key",
        "/nowhere.pub",
    ]);
    assert!(
        wrong.stderr.contains("--policy-key") && wrong.stderr.contains("/nowhere.pub"),
        "{wrong:?}"
    );
}

/// Answers every question with what the first one got.
fn replaying(policy: &str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let policy = policy.trim_start_matches("http://").to_owned();
    std::thread::spawn(move || {
        let mut kept: Option<Vec<u8>> = None;
        for stream in listener.incoming() {
            let mut near = stream.expect("a client");
            let question = message(&mut near);
            let answer = kept.get_or_insert_with(|| {
                let mut far = TcpStream::connect(&policy).expect("the policy server");
                // The address is the one that the CA's token names.
                far.write_all(&question).expect("it listens");
                message(&mut far)
            });
            near.write_all(answer).expect("the CA listens");
        }
    });
    format!("http://{address}")
}

/// One HTTP message with a `Content-Length`.
fn message(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut one = [0];
    while !bytes.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut one).expect("a head");
        bytes.push(one[0]);
    }
    let head = String::from_utf8_lossy(&bytes).to_ascii_lowercase();
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "))
        .map_or(0, |length| length.trim().parse().expect("a length"));
    let mut body = vec![0; length];
    stream.read_exact(&mut body).expect("a body");
    [bytes, body].concat()
}

#[test]
fn an_answer_to_another_question_is_not_believed() {
    let office = Office::new();
    let [ca_key, reply_key] = ["ca", "reply"].map(|name| office.key(name));
    let policy = office.policy([
        "--listen=127.0.0.1:0",
        "--ca-pubkey",
        &public(&ca_key),
        "--reply-key",
        &path(&reply_key),
    ]);
    let between = replaying(policy.url());
    let mut ca = office.ca(
        &between,
        ["--key", &path(&ca_key), "--policy-key", &public(&reply_key)],
    );
    let first = ca.ask("alice", &office.question());
    assert_eq!(first.status(), 200, "{first:?}");
    let second = ca.ask("mallory", &office.question());
    assert_eq!(
        second.status(),
        502,
        "Alice's yes is no yes for others: {second:?}"
    );
    let line = ca.audit_line(&second);
    assert!(
        line["reason"]
            .as_str()
            .expect("a reason")
            .contains("another question"),
        "{line}"
    );
}

#[test]
fn a_policy_server_of_another_user_is_not_believed_at_a_unix_socket() {
    // Only root can run somebody else's policy server.
    let Some(user) = TestUser::ordinary() else { return };
    let office = Office::new();
    let ca_key = office.key("ca");
    let folder = tempfile::tempdir_in("/tmp").expect("a folder");
    std::fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o777))
        .expect("a mode");
    let socket = folder.path().join("policy.sock");
    let mut command = user.command("/usr/bin/python3");
    command.args([
        "-c",
        "import socket,sys\ns=socket.socket(socket.AF_UNIX)\ns.bind(sys.argv[1])\ns.listen()\nprint('listening',flush=True)\nwhile True: s.accept()",
    ]);
    command.arg(&socket);
    let mut stranger = epithet_testkit::Daemon::start("a stranger", command, None);
    let stdout = stranger.stdout().clone();
    stranger
        .wait_ready(&stdout, "listening", epithet_testkit::DEADLINE)
        .unwrap_or_else(|error| panic!("{error}"));
    let url = format!("unix://{}", socket.display());
    let mut ca = office.ca(&url, ["--key", &path(&ca_key)]);
    let answer = ca.ask("alice", &office.question());
    assert_eq!(answer.status(), 503, "{answer:?}");
    let line = ca.audit_line(&answer);
    assert!(
        line["reason"].as_str().expect("a reason").contains("runs as uid"),
        "{line}"
    );
}

#[test]
fn a_ca_says_what_binds_answers_to_its_policy_server_and_starts_nowhere_that_tokens_are_readable() {
    const WARNING: &str = "in the policy server's place";
    let office = Office::new();
    let [ca_key, reply_key] = ["ca", "reply"].map(|name| office.key(name));
    let socket = format!("unix://{}", office.home.join("policy.sock").display());
    let start = |policy: &str, more: &[&str]| {
        let key = path(&ca_key);
        office.ca(policy, [&["--key", key.as_str()][..], more].concat())
    };
    let alone = start("http://127.0.0.1:9", &[]);
    let line = alone.server.wait_for_log(WARNING);
    assert!(
        line.contains("--policy-key") && line.contains("unix://"),
        "{line}"
    );
    for (policy, more, bond) in [
        (
            "http://127.0.0.1:9",
            &["--policy-key", &public(&reply_key)][..],
            "their signature",
        ),
        (&socket, &[], "the socket's owner"),
        ("https://policy.example.com", &[], "TLS"),
    ] {
        let ca = start(policy, more);
        ca.server.wait_for_log(bond);
        assert!(!ca.server.log().text().contains(WARNING), "{policy}");
    }
    for more in [&[][..], &["--policy-key", &public(&reply_key)]] {
        let key = path(&ca_key);
        let policy = ["ca", "--key", &key, "--policy", "http://policy.example.com:9999"];
        let refused = office.epithet(&[&policy[..], more].concat());
        assert_eq!(refused.code(), Some(1), "{refused:?}");
        for way in [
            "try one of",
            "https://",
            "unix:///",
            "http://127.0.0.1:PORT",
            "--policy-key",
        ] {
            assert!(refused.stderr.contains(way), "{way}: {refused:?}");
        }
    }
}
