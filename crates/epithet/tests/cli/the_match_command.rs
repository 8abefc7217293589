//! `epithet match` with what no ssh would say: it never asks anybody, and it always ends by itself.

use crate::EPITHET;
use epithet_testkit::{DEADLINE, Finished, Home};
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::net::UnixListener;
use std::process::Command;

/// The two programs that ssh may be told to run.
fn programs() -> [Command; 2] {
    let mut big = Command::new(EPITHET);
    big.arg("match");
    [Command::new(env!("CARGO_BIN_EXE_epithet-match")), big]
}

#[test]
fn names_that_cannot_be_are_refused_before_anybody_is_asked() {
    let home = Home::new();
    let socket = home.join("broker.sock");
    // A broker that must not be asked: nobody accepts, so a question would wait for an answer.
    let broker = UnixListener::bind(&socket).unwrap();
    broker.set_nonblocking(true).unwrap();
    let hash = "a".repeat(40);
    let long = "h".repeat(256);
    let cases = [
        ("a b", "root", hash.as_str(), "host name"),
        ("", "root", &hash, "host name"),
        ("-oProxyCommand=id", "root", &hash, "host name"),
        ("h\u{1b}[2J", "root", &hash, "host name"),
        (&long, "root", &hash, "host name"),
        ("h", "", &hash, "user name"),
        ("h", "root,admin", &hash, "user name"),
        ("h", "a b", &hash, "user name"),
        ("h", "$(id)", &hash, "user name"),
        ("h", "root", "../../etc", "hash"),
        ("h", "root", "", "hash"),
        ("h", "root", &hash[1..], "hash"),
        ("h", "root", &hash.to_uppercase(), "hash"),
    ];
    for (host, user, hash, what) in cases {
        for mut command in programs() {
            command.args([
                &format!("--host={host}"),
                "--port=22",
                &format!("--user={user}"),
                &format!("--hash={hash}"),
            ]);
            command.arg("--broker").arg(&socket);
            let finished = Finished::of(command, DEADLINE);
            assert_eq!(
                finished.code(),
                Some(1),
                "{host:?} {user:?} {hash:?}: {}",
                finished.stderr
            );
            assert_eq!(finished.stdout, "");
            assert_eq!(finished.stderr.lines().count(), 1, "{}", finished.stderr);
            assert!(
                finished.stderr.contains(what) && finished.stderr.contains("ssh goes on without Epithet"),
                "{host:?} {user:?} {hash:?}: {}",
                finished.stderr
            );
            assert!(!finished.stderr.contains('\u{1b}'), "{:?}", finished.stderr);
        }
    }
    assert!(broker.accept().is_err(), "somebody was asked");
}

#[test]
fn a_wrong_line_exits_80_and_names_the_flag() {
    let full = [
        "--host", "h", "--port", "22", "--user", "u", "--hash", "x", "--broker", "/s",
    ];
    for (at, flag) in [
        (0, "--host"),
        (2, "--port"),
        (4, "--user"),
        (6, "--hash"),
        (8, "--broker"),
    ] {
        for mut command in programs() {
            let rest: Vec<_> = full
                .iter()
                .enumerate()
                .filter(|(n, _)| ![at, at + 1].contains(n))
                .map(|(_, word)| word)
                .collect();
            command.args(rest);
            let finished = Finished::of(command, DEADLINE);
            assert_eq!(finished.code(), Some(80), "without {flag}: {}", finished.stderr);
            assert!(
                finished.stderr.contains(&format!("{flag} is required")),
                "{}",
                finished.stderr
            );
        }
    }
    for port in ["0", "65536", "ssh", "-1", ""] {
        for mut command in programs() {
            command.args([
                "--host=h",
                "--user=u",
                "--hash=x",
                "--broker=/s",
                &format!("--port={port}"),
            ]);
            let finished = Finished::of(command, DEADLINE);
            assert_eq!(finished.code(), Some(80), "{port}: {}", finished.stderr);
            assert!(
                finished
                    .stderr
                    .contains("--port must be a number from 1 to 65535"),
                "{}",
                finished.stderr
            );
        }
    }
    for mut command in programs() {
        command.arg(OsString::from_vec(b"--host=\xff\xfe".to_vec()));
        let finished = Finished::of(command, DEADLINE);
        assert_eq!(finished.code(), Some(80));
        assert!(
            finished.stderr.contains("--host must be UTF-8"),
            "{}",
            finished.stderr
        );
    }
}

#[test]
fn it_does_not_die_of_a_closed_stderr() {
    for command in programs() {
        let mut words: Vec<_> = vec![command.get_program().to_owned()];
        words.extend(command.get_args().map(ToOwned::to_owned));
        let mut shell = Command::new("/bin/sh");
        shell
            .args([
                "-c",
                "exec \"$@\" --host 'a b' --port 22 --user u --hash x --broker /s 2>&-",
                "sh",
            ])
            .args(words);
        let finished = Finished::of(shell, DEADLINE);
        assert_eq!(finished.code(), Some(1), "{}", finished.status);
    }
}
