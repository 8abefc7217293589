//! A company whose tokens are names: whoever sends `alice` is Alice, and may be root everywhere in example.com.

use crate::http::{Answer, exchange, request};
use epithet_testkit::{DEADLINE, Finished, Home, KeyPair, Server, wait_until};
use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;

pub(crate) const EPITHET: &str = env!("CARGO_BIN_EXE_epithet");

const RULES: &str = r#"policy:
  token: command
  command: 'printf "{\"identity\": \"%s\"}" "$(cat)"'
  users: {alice: [admin]}
  defaults: {allow: {root: [admin]}, expiration: 2m}
  hosts:
    "*.example.com": {}
"#;

/// Where a CA, its rules and its keys live.
pub(crate) struct Office {
    pub(crate) home: Home,
}

impl Office {
    pub(crate) fn new() -> Self {
        let home = Home::new();
        home.write(".epithet/rules.yaml", RULES);
        Self { home }
    }

    /// A new CA key in a file.
    pub(crate) fn key(&self, name: &str) -> KeyPair {
        KeyPair::generate(self.home.path(), name)
    }

    /// CA and policy in one process.
    pub(crate) fn server<A: AsRef<str>>(&self, arguments: impl IntoIterator<Item = A>) -> Running {
        self.start(
            [
                "server".to_owned(),
                "-v".to_owned(),
                "--listen=127.0.0.1:0".to_owned(),
            ],
            arguments,
        )
    }

    /// A CA whose policy is at `policy`.
    pub(crate) fn ca<A: AsRef<str>>(&self, policy: &str, arguments: impl IntoIterator<Item = A>) -> Running {
        self.ca_at("127.0.0.1:0", policy, arguments)
    }

    /// Such a CA at an address of its own.
    pub(crate) fn ca_at<A: AsRef<str>>(
        &self,
        listen: &str,
        policy: &str,
        arguments: impl IntoIterator<Item = A>,
    ) -> Running {
        let first = ["ca", "-v", "--listen", listen, "--policy", policy];
        self.start(first.map(str::to_owned), arguments)
    }

    /// A policy server.
    pub(crate) fn policy<A: AsRef<str>>(&self, arguments: impl IntoIterator<Item = A>) -> Running {
        self.start(["policy".to_owned(), "-v".to_owned()], arguments)
    }

    fn start<A: AsRef<str>>(
        &self,
        first: impl IntoIterator<Item = String>,
        arguments: impl IntoIterator<Item = A>,
    ) -> Running {
        let arguments = arguments.into_iter().map(|argument| argument.as_ref().to_owned());
        let all: Vec<_> = first.into_iter().chain(arguments).collect();
        Running {
            server: Server::start(Path::new(EPITHET), &self.home, all),
        }
    }

    /// The program, in this home.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.home.command(EPITHET);
        command.args(arguments);
        command
    }

    /// The program, run to its end.
    pub(crate) fn epithet(&self, arguments: &[&str]) -> Finished {
        Finished::of(self.command(arguments), DEADLINE)
    }

    /// What a client sends for root on web.example.com, with a new key each time.
    pub(crate) fn question(&self) -> Value {
        use std::sync::atomic::{AtomicU64, Ordering};
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let name = format!("subject-{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let key = KeyPair::generate(self.home.path(), &name);
        json!({
            "publicKey": key.public_line(),
            "connection": {"remoteHost": "web.example.com", "remoteUser": "root", "port": 22, "proxyJump": "", "hash": "0".repeat(40)},
        })
    }

    /// What `ssh-keygen -L` says about a certificate in an answer.
    pub(crate) fn described(&self, answer: &Answer) -> String {
        assert_eq!(answer.status(), 200, "{answer:?}");
        let body: Value = serde_json::from_str(&answer.body).expect("JSON");
        let line = body["certificate"].as_str().expect("a certificate");
        let file = self.home.write("certificate.pub", line);
        let mut command = Command::new("ssh-keygen");
        command.arg("-L").arg("-f").arg(file).env("TZ", "UTC");
        Finished::of(command, DEADLINE).success().stdout
    }
}

/// A server of the office.
pub(crate) struct Running {
    pub(crate) server: Server,
}

impl Running {
    pub(crate) fn url(&self) -> &str {
        self.server.url()
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        exchange(self.url(), &request("GET", path, &[], b""))
    }

    pub(crate) fn ask(&self, token: &str, question: &Value) -> Answer {
        self.ask_with(token, question, &[])
    }

    pub(crate) fn ask_with(&self, token: &str, question: &Value, headers: &[(&str, &str)]) -> Answer {
        let bearer = format!("Bearer {token}");
        let headers = [&[("authorization", bearer.as_str())], headers].concat();
        exchange(
            self.url(),
            &request("POST", "/", &headers, question.to_string().as_bytes()),
        )
    }

    /// The audit log's line on its standard output about the request that got this answer.
    pub(crate) fn audit_line(&mut self, answer: &Answer) -> Value {
        let id = answer
            .header("epithet-request-id")
            .expect("a request id")
            .to_owned();
        let daemon = self.server.daemon();
        let line = wait_until(DEADLINE, || {
            let text = daemon.stdout().text();
            text.lines().find(|line| line.contains(&id)).map(str::to_owned)
        });
        serde_json::from_str(&line.expect("a line in the audit log")).expect("a JSON line")
    }
}
