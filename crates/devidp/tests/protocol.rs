//! The provider from outside, with nothing but HTTP: what a client that knows the RFCs would see.

#![cfg(test)]

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use epithet_devidp::{DevProvider, Page, Person, RefreshTokens, Settings, StartError, sign_in};
use epithet_wire::SecretBytes;
use reqwest::{Client, StatusCode};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use url::Url;

const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";

type Answer = (StatusCode, Value);

/// A client application: a callback that answers one request, and the requests a login needs.
struct App {
    http: Client,
    issuer: String,
    callback: TcpListener,
}

impl App {
    async fn of(provider: &DevProvider) -> Self {
        Self {
            http: Client::builder()
                .no_proxy()
                .redirect(reqwest::redirect::Policy::none())
                .build()
                .unwrap(),
            issuer: provider.issuer().to_owned(),
            callback: TcpListener::bind("127.0.0.1:0").await.unwrap(),
        }
    }

    fn redirect_uri(&self) -> String {
        format!("http://{}/callback", self.callback.local_addr().unwrap())
    }

    fn authorization_url(&self, changes: &[(&str, &str)]) -> Url {
        let redirect_uri = self.redirect_uri();
        let mut parameters = vec![
            ("client_id", "epithet"),
            ("redirect_uri", &redirect_uri),
            ("response_type", "code"),
            ("scope", "openid email offline_access"),
            ("state", "the state"),
            ("nonce", "the nonce"),
            ("code_challenge", CHALLENGE),
            ("code_challenge_method", "S256"),
        ];
        parameters.retain(|(name, _)| !changes.iter().any(|(changed, _)| changed == name));
        parameters.extend(changes);
        Url::parse_with_params(&format!("{}/authorize", self.issuer), parameters).unwrap()
    }

    /// Signs `person` in; gives the page they end on and the parameters that the callback got.
    async fn authorize(&self, person: &Person, changes: &[(&str, &str)]) -> (Page, Vec<(String, String)>) {
        let url = self.authorization_url(changes);
        let answer = async {
            let (mut stream, _) = self.callback.accept().await.unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                request.push(stream.read_u8().await.unwrap());
            }
            let reply = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: close\r\n\r\ndone!";
            stream.write_all(reply.as_bytes()).await.unwrap();
            let line = String::from_utf8(request).unwrap();
            let target = line.split(' ').nth(1).unwrap().to_owned();
            let url = Url::parse("http://127.0.0.1").unwrap().join(&target).unwrap();
            url.query_pairs().into_owned().collect()
        };
        let (page, parameters) = tokio::join!(sign_in(url.as_str(), person), answer);
        (page.unwrap(), parameters)
    }

    async fn code(&self) -> String {
        let (_, parameters) = self.authorize(&Person::default(), &[]).await;
        parameters.into_iter().find(|(name, _)| name == "code").unwrap().1
    }

    async fn post(&self, path: &str, form: &[(&str, &str)]) -> Answer {
        let response = self
            .http
            .post(format!("{}{path}", self.issuer))
            .form(form)
            .send()
            .await
            .unwrap();
        let status = response.status();
        (
            status,
            serde_json::from_slice(&response.bytes().await.unwrap()).unwrap_or(Value::Null),
        )
    }

    async fn exchange(&self, code: &str, changes: &[(&str, &str)]) -> Answer {
        let redirect_uri = self.redirect_uri();
        let mut form = vec![
            ("grant_type", "authorization_code"),
            ("client_id", "epithet"),
            ("code", code),
            ("redirect_uri", &redirect_uri),
            ("code_verifier", VERIFIER),
        ];
        form.retain(|(name, _)| !changes.iter().any(|(changed, _)| changed == name));
        form.extend(changes.iter().filter(|(_, value)| !value.is_empty()));
        self.post("/token", &form).await
    }

    async fn log_in(&self) -> Value {
        let (status, tokens) = self.exchange(&self.code().await, &[]).await;
        assert_eq!(status, StatusCode::OK, "{tokens}");
        tokens
    }

    async fn refresh(&self, tokens: &Value) -> Answer {
        let token = tokens["refresh_token"].as_str().unwrap();
        self.post(
            "/token",
            &[
                ("grant_type", "refresh_token"),
                ("client_id", "epithet"),
                ("refresh_token", token),
            ],
        )
        .await
    }

    async fn get(&self, path: &str) -> Value {
        self.http
            .get(format!("{}{path}", self.issuer))
            .send()
            .await
            .unwrap()
            .json()
            .await
            .unwrap()
    }
}

