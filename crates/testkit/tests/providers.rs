//! Logging in at the certified provider and at our own, through the same stand-in for a browser.

#![cfg(test)]

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use epithet_testkit::devidp::{DevProvider, Person, Settings, sign_in};
use epithet_testkit::{CertifiedProvider, DEADLINE, FakeBrowser, Home};
use serde_json::{Value, json};
use std::process::Command;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use url::Url;

const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";

/// A client of whatever provider its discovery document describes.
struct App {
    http: reqwest::Client,
    discovery: Value,
    callback: TcpListener,
}

impl App {
    async fn of(issuer: &str) -> Self {
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let document = format!("{issuer}/.well-known/openid-configuration");
        let discovery = http.get(document).send().await.unwrap().json().await.unwrap();
        Self {
            http,
            discovery,
            callback: TcpListener::bind("127.0.0.1:0").await.unwrap(),
        }
    }

    fn endpoint(&self, name: &str) -> &str {
        self.discovery[name].as_str().unwrap()
    }

    fn redirect_uri(&self) -> String {
        format!("http://{}/callback", self.callback.local_addr().unwrap())
    }

    fn authorization_url(&self) -> String {
        let redirect_uri = self.redirect_uri();
        let parameters = [
            ("client_id", "epithet"),
            ("redirect_uri", redirect_uri.as_str()),
            ("response_type", "code"),
            ("scope", "openid email"),
            ("state", "s"),
            ("nonce", "n"),
            ("code_challenge", CHALLENGE),
            ("code_challenge_method", "S256"),
        ];
        Url::parse_with_params(self.endpoint("authorization_endpoint"), parameters)
            .unwrap()
            .into()
    }

    /// Answers the callback once and returns its parameters.
    async fn called_back(&self) -> Vec<(String, String)> {
        let (mut stream, _) = self.callback.accept().await.unwrap();
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            request.push(stream.read_u8().await.unwrap());
        }
        let reply = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: close\r\n\r\ndone!";
        stream.write_all(reply.as_bytes()).await.unwrap();
        let text = String::from_utf8(request).unwrap();
        let target = Url::parse("http://127.0.0.1")
            .unwrap()
            .join(text.split(' ').nth(1).unwrap())
            .unwrap();
        target.query_pairs().into_owned().collect()
    }

    async fn authorize(&self, person: &Person) -> Vec<(String, String)> {
        let url = self.authorization_url();
        let (page, parameters) = tokio::join!(sign_in(&url, person), self.called_back());
        let page = page.unwrap();
        assert_eq!((page.status, page.text.as_str()), (200, "done!"));
        parameters
    }

    async fn post(&self, endpoint: &str, form: &[(&str, &str)]) -> Value {
        self.http
            .post(self.endpoint(endpoint))
            .form(form)
            .send()
            .await
            .unwrap()
            .json()
            .await
            .unwrap()
    }

    async fn exchange(&self, parameters: &[(String, String)]) -> Value {
        let code = &parameters
            .iter()
            .find(|(name, _)| name == "code")
            .expect("a code")
            .1;
        let form = [
            ("grant_type", "authorization_code"),
            ("client_id", "epithet"),
            ("code", code),
            ("redirect_uri", &self.redirect_uri()),
            ("code_verifier", VERIFIER),
        ];
        self.post("token_endpoint", &form).await
    }

    async fn refresh(&self, tokens: &Value) -> Value {
        let token = tokens["refresh_token"].as_str().expect("a refresh token");
        let form = [
            ("grant_type", "refresh_token"),
            ("client_id", "epithet"),
            ("refresh_token", token),
        ];
        self.post("token_endpoint", &form).await
    }
}

fn decoded(tokens: &Value, index: usize) -> Value {
    let token = tokens["id_token"]
        .as_str()
        .unwrap_or_else(|| panic!("no ID token in {tokens}"));
    serde_json::from_slice(
        &URL_SAFE_NO_PAD
            .decode(token.split('.').nth(index).unwrap())
            .unwrap(),
    )
    .unwrap()
}

#[tokio::test]
async fn the_certified_provider_logs_in_refreshes_and_notices_reuse() {
    let provider = CertifiedProvider::start(&json!({ "idTokenLife": 77 }));
    let app = App::of(provider.issuer()).await;
    let first = app.exchange(&app.authorize(&Person::named("bob")).await).await;
    let claims = decoded(&first, 1);
    assert_eq!(
        (&claims["sub"], &claims["email"]),
        (&json!("bob"), &json!("bob@example.com"))
    );
    assert_eq!(
        (&claims["iss"], &claims["aud"]),
        (&json!(provider.issuer()), &json!("epithet"))
    );
    assert_eq!(
        claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(),
        77
    );
    assert_eq!(claims["nonce"], "n");

    let second = app.refresh(&first).await;
    assert_eq!(decoded(&second, 1)["sub"], "bob");
    assert_ne!(first["refresh_token"], second["refresh_token"]);
    assert_eq!(app.refresh(&first).await["error"], "invalid_grant");
    assert_eq!(
        app.refresh(&second).await["error"],
        "invalid_grant",
        "reuse ended the login"
    );
    provider.wait_for_event("login revoked");
    assert_eq!(provider.events("grant refresh_token"), 1);
}

