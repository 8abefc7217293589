//! One CA over HTTP: a request for a certificate, the discovery document, and what each answer means.

use crate::ca_address::CaAddress;
use bytes::Bytes;
use epithet_wire::ca::{
    AUTH_RELATION, CertificateRequest, CertificateResponse, DISCOVERY_RELATION, Discovery, REQUEST_ID_HEADER,
};
use epithet_wire::display::sanitize_line;
use epithet_wire::limits::{CA_CONNECT_DEADLINE, HTTP_BODY_MAX};
use epithet_wire::trace::server_timing;
use epithet_wire::{HeaderToken, RequestId, TOKEN_ENCODING_HEADER, Token};
use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimeParser;
use reqwest::header::{
    AUTHORIZATION, CONTENT_TYPE, DATE, HeaderValue, InvalidHeaderValue, LINK, RETRY_AFTER,
};
use reqwest::{Response, StatusCode};
use std::path::Path;
use std::time::Duration;
use url::Url;
use zeroize::Zeroizing;

/// How much of a CA's words is shown to a person.
const WORDS_SHOWN: usize = 500;

/// What a CA said, or why it said nothing. The text is the CA's own, made harmless.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum CaAnswer {
    /// 200 with a certificate line, not yet looked into.
    Certificate(String),
    /// 401: this token is not accepted.
    Unauthorized(String),
    /// 403: the person may not do this.
    Denied(String),
    /// 422: the host is none of this CA's.
    NotHandled(String),
    /// Another 4xx: our request is wrong.
    BadRequest(String),
    /// Unreachable, 5xx, or an answer that is none.
    Unavailable {
        problem: String,
        retry_after: Option<Duration>,
    },
}

impl CaAnswer {
    /// The answer as a trace names it.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Certificate(_) => "certificate",
            Self::Unauthorized(_) => "401, token not accepted",
            Self::Denied(_) => "403, denied",
            Self::NotHandled(_) => "422, not its host",
            Self::BadRequest(_) => "our request is wrong",
            Self::Unavailable { .. } => "unavailable",
        }
    }
}

/// A CA's answer, and how long the policy server took for its part as far as the CA says (`Server-Timing: policy;dur=…`).
#[derive(Debug)]
pub(crate) struct Answered {
    pub(crate) answer: CaAnswer,
    pub(crate) policy: Option<Duration>,
}

impl From<CaAnswer> for Answered {
    fn from(answer: CaAnswer) -> Self {
        Self { answer, policy: None }
    }
}

/// The HTTP client all CAs share: one pool of connections, no redirects, every wait bounded.
#[derive(Debug, Clone)]
pub struct CaHttp {
    client: reqwest::Client,
}

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
    #[error("--tls-ca-cert {path}: {problem}")]
    Roots {
        /// Which file.
        path: std::path::PathBuf,
        /// What is wrong with it.
        problem: String,
    },
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

