//! The provider. Honest until told otherwise, one lie at a time.

use super::keys::{SigningKey, b64, rsa};
use super::now;
use aws_lc_rs::digest;
use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use epithet_oidc::{Http, Issuer};
use serde_json::{Value, json};
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

pub(crate) const CLIENT: &str = "ssh-login";

/// What to answer instead of the truth.
#[derive(Clone)]
pub(crate) enum Instead {
    Status(u16),
    /// Status, content type, body.
    Reply(u16, &'static str, String),
    Redirect(String),
    /// A body without end.
    Endless,
    /// A byte a tenth of a second.
    Drip,
}

type Change = Box<dyn Fn(&mut Value) + Send>;

pub(crate) struct Settings {
    pub(crate) discovery: Change,
    pub(crate) header: Change,
    pub(crate) claims: Change,
    pub(crate) token_reply: Change,
    pub(crate) device_reply: Change,
    /// What the authorization response says besides code and state.
    pub(crate) response: Change,
    pub(crate) signer: &'static SigningKey,
    pub(crate) published: Vec<Value>,
    pub(crate) instead: HashMap<&'static str, Instead>,
    pub(crate) cache_control: &'static str,
    pub(crate) rotates: bool,
    pub(crate) keeps_refresh_token: bool,
    pub(crate) refresh_without_id_token: bool,
    pub(crate) secret: Option<&'static str>,
    /// Errors for the polls of a device login, in turn; then success.
    pub(crate) polls: VecDeque<&'static str>,
    /// Seconds that the provider's clock is off.
    pub(crate) clock: i64,
}

impl Default for Settings {
    fn default() -> Self {
        let nothing = || -> Change { Box::new(|_| ()) };
        Self {
            discovery: nothing(),
            header: nothing(),
            claims: nothing(),
            token_reply: nothing(),
            device_reply: nothing(),
            response: nothing(),
            signer: rsa(),
            published: vec![rsa().jwk()],
            instead: HashMap::new(),
            cache_control: "max-age=3600",
            rotates: false,
            keeps_refresh_token: true,
            refresh_without_id_token: false,
            secret: None,
            polls: VecDeque::new(),
            clock: 0,
        }
    }
}

#[derive(Default)]
struct Grants {
    /// code → nonce, challenge, redirect address
    codes: HashMap<String, (Option<String>, String, String)>,
    refresh_tokens: Vec<String>,
    used_refresh_tokens: Vec<String>,
    revoked: Vec<(String, String)>,
    count: u64,
}

pub(crate) struct World {
    pub(crate) issuer: String,
    settings: Mutex<Settings>,
    grants: Mutex<Grants>,
    /// `GET /keys` and so on, in the order they came.
    requests: Mutex<Vec<String>>,
    /// The forms of requests to the token endpoint.
    pub(crate) forms: Mutex<Vec<HashMap<String, String>>>,
    pub(crate) authorizations: Mutex<Vec<Option<String>>>,
}

pub(crate) struct Provider {
    pub(crate) world: Arc<World>,
    task: Option<JoinHandle<()>>,
    address: std::net::SocketAddr,
}

impl Provider {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let world = Arc::new(World {
            issuer: format!("http://{address}"),
            settings: Mutex::default(),
            grants: Mutex::default(),
            requests: Mutex::default(),
            forms: Mutex::default(),
            authorizations: Mutex::default(),
        });
        let mut provider = Self {
            world,
            task: None,
            address,
        };
        provider.task = Some(provider.serve(listener));
        provider
    }

