//! A policy server over HTTPS or a Unix socket.

use crate::policy_source::PolicyRefusal;
use crate::service_token::service_token;
use epithet_ssh::CaKey;
use epithet_wire::ca::Discovery;
use epithet_wire::display::sanitize_line;
use epithet_wire::limits::{CA_CONNECT_DEADLINE, HTTP_BODY_MAX, POLICY_DEADLINE};
use epithet_wire::policy::{CertParams, PolicyRequest, PolicyResponse};
use epithet_wire::{ConnectionFields, Endpoint, Token};
use jiff::Timestamp;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use reqwest::{Method, StatusCode};
use url::Url;

/// The header by which our policy server says that it is the CA it does not believe, not the user.
const SERVICE_ERROR_HEADER: &str = "Epithet-Error";
/// Its value.
const SERVICE_ERROR: &str = "service-auth";
/// How the policy server of epithet 0.19 begins its words when it does not believe the CA.
const SERVICE_ERROR_WORDS: &str = "request verification failed";

/// A policy server and the connections to it.
#[derive(Debug)]
pub struct HttpPolicy {
    endpoint: Endpoint,
    url: Url,
    target: String,
    client: reqwest::Client,
}

/// Why the client could not be made.
#[derive(Debug, thiserror::Error)]
pub enum HttpPolicyError {
    /// The file of `--tls-ca-cert`.
    #[error("--tls-ca-cert: {0}")]
    Roots(String),
    /// The URL or TLS.
    #[error("cannot set up the client for {0}: {1}")]
    Client(Endpoint, String),
}

impl HttpPolicy {
    /// A client for the policy server at `endpoint`, which trusts the system's roots and those in `roots` (PEM).
    ///
    /// # Errors
    /// When the roots are no certificates, or TLS cannot be set up.
    pub fn new(endpoint: Endpoint, roots: Option<&[u8]>) -> Result<Self, HttpPolicyError> {
        let error = |problem: String| HttpPolicyError::Client(endpoint.clone(), problem);
        let mut builder = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CA_CONNECT_DEADLINE)
            .timeout(POLICY_DEADLINE)
            .pool_max_idle_per_host(64);
        if let Some(pem) = roots {
            let roots = reqwest::Certificate::from_pem_bundle(pem)
                .map_err(|error| HttpPolicyError::Roots(error.to_string()))?;
            builder = builder.tls_certs_merge(roots);
        }
        let url = match &endpoint {
            Endpoint::Http(url) => url.clone(),
            Endpoint::Unix(path) => {
                builder = builder.unix_socket(path.clone());
                Url::parse("http://localhost/").map_err(|problem| error(problem.to_string()))?
            }
        };
        let host = url.host_str().unwrap_or_default();
        let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
        let target = format!("{host}{port}{}", url.path());
        let client = builder.build().map_err(|problem| error(problem.to_string()))?;
        Ok(Self {
            endpoint,
            url,
            target,
            client,
        })
    }

    pub(crate) async fn decide(
        &self,
        key: &CaKey,
        token: &Token,
        connection: &ConnectionFields,
    ) -> Result<CertParams, PolicyRefusal> {
        let request = PolicyRequest::new(token, connection.clone());
        let body =
            serde_json::to_vec(&request).map_err(|error| PolicyRefusal::Unavailable(error.to_string()))?;
        let reply = self.send(key, Method::POST, body).await?;
        let response: PolicyResponse = serde_json::from_slice(&reply).map_err(|error| {
            PolicyRefusal::Unavailable(format!("the policy server's answer is not understood: {error}"))
        })?;
        Ok(response.cert_params)
    }

    pub(crate) async fn discovery(&self, key: &CaKey) -> Result<Discovery, PolicyRefusal> {
        let reply = self
            .send(key, Method::GET, Vec::new())
            .await
            .map_err(|refusal| match refusal {
                PolicyRefusal::Refused { status, message } => PolicyRefusal::Unavailable(format!(
                    "policy server returned {status} for discovery: {message}"
                )),
                other => other,
            })?;
        serde_json::from_slice(&reply).map_err(|error| {
            PolicyRefusal::Unavailable(format!(
                "the policy server's discovery document is not understood: {error}"
            ))
        })
    }

    async fn send(&self, key: &CaKey, method: Method, body: Vec<u8>) -> Result<Vec<u8>, PolicyRefusal> {
        let unavailable = |problem: String| PolicyRefusal::Unavailable(problem);
        let mut jti = [0; 16];
        aws_lc_rs::rand::fill(&mut jti)
            .map_err(|_| unavailable("the system gives no random numbers".to_owned()))?;
        let now = Timestamp::now().as_second();
        let token = service_token(key, method.as_str(), &self.target, &body, now, jti)
            .map_err(|error| unavailable(error.to_string()))?;
        let mut bearer = HeaderValue::try_from(format!("Bearer {token}"))
            .map_err(|error| unavailable(error.to_string()))?;
        bearer.set_sensitive(true);
        let response = self
            .client
            .request(method, self.url.clone())
            .header(AUTHORIZATION, bearer)
            .header(CONTENT_TYPE, "application/json")
            .body(body)
            .send()
            .await
            .map_err(|error| unavailable(self.problem(&error)))?;
        let status = response.status();
        let disbelieves = response
            .headers()
            .get(SERVICE_ERROR_HEADER)
            .is_some_and(|value| value == SERVICE_ERROR);
        let reply = self.read(response).await?;
        if status == StatusCode::OK {
            return Ok(reply);
        }
        let message = sanitize_line(&String::from_utf8_lossy(&reply), 1000);
        if disbelieves || (status == StatusCode::UNAUTHORIZED && message.starts_with(SERVICE_ERROR_WORDS)) {
            tracing::error!(policy = %self.endpoint, %message, "the policy server does not accept this CA; compare its --ca-pubkey with this key, and the clocks");
            return Err(PolicyRefusal::NotBelieved(message));
        }
        match status.is_client_error() {
            true => Err(PolicyRefusal::Refused {
                status: status.as_u16(),
                message,
            }),
            false => Err(unavailable(format!(
                "the policy server answered {status}: {message}"
            ))),
        }
    }

    async fn read(&self, mut response: reqwest::Response) -> Result<Vec<u8>, PolicyRefusal> {
        let mut body = Vec::new();
        while let Some(chunk) = response
            .chunk()
            .await
            .map_err(|error| PolicyRefusal::Unavailable(self.problem(&error)))?
        {
            if body.len() + chunk.len() > HTTP_BODY_MAX {
                return Err(PolicyRefusal::Unavailable(format!(
                    "the policy server's answer is larger than {HTTP_BODY_MAX} bytes"
                )));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }

    /// What went wrong, for the client: without the policy server's address, which goes to the log.
    fn problem(&self, error: &reqwest::Error) -> String {
        let mut cause: &dyn std::error::Error = error;
        while let Some(deeper) = cause.source() {
            cause = deeper;
        }
        tracing::error!(policy = %self.endpoint, error = %cause, "the policy server cannot be reached");
        let what = if error.is_timeout() {
            "no answer in time"
        } else {
            "no connection"
        };
        format!("{what} from the policy server")
    }
}
