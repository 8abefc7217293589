//! Whoever reads what a CA writes stops reading: a log collector that hangs, a terminal at Ctrl-S, a pipe nobody has at the
//! other end of. Nothing is issued without its line, everything else goes on, SIGTERM ends the CA, and it recovers by itself.

use crate::http::{exchange, request};
use crate::named::{EPITHET, Named};
use epithet_testkit::{DEADLINE, Daemon, Server, wait_until};
use rustix::fs::{CWD, Mode, mkfifoat};
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::Command;

/// A pipe with a name. Nobody reads from it unless the test does.
struct Pipe {
    path: PathBuf,
    file: File,
}

impl Pipe {
    fn new(named: &Named, name: &str) -> Self {
        let path = named.home.join(name);
        mkfifoat(CWD, &path, Mode::RUSR | Mode::WUSR).unwrap();
        let file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
        Self { path, file }
    }

    /// Reads whatever comes from now on, as bytes that are dropped.
    fn read_on(&self) {
        let mut file = self.file.try_clone().unwrap();
        std::thread::spawn(move || {
            let mut piece = [0; 4096];
            while file.read(&mut piece).is_ok_and(|read| read > 0) {}
        });
    }
}

fn get(url: &str, path: &str) -> (u16, String) {
    let answer = exchange(url, &request("GET", path, &[], b""));
    (answer.status(), answer.body)
}

/// Asks until the pipe is full, and then what a CA with such a log has to do.
fn issues_nothing_and_recovers(named: &Named, server: &Server, pipe: &Pipe) {
    let ask = |server: &Server| named.ask(server, "alice", "web.example.com");
    let refused = (0..2000)
        .map(|_| ask(server))
        .find(|answer| answer.status() != 200);
    let refused = refused.expect("a pipe holds 64 KiB");
    assert_eq!(refused.status(), 503, "{refused:?}");
    assert!(
        refused.body.contains("audit log") && !refused.body.contains("cert-v01"),
        "{refused:?}"
    );
    assert_eq!(ask(server).status(), 503);
    let (status, why) = get(server.url(), "/readyz");
    assert!(status == 503 && why.contains("still reading"), "{status} {why}");
    assert_eq!(
        (get(server.url(), "/healthz").0, get(server.url(), "/").0),
        (200, 200)
    );
    pipe.read_on();
    let recovered = wait_until(DEADLINE, || (ask(server).status() == 200).then_some(()));
    recovered.expect("nobody had to do anything");
    assert_eq!(get(server.url(), "/readyz").0, 200);
}

#[test]
fn an_audit_pipe_that_nobody_reads_stops_certificates_and_nothing_else() {
    let named = Named::new();
    let pipe = Pipe::new(&named, "audit.pipe");
    let server = named.server(&["--audit-file", pipe.path.to_str().unwrap()]);
    issues_nothing_and_recovers(&named, &server, &pipe);
}

/// A server under a shell that gives it its streams.
fn under_a_shell(named: &Named, streams: &str) -> Command {
    let mut command = named.home.command("/bin/sh");
    let arguments = named.server_arguments().join("' '");
    command.args(["-c", &format!("exec '{EPITHET}' '{arguments}' {streams}")]);
    command
}

#[test]
fn a_stdout_that_nobody_reads_stops_certificates_and_sigterm_ends_the_ca() {
    let named = Named::new();
    let pipe = Pipe::new(&named, "stdout.pipe");
    let command = under_a_shell(&named, &format!("> '{}'", pipe.path.display()));
    let server = Server::try_start(command).unwrap_or_else(|error| panic!("{error}"));
    issues_nothing_and_recovers(&named, &server, &pipe);

    // Once more, and this time nobody reads to the end.
    let pipe = Pipe::new(&named, "other.pipe");
    let command = under_a_shell(&named, &format!("> '{}'", pipe.path.display()));
    let mut server = Server::try_start(command).unwrap_or_else(|error| panic!("{error}"));
    let ask = || named.ask(&server, "alice", "web.example.com").status();
    let full = (0..2000).find(|_| ask() == 503);
    full.expect("a pipe holds 64 KiB");
    server.daemon().signal(rustix::process::Signal::TERM);
    let status = server.daemon().wait(DEADLINE).expect("it ends");
    assert!(status.success(), "{status}");
}

#[test]
fn a_log_that_nobody_reads_is_no_reason_to_stop() {
    let named = Named::new();
    let pipe = Pipe::new(&named, "stderr.pipe");
    let (key, log) = (named.ca.path().display(), pipe.path.display());
    // Nobody is at that port, and the CA says so each time.
    let mut command = named.home.command("/bin/sh");
    command.args([
        "-c",
        &format!(
            "exec '{EPITHET}' ca --key '{key}' --policy http://127.0.0.1:1 --listen 127.0.0.1:0 --audit-file /dev/null 2> '{log}'"
        ),
    ]);
    let mut daemon = Daemon::start("the CA", command, None);
    let mut reader = BufReader::new(pipe.file.try_clone().unwrap());
    let url = loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        if let Some((_, url)) = line.split_once("ready: listening on ") {
            break url.trim().to_owned();
        }
    };
    let asking = named.asking("alice", "web.example.com");
    // More than a pipe holds.
    for _ in 0..1000 {
        assert_eq!(exchange(&url, &asking).status(), 503);
    }
    assert_eq!((get(&url, "/healthz").0, get(&url, "/").0), (200, 200));
    daemon.signal(rustix::process::Signal::TERM);
    let status = daemon.wait(DEADLINE).expect("it ends");
    assert!(status.success(), "{status}");
}
