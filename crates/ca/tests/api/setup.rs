//! A CA on a port of its own, its policy, and a client.

use axum::Router;
use epithet_ca::{
    AuditLog, Authority, Ceilings, LocalDecision, LocalPolicy, LocalReadiness, PolicyClient, PolicyRefusal,
    PolicySource, router,
};
use epithet_devidp::DevProvider;
use epithet_policy::{Document, Policy, ServiceTokens};
use epithet_serve::{Listen, Settings, serve};
use epithet_ssh::{CaKey, SubjectKey, UserCertificate};
use epithet_wire::ca::Discovery;
use epithet_wire::{ConnectionFields, Token};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::{CancellationToken, DropGuard};

pub(crate) const RULES: &str = r#"
users:
  alice@example.com: [admin]
  bob@example.com: [eng]
defaults:
  allow: {root: [admin]}
hosts:
  "*.prod.example.com": {expiration: 2m}
"#;

/// Serves routes until the guard is dropped; says where.
pub(crate) async fn run(listen: &str, routes: Router) -> (String, DropGuard) {
    let listener = Listen::parse(listen).unwrap().bind().await.unwrap();
    let address = listener.address();
    let stop = CancellationToken::new();
    tokio::spawn(serve(listener, routes, Settings::default(), stop.clone()));
    (address, stop.drop_guard())
}

pub(crate) fn policy(provider: &DevProvider) -> Policy {
    let text = format!(
        "{RULES}\noidc: {{issuer: '{}', client-id: epithet}}",
        provider.issuer()
    );
    Policy::new(&Document::from_yaml("rules", &text).unwrap(), Arc::default()).unwrap()
}

/// What the binary does to run both in one process.
pub(crate) struct InProcess(pub(crate) Policy);

impl LocalPolicy for InProcess {
    fn decide<'a>(&'a self, token: &'a Token, connection: &'a ConnectionFields) -> LocalDecision<'a> {
        Box::pin(async move {
            let decided = self.0.decide(token, connection).await;
            decided.map_err(|refusal| PolicyRefusal {
                status: refusal.status,
                message: refusal.message,
                grounds: refusal.grounds,
            })
        })
    }

    fn discovery(&self) -> Discovery {
        self.0.discovery()
    }

    fn ready(&self) -> LocalReadiness<'_> {
        Box::pin(async move { self.0.ready().await.map_err(|error| error.to_string()) })
    }
}

/// A CA that runs.
pub(crate) struct Ca {
    pub(crate) address: String,
    pub(crate) key: Arc<CaKey>,
    pub(crate) audit: PathBuf,
    pub(crate) client: reqwest::Client,
    _directory: tempfile::TempDir,
    _stop: DropGuard,
}

impl Ca {
    pub(crate) async fn start(key: Arc<CaKey>, policy: PolicySource) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let audit = directory.path().join("audit.jsonl");
        Self::start_with_audit(key, policy, directory, audit).await
    }

    pub(crate) async fn start_with_audit(
        key: Arc<CaKey>,
        policy: PolicySource,
        directory: tempfile::TempDir,
        audit: PathBuf,
    ) -> Self {
        let authority = Authority::new(Arc::clone(&key), Ceilings::default());
        let routes = router(authority, policy, Arc::new(AuditLog::file(&audit).unwrap()));
        let (address, stop) = run("127.0.0.1:0", routes).await;
        Self {
            address,
            key,
            audit,
            client: reqwest::Client::new(),
            _directory: directory,
            _stop: stop,
        }
    }

    /// A CA that asks this policy server.
    pub(crate) async fn asking(address: &str) -> Self {
        let key = Arc::new(CaKey::generate_ed25519().unwrap());
        let client = client(address, &key).with_deadline(Duration::from_millis(500));
        Self::start(key, PolicySource::remote(client)).await
    }

    pub(crate) async fn get(&self, path: &str) -> reqwest::Response {
        self.client
            .get(format!("http://{}{path}", self.address))
            .send()
            .await
            .unwrap()
    }

    pub(crate) async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> (u16, String) {
        let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
        let mut request = self
            .client
            .request(method, format!("http://{}{path}", self.address));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = request.body(body.to_owned()).send().await.unwrap();
        let status = answer.status().as_u16();
        if status != 200 {
            assert!(
                answer.headers()["content-type"]
                    .to_str()
                    .unwrap()
                    .starts_with("text/plain")
            );
        }
        (status, answer.text().await.unwrap())
    }

    /// Asks for a certificate for a fresh key.
    pub(crate) async fn ask(&self, token: &str, target: &str) -> (u16, String) {
        let key = SubjectKey::generate().unwrap();
        self.send(
            "POST",
            "/",
            &[("Authorization", &format!("Bearer {token}"))],
            &question(&key.public_line(), target),
        )
        .await
    }

    pub(crate) fn audit_lines(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(&self.audit).unwrap();
        epithet_ca::audit::verify(text.as_bytes()).unwrap();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }
}

pub(crate) fn client(address: &str, key: &Arc<CaKey>) -> PolicyClient {
    let endpoint = if address.starts_with("unix:") {
        address.to_owned()
    } else {
        format!("http://{address}")
    };
    PolicyClient::new(&endpoint.parse().unwrap(), Arc::clone(key), None).unwrap()
}

pub(crate) fn question(public_key: &str, target: &str) -> String {
    let (user, host) = target.split_once('@').unwrap();
    let connection = json!({
        "localHost": "laptop", "remoteHost": host, "remoteUser": user, "port": 22, "proxyJump": "jump", "hash": "abc123"
    });
    json!({"publicKey": format!("{public_key}\n"), "connection": connection}).to_string()
}

pub(crate) fn certificate(answer: &str) -> UserCertificate {
    let answer: Value = serde_json::from_str(answer).unwrap();
    UserCertificate::parse(answer["certificate"].as_str().unwrap().trim_end()).unwrap()
}

/// A CA in front of a real policy server at this address.
pub(crate) async fn with_policy_server(listen: &Path) -> (Ca, DevProvider, DropGuard) {
    let provider = DevProvider::start(epithet_devidp::Settings::default()).unwrap();
    let key = Arc::new(CaKey::generate_ed25519().unwrap());
    let callers = ServiceTokens::new([key.public().clone()]);
    let routes = epithet_policy::router(Arc::new(policy(&provider)), callers);
    let (address, stop) = run(listen.to_str().unwrap(), routes).await;
    let source = PolicySource::remote(client(&address, &key));
    (Ca::start(key, source).await, provider, stop)
}

/// A CA with policy in the same process.
pub(crate) async fn in_process() -> (Ca, DevProvider) {
    let provider = DevProvider::start(epithet_devidp::Settings::default()).unwrap();
    let key = Arc::new(CaKey::generate_ed25519().unwrap());
    let source = PolicySource::local(InProcess(policy(&provider)));
    (Ca::start(key, source).await, provider)
}
