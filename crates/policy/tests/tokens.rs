//! Tokens that are not one provider's ID tokens: several issuers, introspection, and a program of one's own.

#![cfg(test)]

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use epithet_devidp::{DevProvider, Settings};
use epithet_oidc::Http;
use epithet_policy::{Document, Policy, Refusal};
use epithet_wire::policy::CertParams;
use epithet_wire::{ConnectionFields, Token};
use serde_json::{Value, json};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

const RULES: &str =
    "users: {alice: [admin], alice@example.com: [admin]}\nhosts: {h: {allow: {root: [admin]}}}\n";

fn policy(more: &str) -> Policy {
    let document = Document::from_yaml("policy.yaml", &format!("{RULES}{more}")).expect("a document");
    Policy::new(&document, Arc::new(Http::default())).expect("a policy")
}

async fn decide(policy: &Policy, token: &[u8]) -> Result<CertParams, Refusal> {
    let connection = ConnectionFields {
        remote_host: "h".into(),
        remote_user: "root".into(),
        port: 22,
        ..ConnectionFields::default()
    };
    let token = Token::new(token.to_vec()).expect("a token");
    policy
        .decide(&token, &connection)
        .await
        .map(|response| response.cert_params)
}

fn status(decision: &Result<CertParams, Refusal>) -> u16 {
    decision
        .as_ref()
        .map_or_else(|refusal| refusal.status.as_u16(), |_| 200)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_verified_by_the_issuer_that_it_names() {
    let start = |id: &str| {
        DevProvider::start(Settings {
            client_id: id.to_owned(),
            ..Settings::default()
        })
        .expect("a provider")
    };
    let (first, second, stranger) = (start("one"), start("two"), start("one"));
    let policy = policy(&format!(
        "oidc: {{issuer: '{}', client-id: one}}\nfurther-oidc: [{{issuer: '{}', client-id: two}}]\n",
        first.issuer(),
        second.issuer()
    ));
    let mint = |provider: &DevProvider| provider.mint_id_token("alice", &json!({})).into_bytes();
    assert_eq!(status(&decide(&policy, &mint(&first)).await), 200);
    assert_eq!(status(&decide(&policy, &mint(&second)).await), 200);
    assert_eq!(status(&decide(&policy, &mint(&stranger)).await), 401);
    let for_another = second.mint_id_token("alice", &json!({"aud": "one"})).into_bytes();
    assert_eq!(
        status(&decide(&policy, &for_another).await),
        401,
        "each issuer has its own client id"
    );
    assert_eq!(policy.discovery().auth.unwrap().issuer, first.issuer());
}

/// A provider that is asked about tokens, and counts how often.
struct Endpoint {
    url: String,
    asked: Arc<AtomicUsize>,
}

impl Endpoint {
    async fn start(answer: impl Fn(&str) -> (StatusCode, Value) + Send + Sync + 'static) -> Self {
        let asked = Arc::new(AtomicUsize::new(0));
        let state = (Arc::clone(&asked), Arc::new(answer));
        let router = Router::new().fallback(Self::introspect).with_state(state);
        let listener = epithet_serve::Listen::parse("127.0.0.1:0")
            .unwrap()
            .bind()
            .await
            .unwrap();
        let url = format!("http://{}/introspect", listener.address());
        tokio::spawn(epithet_serve::serve(
            listener,
            router,
            epithet_serve::Settings::default(),
            Default::default(),
        ));
        Self { url, asked }
    }

    async fn introspect<F>(
        State((asked, answer)): State<(Arc<AtomicUsize>, Arc<F>)>,
        headers: HeaderMap,
        form: String,
    ) -> (StatusCode, String)
    where
        F: Fn(&str) -> (StatusCode, Value) + Send + Sync + 'static,
    {
        asked.fetch_add(1, Ordering::SeqCst);
        // us:s%26cret, as RFC 6749 section 2.3.1 has it encoded.
        if headers
            .get("authorization")
            .is_none_or(|value| value != "Basic dXM6cyUyNmNyZXQ=")
        {
            return (StatusCode::UNAUTHORIZED, String::new());
        }
        let token = form
            .split('&')
            .find_map(|pair| pair.strip_prefix("token="))
            .unwrap_or_default();
        let (status, body) = answer(token);
        (status, body.to_string())
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    fn policy(&self, more: &str) -> Policy {
        policy(&format!(
            "token: introspection\nintrospection: {{url: '{}', client-id: us, client-secret: 's&cret'{more}}}\n",
            self.url
        ))
    }
}

fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}

#[tokio::test]
async fn an_active_token_is_its_holders_and_is_not_asked_about_again() {
    let end = now() + 120;
    let endpoint = Endpoint::start(move |token| match token {
        "good" => (
            StatusCode::OK,
            json!({"active": true, "sub": "alice", "exp": end, "aud": ["epithet"], "iss": "https://i"}),
        ),
        "stranger" => (StatusCode::OK, json!({"active": true, "sub": "bob", "exp": end})),
        "ended" => (
            StatusCode::OK,
            json!({"active": true, "sub": "alice", "exp": 1000}),
        ),
        "nameless" => (StatusCode::OK, json!({"active": true, "exp": end})),
        "odd" => (StatusCode::OK, json!({"active": "yes", "sub": "alice"})),
        "broken" => (StatusCode::INTERNAL_SERVER_ERROR, json!({})),
        _ => (StatusCode::OK, json!({"active": false})),
    })
    .await;
    let policy = endpoint.policy("");
    for _ in 0..3 {
        let params = decide(&policy, b"good").await.expect("alice");
        assert_eq!(
            (params.identity.as_str(), params.not_after.unwrap().as_second()),
            ("alice", end)
        );
    }
    assert_eq!(endpoint.asked(), 1);
    for (token, expected) in [
        ("stranger", 403),
        ("ended", 401),
        ("nameless", 403),
        ("other", 401),
        ("odd", 503),
        ("broken", 503),
    ] {
        assert_eq!(
            status(&decide(&policy, token.as_bytes()).await),
            expected,
            "{token}"
        );
    }
    assert_eq!(
        status(&decide(&policy, b"\xff\x00").await),
        401,
        "a token that no form can carry"
    );

    let strict = endpoint.policy(", audience: epithet, issuer: 'https://i'");
    assert_eq!(status(&decide(&strict, b"good").await), 200);
    assert_eq!(status(&decide(&strict, b"stranger").await), 401);
    let uncached = endpoint.policy(", cache: 0s");
    let before = endpoint.asked();
    for _ in 0..2 {
        decide(&uncached, b"good").await.expect("alice");
    }
    assert_eq!(endpoint.asked(), before + 2);
}

#[tokio::test]
async fn a_provider_that_is_down_is_never_the_users_fault() {
    let policy = policy(
        "token: introspection\nintrospection: {url: 'http://127.0.0.1:1/x', client-id: us, client-secret: s}\n",
    );
    assert_eq!(status(&decide(&policy, b"t").await), 503);
}

fn command(folder: &Path, script: &str, more: &str) -> Policy {
    let file = folder.join("verify");
    std::fs::write(&file, script).unwrap();
    policy(&format!(
        "token: command\ncommand: {{run: [/bin/sh, '{}']{more}}}\n",
        file.display()
    ))
}

#[tokio::test]
async fn a_program_is_asked_and_its_exit_code_is_the_verdict() {
    let folder = tempfile::tempdir().unwrap();
    let script = format!(
        "echo asked >> '{}'\ntoken=$(od -An -tx1 | tr -d ' \\n')\ncase $token in\n\
         ff0001) echo '{{\"identity\":\"alice\",\"groups\":[\"x\"],\"expires\":\"2999-01-01T00:00:00Z\"}}';;\n\
         6e6f) echo 'not this one' >&2; exit 1;;\n62726f6b656e) echo '{{}}';;\n*) exit 3;;\nesac\n",
        folder.path().join("count").display()
    );
    let policy = command(folder.path(), &script, "");
    for _ in 0..3 {
        assert_eq!(
            decide(&policy, b"\xff\x00\x01").await.expect("alice").identity,
            "alice"
        );
    }
    let refused = decide(&policy, b"no").await.expect_err("no");
    assert_eq!(refused.status, 401);
    assert!(refused.message.contains("not this one"), "{}", refused.message);
    assert_eq!(status(&decide(&policy, b"broken").await), 503);
    assert_eq!(status(&decide(&policy, b"else").await), 503);
    let asked = std::fs::read_to_string(folder.path().join("count"))
        .unwrap()
        .lines()
        .count();
    assert_eq!(asked, 4, "the good one was asked about once");
}

#[tokio::test]
async fn a_program_that_hangs_or_floods_is_ended_and_nobody_can_tell() {
    let folder = tempfile::tempdir().unwrap();
    let hanging = command(folder.path(), "sleep 1000\n", ", timeout: 200ms");
    let begun = std::time::Instant::now();
    assert_eq!(status(&decide(&hanging, b"t").await), 503);
    assert!(begun.elapsed() < std::time::Duration::from_secs(10));
    let flooding = command(folder.path(), "yes\n", "");
    assert_eq!(status(&decide(&flooding, b"t").await), 503);
}

#[test]
fn a_way_that_cannot_work_is_named_by_its_key() {
    let cases = [
        ("token: command\n", "command.run is required"),
        ("token: command\ncommand: {run: ''}\n", "command.run"),
        (
            "token: command\ncommand: {run: x, timeout: 0s}\n",
            "command.timeout",
        ),
        (
            "token: introspection\n",
            "introspection.client-secret-file is required",
        ),
        (
            "token: introspection\nintrospection: {client-secret: s}\n",
            "introspection.url is required",
        ),
        (
            "token: introspection\nintrospection: {url: 'http://i.example.com', client-id: a, client-secret: s}\n",
            "https",
        ),
        ("", "oidc.issuer is required"),
    ];
    for (more, words) in cases {
        let document = Document::from_yaml("policy.yaml", &format!("{RULES}{more}")).expect("a document");
        let error = Policy::new(&document, Arc::new(Http::default()))
            .expect_err(more)
            .to_string();
        assert!(error.contains(words), "{more}: {error}");
    }
    for wrong in [
        "token: saml\n",
        "introspection: {uri: x}\n",
        "command: {exec: x}\n",
        "further-oidc: {issuer: x}\n",
    ] {
        assert!(Document::from_yaml("policy.yaml", wrong).is_err(), "{wrong}");
    }
}