fn start(change: impl FnOnce(&mut Settings)) -> DevProvider {
    let mut settings = Settings::default();
    change(&mut settings);
    DevProvider::start(settings).unwrap()
}

fn part(token: &str, index: usize) -> Value {
    serde_json::from_slice(
        &URL_SAFE_NO_PAD
            .decode(token.split('.').nth(index).unwrap())
            .unwrap(),
    )
    .unwrap()
}

fn claims(tokens: &Value) -> Value {
    part(tokens["id_token"].as_str().unwrap(), 1)
}

fn error(answer: &Answer) -> &str {
    answer.1["error"].as_str().unwrap_or_default()
}

#[tokio::test]
async fn a_login_with_pkce_ends_with_tokens_for_the_name_that_was_typed() {
    let provider = start(|settings| {
        settings.id_token_life = Duration::from_secs(123);
        settings.extra_claims.insert("groups".into(), json!(["admin"]));
    });
    let app = App::of(&provider).await;
    let (page, parameters) = app.authorize(&Person::named("bob"), &[]).await;
    assert_eq!((page.status, page.text.as_str()), (200, "done!"));
    let get = |name: &str| {
        parameters
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    };
    assert_eq!(get("state"), Some("the state"));
    assert_eq!(get("iss"), Some(provider.issuer()));

    let (status, tokens) = app.exchange(get("code").unwrap(), &[]).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(tokens["token_type"], "Bearer");
    let header = part(tokens["id_token"].as_str().unwrap(), 0);
    assert_eq!(header, json!({ "alg": "RS256", "kid": provider.key_id() }));
    let said = claims(&tokens);
    let now = jiff::Timestamp::now().as_second();
    for (name, value) in [
        ("iss", json!(provider.issuer())),
        ("sub", json!("bob")),
        ("aud", json!("epithet")),
        ("nonce", json!("the nonce")),
        ("email", json!("bob@example.com")),
        ("email_verified", json!(true)),
        ("groups", json!(["admin"])),
    ] {
        assert_eq!(said[name], value, "{name}");
    }
    assert!((now - said["iat"].as_i64().unwrap()).abs() <= 5);
    assert_eq!(said["exp"].as_i64().unwrap() - said["iat"].as_i64().unwrap(), 123);
    assert!(said["auth_time"].is_i64() && said["at_hash"].is_string());

    let access = tokens["access_token"].as_str().unwrap();
    let userinfo = app
        .http
        .get(format!("{}/userinfo", app.issuer))
        .bearer_auth(access)
        .send()
        .await
        .unwrap();
    assert_eq!(
        userinfo.json::<Value>().await.unwrap()["email"],
        "bob@example.com"
    );
    let nobody = app
        .http
        .get(format!("{}/userinfo", app.issuer))
        .bearer_auth("x")
        .send()
        .await
        .unwrap();
    assert_eq!(nobody.status(), StatusCode::UNAUTHORIZED);

    let requests = provider.requests();
    assert_eq!(
        (
            requests.authorizations,
            requests.logins,
            requests.tokens,
            requests.codes
        ),
        (1, 1, 1, 1)
    );
}

#[tokio::test]
async fn a_person_who_refuses_sends_the_client_access_denied() {
    let provider = start(|_| {});
    let app = App::of(&provider).await;
    let (_, parameters) = app.authorize(&Person::default().who_refuses(), &[]).await;
    assert!(parameters.contains(&("error".into(), "access_denied".into())));
    assert!(parameters.contains(&("state".into(), "the state".into())));
    assert_eq!(provider.requests().refusals, 1);
}

