//! One CA over HTTP: a request for a certificate, its front page, and the discovery document.

use crate::ca_address::CaAddress;
use crate::ca_answer::{Answered, Head, answer, policy_time, read_body, unavailable};
use crate::ca_look::front_key;
use crate::ca_problem::no_answer;
use crate::dial::Dial;
use crate::discovery_link::{discovery_target, discovery_url};
use bytes::Bytes;
use epithet_agent::Clock;
use epithet_wire::ca::{CertificateRequest, Discovery, IDEMPOTENCY_KEY_HEADER, REQUEST_ID_HEADER};
use epithet_wire::limits::{CA_CONNECT_DEADLINE, CA_IDLE};
use epithet_wire::{HeaderToken, RequestId, TOKEN_ENCODING_HEADER, Token};
use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimeParser;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, DATE, HeaderValue, InvalidHeaderValue, LINK};
use reqwest::{Response, StatusCode};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use url::Url;
use zeroize::Zeroizing;

/// A request for a certificate, ready to be sent to one CA or several.
pub(crate) struct Post {
    bearer: HeaderValue,
    is_encoded: bool,
    body: Vec<u8>,
    request_id: RequestId,
}

impl Post {
    /// # Errors
    /// What is wrong with it, which is none of the CA's fault.
    pub(crate) fn new(
        token: &Token,
        body: &CertificateRequest,
        request_id: &RequestId,
    ) -> Result<Self, String> {
        let header = token.header_value();
        Ok(Self {
            bearer: bearer(&header).map_err(|_| "the token cannot be sent in a header")?,
            is_encoded: header.encoded,
            body: serde_json::to_vec(body).map_err(|_| "the request cannot be written as JSON")?,
            request_id: request_id.clone(),
        })
    }
}

/// The HTTP client all CAs share: one pool of connections, no redirects, every wait bounded.
#[derive(Debug, Clone)]
pub struct CaHttp {
    recipe: Arc<Recipe>,
    fresh: Arc<Mutex<Fresh>>,
}

/// What a client is made of.
#[derive(Debug)]
struct Recipe {
    roots: Vec<reqwest::Certificate>,
    deadline: Duration,
}

/// One for CAs over TLS, and one for those without it, which are on this machine ([`Endpoint`](epithet_wire::Endpoint) sees
/// to that) and asked without a proxy: it would get the token in the clear.
#[derive(Debug)]
struct Clients {
    tls: reqwest::Client,
    local: reqwest::Client,
}

impl Clients {
    fn of(&self, url: &Url) -> reqwest::Client {
        match url.scheme() {
            "https" => self.tls.clone(),
            _ => self.local.clone(),
        }
    }
}

/// Clients, and how long the machine had slept when they were made.
#[derive(Debug)]
struct Fresh {
    clients: Clients,
    slept: Duration,
}

/// A machine that slept for longer has lost its connections, and does not know it.
const SLEPT: Duration = Duration::from_secs(5);
/// How often an unused connection is asked whether it still leads anywhere, and how long it may take to answer.
const PING: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(3));

/// An answer to `GET` at a CA's own address.
#[derive(Debug)]
pub(crate) struct FrontPage {
    pub(crate) body: String,
    pub(crate) date: Option<Timestamp>,
}

/// Why the client could not be made.
#[derive(Debug, thiserror::Error)]
pub enum CaHttpError {
    /// The file of `--tls-ca-cert`.
    #[error("--tls-ca-cert: {0}")]
    Roots(reqwest::Error),
    /// TLS itself.
    #[error("cannot set up TLS: {0}")]
    Tls(reqwest::Error),
}

/// The value of `Authorization`, whose bytes are wiped when the last request that has them is gone.
fn bearer(header: &HeaderToken) -> Result<HeaderValue, InvalidHeaderValue> {
    const SCHEME: &[u8] = b"Bearer ";
    let mut value = Zeroizing::new(Vec::with_capacity(SCHEME.len() + header.value.len()));
    value.extend_from_slice(SCHEME);
    value.extend_from_slice(header.value.as_bytes());
    let mut value = HeaderValue::from_maybe_shared(Bytes::from_owner(value))?;
    value.set_sensitive(true);
    Ok(value)
}

impl Recipe {
    fn clients(&self) -> Result<Clients, CaHttpError> {
        let make = |builder: reqwest::ClientBuilder| builder.build().map_err(CaHttpError::Tls);
        Ok(Clients {
            tls: make(self.builder().tls_certs_merge(self.roots.clone()))?,
            local: make(self.builder().no_proxy().tls_certs_only([]))?,
        })
    }

