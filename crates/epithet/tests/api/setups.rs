//! The ways in which a CA and its policy are run, each of real processes.

use crate::http::{Answer, exchange, request};
use epithet_testkit::devidp::{DevProvider, Settings};
use epithet_testkit::{Finished, Home, KeyPair, Server};
use serde_json::{Value, json};
use std::process::Command;

pub(crate) const EPITHET: &str = env!("CARGO_BIN_EXE_epithet");

/// A CA as a client sees it.
#[derive(Debug)]
pub(crate) struct Setup {
    /// How it is run, for messages.
    pub(crate) name: &'static str,
    /// Where it is.
    pub(crate) url: String,
    _servers: Vec<Server>,
}

/// What all the setups of a test share: provider, CA key, rules.
#[derive(Debug)]
pub(crate) struct Company {
    pub(crate) provider: DevProvider,
    pub(crate) home: Home,
    pub(crate) key: KeyPair,
    rules: String,
}

impl Company {
    /// One where alice@example.com may be root everywhere in example.com, and deploy on one host of it.
    pub(crate) fn new() -> Self {
        let provider = DevProvider::start(Settings::default()).expect("a loopback port is free");
        let home = Home::new();
        let key = KeyPair::generate(home.path(), "ca.key");
        let rules = json!({"policy": {
            "oidc": {"issuer": provider.issuer(), "client-id": "epithet"},
            "users": {"alice@example.com": ["admin"]},
            "defaults": {"allow": {"root": ["admin"]}, "expiration": "5m"},
            "hosts": {"*.example.com": {}, "web.example.com": {"allow": {"deploy": ["admin"]}, "extensions": {}}},
        }});
        let rules = home.write("rules.json", rules.to_string()).display().to_string();
        Self {
            provider,
            home,
            key,
            rules,
        }
    }

    /// A token of Alice's.
    pub(crate) fn token(&self) -> String {
        self.provider.mint_id_token("alice", &json!({}))
    }

    /// A server that knows these rules, on a port of its own or at a socket in the company's home.
    pub(crate) fn serve(&self, arguments: &[&str]) -> Server {
        self.serve_in(&[], arguments)
    }

    /// The same with more in its environment.
    pub(crate) fn serve_in(&self, environment: &[(&str, &str)], arguments: &[&str]) -> Server {
        let mut command = self.home.command(EPITHET);
        command.args(arguments).args(["--config", &self.rules]);
        command.envs(environment.iter().copied());
        Server::try_start(command).unwrap_or_else(|error| panic!("the server did not start: {error}"))
    }

    /// The path of the CA's key.
    pub(crate) fn key_path(&self) -> String {
        self.key.path().display().to_string()
    }

    /// The path of its public key.
    pub(crate) fn public_path(&self) -> String {
        self.key.public_path().display().to_string()
    }

    /// A socket address in the company's home.
    pub(crate) fn socket(&self, name: &str) -> String {
        format!("unix://{}", self.home.join(name).display())
    }

    /// CA and policy in one process.
    pub(crate) fn in_one_process(&self) -> Setup {
        let server = self.serve(&["server", "--listen=127.0.0.1:0", "--ca-key", &self.key_path()]);
        Setup {
            name: "epithet server",
            url: server.url().to_owned(),
            _servers: vec![server],
        }
    }

    /// CA and policy apart, listening there.
    fn apart(&self, name: &'static str, ca: &str, policy: &str) -> Setup {
        let policy = self.serve(&["policy", "--listen", policy, "--ca-pubkey", &self.public_path()]);
        let ca = self.serve(&[
            "ca",
            "--listen",
            ca,
            "--key",
            &self.key_path(),
            "--policy",
            policy.url(),
        ]);
        Setup {
            name,
            url: ca.url().to_owned(),
            _servers: vec![ca, policy],
        }
    }

    /// All of them.
    pub(crate) fn every_setup(&self) -> Vec<Setup> {
        vec![
            self.in_one_process(),
            self.apart(
                "epithet ca on TCP, epithet policy on a Unix socket",
                "127.0.0.1:0",
                &self.socket("policy.sock"),
            ),
            self.apart(
                "epithet ca on a Unix socket, epithet policy on TCP",
                &self.socket("ca.sock"),
                "127.0.0.1:0",
            ),
        ]
    }

    /// A fresh public key, as a client sends it.
    pub(crate) fn subject(&self, name: &str) -> String {
        let key = KeyPair::generate(self.home.path(), name);
        let line = key.public_line();
        let parts: Vec<_> = line.split(' ').take(2).collect();
        parts.join(" ") + "\n"
    }

    /// A certificate as `ssh-keygen -L` reads it.
    pub(crate) fn described(&self, certificate: &str) -> String {
        let file = self.home.write("certificate.pub", certificate);
        let mut command = Command::new("ssh-keygen");
        command.arg("-L").arg("-f").arg(file).env("TZ", "UTC");
        Finished::of(command, epithet_testkit::DEADLINE).success().stdout
    }
}

impl Setup {
    /// One exchange with it.
    pub(crate) fn exchange(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl AsRef<[u8]>,
    ) -> Answer {
        exchange(&self.url, &request(method, path, headers, body.as_ref()))
    }

    /// `POST /` with a token.
    pub(crate) fn post(&self, token: &str, body: &Value) -> Answer {
        let authorization = format!("Bearer {token}");
        let headers = [
            ("authorization", authorization.as_str()),
            ("content-type", "application/json"),
        ];
        self.exchange("POST", "/", &headers, body.to_string())
    }
}

/// What a client of epithet 0.19 asks: a certificate for this user at this host.
pub(crate) fn asking(public_key: &str, user: &str, host: &str) -> Value {
    json!({
        "publicKey": public_key,
        "connection": {"remoteHost": host, "remoteUser": user, "port": 22, "proxyJump": "", "hash": "a".repeat(40)},
    })
}