    fn serve(&self, listener: TcpListener) -> JoinHandle<()> {
        let router = Router::new().fallback(answer).with_state(self.world.clone());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() })
    }

    /// The provider is gone: connections are refused.
    pub(crate) async fn stop(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
            let _ = task.await;
        }
    }

    /// Which refresh tokens were used and are of no use any more.
    pub(crate) fn used_refresh_tokens(&self) -> usize {
        self.world.grants.lock().unwrap().used_refresh_tokens.len()
    }

    pub(crate) async fn start_again(&mut self) {
        let listener = TcpListener::bind(self.address).await.unwrap();
        self.task = Some(self.serve(listener));
    }

    pub(crate) fn settings(&self) -> MutexGuard<'_, Settings> {
        self.world.settings.lock().unwrap()
    }

    pub(crate) fn issuer(&self) -> Issuer {
        Issuer::parse(&self.world.issuer).unwrap()
    }

    pub(crate) fn http(&self) -> Arc<Http> {
        Arc::default()
    }

    /// How often something was asked, as in `GET /keys`.
    pub(crate) fn count(&self, request: &str) -> usize {
        self.world
            .requests
            .lock()
            .unwrap()
            .iter()
            .filter(|seen| *seen == request)
            .count()
    }

    pub(crate) fn forget_requests(&self) {
        self.world.requests.lock().unwrap().clear();
    }

    pub(crate) fn revoked(&self) -> Vec<(String, String)> {
        self.world.grants.lock().unwrap().revoked.clone()
    }

    /// Ends all sessions, as an administrator would.
    pub(crate) fn end_sessions(&self) {
        self.world.grants.lock().unwrap().refresh_tokens.clear();
    }

    /// A token as it would be given out.
    pub(crate) fn token(&self) -> String {
        self.world.id_token(&self.settings(), None, None)
    }
}

impl World {
    fn id_token(&self, settings: &Settings, nonce: Option<&str>, access_token: Option<&str>) -> String {
        let now = now().saturating_add_signed(settings.clock);
        let mut claims = json!({
            "iss": self.issuer, "sub": "alice-1", "aud": CLIENT, "iat": now, "exp": now + 300,
            "auth_time": 1_700_000_000, "email": "alice@example.com", "email_verified": true,
        });
        if let Some(nonce) = nonce {
            claims["nonce"] = nonce.into();
        }
        if let Some(access_token) = access_token {
            let hash = digest::digest(&digest::SHA256, access_token.as_bytes());
            claims["at_hash"] = b64(&hash.as_ref()[..16]).into();
        }
        (settings.claims)(&mut claims);
        let mut header = settings.signer.header();
        (settings.header)(&mut header);
        settings
            .signer
            .token_with(&header.to_string(), &claims.to_string())
    }

    fn next(&self, what: &str) -> String {
        let mut grants = self.grants.lock().unwrap();
        grants.count += 1;
        format!("{what}-{}", grants.count)
    }
}

async fn answer(State(world): State<Arc<World>>, request: Request) -> Response {
    let path = request.uri().path().to_owned();
    world
        .requests
        .lock()
        .unwrap()
        .push(format!("{} {path}", request.method()));
    let instead = world.settings.lock().unwrap().instead.get(path.as_str()).cloned();
    if let Some(instead) = instead {
        return instead.into_response();
    }
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
    let form: HashMap<String, String> = form_pairs(&body).collect();
    let query: HashMap<String, String> =
        form_pairs(parts.uri.query().unwrap_or_default().as_bytes()).collect();
    match path.as_str() {
        "/.well-known/openid-configuration" => world.discovery(),
        "/keys" => world.keys(&parts.headers),
        "/authorize" => world.authorize(&query),
        "/token" | "/moved" => {
            world.forms.lock().unwrap().push(form.clone());
            world.token(&form, &parts.headers)
        }
        "/device" => world.device(&form),
        "/revoke" => {
            let token = (form["token_type_hint"].clone(), form["token"].clone());
            world.grants.lock().unwrap().revoked.push(token);
            StatusCode::OK.into_response()
        }
        _ => StatusCode::NOT_FOUND.into_response(),
    }
}

fn form_pairs(text: &[u8]) -> impl Iterator<Item = (String, String)> + '_ {
    url::form_urlencoded::parse(text).map(|(name, value)| (name.into_owned(), value.into_owned()))
}

fn refuse(error: &str) -> Response {
    (
        StatusCode::BAD_REQUEST,
        axum::Json(json!({"error": error, "error_description": format!("words about {error}")})),
    )
        .into_response()
}