#[tokio::test]
async fn a_request_without_pkce_goes_back_as_an_error_and_a_foreign_redirect_goes_nowhere() {
    let provider = start(|_| {});
    let app = App::of(&provider).await;
    let (_, parameters) = app
        .authorize(&Person::default(), &[("code_challenge_method", "plain")])
        .await;
    assert!(parameters.contains(&("error".into(), "invalid_request".into())));
    let url = app.authorization_url(&[("redirect_uri", "http://evil.example/callback")]);
    let page = sign_in(url.as_str(), &Person::default()).await.unwrap();
    assert_eq!(page.status, 400);
    assert!(page.text.contains("redirect_uri"));
}

#[tokio::test]
async fn a_code_needs_its_verifier_its_address_and_its_client_and_is_good_once() {
    let provider = start(|_| {});
    let app = App::of(&provider).await;
    let code = app.code().await;
    let refused = app.exchange(&code, &[("code_verifier", &"a".repeat(43))]).await;
    assert_eq!(
        (refused.0, error(&refused)),
        (StatusCode::BAD_REQUEST, "invalid_grant")
    );
    let refused = app.exchange(&code, &[("code_verifier", "")]).await;
    assert_eq!(error(&refused), "invalid_request");
    let refused = app
        .exchange(&code, &[("redirect_uri", "http://127.0.0.1:9/callback")])
        .await;
    assert_eq!(error(&refused), "invalid_grant");
    let refused = app.exchange(&code, &[("client_id", "other")]).await;
    assert_eq!(
        (refused.0, error(&refused)),
        (StatusCode::UNAUTHORIZED, "invalid_client")
    );
    let refused = app.exchange(&code, &[("client_secret", "s")]).await;
    assert_eq!(error(&refused), "invalid_client");
    let (status, tokens) = app.exchange(&code, &[]).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(error(&app.exchange(&code, &[]).await), "invalid_grant");
    assert_eq!(
        error(&app.refresh(&tokens).await),
        "invalid_grant",
        "the replay revoked what the code had paid for"
    );
}

#[tokio::test]
async fn refresh_tokens_rotate_and_reuse_ends_the_login() {
    let provider = start(|_| {});
    let app = App::of(&provider).await;
    let first = app.log_in().await;
    let (status, second) = app.refresh(&first).await;
    assert_eq!(status, StatusCode::OK);
    assert_ne!(first["refresh_token"], second["refresh_token"]);
    assert_eq!(claims(&second)["sub"], "alice");
    assert_eq!(claims(&second)["auth_time"], claims(&first)["auth_time"]);
    assert!(claims(&second).get("nonce").is_none());
    assert_eq!(error(&app.refresh(&first).await), "invalid_grant");
    assert_eq!(error(&app.refresh(&second).await), "invalid_grant");
    let requests = provider.requests();
    assert_eq!((requests.refreshes, requests.refused_refreshes), (1, 2));
}

#[tokio::test]
async fn a_provider_can_keep_refresh_tokens_leave_out_id_tokens_or_give_none() {
    let provider = start(|settings| {
        settings.rotate_refresh_tokens = false;
        settings.id_token_on_refresh = false;
        settings.refresh_tokens = RefreshTokens::OfflineAccess;
    });
    let app = App::of(&provider).await;
    let tokens = app.log_in().await;
    for _ in 0..2 {
        let (status, refreshed) = app.refresh(&tokens).await;
        assert_eq!(status, StatusCode::OK);
        assert!(refreshed.get("refresh_token").is_none() && refreshed.get("id_token").is_none());
    }
    let (_, parameters) = app.authorize(&Person::default(), &[("scope", "openid")]).await;
    let code = &parameters.iter().find(|(name, _)| name == "code").unwrap().1;
    assert!(app.exchange(code, &[]).await.1.get("refresh_token").is_none());

    let provider = start(|settings| settings.refresh_tokens = RefreshTokens::Never);
    let app = App::of(&provider).await;
    assert!(app.log_in().await.get("refresh_token").is_none());
    let scopes = app.get("/.well-known/openid-configuration").await["scopes_supported"].clone();
    assert!(!scopes.as_array().unwrap().contains(&json!("offline_access")));
}

