//! A server that is operated: rules that change, logs that rotate, questions about both.

use epithet_testkit::{DEADLINE, Finished, Home, KeyPair, Server};
use serde_json::json;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};

pub(crate) const EPITHET: &str = env!("CARGO_BIN_EXE_epithet");

/// A server whose tokens are names, and the files that it reads.
#[derive(Debug)]
pub(crate) struct Operated {
    pub(crate) home: Home,
    pub(crate) rules: PathBuf,
    pub(crate) audit: PathBuf,
    pub(crate) server: Server,
}

impl Operated {
    pub(crate) fn begin() -> Self {
        Self::with_rules(&rules("alice"), &[])
    }

    /// One with these rules, and more flags.
    pub(crate) fn with_rules(text: &str, flags: &[&str]) -> Self {
        let home = Home::new();
        let key = KeyPair::generate(home.path(), "ca.key");
        let rules = home.write("server.yaml", text);
        let audit = home.join("audit.jsonl");
        let server = Server::start(
            Path::new(EPITHET),
            &home,
            [
                "server".to_owned(),
                "-v".to_owned(),
                "--listen=127.0.0.1:0".to_owned(),
                format!("--config={}", rules.display()),
                format!("--ca-key={}", key.path().display()),
                format!("--audit-file={}", audit.display()),
            ]
            .into_iter()
            .chain(flags.iter().map(|flag| (*flag).to_owned())),
        );
        Self {
            home,
            rules,
            audit,
            server,
        }
    }

    /// The status of a request for a certificate by whoever holds this token.
    pub(crate) fn ask(&self, token: &str) -> u16 {
        let key = KeyPair::generate(self.home.path(), &format!("key-{}", rand_name()));
        let body = json!({
            "publicKey": key.public_line(),
            "connection": {"remoteHost": "web.example.com", "remoteUser": "root", "port": 22, "proxyJump": "", "hash": "0".repeat(40)},
        });
        let (status, _) = self.http(
            "POST",
            "/",
            &[("authorization", &format!("Bearer {token}"))],
            &body.to_string(),
        );
        status
    }

    pub(crate) fn http(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> (u16, String) {
        let address = self.server.url().trim_start_matches("http://");
        let mut stream = TcpStream::connect(address).expect("the server listens");
        let headers: String = headers
            .iter()
            .map(|(name, value)| format!("{name}: {value}\r\n"))
            .collect();
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\ncontent-type: application/json\r\n{headers}content-length: {}\r\n\r\n{body}",
            body.len()
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
        let (_, body) = answer.split_once("\r\n\r\n").expect("a body");
        (status.expect("a status"), body.to_owned())
    }
}

/// A name that no other call has had.
fn rand_name() -> u64 {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// Rules under which a token is a name, and `name` may be root everywhere in example.com.
pub(crate) fn rules(name: &str) -> String {
    format!(
        r#"policy:
  token: command
  command: 'printf "{{\"identity\": \"%s\"}}" "$(cat)"'
  users: {{{name}: [admin]}}
  defaults: {{allow: {{root: [admin]}}, expiration: 2m}}
  hosts:
    "*.example.com": {{}}
"#
    )
}

pub(crate) fn epithet(home: &Home, arguments: &[&str]) -> Finished {
    let mut command = home.command(EPITHET);
    command.args(arguments);
    Finished::of(command, DEADLINE)
}