impl World {
    fn discovery(&self) -> Response {
        let settings = self.settings.lock().unwrap();
        let issuer = &self.issuer;
        let mut document = json!({
            "issuer": issuer,
            "authorization_endpoint": format!("{issuer}/authorize"),
            "token_endpoint": format!("{issuer}/token"),
            "jwks_uri": format!("{issuer}/keys"),
            "device_authorization_endpoint": format!("{issuer}/device"),
            "revocation_endpoint": format!("{issuer}/revoke"),
            "scopes_supported": ["openid", "profile", "email", "offline_access"],
            "code_challenge_methods_supported": ["S256"],
            "grant_types_supported": ["authorization_code", "refresh_token"],
        });
        (settings.discovery)(&mut document);
        (
            [(header::CACHE_CONTROL, settings.cache_control)],
            axum::Json(document),
        )
            .into_response()
    }

    fn keys(&self, headers: &HeaderMap) -> Response {
        let settings = self.settings.lock().unwrap();
        let document = json!({"keys": settings.published}).to_string();
        let etag = format!(
            "\"{}\"",
            b64(&digest::digest(&digest::SHA256, document.as_bytes()).as_ref()[..8])
        );
        let caching = [
            (header::CACHE_CONTROL, settings.cache_control.to_owned()),
            (header::ETAG, etag.clone()),
        ];
        if headers
            .get(header::IF_NONE_MATCH)
            .is_some_and(|known| known.as_bytes() == etag.as_bytes())
        {
            return (StatusCode::NOT_MODIFIED, caching).into_response();
        }
        (caching, [(header::CONTENT_TYPE, "application/json")], document).into_response()
    }

    /// The person agrees at once.
    fn authorize(&self, query: &HashMap<String, String>) -> Response {
        assert_eq!(query["response_type"], "code");
        assert_eq!(query["code_challenge_method"], "S256");
        let code = self.next("code");
        let grant = (
            query.get("nonce").cloned(),
            query["code_challenge"].clone(),
            query["redirect_uri"].clone(),
        );
        self.grants.lock().unwrap().codes.insert(code.clone(), grant);
        let mut response = json!({"code": code, "state": query["state"]});
        (self.settings.lock().unwrap().response)(&mut response);
        let mut target = url::Url::parse(&query["redirect_uri"]).unwrap();
        for (name, value) in response.as_object().unwrap() {
            target
                .query_pairs_mut()
                .append_pair(name, value.as_str().unwrap());
        }
        (StatusCode::FOUND, [(header::LOCATION, target.to_string())]).into_response()
    }

    fn device(&self, form: &HashMap<String, String>) -> Response {
        assert_eq!(form["client_id"], CLIENT);
        assert_eq!(
            form["code_challenge"].len(),
            43,
            "PKCE goes along where the provider lists it"
        );
        let issuer = &self.issuer;
        let mut reply = json!({
            "device_code": "dev", "user_code": "WDJB-MJHT", "verification_uri": format!("{issuer}/enter"),
            "verification_uri_complete": format!("{issuer}/enter?user_code=WDJB-MJHT"),
            "expires_in": 600, "interval": 1,
        });
        (self.settings.lock().unwrap().device_reply)(&mut reply);
        axum::Json(reply).into_response()
    }