#[tokio::test]
async fn revocation_ends_one_login_or_all() {
    let provider = start(|_| {});
    let app = App::of(&provider).await;
    let (one, other) = (app.log_in().await, app.log_in().await);
    let token = one["refresh_token"].as_str().unwrap();
    let (status, _) = app
        .post("/revoke", &[("client_id", "epithet"), ("token", token)])
        .await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(
        app.post("/revoke", &[("client_id", "epithet"), ("token", "unknown")])
            .await
            .0,
        StatusCode::OK
    );
    assert_eq!(
        error(&app.post("/revoke", &[("client_id", "epithet")]).await),
        "invalid_request"
    );
    assert_eq!(error(&app.refresh(&one).await), "invalid_grant");
    let (_, other) = app.refresh(&other).await;
    provider.revoke_all();
    assert_eq!(error(&app.refresh(&other).await), "invalid_grant");
}

#[tokio::test]
async fn lives_follow_the_provider_s_clock() {
    let provider = start(|settings| settings.refresh_token_life = Duration::from_secs(60));
    let app = App::of(&provider).await;
    let tokens = app.log_in().await;
    provider.set_clock_offset(120);
    assert_eq!(error(&app.refresh(&tokens).await), "invalid_grant");
    let ahead = part(&provider.mint_id_token("alice", &json!({})), 1)["iat"]
        .as_i64()
        .unwrap();
    assert!(ahead - jiff::Timestamp::now().as_second() >= 119);
    provider.set_clock_offset(0);
    assert_eq!(app.refresh(&tokens).await.0, StatusCode::OK);
}

