//! A client application, as the tests need one.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use epithet_devidp::{DevProvider, Page, Person, Settings, sign_in};
use reqwest::{Client, StatusCode};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use url::Url;

pub(crate) const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
pub(crate) const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";

pub(crate) type Answer = (StatusCode, Value);

/// A client application: a callback that answers one request, and the requests a login needs.
pub(crate) struct App {
    pub(crate) http: Client,
    pub(crate) issuer: String,
    pub(crate) callback: TcpListener,
}

impl App {
    pub(crate) async fn of(provider: &DevProvider) -> Self {
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

    pub(crate) fn redirect_uri(&self) -> String {
        format!("http://{}/callback", self.callback.local_addr().unwrap())
    }

    pub(crate) fn authorization_url(&self, changes: &[(&str, &str)]) -> Url {
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
    pub(crate) async fn authorize(
        &self,
        person: &Person,
        changes: &[(&str, &str)],
    ) -> (Page, Vec<(String, String)>) {
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

    pub(crate) async fn code(&self) -> String {
        let (_, parameters) = self.authorize(&Person::default(), &[]).await;
        parameters.into_iter().find(|(name, _)| name == "code").unwrap().1
    }

    pub(crate) async fn post(&self, path: &str, form: &[(&str, &str)]) -> Answer {
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

    pub(crate) async fn exchange(&self, code: &str, changes: &[(&str, &str)]) -> Answer {
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

    pub(crate) async fn log_in(&self) -> Value {
        let (status, tokens) = self.exchange(&self.code().await, &[]).await;
        assert_eq!(status, StatusCode::OK, "{tokens}");
        tokens
    }

    pub(crate) async fn refresh(&self, tokens: &Value) -> Answer {
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

    pub(crate) async fn get(&self, path: &str) -> Value {
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

pub(crate) fn start(change: impl FnOnce(&mut Settings)) -> DevProvider {
    let mut settings = Settings::default();
    change(&mut settings);
    DevProvider::start(settings).unwrap()
}

pub(crate) fn part(token: &str, index: usize) -> Value {
    serde_json::from_slice(
        &URL_SAFE_NO_PAD
            .decode(token.split('.').nth(index).unwrap())
            .unwrap(),
    )
    .unwrap()
}

pub(crate) fn claims(tokens: &Value) -> Value {
    part(tokens["id_token"].as_str().unwrap(), 1)
}

pub(crate) fn error(answer: &Answer) -> &str {
    answer.1["error"].as_str().unwrap_or_default()
}
