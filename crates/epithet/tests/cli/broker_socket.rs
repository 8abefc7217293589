//! What the broker's socket puts up with. Whatever one peer does, the others are answered.

use crate::{EPITHET, epithet};
use epithet_testkit::{Broker, DEADLINE, Finished, Home, TestUser};
use epithet_wire::limits::{BROKER_CONNECTIONS, BROKER_LINE_MAX, BROKER_READ_DEADLINE};
use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Instant;

fn broker(home: &Home) -> Broker {
    let mut command = epithet(home, ["agent", "--ca-url", "http://127.0.0.1:1"]);
    command.args(["--match", "*.example.com", "--auth", "printf token"]);
    Broker::try_start(command).unwrap_or_else(|error| panic!("{error}"))
}

fn connect(broker: &Broker) -> UnixStream {
    let stream = UnixStream::connect(broker.socket()).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream
}

/// Everything that comes until the end. What is reset has ended too.
fn rest(mut stream: &UnixStream) -> String {
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes);
    String::from_utf8(bytes).unwrap()
}

/// The answer to some bytes.
fn answer(broker: &Broker, bytes: &[u8]) -> String {
    let mut stream = connect(broker);
    let _ = stream.write_all(bytes);
    rest(&stream)
}

/// Asserts that the broker answers others.
#[track_caller]
fn is_well(broker: &Broker) {
    let begun = Instant::now();
    let inspection = answer(broker, b"{\"inspect\":{}}\n");
    assert!(
        inspection.starts_with("{\"inspect\":{\"profile\":\"default\""),
        "{inspection}"
    );
    assert!(
        inspection.ends_with("}\n") && inspection.lines().count() == 1,
        "{inspection}"
    );
    assert!(
        begun.elapsed() < BROKER_READ_DEADLINE,
        "it took {:?}",
        begun.elapsed()
    );
}

#[test]
fn a_line_that_is_no_request_is_told_so() {
    let home = Home::new();
    let broker = broker(&home);
    for line in [
        "",
        "nonsense",
        "[]",
        "{\"match\":1}",
        "\u{0}\u{1}",
        "GET / HTTP/1.1\r",
        "{\"match\":{\"port\":-1}}",
        "{\"inspect\":",
    ] {
        let answer = answer(&broker, format!("{line}\n").as_bytes());
        assert!(
            answer.starts_with("{\"result\":{\"allow\":false,\"error\":\"malformed request: ")
                || answer
                    .starts_with("{\"result\":{\"allow\":false,\"error\":\"request must set exactly one of "),
            "{line}: {answer}"
        );
        assert!(answer.ends_with("\"}}\n"), "{answer}");
    }
    for line in ["{}", "{\"other\":{}}", "{\"match\":null}"] {
        assert_eq!(
            answer(&broker, format!("{line}\n").as_bytes()),
            "{\"result\":{\"allow\":false,\"error\":\"request must set exactly one of match, inspect, login, logout or trace\"}}\n"
        );
    }
    assert_eq!(answer(&broker, b"\xff\xfe\n").lines().count(), 1);
    is_well(&broker);
}

#[test]
fn a_match_with_names_that_cannot_be_is_told_which() {
    let home = Home::new();
    let broker = broker(&home);
    let hash = "a".repeat(40);
    for (host, user, port, hash, what) in [
        ("a b", "root", 22, hash.as_str(), "host name"),
        ("web.example.com", "root,admin", 22, &hash, "user name"),
        ("web.example.com", "root", 0, &hash, "port"),
        ("web.example.com", "root", 70000, &hash, "port"),
        ("web.example.com", "root", 22, "../broker.sock", "hash"),
    ] {
        let request = serde_json::json!({"match": {"remoteHost": host, "remoteUser": user, "port": port, "proxyJump": "", "hash": hash}});
        let answer = answer(&broker, format!("{request}\n").as_bytes());
        assert!(
            answer.starts_with("{\"result\":{\"allow\":false,\"error\":\""),
            "{answer}"
        );
        assert!(answer.contains(what), "{what} is not in {answer}");
    }
    is_well(&broker);
}

