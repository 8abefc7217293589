//! What a company runs in a story: CA and policy in one process, with an audit log, and hosts that trust the CA.

use epithet_testkit::{Home, KeyPair, Server, Sshd, SshdSettings, TestUser};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// The program of these stories.
pub(crate) const EPITHET: &str = env!("CARGO_BIN_EXE_epithet");
/// A host has the addresses 127.0.0.1 to this one; to ssh each is another host.
const LAST_ADDRESS: u8 = 4;

/// A CA that lets alice@example.com log in as everybody here: root, the ordinary account, and whoever runs the tests.
#[derive(Debug)]
pub(crate) struct Site {
    pub(crate) server: Server,
    pub(crate) key: KeyPair,
    pub(crate) audit: PathBuf,
    _home: Home,
}

impl Site {
    /// Starts `epithet server` for the tokens of `issuer`. Certificates live for `life`.
    pub(crate) fn start(issuer: &str, life: &str) -> Self {
        let all = ["permit-pty", "permit-agent-forwarding", "permit-port-forwarding"];
        Self::permitting(issuer, life, &all)
    }

    /// The same with certificates that have these extensions only.
    pub(crate) fn permitting(issuer: &str, life: &str, extensions: &[&str]) -> Self {
        let home = Home::new();
        let key = KeyPair::generate(home.path(), "ca.key");
        let audit = home.join("audit.log");
        let rules = rules(issuer, life, extensions);
        home.write(".epithet/server.json", rules.to_string());
        let path = |path: &Path| path.display().to_string();
        let arguments = [
            "server".to_owned(),
            "-v".to_owned(),
            "--listen=127.0.0.1:0".to_owned(),
            format!("--ca-key={}", path(key.path())),
            format!("--audit-file={}", path(&audit)),
        ];
        let server = Server::start(Path::new(EPITHET), &home, arguments);
        Self {
            server,
            key,
            audit,
            _home: home,
        }
    }

    /// For `--ca-url`.
    pub(crate) fn url(&self) -> &str {
        self.server.url()
    }

    /// The CA's fingerprint, as OpenSSH says it.
    pub(crate) fn fingerprint(&self) -> String {
        self.key.fingerprint()
    }

    /// A host that trusts this CA, and `other_key` for all that Epithet does not do.
    pub(crate) fn host(&self, other_key: &KeyPair) -> Sshd {
        self.host_with(other_key, SshdSettings::default())
    }

    /// The same with more settings.
    pub(crate) fn host_with(&self, other_key: &KeyPair, settings: SshdSettings) -> Sshd {
        let addresses: Vec<_> = (2..=LAST_ADDRESS).map(|last| format!("127.0.0.{last}")).collect();
        let sshd = Sshd::start(SshdSettings {
            ca_public_key: Some(self.key.public_line()),
            authorized_keys: Some(other_key.public_line()),
            more: addresses
                .iter()
                .map(|address| format!("ListenAddress {address}\n"))
                .chain([settings.more])
                .collect(),
            ..settings
        });
        for address in addresses {
            sshd.wait_for_log(&format!("Server listening on {address} port"));
        }
        sshd
    }

    /// The audit log's lines: every decision, in order.
    pub(crate) fn decisions(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(&self.audit).expect("the server made its audit log");
        text.lines()
            .map(|line| serde_json::from_str(line).expect("every line of the audit log is JSON"))
            .collect()
    }
}

/// The policy: one person, one tag, every account and host of the stories. Jump hosts need `permit-port-forwarding`,
/// which certificates do not have unless a rule says so.
fn rules(issuer: &str, life: &str, extensions: &[&str]) -> Value {
    let mut allow = json!({"root": ["people"]});
    for user in [Some(TestUser::current()), TestUser::ordinary()]
        .into_iter()
        .flatten()
    {
        allow[user.name()] = json!(["people"]);
    }
    let extensions: serde_json::Map<_, _> = (extensions.iter())
        .map(|name| ((*name).to_owned(), json!("")))
        .collect();
    json!({"policy": {
        "oidc": {"issuer": issuer, "client-id": "epithet"},
        "users": {"alice@example.com": ["people"]},
        "defaults": {"allow": allow, "expiration": life, "extensions": extensions},
        "hosts": {"127.0.0.*": {}, "localhost": {}},
    }})
}
