//! The policy server as a CA meets it, through a real socket, with tokens of a real provider.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use epithet_devidp::DevProvider;
use epithet_policy::{Document, Policy, PolicyError, ServiceTokens, router};
use epithet_serve::{Listen, Settings, serve};
use epithet_ssh::CaKey;
use serde_json::{Value, json};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

const RULES: &str = r#"
users:
  alice@example.com: [admin]
  bob@example.com: [eng]
  s-7: [eng]
defaults:
  allow: {root: [admin]}
hosts:
  "*.prod.example.com": {expiration: 2m, allow: {deploy: [eng]}}
  "dev-*": {allow: {ubuntu: [eng]}, extensions: {}, force-command: uptime}
"#;

struct Setup {
    provider: DevProvider,
    policy: Arc<Policy>,
    ca: CaKey,
    address: String,
    client: reqwest::Client,
    _stop: tokio_util::sync::DropGuard,
}

fn document(provider: &DevProvider, rules: &str) -> Document {
    let oidc = format!("oidc: {{issuer: '{}', client-id: epithet}}", provider.issuer());
    Document::from_yaml("policy.yaml", &format!("{rules}\n{oidc}")).unwrap()
}

async fn start() -> Setup {
    let provider = DevProvider::start(epithet_devidp::Settings::default()).unwrap();
    let policy = Arc::new(Policy::new(&document(&provider, RULES), Arc::default()).unwrap());
    let ca = CaKey::generate_ed25519().unwrap();
    let routes = router(Arc::clone(&policy), ServiceTokens::new([ca.public().clone()]));
    let listener = Listen::parse("127.0.0.1:0").unwrap().bind().await.unwrap();
    let address = listener.address();
    let stop = CancellationToken::new();
    tokio::spawn(serve(listener, routes, Settings::default(), stop.clone()));
    Setup {
        provider,
        policy,
        ca,
        address,
        client: reqwest::Client::new(),
        _stop: stop.drop_guard(),
    }
}

fn now() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_secs()
}

impl Setup {
    fn bearer(&self, method: &str, path: &str, body: &str) -> String {
        let claims = json!({
            "iss": self.ca.fingerprint(), "aud": "epithet-policy", "iat": now(), "exp": now() + 60,
            "jti": epithet_serve::new_request_id().to_string(),
            "bh": URL_SAFE_NO_PAD.encode(digest(&SHA256, body.as_bytes())),
            "htm": method, "htu": format!("{}{path}", self.address),
        });
        let header = json!({"alg": self.ca.jws_algorithm().name()});
        let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let input = format!("{}.{}", encode(&header), encode(&claims));
        let signature = self.ca.sign_jws(input.as_bytes()).unwrap();
        format!("Bearer {input}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    async fn send(&self, method: &str, path: &str, body: &str, bearer: Option<String>) -> reqwest::Response {
        let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
        let mut request = self
            .client
            .request(method, format!("http://{}{path}", self.address))
            .body(body.to_owned());
        if let Some(bearer) = bearer {
            request = request.header("Authorization", bearer);
        }
        request.send().await.unwrap()
    }

    async fn as_ca(&self, method: &str, path: &str, body: &str) -> (u16, String) {
        let answer = self
            .send(method, path, body, Some(self.bearer(method, path, body)))
            .await;
        (answer.status().as_u16(), answer.text().await.unwrap())
    }

    async fn ask(&self, token: &str, target: &str) -> (u16, String) {
        let (user, host) = target.split_once('@').unwrap();
        let connection =
            json!({"remoteHost": host, "remoteUser": user, "port": 22, "proxyJump": "", "hash": "x"});
        self.as_ca(
            "POST",
            "/",
            &json!({"token": token, "connection": connection}).to_string(),
        )
        .await
    }
}

#[tokio::test]
async fn a_decision_has_the_bytes_of_the_other_implementation() {
    let setup = start().await;
    let exp = now() + 500;
    let token = setup
        .provider
        .mint_id_token("alice", &json!({"exp": exp, "auth_time": null}));
    let (status, body) = setup.ask(&token, "root@web.prod.example.com").await;
    let end = jiff::Timestamp::from_second(i64::try_from(exp).unwrap()).unwrap();
    let expected = format!(
        r#"{{
  "certParams": {{
    "identity": "alice@example.com",
    "principals": [
      "root"
    ],
    "expiration": 120000000000,
    "extensions": {{
      "permit-agent-forwarding": "",
      "permit-pty": "",
      "permit-user-rc": ""
    }},
    "notAfter": "{end}",
    "rule": "*.prod.example.com",
    "login": {{}}
  }}
}}"#
    );
    assert_eq!((status, body.as_str()), (200, expected.as_str()));
}