#[tokio::test]
async fn a_person_can_refuse_at_the_certified_provider() {
    let provider = CertifiedProvider::start(&json!({}));
    let app = App::of(provider.issuer()).await;
    let parameters = app.authorize(&Person::default().who_refuses()).await;
    assert!(
        parameters.contains(&("error".into(), "access_denied".into())),
        "{parameters:?}"
    );
    let parameters = app.authorize(&Person::named("nobody")).await;
    assert!(
        parameters.contains(&("error".into(), "access_denied".into())),
        "{parameters:?}"
    );
}

#[tokio::test]
async fn the_certified_provider_s_switches_work() {
    let provider = CertifiedProvider::start(&json!({ "algorithm": "ES256" }));
    let app = App::of(provider.issuer()).await;
    let first = app.exchange(&app.authorize(&Person::default()).await).await;
    let kid = decoded(&first, 0)["kid"].clone();

    provider.set_down(true);
    let document = format!("{}/.well-known/openid-configuration", provider.issuer());
    assert_eq!(app.http.get(&document).send().await.unwrap().status(), 503);
    provider.set_down(false);

    provider.rotate_keys();
    let second = app.refresh(&first).await;
    assert_eq!(decoded(&second, 0)["alg"], "ES256");
    assert_ne!(decoded(&second, 0)["kid"], kid);
    let keys = async || {
        app.http
            .get(app.endpoint("jwks_uri"))
            .send()
            .await
            .unwrap()
            .json::<Value>()
            .await
            .unwrap()
    };
    assert_eq!(keys().await["keys"].as_array().unwrap().len(), 2);
    provider.retire_old_keys();
    assert_eq!(keys().await["keys"].as_array().unwrap().len(), 1);

    provider.set_clock_offset(-1000);
    let iat = |tokens: &Value| decoded(tokens, 1)["iat"].as_i64().unwrap();
    let third = app.refresh(&second).await;
    assert!((-1010..=-900).contains(&(iat(&third) - iat(&second))), "{third}");
    provider.set_clock_offset(0);
    provider.revoke_all();
    assert_eq!(app.refresh(&third).await["error"], "invalid_grant");
}

#[tokio::test]
async fn a_device_is_approved_on_the_certified_provider_s_pages() {
    let provider = CertifiedProvider::start(&json!({}));
    let app = App::of(provider.issuer()).await;
    let form = [("client_id", "epithet"), ("scope", "openid email")];
    let grant = "urn:ietf:params:oauth:grant-type:device_code";
    for (person, outcome) in [
        (Person::named("carol"), None),
        (Person::default().who_refuses(), Some("access_denied")),
    ] {
        let device = app.post("device_authorization_endpoint", &form).await;
        let code = device["device_code"].as_str().unwrap();
        let poll = [
            ("grant_type", grant),
            ("client_id", "epithet"),
            ("device_code", code),
        ];
        assert_eq!(
            app.post("token_endpoint", &poll).await["error"],
            "authorization_pending"
        );
        let page = sign_in(device["verification_uri_complete"].as_str().unwrap(), &person)
            .await
            .unwrap();
        let tokens = app.post("token_endpoint", &poll).await;
        match outcome {
            None => assert_eq!(decoded(&tokens, 1)["sub"], "carol", "{}", page.text),
            Some(error) => assert_eq!(tokens["error"], error, "{}", page.text),
        }
    }
}

#[tokio::test]
async fn a_browser_that_is_started_signs_in_and_remembers_where() {
    let provider = DevProvider::start(Settings::default()).unwrap();
    let app = App::of(provider.issuer()).await;
    let home = Home::new();
    let browser = FakeBrowser::with_person(home.path(), Person::named("dave"));
    let url = app.authorization_url();
    // As a plugin starts it: through a shell, without waiting for it.
    let mut started = Command::new("/bin/sh")
        .arg("-c")
        .arg("\"$0\" \"$1\"")
        .arg(browser.program())
        .arg(&url)
        .spawn()
        .unwrap();
    let tokens = app.exchange(&app.called_back().await).await;
    assert_eq!(decoded(&tokens, 1)["sub"], "dave");
    assert!(started.wait().unwrap().success());
    assert_eq!(browser.opened(), [url]);
    assert_eq!(browser.next_page(DEADLINE).unwrap().unwrap().text, "done!");
}

#[test]
fn a_browser_with_nobody_in_front_of_it_says_what_it_was_to_open() {
    let home = Home::new();
    let browser = FakeBrowser::with_nobody(home.path());
    home.run(browser.program(), ["http://127.0.0.1:1/?a=b&c='d'"])
        .success();
    assert_eq!(
        browser.next_url(DEADLINE).unwrap(),
        "http://127.0.0.1:1/?a=b&c='d'"
    );
}
