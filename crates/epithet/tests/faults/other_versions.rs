//! A broker of another version than `match`, in both directions: a word, exit 1 or a login, and never a hang.

use crate::rounds::repeat;
use crate::support::Story;
use epithet_testkit::{DEADLINE, Finished};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

const HASH: &str = "0123456789abcdef0123456789abcdef01234567";

/// What `match` says to a broker that answers every request with `reply` and hangs up.
fn ask(story: &Story, reply: &'static [u8]) -> Finished {
    let socket: PathBuf = story.laptop.home.join("other-broker");
    let _ = std::fs::remove_file(&socket);
    let listener = UnixListener::bind(&socket).expect("a path in a home of ours");
    let answering = thread::spawn(move || {
        let (stream, _) = listener.accept().expect("match connects");
        let mut line = String::new();
        BufReader::new(&stream).read_line(&mut line).expect("match asks");
        // It may have read enough.
        let _ = (&stream).write_all(reply);
        line
    });
    let mut question = Command::new(env!("CARGO_BIN_EXE_epithet-match"));
    question
        .args([
            "--host", "h", "--port", "22", "--user", "root", "--hash", HASH, "-v", "--broker",
        ])
        .arg(&socket);
    let finished = Finished::of(question, DEADLINE);
    let line = answering.join().expect("the broker of the story ends");
    assert!(line.starts_with(r#"{"match":{"remoteHost":"h""#), "{line}");
    finished
}

#[test]
fn a_new_match_and_brokers_of_other_versions() {
    let story = Story::begin();
    repeat("a new match with brokers of other versions", |_| {
        // As 0.19 answers; and as a later one may, with words that nobody knows yet.
        let yes: [&[u8]; 3] = [
            b"{\"result\":{\"allow\":true}}\n",
            b"{\"output\":\"hello\\n\"}\n{\"result\":{\"allow\":true,\"error\":\"\"}}\n",
            b"{\"later\":{\"x\":[1]}}\n{\"result\":{\"allow\":true,\"later\":1},\"more\":null}\n",
        ];
        for reply in yes {
            let finished = ask(&story, reply);
            assert_eq!(
                finished.code(),
                Some(0),
                "{}: {}",
                String::from_utf8_lossy(reply),
                finished.stderr
            );
        }
        let no: [(&[u8], &str); 6] = [
            (b"", "without an answer"),
            (b"{\"result\":", "without an answer"),
            (b"{\"result\":{\"allow\":\"yes\"}}\n", "another version"),
            (b"EPITHET/2 hello\n", "another version"),
            (b"\xff\xfe\0\n", "another version"),
            (
                b"{\"result\":{\"allow\":false,\"error\":\"unknown field match\"}}\n",
                "unknown field match",
            ),
        ];
        for (reply, words) in no {
            let finished = ask(&story, reply);
            assert_eq!(finished.code(), Some(1), "{}", String::from_utf8_lossy(reply));
            assert!(
                finished.stderr.contains(words),
                "{}: {}",
                String::from_utf8_lossy(reply),
                finished.stderr
            );
        }
        None
    });
}

/// One line in, the last line out.
fn exchange(socket: &Path, line: &str) -> String {
    let mut stream = UnixStream::connect(socket).expect("the broker listens");
    stream.set_read_timeout(Some(DEADLINE)).expect("a socket");
    stream.write_all(line.as_bytes()).expect("the broker reads");
    let lines: Vec<_> = BufReader::new(stream).lines().map_while(Result::ok).collect();
    lines.last().cloned().unwrap_or_default()
}

#[test]
fn a_new_broker_and_matches_of_other_versions() {
    let story = Story::begin();
    let broker = story.broker();
    repeat("a new broker with matches of other versions", |_| {
        let connection = format!(
            r#""remoteHost":"127.0.0.1","remoteUser":"{}","port":{},"proxyJump":"","hash":"{HASH}""#,
            story.laptop.home.user().name(),
            story.sshd.port()
        );
        for fields in [
            "",
            r#","later":true"#,
            r#","asker":{"later":1}"#,
            r#","asker":null"#,
        ] {
            let reply = exchange(
                broker.socket(),
                &format!("{{\"match\":{{{connection}{fields}}}}}\n"),
            );
            assert!(reply.contains(r#""allow":true"#), "{fields}: {reply}");
        }
        for line in [
            "{\"later\":{}}\n",
            "MATCH 127.0.0.1\n",
            "{\"match\":[]}\n",
            "{\"match\":{\"port\":\"22\"}}\n",
        ] {
            let reply = exchange(broker.socket(), line);
            assert!(
                reply.contains(r#""allow":false"#) && reply.len() > 40,
                "{line}: {reply}"
            );
        }
        story.laptop.log_in("127.0.0.1");
        None
    });
}
