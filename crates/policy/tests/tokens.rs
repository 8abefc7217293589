//! Tokens that are not one provider's ID tokens: several issuers, introspection, and a program of one's own.

#![cfg(test)]

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use epithet_devidp::{DevProvider, Settings};
use epithet_oidc::Http;
use epithet_policy::{Document, Policy, PolicyError, Refusal};
use epithet_wire::policy::CertParams;
use epithet_wire::{ConnectionFields, Token};
use serde_json::{Value, json};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

const RULES: &str = "users: {alice: [admin], 'two:alice': [admin], alice@example.com: [admin]}\nhosts: {h: {allow: {root: [admin]}}}\n";

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
        "oidc: [{{issuer: '{}', client-id: one}}, {{issuer: '{}', client-id: two, identity-claim: sub, identity-prefix: 'two:'}}]\n",
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
    let spaced = [b" \n".to_vec(), mint(&first), b"\n".to_vec()].concat();
    assert_eq!(
        status(&decide(&policy, &spaced).await),
        200,
        "echo adds a line end"
    );
    let as_email = second.mint_id_token(
        "bob",
        &json!({"email": "alice@example.com", "email_verified": true}),
    );
    assert_eq!(
        status(&decide(&policy, as_email.as_bytes()).await),
        403,
        "each issuer names people in its own way"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_of_an_unknown_issuer_is_refused_though_no_provider_can_be_asked() {
    let stranger = DevProvider::start(Settings::default()).expect("a provider");
    let token = stranger.mint_id_token("alice", &json!({})).into_bytes();
    for oidc in [
        "oidc: {issuer: 'http://127.0.0.1:1', client-id: epithet}\n",
        "oidc: [{issuer: 'http://127.0.0.1:1', client-id: epithet}, {issuer: 'http://127.0.0.1:2', client-id: e, identity-prefix: ''}]\n",
    ] {
        let refused = decide(&policy(oidc), &token).await.expect_err("a stranger");
        assert_eq!(refused.status, 401, "{oidc}");
        assert!(refused.message.contains(stranger.issuer()), "{}", refused.message);
    }
    let known = policy(&format!(
        "oidc: [{{issuer: 'http://127.0.0.1:1', client-id: x}}, {{issuer: '{}', client-id: epithet, identity-prefix: ''}}]\n",
        stranger.issuer()
    ));
    assert_eq!(
        status(&decide(&known, &token).await),
        200,
        "the other's absence matters to nobody"
    );
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

    let before = endpoint.asked();
    assert_eq!(status(&decide(&policy, b"other").await), 401);
    assert_eq!(endpoint.asked(), before, "a no is remembered for a moment");
    assert_eq!(status(&decide(&policy, b"broken").await), 503);
    assert_eq!(endpoint.asked(), before + 1, "nobody's answer is not");

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
async fn an_answer_is_used_no_longer_than_the_token_lives() {
    let end = now() + 2;
    let endpoint = Endpoint::start(move |_| {
        (
            StatusCode::OK,
            json!({"active": true, "sub": "alice", "exp": end}),
        )
    })
    .await;
    let policy = endpoint.policy(", cache: 1h");
    assert_eq!(status(&decide(&policy, b"t").await), 200);
    let refused = loop {
        match decide(&policy, b"t").await {
            Ok(_) => tokio::time::sleep(std::time::Duration::from_millis(20)).await,
            Err(refused) => break refused,
        }
        assert!(now() <= end + 5, "still good");
    };
    assert!(now() >= end);
    assert_eq!(refused.status, 401);
    assert!(endpoint.asked() >= 2);
}

#[tokio::test]
async fn a_token_without_an_end_needs_a_bound_of_ours() {
    let endpoint = Endpoint::start(|_| (StatusCode::OK, json!({"active": true, "sub": "alice"}))).await;
    let refused = decide(&endpoint.policy(""), b"t").await.expect_err("no end");
    assert_eq!(refused.status, 403);
    assert!(
        refused.message.contains("introspection.max-age"),
        "{}",
        refused.message
    );
    let bounded = decide(&endpoint.policy(", max-age: 90s"), b"t")
        .await
        .expect("alice");
    let end = bounded.not_after.expect("an end").as_second();
    assert!((now() + 80..=now() + 90).contains(&end), "{end}");
}

#[tokio::test]
async fn a_provider_that_answers_too_much_or_nothing_is_not_waited_for() {
    let large = Endpoint::start(|_| {
        let padding = "x".repeat(256 * 1024);
        (
            StatusCode::OK,
            json!({"active": true, "sub": "alice", "exp": now() + 60, "p": padding}),
        )
    })
    .await;
    assert_eq!(status(&decide(&large.policy(""), b"t").await), 503);

    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent_policy = policy(&format!(
        "token: introspection\nintrospection: {{url: 'http://{}/x', client-id: us, client-secret: s}}\n",
        silent.local_addr().unwrap()
    ));
    let begun = std::time::Instant::now();
    assert_eq!(status(&decide(&silent_policy, b"t").await), 503);
    let waited = begun.elapsed().as_secs();
    assert!((4..=8).contains(&waited), "{waited} s");
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
async fn a_program_gets_the_bytes_as_they_are_and_nothing_of_the_connection() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    let all_bytes: Vec<u8> = (0..=255).chain([b'\n', b' ']).collect();
    std::fs::write(at("expected"), &all_bytes).unwrap();
    let script = format!(
        "env > '{}'; echo \"$0 $*\" >> '{}'\n\
         cmp - '{}' >&2 || exit 1\n[ \"$EPITHET_PROTOCOL\" = 1 ] && echo '{{\"identity\":\"alice\"}}'\n",
        at("environment"),
        at("environment"),
        at("expected")
    );
    let policy = command(folder.path(), &script, "");
    let token = Token::new(all_bytes).unwrap();
    let connection = ConnectionFields {
        remote_host: "h".into(),
        remote_user: "root".into(),
        port: 47_110,
        proxy_jump: "$(touch canary-jump)".into(),
        hash: "canary-hash".into(),
    };
    let decision = policy.decide(&token, &connection).await.expect("alice");
    assert_eq!(decision.cert_params.not_after, None);
    let seen = std::fs::read_to_string(at("environment")).unwrap();
    assert!(!seen.contains("canary") && !seen.contains("47110"), "{seen}");
}

#[tokio::test]
async fn a_command_may_be_a_list_or_a_line_for_the_shell() {
    for form in [
        "command: \"cat > /dev/null; printf '%s' '{\\\"identity\\\": \\\"alice\\\"}'\"",
        "command: [/bin/echo, '{\"identity\": \"alice\"}']",
        "command: {run: [/bin/echo, '{\"identity\": \"alice\"}']}",
    ] {
        let policy = policy(&format!("token: command\n{form}\n"));
        let large = vec![0xfe; 64 * 1024];
        assert_eq!(decide(&policy, &large).await.expect(form).identity, "alice");
    }
}

#[tokio::test]
async fn whatever_goes_wrong_with_a_program_nobody_can_tell() {
    let folder = tempfile::tempdir().unwrap();
    for (script, why) in [
        ("kill -9 $$\n", "it crashes"),
        ("exit 2\n", "another status"),
        ("true\n", "it says nothing"),
        ("echo yes\n", "it says something else"),
        ("yes\n", "it floods stdout"),
        ("head -c 65537 /dev/zero\n", "one byte too many"),
        ("exec no-such-program\n", "it is not there"),
    ] {
        let policy = command(folder.path(), script, "");
        let refused = decide(&policy, b"t").await.expect_err(why);
        assert_eq!(refused.status, 503, "{why}");
        assert!(refused.message.contains("token command"), "{}", refused.message);
    }
    let missing = policy("token: command\ncommand: [/no/such/program]\n");
    assert_eq!(status(&decide(&missing, b"t").await), 503);
}

#[tokio::test]
async fn a_program_that_hangs_is_ended_with_everything_it_started() {
    let folder = tempfile::tempdir().unwrap();
    let pid = folder.path().join("pid");
    let script = format!(
        "trap '' TERM\nsleep 1000 &\necho $! > '{}'\nwait\nsleep 1000\n",
        pid.display()
    );
    let policy = command(folder.path(), &script, ", timeout: 300ms");
    let begun = std::time::Instant::now();
    assert_eq!(status(&decide(&policy, b"t").await), 503);
    assert!(begun.elapsed() < std::time::Duration::from_secs(5));
    let pid = std::fs::read_to_string(pid).unwrap();
    let process = Path::new("/proc").join(pid.trim());
    while process.exists() {
        assert!(
            begun.elapsed() < std::time::Duration::from_secs(10),
            "{pid} is still there"
        );
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sixteen_programs_run_at_once_and_the_others_wait_for_a_place() {
    let folder = tempfile::tempdir().unwrap();
    let running = folder.path().join("running");
    let counts = folder.path().join("counts");
    std::fs::create_dir(&running).unwrap();
    let script = format!(
        "mkdir '{0}'/$$; ls '{0}' | wc -l >> '{1}'\nsleep 0.1\nrmdir '{0}'/$$\necho '{{\"identity\":\"alice\"}}'\n",
        running.display(),
        counts.display()
    );
    let policy = Arc::new(command(folder.path(), &script, ", timeout: 60s"));
    let ask = |token: String| {
        let policy = Arc::clone(&policy);
        tokio::spawn(async move { status(&decide(&policy, token.as_bytes()).await) })
    };
    // One in three leaves before the answer, and its program still has its place.
    let asked: Vec<_> = (0..60).map(|n| ask(format!("token {n}"))).collect();
    for (n, answer) in asked.into_iter().enumerate() {
        match n % 3 {
            0 => answer.abort(),
            _ => assert_eq!(answer.await.unwrap(), 200),
        }
    }
    let counts = std::fs::read_to_string(counts).unwrap();
    let most = counts
        .lines()
        .filter_map(|line| line.trim().parse::<u32>().ok())
        .max();
    assert!(most.is_some_and(|most| (2..=16).contains(&most)), "{counts}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_finds_no_place_is_told_in_time() {
    let folder = tempfile::tempdir().unwrap();
    let policy = Arc::new(command(folder.path(), "sleep 1000\n", ", timeout: 400ms"));
    let begun = std::time::Instant::now();
    let asked: Vec<_> = (0..400)
        .map(|n| {
            let policy = Arc::clone(&policy);
            tokio::spawn(async move { status(&decide(&policy, format!("{n}").as_bytes()).await) })
        })
        .collect();
    for answer in asked {
        assert_eq!(answer.await.unwrap(), 503);
    }
    assert!(
        begun.elapsed() < std::time::Duration::from_secs(10),
        "{:?}",
        begun.elapsed()
    );
}

#[tokio::test]
async fn another_way_takes_over_when_the_file_says_so() {
    let policy = policy("token: command\ncommand: [/bin/echo, '{\"identity\": \"nobody\"}']\n");
    assert_eq!(status(&decide(&policy, b"t").await), 403);
    let read =
        |more: &str| Document::from_yaml("policy.yaml", &format!("{RULES}{more}")).map_err(PolicyError::from);
    policy
        .reload(read(
            "token: command\ncommand: [/bin/echo, '{\"identity\": \"alice\"}']\n",
        ))
        .unwrap();
    assert_eq!(
        status(&decide(&policy, b"t").await),
        200,
        "the kept answer is forgotten"
    );
    policy.reload(read("token: command\n")).expect_err("no command");
    assert!(policy.reload_failed());
    assert_eq!(status(&decide(&policy, b"t").await), 200, "the old way stays");
}

#[test]
fn a_way_that_cannot_work_is_named_by_its_key() {
    let cases = [
        ("token: command\n", "command is required"),
        ("token: command\ncommand: {timeout: 1s}\n", "command is required"),
        ("token: command\ncommand: {run: ''}\n", "command is empty"),
        ("token: command\ncommand: []\n", "command is empty"),
        (
            "token: introspection\nintrospection: {url: 'https://i', client-id: a, client-secret: ''}\n",
            "client-secret is empty",
        ),
        (
            "token: introspection\nintrospection: {client-secret-file: /no/such/file}\n",
            "introspection.client-secret-file /no/such/file",
        ),
        (
            "token: introspection\nintrospection: {client-secret: s, max-age: 0s}\n",
            "introspection.max-age",
        ),
        (
            "oidc: [{issuer: 'https://i', client-id: a}, {issuer: 'https://j', identity-prefix: ''}]\n",
            "oidc.client-id is required",
        ),
        (
            "oidc: [{issuer: 'https://i', client-id: a}, {issuer: 'https://i', client-id: b, identity-prefix: 'b:'}]\n",
            "issuer https://i twice",
        ),
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
        "oidc: [https://i]\n",
        "command: {run: [{a: b}]}\n",
        "command: 7\n",
    ] {
        assert!(Document::from_yaml("policy.yaml", wrong).is_err(), "{wrong}");
    }
}