#[tokio::test]
async fn a_device_logs_in_while_a_person_answers_elsewhere() {
    let provider = start(|settings| settings.device_interval = Duration::ZERO);
    let app = App::of(&provider).await;
    let begin = || {
        app.post(
            "/device_authorization",
            &[("client_id", "epithet"), ("scope", "openid")],
        )
    };
    let grant = "urn:ietf:params:oauth:grant-type:device_code";
    let poll = async |device: &Value| {
        let code = device["device_code"].as_str().unwrap();
        app.post(
            "/token",
            &[
                ("grant_type", grant),
                ("client_id", "epithet"),
                ("device_code", code),
            ],
        )
        .await
    };
    let (_, device) = begin().await;
    assert_eq!(error(&poll(&device).await), "authorization_pending");
    let url = device["verification_uri_complete"].as_str().unwrap();
    let page = sign_in(url, &Person::named("carol")).await.unwrap();
    assert!(
        page.text.contains("logged in as <strong>carol</strong>"),
        "{}",
        page.text
    );
    let (status, tokens) = poll(&device).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(claims(&tokens)["sub"], "carol");
    assert!(tokens["refresh_token"].is_string());
    assert_eq!(error(&poll(&device).await), "invalid_grant");

    let (_, device) = begin().await;
    let url = device["verification_uri_complete"].as_str().unwrap();
    sign_in(url, &Person::default().who_refuses()).await.unwrap();
    assert_eq!(error(&poll(&device).await), "access_denied");
    let (_, device) = begin().await;
    provider.set_clock_offset(3600);
    assert_eq!(error(&poll(&device).await), "expired_token");
    let elsewhere = [("page", "guessed"), ("user_code", "X"), ("name", "mallory")];
    assert_eq!(app.post("/device", &elsewhere).await.0, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn a_device_that_asks_too_often_is_slowed_down() {
    let provider = start(|settings| settings.device_interval = Duration::from_secs(3600));
    let app = App::of(&provider).await;
    let (_, device) = app
        .post(
            "/device_authorization",
            &[("client_id", "epithet"), ("scope", "openid")],
        )
        .await;
    assert_eq!(device["interval"], 3600);
    let code = device["device_code"].as_str().unwrap();
    let form = [
        ("grant_type", "urn:ietf:params:oauth:grant-type:device_code"),
        ("client_id", "epithet"),
        ("device_code", code),
    ];
    assert_eq!(error(&app.post("/token", &form).await), "authorization_pending");
    assert_eq!(error(&app.post("/token", &form).await), "slow_down");
}

#[tokio::test]
async fn a_confidential_client_proves_itself_in_the_header_or_in_the_body() {
    let provider = start(|settings| settings.client_secret = Some(SecretBytes::new(b"s3cret/+".to_vec())));
    let app = App::of(&provider).await;
    assert_eq!(
        error(&app.exchange(&app.code().await, &[]).await),
        "invalid_client"
    );
    assert_eq!(
        error(
            &app.exchange(&app.code().await, &[("client_secret", "wrong")])
                .await
        ),
        "invalid_client"
    );
    assert_eq!(
        app.exchange(&app.code().await, &[("client_secret", "s3cret/+")])
            .await
            .0,
        StatusCode::OK
    );
    let code = app.code().await;
    let response = app
        .http
        .post(format!("{}/token", app.issuer))
        .basic_auth("epithet", Some("s3cret%2F%2B"))
        .form(&[
            ("grant_type", "authorization_code"),
            ("code", &code),
            ("redirect_uri", &app.redirect_uri()),
            ("code_verifier", VERIFIER),
        ])
        .send()
        .await
        .unwrap();
    assert_eq!(response.status(), StatusCode::OK);
}

#[tokio::test]
async fn discovery_and_keys_can_be_cached_and_follow_a_rotation() {
    let provider = start(|_| {});
    let app = App::of(&provider).await;
    let document = app.get("/.well-known/openid-configuration").await;
    assert_eq!(document["issuer"], provider.issuer());
    for endpoint in [
        "authorization_endpoint",
        "token_endpoint",
        "jwks_uri",
        "device_authorization_endpoint",
    ] {
        assert!(
            document[endpoint]
                .as_str()
                .unwrap()
                .starts_with(provider.issuer()),
            "{endpoint}"
        );
    }
    let keys_url = document["jwks_uri"].as_str().unwrap();
    let fetch = async |tag: &str| {
        let response = app
            .http
            .get(keys_url)
            .header("if-none-match", tag)
            .send()
            .await
            .unwrap();
        let tag = response.headers()["etag"].to_str().unwrap().to_owned();
        assert!(
            response.headers()["cache-control"]
                .to_str()
                .unwrap()
                .contains("max-age=")
        );
        (
            response.status(),
            tag,
            response.json::<Value>().await.unwrap_or_default(),
        )
    };
    let (status, tag, keys) = fetch("\"other\"").await;
    assert_eq!(
        (status, keys["keys"].as_array().unwrap().len()),
        (StatusCode::OK, 1)
    );
    assert_eq!(fetch(&tag).await.0, StatusCode::NOT_MODIFIED);
    provider.rotate_keys().unwrap();
    let (status, _, keys) = fetch(&tag).await;
    assert_eq!(
        (status, keys["keys"].as_array().unwrap().len()),
        (StatusCode::OK, 2)
    );
    assert_eq!(keys["keys"][0]["kid"], provider.key_id().as_str());
    provider.retire_old_keys();
    assert_eq!(fetch(&tag).await.2["keys"].as_array().unwrap().len(), 1);
    assert_eq!(provider.requests().key_sets, 4);
}

#[tokio::test]
async fn a_provider_that_is_down_forgets_nothing() {
    let provider = start(|_| {});
    let app = App::of(&provider).await;
    let tokens = app.log_in().await;
    provider.set_down(true);
    assert_eq!(app.refresh(&tokens).await.0, StatusCode::SERVICE_UNAVAILABLE);
    provider.set_down(false);
    assert_eq!(app.refresh(&tokens).await.0, StatusCode::OK);
}

#[tokio::test]
async fn a_held_token_endpoint_answers_when_it_is_let_go() {
    let provider = start(|_| {});
    let app = App::of(&provider).await;
    let tokens = app.log_in().await;
    let hold = provider.hold_tokens();
    let released = async {
        while provider.requests().tokens < 2 {
            tokio::task::yield_now().await;
        }
        assert_eq!(provider.requests().refreshes, 0);
        drop(hold);
    };
    let (answer, ()) = tokio::join!(app.refresh(&tokens), released);
    assert_eq!(answer.0, StatusCode::OK);
}

#[tokio::test]
async fn tokens_can_be_made_directly_and_made_to_lie() {
    let provider = start(|_| {});
    let app = App::of(&provider).await;
    let token = provider.mint_id_token("dave", &json!({ "aud": "somebody else", "email": null }));
    let said = part(&token, 1);
    assert_eq!(
        (&said["sub"], &said["aud"]),
        (&json!("dave"), &json!("somebody else"))
    );
    assert!(said.get("email").is_none());
    provider.lie_in_id_tokens(
        &json!({ "alg": "none" }),
        &json!({ "iss": "http://evil.example" }),
    );
    let tokens = app.log_in().await;
    assert_eq!(claims(&tokens)["iss"], "http://evil.example");
    assert_eq!(part(tokens["id_token"].as_str().unwrap(), 0)["alg"], "none");
    provider.lie_in_id_tokens(&json!({}), &json!({}));
    assert_eq!(claims(&app.log_in().await)["iss"], provider.issuer());
}

#[tokio::test]
async fn every_page_says_what_this_is_and_admits_nothing_from_outside() {
    let provider = start(|_| {});
    let app = App::of(&provider).await;
    let login = app.authorization_url(&[("login_hint", "erin")]);
    for url in ["/", "/device", "/nothing", "/authorize?client_id=%3Cscript%3E"]
        .map(|path| format!("{}{path}", app.issuer))
        .iter()
        .map(String::as_str)
        .chain([login.as_str()])
    {
        let response = app.http.get(url).send().await.unwrap();
        let policy = response.headers()["content-security-policy"]
            .to_str()
            .unwrap()
            .to_owned();
        assert!(
            policy.starts_with("default-src 'none'; style-src 'sha256-"),
            "{policy}"
        );
        let text = response.text().await.unwrap();
        assert!(
            text.contains(
                "Development identity provider: for trying Epithet on this machine, never for real logins"
            ),
            "{url}"
        );
        assert!(!text.contains("<script"), "{url}");
        if url == login.as_str() {
            assert!(text.contains("value=\"erin\""));
            assert!(
                policy.contains(&app.redirect_uri().replace("/callback", "")),
                "{policy}"
            );
        }
    }
}

#[tokio::test]
async fn a_request_under_a_foreign_name_is_turned_away() {
    let provider = start(|_| {});
    let app = App::of(&provider).await;
    let response = app
        .http
        .get(format!("{}/jwks", app.issuer))
        .header("host", "evil.example")
        .send()
        .await
        .unwrap();
    assert_eq!(response.status(), StatusCode::MISDIRECTED_REQUEST);
    let port = provider.port();
    let response = app
        .http
        .get(format!("http://localhost:{port}/jwks"))
        .send()
        .await
        .unwrap();
    assert_eq!(response.status(), StatusCode::OK);
}

#[test]
fn only_loopback_addresses_are_listened_on() {
    let settings = Settings {
        listen: "0.0.0.0:0".parse().unwrap(),
        ..Settings::default()
    };
    let error = DevProvider::start(settings).unwrap_err();
    assert!(matches!(error, StartError::NotLoopback(_)));
    assert!(error.to_string().contains("127.0.0.1:0"), "{error}");
}

#[test]
fn a_stopped_provider_can_be_followed_by_another_on_its_port() {
    let provider = start(|_| {});
    let port = provider.port();
    provider.stop();
    let listen = std::net::SocketAddr::from(([127, 0, 0, 1], port));
    let second = DevProvider::start(Settings {
        listen,
        ..Settings::default()
    })
    .unwrap();
    let error = DevProvider::start(Settings {
        listen,
        ..Settings::default()
    })
    .unwrap_err();
    assert!(matches!(error, StartError::Listen(_)), "{error}");
    assert_eq!(second.port(), port);
}

#[tokio::test]
async fn a_provider_that_stops_leaves_nobody_waiting() {
    let provider = start(|_| {});
    let app = App::of(&provider).await;
    let tokens = app.log_in().await;
    let _hold = provider.hold_tokens();
    let form = [
        ("grant_type", "refresh_token"),
        ("client_id", "epithet"),
        ("refresh_token", tokens["refresh_token"].as_str().unwrap()),
    ];
    let request = app.http.post(format!("{}/token", app.issuer)).form(&form).send();
    let stopped = async {
        while provider.requests().tokens < 2 {
            tokio::task::yield_now().await;
        }
        provider.stop();
    };
    let (answer, ()) = tokio::join!(request, stopped);
    assert!(answer.is_err(), "{answer:?}");
}