    fn builder(&self) -> reqwest::ClientBuilder {
        reqwest::Client::builder()
            .user_agent(concat!("epithet/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CA_CONNECT_DEADLINE)
            .timeout(self.deadline)
            .pool_max_idle_per_host(8)
            .pool_idle_timeout(CA_IDLE)
            // A connection over a network that is gone is found out while nobody waits for it.
            .http2_keep_alive_interval(PING.0)
            .http2_keep_alive_timeout(PING.1)
            .http2_keep_alive_while_idle(true)
    }
}

impl CaHttp {
    /// A client that trusts the system's roots and those of `roots` (PEM, of `--tls-ca-cert`), and waits at most `deadline` for an answer.
    pub fn new(roots: Option<&[u8]>, deadline: Duration) -> Result<Self, CaHttpError> {
        let roots = roots.map_or(Ok(Vec::new()), reqwest::Certificate::from_pem_bundle);
        let roots = roots.map_err(CaHttpError::Roots)?;
        let recipe = Recipe { roots, deadline };
        let fresh = Fresh {
            clients: recipe.clients()?,
            slept: Clock::default().slept(),
        };
        Ok(Self {
            recipe: Arc::new(recipe),
            fresh: Arc::new(Mutex::new(fresh)),
        })
    }

    /// The client for a URL; a new one, without old connections, when the machine has slept.
    fn client(&self, url: &Url, clock: &Clock) -> reqwest::Client {
        let slept = clock.slept();
        let mut fresh = self.fresh.lock().unwrap_or_else(PoisonError::into_inner);
        if slept.saturating_sub(fresh.slept) > SLEPT {
            tracing::info!("the machine has slept; connections to CAs are made anew");
            if let Ok(clients) = self.recipe.clients() {
                *fresh = Fresh { clients, slept };
            }
        }
        fresh.clients.of(url)
    }

    /// Asks a CA for a certificate.
    pub(crate) async fn certificate(
        &self,
        ca: &CaAddress,
        post: &Post,
        dial: &Dial,
        clock: &Clock,
    ) -> Answered {
        let mut request = self
            .client(&ca.url, clock)
            .post(ca.url.clone())
            .header(AUTHORIZATION, post.bearer.clone())
            .header(CONTENT_TYPE, "application/json")
            .header(REQUEST_ID_HEADER, post.request_id.as_str())
            .header(IDEMPOTENCY_KEY_HEADER, post.request_id.as_str())
            .body(post.body.clone());
        if post.is_encoded {
            request = request.header(TOKEN_ENCODING_HEADER, "base64url");
        }
        let _ahead = match ca.url.scheme() {
            "https" => dial.go().await,
            _ => None,
        };
        match request.send().await {
            Ok(response) => {
                dial.answered(response.version() == reqwest::Version::HTTP_2);
                Answered {
                    policy: policy_time(&response),
                    answer: answer(response, &ca.url, clock).await,
                }
            }
            Err(error) => {
                dial.failed();
                unavailable(no_answer(&error, &ca.url).await).into()
            }
        }
    }

    /// What the CA says to anybody at its own address, and the time by its clock.
    pub(crate) async fn front_page(&self, ca: &CaAddress) -> Result<FrontPage, String> {
        let response = self.get(&ca.url, &Clock::default()).await?;
        let date = (response.headers().get(DATE))
            .and_then(|value| DateTimeParser::new().parse_timestamp(value.to_str().ok()?).ok());
        let head = Head::of(&response);
        let body = read_body(response, &ca.url).await?;
        if let Some(problem) = head.not_a_ca(&body) {
            return Err(problem);
        }
        Ok(FrontPage {
            body: String::from_utf8_lossy(&body).into_owned(),
            date,
        })
    }

    /// The CA's discovery document, found by its `Link` header; `None` when it has none.
    pub(crate) async fn discovery(&self, ca: &CaAddress, clock: &Clock) -> Result<Option<Discovery>, String> {
        let response = self.get(&ca.url, clock).await?;
        let links = response.headers().get_all(LINK);
        let target = links
            .iter()
            .find_map(|value| discovery_target(&String::from_utf8_lossy(value.as_bytes())));
        let Some(target) = target else {
            let head = Head::of(&response);
            let body = read_body(response, &ca.url).await?;
            return match head.not_a_ca(&body) {
                Some(problem) => Err(problem),
                None => front_key(&body).map(|_| None),
            };
        };
        let url = discovery_url(&ca.url, &target)?;
        let response = self.get(&url, clock).await?;
        let body = read_body(response, &ca.url).await?;
        epithet_wire::read_document(&body)
            .map(Some)
            .map_err(|error| format!("its discovery document is not understood: {error}"))
    }

    async fn get(&self, url: &Url, clock: &Clock) -> Result<Response, String> {
        let response = match self.client(url, clock).get(url.clone()).send().await {
            Ok(response) => response,
            Err(error) => return Err(no_answer(&error, url).await),
        };
        match response.status() {
            StatusCode::OK => Ok(response),
            status => Err((Head::of(&response).not_a_ca(b""))
                .unwrap_or_else(|| format!("it answered {status} to GET {}", url.path()))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// A server that says the same to every request and keeps connections open; and how many it has had.
    fn keeping_connections() -> (CaAddress, Arc<AtomicUsize>) {
        use std::io::{BufRead, BufReader, Write};
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let count = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&count);
        let key = epithet_ssh::CaKey::generate_ed25519().unwrap().public_line();
        std::thread::spawn(move || {
            for mut stream in listener.incoming().map_while(Result::ok) {
                counter.fetch_add(1, Ordering::SeqCst);
                let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{key}", key.len());
                std::thread::spawn(move || {
                    let lines = BufReader::new(stream.try_clone().unwrap()).lines();
                    for line in lines.map_while(Result::ok) {
                        if line.is_empty() {
                            stream.write_all(answer.as_bytes()).unwrap();
                        }
                    }
                });
            }
        });
        (url.parse().unwrap(), count)
    }

    #[tokio::test]
    async fn a_connection_serves_again_but_not_after_the_machine_has_slept() {
        let (ca, count) = keeping_connections();
        let (http, clock) = (
            CaHttp::new(None, Duration::from_secs(30)).unwrap(),
            Clock::movable(),
        );
        for (sleeps, connections) in [(0, 1), (0, 1), (2, 1), (3600, 2), (0, 2)] {
            // What gives the connection back to the pool has its turn first.
            for _ in 0..100 {
                tokio::task::yield_now().await;
            }
            clock.sleep(Duration::from_secs(sleeps));
            assert_eq!(http.discovery(&ca, &clock).await, Ok(None));
            assert_eq!(
                count.load(Ordering::SeqCst),
                connections,
                "after {sleeps} s of sleep"
            );
        }
    }
}
