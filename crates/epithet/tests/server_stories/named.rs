//! Servers to which a token is a name: `alice` may be root in example.com, nobody else may anything.

use crate::http::{Answer, exchange, request};
use epithet_testkit::{Home, KeyPair, Server};
use serde_json::json;
use std::path::{Path, PathBuf};

pub(crate) const EPITHET: &str = env!("CARGO_BIN_EXE_epithet");

/// A home with a CA's key, rules, and a key to be certified.
#[derive(Debug)]
pub(crate) struct Named {
    pub(crate) home: Home,
    pub(crate) ca: KeyPair,
    rules: PathBuf,
    subject: String,
}

impl Named {
    pub(crate) fn new() -> Self {
        let home = Home::new();
        let ca = KeyPair::generate(home.path(), "ca.key");
        let subject = KeyPair::generate(home.path(), "subject").public_line();
        let rules = home.write(
            "rules.yaml",
            r#"policy:
  token: command
  command: 'printf "{\"identity\": \"%s\"}" "$(cat)"'
  users: {alice: [admin]}
  defaults: {allow: {root: [admin]}, expiration: 2m}
  hosts: {"*.example.com": {}}
"#,
        );
        Self {
            home,
            ca,
            rules,
            subject,
        }
    }

    /// Runs `epithet ARGUMENTS` as a server on a port of its own.
    pub(crate) fn serve(&self, arguments: &[&str]) -> Server {
        let rules = self.rules.display().to_string();
        let own = ["--listen=127.0.0.1:0", "--config", rules.as_str()];
        Server::start(Path::new(EPITHET), &self.home, [arguments, &own].concat())
    }

    /// CA and policy in one process.
    pub(crate) fn server(&self, more: &[&str]) -> Server {
        let key = self.ca.path().display().to_string();
        self.serve(&[&["server", "--ca-key", &key], more].concat())
    }

    /// The arguments of such a server.
    pub(crate) fn server_arguments(&self) -> Vec<String> {
        let (key, rules) = (self.ca.path().display(), self.rules.display());
        let own = ["server".to_owned(), "--listen=127.0.0.1:0".to_owned()];
        own.into_iter()
            .chain([format!("--ca-key={key}"), format!("--config={rules}")])
            .collect()
    }

    /// A CA that asks the policy server there.
    pub(crate) fn ca(&self, policy: &str, more: &[&str]) -> Server {
        let key = self.ca.path().display().to_string();
        self.serve(&[&["ca", "--key", &key, "--policy", policy], more].concat())
    }

    /// A request for a certificate for root at `host`, by whoever holds this token.
    pub(crate) fn asking(&self, token: &str, host: &str) -> Vec<u8> {
        let body = json!({
            "publicKey": self.subject,
            "connection": {"remoteHost": host, "remoteUser": "root", "port": 22, "proxyJump": "", "hash": "0".repeat(40)},
        });
        let authorization = format!("Bearer {token}");
        let headers = [
            ("authorization", authorization.as_str()),
            ("content-type", "application/json"),
        ];
        request("POST", "/", &headers, body.to_string().as_bytes())
    }

    /// The answer to such a request.
    pub(crate) fn ask(&self, server: &Server, token: &str, host: &str) -> Answer {
        exchange(server.url(), &self.asking(token, host))
    }
}