#[test]
fn a_line_at_the_limit_is_read_and_a_longer_one_is_closed_without_an_answer() {
    let home = Home::new();
    let broker = broker(&home);
    let padded = |size: usize| {
        let frame = "{\"inspect\":{},\"padding\":\"\"}".len();
        format!(
            "{{\"inspect\":{{}},\"padding\":\"{}\"}}\n",
            "x".repeat(size - frame)
        )
    };
    assert!(answer(&broker, padded(BROKER_LINE_MAX).as_bytes()).starts_with("{\"inspect\":"));
    assert_eq!(answer(&broker, padded(BROKER_LINE_MAX + 1).as_bytes()), "");
    // A mebibyte without an end, and one with it.
    assert_eq!(answer(&broker, "x".repeat(1 << 20).as_bytes()), "");
    assert_eq!(answer(&broker, padded(1 << 20).as_bytes()), "");
    is_well(&broker);
}

#[test]
fn whoever_says_nothing_or_half_a_line_is_closed_and_keeps_nobody_waiting() {
    let home = Home::new();
    let broker = broker(&home);
    let silent = connect(&broker);
    let mut halfway = connect(&broker);
    halfway.write_all(b"{\"inspect\":").unwrap();
    is_well(&broker);
    let begun = Instant::now();
    assert_eq!((rest(&silent), rest(&halfway)), (String::new(), String::new()));
    assert!(
        begun.elapsed() <= BROKER_READ_DEADLINE * 2,
        "{:?}",
        begun.elapsed()
    );
    is_well(&broker);
}

#[test]
fn whoever_closes_only_the_writing_side_still_gets_an_answer() {
    let home = Home::new();
    let broker = broker(&home);
    let mut stream = connect(&broker);
    stream.write_all(b"{\"login\":{}}\n").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let said = rest(&stream);
    assert!(said.ends_with("{\"result\":{\"allow\":true}}\n"), "{said}");
    // Without a request there is nothing to answer.
    let stream = connect(&broker);
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(rest(&stream), "");
    is_well(&broker);
}

#[test]
fn one_connection_is_one_request() {
    let home = Home::new();
    let broker = broker(&home);
    let answers = answer(&broker, b"{\"inspect\":{}}\n{\"inspect\":{}}\n{\"inspect\":{}}\n");
    assert_eq!(answers.lines().count(), 1, "{answers}");
    // Of two questions in one the match is answered, as epithet 0.19 does.
    let answers = answer(&broker, b"{\"match\":{},\"inspect\":{}}\n");
    assert!(answers.starts_with("{\"result\":{\"allow\":false,"), "{answers}");
}

#[test]
fn hundreds_of_connections_at_once_are_bounded_and_forgotten_afterwards() {
    let home = Home::new();
    let broker = broker(&home);
    let crowd: Vec<_> = (0..BROKER_CONNECTIONS + 20)
        .map(|_| UnixStream::connect(broker.socket()))
        .collect();
    broker.wait_for_log("one was turned away");
    drop(crowd);
    // Each place is free again as soon as its peer has gone.
    let well = epithet_testkit::wait_until(DEADLINE, || {
        answer(&broker, b"{\"inspect\":{}}\n")
            .starts_with("{\"inspect\":")
            .then_some(())
    });
    well.expect("the broker answers again");
}

#[test]
fn another_users_process_is_closed_without_an_answer_even_if_it_can_reach_the_socket() {
    let Some(other) = TestUser::ordinary() else { return };
    let home = Home::new();
    let broker = broker(&home);
    let elsewhere = Home::of(&other);
    let program = elsewhere.install(Path::new(EPITHET));
    let inspect = || {
        let mut command = elsewhere.command(&program);
        command.args(["inspect", "--broker"]).arg(broker.socket());
        Finished::of(command, DEADLINE)
    };
    // The directories keep others out.
    let finished = inspect();
    assert_eq!(finished.code(), Some(1));
    assert!(
        finished.stderr.contains("Permission denied"),
        "{}",
        finished.stderr
    );

    // Somebody opens them all, and the socket too.
    let mut path = broker.socket().to_owned();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666)).unwrap();
    while path.pop() && path.starts_with(home.path()) {
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    let finished = inspect();
    assert_eq!(finished.code(), Some(1));
    assert!(
        finished.stderr.contains("ended the connection without an answer"),
        "{}",
        finished.stderr
    );
    broker.wait_for_log("another user's process was turned away");
    is_well(&broker);
}