    fn token(&self, form: &HashMap<String, String>, headers: &HeaderMap) -> Response {
        let authorization = headers
            .get(header::AUTHORIZATION)
            .map(|value| value.to_str().unwrap().to_owned());
        self.authorizations.lock().unwrap().push(authorization.clone());
        let secret = self.settings.lock().unwrap().secret;
        if let Some(secret) = secret {
            let basic = format!("Basic {}", STANDARD.encode(format!("{CLIENT}:{secret}")));
            if authorization.as_deref() != Some(&basic)
                && form.get("client_secret").map(String::as_str) != Some(secret)
            {
                return (
                    StatusCode::UNAUTHORIZED,
                    axum::Json(json!({"error": "invalid_client"})),
                )
                    .into_response();
            }
        }
        assert_eq!(form.get("client_id").map(String::as_str), Some(CLIENT));
        match form["grant_type"].as_str() {
            "authorization_code" => {
                let Some((nonce, challenge, redirect_uri)) =
                    self.grants.lock().unwrap().codes.remove(&form["code"])
                else {
                    return refuse("invalid_grant");
                };
                let verifier = digest::digest(&digest::SHA256, form["code_verifier"].as_bytes());
                if b64(verifier) != challenge || form["redirect_uri"] != redirect_uri {
                    return refuse("invalid_grant");
                }
                self.tokens(nonce.as_deref(), true, true)
            }
            "refresh_token" => {
                let (rotates, keeps) = {
                    let settings = self.settings.lock().unwrap();
                    (settings.rotates, settings.keeps_refresh_token)
                };
                {
                    let mut grants = self.grants.lock().unwrap();
                    let token = &form["refresh_token"];
                    if grants.used_refresh_tokens.contains(token) {
                        // Reuse: the whole family goes (RFC 9700 section 4.14.2).
                        grants.refresh_tokens.clear();
                    }
                    if !grants.refresh_tokens.contains(token) {
                        return refuse("invalid_grant");
                    }
                    if rotates {
                        grants.refresh_tokens.retain(|known| known != token);
                        grants.used_refresh_tokens.push(token.clone());
                    }
                }
                let without = self.settings.lock().unwrap().refresh_without_id_token;
                self.tokens(None, rotates || !keeps, !without)
            }
            "urn:ietf:params:oauth:grant-type:device_code" => {
                let next = self.settings.lock().unwrap().polls.pop_front();
                match next {
                    Some("503") => StatusCode::SERVICE_UNAVAILABLE.into_response(),
                    Some(error) => refuse(error),
                    None => self.tokens(None, true, true),
                }
            }
            other => panic!("{other}"),
        }
    }

    fn tokens(&self, nonce: Option<&str>, with_refresh_token: bool, with_id_token: bool) -> Response {
        let (access_token, refresh_token) = (self.next("access"), self.next("refresh"));
        let mut reply = json!({"access_token": access_token, "token_type": "Bearer", "expires_in": 300});
        let settings = self.settings.lock().unwrap();
        if with_id_token {
            reply["id_token"] = self.id_token(&settings, nonce, Some(&access_token)).into();
        }
        if with_refresh_token {
            self.grants
                .lock()
                .unwrap()
                .refresh_tokens
                .push(refresh_token.clone());
            reply["refresh_token"] = refresh_token.into();
        }
        (settings.token_reply)(&mut reply);
        axum::Json(reply).into_response()
    }
}

impl IntoResponse for Instead {
    fn into_response(self) -> Response {
        match self {
            Self::Status(status) => StatusCode::from_u16(status).unwrap().into_response(),
            Self::Reply(status, content_type, body) => (
                StatusCode::from_u16(status).unwrap(),
                [(header::CONTENT_TYPE, content_type)],
                body,
            )
                .into_response(),
            Self::Redirect(target) => (StatusCode::FOUND, [(header::LOCATION, target)]).into_response(),
            Self::Endless => {
                let chunk = axum::body::Bytes::from(vec![b' '; 64 * 1024]);
                body(move |_| std::future::ready(chunk.clone()))
            }
            Self::Drip => body(|_| async {
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                axum::body::Bytes::from_static(b" ")
            }),
        }
    }
}

/// A body without end, made of what `next` gives.
fn body<F>(mut next: impl FnMut(()) -> F + Send + 'static) -> Response
where
    F: Future<Output = axum::body::Bytes> + Send + 'static,
{
    let (mut writer, reader) = tokio::io::duplex(64 * 1024);
    tokio::spawn(async move {
        loop {
            let chunk = next(()).await;
            if tokio::io::AsyncWriteExt::write_all(&mut writer, &chunk)
                .await
                .is_err()
            {
                return;
            }
        }
    });
    let stream = ReaderBody(reader);
    ([(header::CONTENT_TYPE, "application/json")], Body::new(stream)).into_response()
}

struct ReaderBody(tokio::io::DuplexStream);

impl axum::body::HttpBody for ReaderBody {
    type Data = axum::body::Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<hyper::body::Frame<Self::Data>, Self::Error>>> {
        let mut bytes = [0; 16 * 1024];
        let mut buffer = tokio::io::ReadBuf::new(&mut bytes);
        std::task::ready!(tokio::io::AsyncRead::poll_read(
            std::pin::Pin::new(&mut self.0),
            context,
            &mut buffer
        ))?;
        let chunk = axum::body::Bytes::copy_from_slice(buffer.filled());
        std::task::Poll::Ready(Some(Ok(hyper::body::Frame::data(chunk))))
    }
}