#[tokio::test]
async fn tokens_and_people_are_judged_as_the_table_says() {
    let setup = start().await;
    let mint = |user: &str, overrides: Value| setup.provider.mint_id_token(user, &overrides);
    let alice = mint("alice", json!({}));
    for (token, target, status, text) in [
        (&alice, "root@web.prod.example.com", 200, "\"root\""),
        (
            &alice,
            "deploy@web.prod.example.com",
            403,
            "User alice@example.com not authorized for deploy@web.prod.example.com",
        ),
        (
            &alice,
            "root@github.com",
            403,
            "User alice@example.com not authorized for root@github.com",
        ),
        (
            &alice,
            "@web.prod.example.com",
            403,
            "User alice@example.com not authorized for @web.prod.example.com",
        ),
        (&alice, "root@web.prod.example.com\0.evil", 403, "not authorized"),
        (
            &mint("bob", json!({})),
            "ubuntu@DEV-1",
            200,
            "\"force-command\": \"uptime\"",
        ),
        (
            &mint("carol", json!({})),
            "ubuntu@dev-1",
            403,
            "User carol@example.com not in users list",
        ),
        // An address that nobody vouches for is not who this is.
        (
            &mint(
                "s-7",
                json!({"email": "alice@example.com", "email_verified": false}),
            ),
            "root@web.prod.example.com",
            403,
            "User s-7 not authorized",
        ),
        (
            &mint(
                "s-7",
                json!({"email": "alice@example.com", "email_verified": null}),
            ),
            "ubuntu@dev-1",
            200,
            "\"s-7\"",
        ),
        (
            &mint("alice", json!({"aud": "another-client"})),
            "root@web.prod.example.com",
            401,
            "Invalid token: token verification failed: ",
        ),
        (
            &mint("alice", json!({"exp": now() - 3600, "iat": now() - 7200})),
            "root@web.prod.example.com",
            401,
            "Invalid token: token verification failed: ",
        ),
        (
            &"garbage".to_owned(),
            "root@web.prod.example.com",
            401,
            "Invalid token: token verification failed: ",
        ),
        (
            &String::new(),
            "root@web.prod.example.com",
            401,
            "Invalid token: token verification failed: the token is empty",
        ),
    ] {
        let (found, body) = setup.ask(token, target).await;
        assert_eq!(found, status, "{target}: {body}");
        assert!(body.contains(text), "{target}: {body}");
    }
}

#[tokio::test]
async fn only_the_ca_is_answered_and_others_are_told_apart() {
    let setup = start().await;
    let good = setup.bearer("GET", "/", "");
    for (bearer, path, text) in [
        (
            None,
            "/",
            "request verification failed: missing or malformed Authorization header",
        ),
        (
            Some("Basic x".to_owned()),
            "/",
            "request verification failed: missing or malformed",
        ),
        (Some(setup.bearer("POST", "/", "")), "/", "another method"),
        (Some(good.clone()), "/other", "not for this address"),
        (Some(setup.bearer("GET", "/", "x")), "/", "another body"),
    ] {
        let answer = setup.send("GET", path, "", bearer).await;
        assert_eq!(answer.status().as_u16(), 401, "{text}");
        assert_eq!(answer.headers()["epithet-error"], "service-auth");
        assert_eq!(answer.headers()["content-type"], "text/plain");
        let body = answer.text().await.unwrap();
        assert!(body.contains(text), "{body}");
    }
    assert_eq!(setup.send("GET", "/", "", Some(good.clone())).await.status(), 200);
    let replayed = setup.send("GET", "/", "", Some(good)).await;
    assert_eq!(replayed.status(), 401);
    assert!(replayed.text().await.unwrap().contains("used before"));
    // A refusal of the user's own token is not marked.
    let body = json!({"token": "x", "connection": {}}).to_string();
    let refused = setup
        .send("POST", "/", &body, Some(setup.bearer("POST", "/", &body)))
        .await;
    assert_eq!(refused.status(), 401);
    assert!(refused.headers().get("epithet-error").is_none());
}

