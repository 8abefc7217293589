//! `epithet server` with a development identity provider, for stories in which tokens are real.

use epithet_ssh::CaKey;
use epithet_testkit::devidp::{DevProvider, Settings};
use epithet_testkit::{Home, Server, TestUser};
use serde_json::json;
use std::path::Path;
use std::sync::Arc;

/// The provider and the server that believes it. Alice may log in to the account that runs the story.
#[derive(Debug)]
pub(crate) struct RealServer {
    pub(crate) provider: Arc<DevProvider>,
    pub(crate) server: Server,
    public_line: String,
    _home: Home,
}

impl RealServer {
    /// Starts both. Certificates live for `expiration`.
    pub(crate) fn start(user: &TestUser, expiration: &str) -> Self {
        let provider = DevProvider::start(Settings::default()).expect("a loopback port is free");
        let home = Home::new();
        let key = CaKey::generate_ed25519().expect("there are random bytes");
        let private = key.to_openssh_private().expect("an ed25519 key");
        let key_file = home.write("ca.key", private.expose());
        let rules = json!({"policy": {
            "oidc": {"issuer": provider.issuer(), "client-id": provider.settings().client_id},
            "users": {"alice@example.com": ["people"]},
            "defaults": {"allow": {user.name(): ["people"]}, "expiration": expiration},
            "hosts": {"127.0.0.*": {}},
        }});
        let rules = home.write("server.json", rules.to_string());
        let mut command = home.command(env!("CARGO_BIN_EXE_epithet"));
        command
            .args(["server", "-v", "--listen", "127.0.0.1:0", "--config"])
            .arg(rules);
        command
            .arg("--ca-key")
            .arg(&key_file)
            .env("EPITHET_CONFIG_ONLY", "1");
        let server =
            Server::try_start(command).unwrap_or_else(|error| panic!("the server did not start: {error}"));
        Self {
            provider: Arc::new(provider),
            server,
            public_line: key.public_line(),
            _home: home,
        }
    }

    /// For `--ca-url`.
    pub(crate) fn url(&self) -> &str {
        self.server.url()
    }

    /// For `TrustedUserCAKeys`.
    pub(crate) fn public_line(&self) -> &str {
        &self.public_line
    }

    /// An ID token of Alice's, as a provider gives it out.
    pub(crate) fn id_token(&self) -> String {
        self.provider.mint_id_token("alice", &json!({}))
    }

    /// An ID token that was good an hour ago.
    pub(crate) fn stale_id_token(&self) -> String {
        stale_id_token(&self.provider)
    }
}

pub(super) fn stale_id_token(provider: &DevProvider) -> String {
    let now = jiff::Timestamp::now().as_second();
    provider.mint_id_token(
        "alice",
        &json!({"iat": now - 7200, "auth_time": now - 7200, "exp": now - 3600}),
    )
}

/// Puts a program into `bin` of a home; the folder is meant for a PATH.
pub(crate) fn program_on_path(home: &Home, name: &str, text: &str) {
    let folder = home.join("bin");
    if !folder.exists() {
        home.write("bin/.kept", "");
    }
    epithet_testkit::plugin_script(Path::new(&folder), name, text);
}
