//! What the numbers are measured on: a provider, a server and a broker whose plugin prints a ready token.

use epithet_testkit::devidp::{DevProvider, Settings};
use epithet_testkit::{Broker, Home, KeyPair, Server, TestUser, plugin_script};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub(crate) const EPITHET: &str = env!("CARGO_BIN_EXE_epithet");
/// A public key to be certified.
pub(crate) const KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAOhB7/zzhC+HXDdGOdLwJln5NYwm6UNXx3chmQSVTG4";
pub(crate) const MATCH: &str = env!("CARGO_BIN_EXE_epithet-match");

/// Everything that runs while numbers are taken.
pub(crate) struct House {
    pub(crate) home: Home,
    pub(crate) server: Server,
    pub(crate) broker: Broker,
    pub(crate) token: String,
    rules: PathBuf,
    pub(crate) ca_key: KeyPair,
    _provider: DevProvider,
}

impl House {
    pub(crate) fn build() -> Self {
        let settings = Settings {
            id_token_life: Duration::from_secs(3600),
            ..Settings::default()
        };
        let provider = DevProvider::start(settings).expect("the provider starts");
        let token = provider.mint_id_token("alice", &json!({}));
        let home = Home::new();
        let key = KeyPair::generate(home.path(), "ca.key");
        let mut allow = json!({"root": ["admin"]});
        allow[TestUser::current().name()] = json!(["admin"]);
        let rules = json!({"policy": {
            "oidc": {"issuer": provider.issuer(), "client-id": "epithet"},
            "users": {"alice@example.com": ["admin"]},
            "defaults": {"allow": allow, "expiration": "10m"},
            "hosts": {"*.example.com": {}, "127.0.0.1": {}},
        }});
        let rules = home.write("server.json", rules.to_string());
        let audit = home.join("audit.log");
        let arguments = [
            "server",
            "--config",
            text(&rules),
            "--listen",
            "127.0.0.1:0",
            "--ca-key",
            text(key.path()),
            "--audit-file",
            text(&audit),
        ];
        let server = Server::start(Path::new(EPITHET), &home, arguments);
        let file = home.write("token", &token);
        let plugin = plugin_script(
            home.path(),
            "plugin",
            &format!("#!/bin/sh\ncat '{}'\n", file.display()),
        );
        let broker = start_broker(
            &home,
            "default",
            server.url(),
            &plugin,
            &["--match", "*.example.com"],
        );
        Self {
            home,
            server,
            broker,
            token,
            rules,
            ca_key: key,
            _provider: provider,
        }
    }

    /// CA and policy server as two processes with a Unix socket between them.
    pub(crate) fn in_two_processes(&self) -> (Server, Server) {
        let socket = format!("unix://{}", self.home.join("policy.sock").display());
        let public = self.ca_key.public_path();
        let audit = self.home.join("audit-of-two.log");
        let serve = |arguments: &[&str]| {
            let arguments = [arguments, &["--config", text(&self.rules)]].concat();
            Server::start(Path::new(EPITHET), &self.home, arguments)
        };
        let policy = serve(&["policy", "--listen", &socket, "--ca-pubkey", text(&public)]);
        let ca = serve(&[
            "ca",
            "--listen",
            "127.0.0.1:0",
            "--policy",
            policy.url(),
            "--key",
            text(self.ca_key.path()),
            "--audit-file",
            text(&audit),
        ]);
        (ca, policy)
    }

    /// Another broker in the same home, with the same plugin.
    pub(crate) fn another_broker(&self, name: &str, ca_url: &str, more: &[&str]) -> Broker {
        start_broker(&self.home, name, ca_url, &self.home.join("plugin"), more)
    }

    pub(crate) fn agent_socket(&self, number: usize) -> PathBuf {
        self.broker.run_dir().join("agent").join(hash(number))
    }
}

/// A broker whose login, once done, is good for the whole run.
pub(crate) fn start_broker(home: &Home, name: &str, ca_url: &str, plugin: &Path, more: &[&str]) -> Broker {
    let plugin = text(plugin);
    let mut arguments = vec!["--name", name, "--ca-url", ca_url];
    arguments.extend(["--auth", plugin, "--token-reuse", "1h"]);
    arguments.extend(more);
    Broker::start(Path::new(EPITHET), home, arguments)
}

/// A connection hash for the n-th connection of a run.
pub(crate) fn hash(number: usize) -> String {
    format!("{number:040x}")
}

pub(crate) fn text(path: &Path) -> &str {
    path.to_str().expect("paths here are ASCII")
}