#[tokio::test]
async fn the_rest_of_the_interface_is_as_documented() {
    let setup = start().await;
    let answer = setup
        .send("GET", "/", "", Some(setup.bearer("GET", "/", "")))
        .await;
    assert_eq!(answer.headers()["cache-control"], "max-age=300");
    assert_eq!(answer.headers()["content-type"], "application/json");
    let discovery = answer.text().await.unwrap();
    assert!(
        discovery.starts_with("{\n  \"auth\": {\n    \"type\": \"oidc\","),
        "{discovery}"
    );
    assert_eq!(
        serde_json::from_str::<Value>(&discovery).unwrap(),
        json!({
            "auth": {"type": "oidc", "issuer": setup.provider.issuer(), "client_id": "epithet",
                     "scopes": ["openid", "profile", "email"]},
            "matchPatterns": ["*.prod.example.com", "dev-*"]
        })
    );
    assert_eq!(
        setup.as_ca("PUT", "/", "").await,
        (405, "Method not allowed".to_owned())
    );
    let (status, text) = setup.as_ca("POST", "/anything", "{").await;
    assert!(status == 400 && text.starts_with("Invalid JSON: "), "{text}");
    let huge = "x".repeat(epithet_wire::limits::POLICY_BODY_MAX + 1);
    let too_large = setup.send("POST", "/", &huge, None).await;
    assert_eq!(too_large.status(), 413);
    assert_eq!(too_large.text().await.unwrap(), "Request body too large");
    assert_eq!(setup.send("GET", "/healthz", "", None).await.status(), 200);
    assert_eq!(
        setup.send("GET", "/readyz", "", None).await.text().await.unwrap(),
        "ready\n"
    );
}

#[tokio::test]
async fn a_provider_that_is_down_is_nobodys_fault_and_known_keys_go_on() {
    let setup = start().await;
    let token = setup.provider.mint_id_token("alice", &json!({}));
    setup.provider.set_down(true);
    let (status, text) = setup.ask(&token, "root@web.prod.example.com").await;
    assert_eq!(status, 503, "{text}");
    assert_eq!(setup.send("GET", "/readyz", "", None).await.status(), 503);
    assert_eq!(
        setup.as_ca("GET", "/", "").await.0,
        200,
        "discovery needs no provider"
    );
    setup.provider.set_down(false);
    // A fresh server, since this one waits before it asks a provider that failed again.
    let second = Policy::new(&document(&setup.provider, RULES), Arc::default()).unwrap();
    second.ready().await.unwrap();
    setup.provider.set_down(true);
    let connection = serde_json::from_value(json!({"remoteHost": "dev-1", "remoteUser": "ubuntu"})).unwrap();
    let token = setup.provider.mint_id_token("bob", &json!({}));
    let token = epithet_wire::Token::new(token.into_bytes()).unwrap();
    assert!(second.decide(&token, &connection).await.is_ok());
}

#[tokio::test]
async fn new_rules_apply_at_once_and_bad_ones_change_nothing() {
    let setup = start().await;
    let bob = setup.provider.mint_id_token("bob", &json!({}));
    assert_eq!(setup.ask(&bob, "ubuntu@dev-1").await.0, 200);
    let broken =
        Document::from_yaml("policy.yaml", "users:\n  bob@example.com: [eng\n").map_err(PolicyError::from);
    let error = setup.policy.reload(broken).unwrap_err().to_string();
    assert!(error.starts_with("policy.yaml:"), "{error}");
    assert_eq!(setup.ask(&bob, "ubuntu@dev-1").await.0, 200);
    let ready = setup.send("GET", "/readyz", "", None).await.text().await.unwrap();
    assert!(ready.contains("the last reload failed"), "{ready}");
    setup
        .policy
        .reload::<PolicyError>(Ok(document(&setup.provider, "users: {}")))
        .unwrap();
    assert_eq!(
        setup.ask(&bob, "ubuntu@dev-1").await,
        (403, "User bob@example.com not in users list".to_owned())
    );
    assert_eq!(
        setup.send("GET", "/readyz", "", None).await.text().await.unwrap(),
        "ready\n"
    );
}

#[test]
fn a_policy_without_a_provider_does_not_start() {
    for (text, expected) in [
        ("users: {}", "oidc.issuer is required"),
        (
            "oidc: {issuer: 'https://i.example.com'}",
            "oidc.client-id is required",
        ),
        (
            "oidc: {issuer: 'https://i.example.com', client-id: ''}",
            "oidc.client-id is required",
        ),
        ("oidc: {issuer: 'http://i.example.com', client-id: c}", "https://"),
    ] {
        let document = Document::from_yaml("p", text).unwrap();
        let error = Policy::new(&document, Arc::default()).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}