impl CaHttp {
    /// A client that trusts the system's roots and those of `tls_ca_cert`, and waits at most `deadline` for an answer.
    pub fn new(tls_ca_cert: Option<&Path>, deadline: Duration) -> Result<Self, CaHttpError> {
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("epithet/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CA_CONNECT_DEADLINE)
            .timeout(deadline)
            .pool_max_idle_per_host(8)
            .pool_idle_timeout(Duration::from_secs(50));
        if let Some(path) = tls_ca_cert {
            let error = |problem: String| CaHttpError::Roots {
                path: path.to_owned(),
                problem,
            };
            let pem = std::fs::read(path).map_err(|problem| error(problem.to_string()))?;
            let roots =
                reqwest::Certificate::from_pem_bundle(&pem).map_err(|problem| error(problem.to_string()))?;
            if roots.is_empty() {
                return Err(error("there is no PEM certificate in it".to_owned()));
            }
            builder = builder.tls_certs_merge(roots);
        }
        Ok(Self {
            client: builder.build().map_err(CaHttpError::Tls)?,
        })
    }

    /// Asks a CA for a certificate.
    pub(crate) async fn certificate(
        &self,
        ca: &CaAddress,
        token: &Token,
        body: &CertificateRequest,
        request_id: &RequestId,
    ) -> Answered {
        let header = token.header_value();
        let Ok(bearer) = bearer(&header) else {
            return CaAnswer::BadRequest("the token cannot be sent in a header".to_owned()).into();
        };
        let Ok(body) = serde_json::to_vec(body) else {
            return CaAnswer::BadRequest("the request cannot be written as JSON".to_owned()).into();
        };
        let mut request = self
            .client
            .post(ca.url.clone())
            .header(AUTHORIZATION, bearer)
            .header(CONTENT_TYPE, "application/json")
            .header(REQUEST_ID_HEADER, request_id.as_str())
            .body(body);
        if header.encoded {
            request = request.header(TOKEN_ENCODING_HEADER, "base64url");
        }
        match request.send().await {
            Ok(response) => Answered {
                policy: policy_time(&response),
                answer: answer(response).await,
            },
            Err(error) => unavailable(connection_problem(&error)).into(),
        }
    }

    /// What the CA says to anybody at its own address, and the time by its clock.
    pub(crate) async fn front_page(&self, ca: &CaAddress) -> Result<FrontPage, String> {
        let response = self.get(&ca.url).await?;
        let date = (response.headers().get(DATE))
            .and_then(|value| DateTimeParser::new().parse_timestamp(value.to_str().ok()?).ok());
        let body = read_body(response).await?;
        Ok(FrontPage {
            body: String::from_utf8_lossy(&body).into_owned(),
            date,
        })
    }

    /// The CA's discovery document, found by its `Link` header; `None` when it has none.
    pub(crate) async fn discovery(&self, ca: &CaAddress) -> Result<Option<Discovery>, String> {
        let response = self.get(&ca.url).await?;
        let links = response.headers().get_all(LINK);
        let target = links
            .iter()
            .filter_map(|value| value.to_str().ok())
            .find_map(discovery_target);
        let Some(target) = target else { return Ok(None) };
        let url = discovery_url(&ca.url, &target)?;
        let response = self.get(&url).await?;
        let body = read_body(response).await?;
        serde_json::from_slice(&body)
            .map(Some)
            .map_err(|error| format!("its discovery document is not understood: {error}"))
    }

    async fn get(&self, url: &Url) -> Result<Response, String> {
        let response = self
            .client
            .get(url.clone())
            .send()
            .await
            .map_err(|error| connection_problem(&error))?;
        match response.status() {
            StatusCode::OK => Ok(response),
            status => Err(format!("it answered {status} to GET {}", url.path())),
        }
    }
}

/// What the CA says about the policy server's share of the time.
fn policy_time(response: &Response) -> Option<Duration> {
    let headers = response.headers().get_all("server-timing").iter();
    let mut metrics = headers.flat_map(|value| server_timing(value.to_str().unwrap_or_default()));
    let (_, milliseconds) = metrics.find(|(name, _)| name == "policy")?;
    Duration::try_from_secs_f64(milliseconds / 1000.0).ok()
}

/// Reads a CA's answer by its status.
async fn answer(response: Response) -> CaAnswer {
    let status = response.status();
    let retry_after = (response.headers().get(RETRY_AFTER))
        .and_then(|value| value.to_str().ok()?.trim().parse().ok())
        .map(Duration::from_secs);
    let body = match read_body(response).await {
        Ok(body) => body,
        Err(problem) => return CaAnswer::Unavailable { problem, retry_after },
    };
    let words = sanitize_line(&String::from_utf8_lossy(&body), WORDS_SHOWN);
    match status {
        StatusCode::OK => match serde_json::from_slice::<CertificateResponse>(&body) {
            Ok(response) => CaAnswer::Certificate(response.certificate),
            Err(_) => unavailable(
                "it answered 200 without a certificate (is there a login page of the network in between?)"
                    .to_owned(),
            ),
        },
        StatusCode::UNAUTHORIZED => CaAnswer::Unauthorized(words),
        StatusCode::FORBIDDEN => CaAnswer::Denied(words),
        StatusCode::UNPROCESSABLE_ENTITY => CaAnswer::NotHandled(words),
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => CaAnswer::Unavailable {
            problem: format!("it answered {status}: {words}"),
            retry_after,
        },
        status if status.is_client_error() => CaAnswer::BadRequest(format!("{status}: {words}")),
        status => CaAnswer::Unavailable {
            problem: format!("it answered {status}: {words}"),
            retry_after,
        },
    }
}

fn unavailable(problem: String) -> CaAnswer {
    CaAnswer::Unavailable {
        problem,
        retry_after: None,
    }
}

/// Reads a body of at most [`HTTP_BODY_MAX`] bytes.
async fn read_body(mut response: Response) -> Result<Vec<u8>, String> {
    let mut body = Vec::new();
    while let Some(chunk) = response
        .chunk()
        .await
        .map_err(|error| connection_problem(&error))?
    {
        if body.len() + chunk.len() > HTTP_BODY_MAX {
            return Err(format!("its answer is larger than {HTTP_BODY_MAX} bytes"));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// The innermost reason of a failed request, which says more than the chain above it.
fn connection_problem(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return if error.is_connect() {
            "no connection in time".to_owned()
        } else {
            "no answer in time".to_owned()
        };
    }
    let mut cause: &dyn std::error::Error = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    sanitize_line(&cause.to_string(), WORDS_SHOWN)
}

/// The target of the first link-value in a `Link` header (RFC 8288) whose relation is one of the two for discovery.
fn discovery_target(header: &str) -> Option<String> {
    let mut rest = header;
    while let Some(open) = rest.find('<') {
        let (target, after) = rest[open + 1..].split_once('>')?;
        let (parameters, next) = split_parameters(after);
        let relation = parameters
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case("rel"))
            .map(|(_, value)| value.as_str());
        let is_discovery = |relation: &str| relation == AUTH_RELATION || relation == DISCOVERY_RELATION;
        if relation.is_some_and(|relations| relations.split_ascii_whitespace().any(is_discovery)) {
            return Some(target.to_owned());
        }
        rest = next;
    }
    None
}

/// The parameters up to the comma that ends a link-value, and what follows it.
fn split_parameters(text: &str) -> (Vec<(String, String)>, &str) {
    let (mut quoted, mut escaped) = (false, false);
    let end = text.find(|c: char| {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            ',' if !quoted => return true,
            _ => {}
        }
        false
    });
    let (own, next) = end.map_or((text, ""), |end| (&text[..end], &text[end + 1..]));
    let parameters = own.split(';').filter_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        Some((name.trim().to_owned(), value.trim().trim_matches('"').to_owned()))
    });
    (parameters.collect(), next)
}

/// Resolves a discovery link against the CA's URL taken as a directory, and refuses another origin.
fn discovery_url(ca: &Url, target: &str) -> Result<Url, String> {
    let mut base = ca.clone();
    base.set_query(None);
    base.set_fragment(None);
    if !base.path().ends_with('/') {
        base.set_path(&format!("{}/", base.path()));
    }
    let url = base.join(target).map_err(|error| {
        format!(
            "its discovery link `{}` is not a URL: {error}",
            sanitize_line(target, 100)
        )
    })?;
    if url.origin() == ca.origin() {
        Ok(url)
    } else {
        Err(format!(
            "it advertised discovery at a different origin ({})",
            sanitize_line(url.as_str(), 100)
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_discovery_link_is_found_among_others() {
        let auth = AUTH_RELATION;
        let found = [
            format!("<discovery>; rel=\"{auth}\""),
            format!("<x>; rel=next, <discovery>; rel=\"{auth}\""),
            format!("<discovery>; rel=\"alternate {auth}\""),
            format!("<discovery>; title=\"a, b\"; rel=\"{auth}\""),
            format!("<discovery>; REL=\"{auth}\""),
            "<discovery>; rel=\"discovery\"".to_owned(),
        ];
        for header in &found {
            assert_eq!(discovery_target(header).as_deref(), Some("discovery"), "{header}");
        }
        let not = [
            "<discovery>; rel=next".to_owned(),
            String::new(),
            "discovery; rel=discovery".to_owned(),
            format!("<discovery>; rel=next; rel=\"{auth}\""),
        ];
        for header in &not {
            assert_eq!(discovery_target(header), None, "{header}");
        }
    }

    #[test]
    fn discovery_stays_with_its_ca() {
        let resolve =
            |ca: &str, target: &str| discovery_url(&Url::parse(ca).unwrap(), target).map(String::from);
        for ca in [
            "https://whee.example.com/epithet/ca",
            "https://whee.example.com/epithet/ca/",
        ] {
            assert_eq!(
                resolve(ca, "discovery").unwrap(),
                "https://whee.example.com/epithet/ca/discovery"
            );
        }
        for ca in [
            "https://ca.example.com",
            "https://ca.example.com/",
            "https://ca.example.com/?debug=1",
        ] {
            assert_eq!(
                resolve(ca, "discovery").unwrap(),
                "https://ca.example.com/discovery"
            );
        }
        for target in [
            "https://evil.example.com/discovery",
            "//evil/discovery",
            "http://ca.example.com/discovery",
            "https://ca.example.com:8443/d",
        ] {
            assert!(
                resolve("https://ca.example.com", target)
                    .unwrap_err()
                    .contains("different origin"),
                "{target}"
            );
        }
    }
}
