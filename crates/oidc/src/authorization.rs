//! The authorization code flow (RFC 6749 section 4.1) with PKCE, state and nonce, each new for every login.
//!
//! The request is a URL for the person's browser; the response is the query of the address that the browser is
//! sent back to. A response counts only when its state is ours and, where the provider says so, its issuer too.

use crate::options::LoginOptions;
use crate::provider::Provider;
use crate::random::{self, NoRandomness};
use crate::secret::Secret;
use crate::token_endpoint::Refusal;
use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use epithet_wire::display::sanitize_line;
use url::Url;
use url::form_urlencoded;

/// Longest response that is looked at. Codes of real providers stay under 2 KiB.
const RESPONSE_MAX: usize = 8192;

/// A code verifier and its challenge (RFC 7636), S256 only.
#[derive(Debug)]
pub(crate) struct Pkce {
    pub(crate) verifier: Secret,
    pub(crate) challenge: String,
}

impl Pkce {
    pub(crate) fn new() -> Result<Self, NoRandomness> {
        Ok(Self::from_verifier(random::text()?))
    }

    fn from_verifier(verifier: String) -> Self {
        let challenge = URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, verifier.as_bytes()));
        Self {
            verifier: Secret::new(verifier),
            challenge,
        }
    }
}

/// One authorization request, and what its response must match.
#[derive(Debug)]
pub(crate) struct Authorization {
    /// Where the person's browser goes.
    pub(crate) url: Url,
    pub(crate) redirect_uri: String,
    pub(crate) nonce: String,
    pub(crate) pkce: Pkce,
    state: String,
    issuer: String,
    expects_issuer: bool,
}

/// What a response says.
#[derive(Debug)]
pub(crate) enum Response {
    /// The person logged in.
    Code(Secret),
    /// The provider refused, or the person did.
    Refused(Refusal),
}

/// Why a response does not count.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ResponseError {
    /// It has no state, or another login's.
    #[error("this answer does not belong to the login that is waiting here (wrong state)")]
    WrongState,
    /// A parameter is there twice.
    #[error("this answer has {0:?} twice")]
    Repeated(String),
    /// It is longer than any real one.
    #[error("this answer is too long")]
    TooLong,
    /// It has neither code nor error.
    #[error("this answer has neither a code nor an error")]
    Incomplete,
    /// Another provider sent it (RFC 9207).
    #[error("this answer comes from the issuer {found:?}, not from {expected:?}")]
    WrongIssuer {
        /// Ours.
        expected: String,
        /// The response's.
        found: String,
    },
    /// The provider says that it names itself in each response, and this one does not (RFC 9207).
    #[error("this answer does not say which provider it comes from, although {0} always does")]
    NoIssuer(String),
}

impl ResponseError {
    /// Whether it had our state, so that the login ends with it. Otherwise anybody may have sent it, and the login
    /// goes on waiting.
    pub(crate) fn is_ours(&self) -> bool {
        match self {
            Self::WrongState | Self::TooLong => false,
            Self::Repeated(name) => name != "state",
            Self::Incomplete | Self::WrongIssuer { .. } | Self::NoIssuer(_) => true,
        }
    }
}

impl Authorization {
    /// A new request, with fresh state, nonce and verifier.
    pub(crate) fn new(
        options: &LoginOptions,
        provider: &Provider,
        endpoint: &Url,
        redirect_uri: String,
    ) -> Result<Self, NoRandomness> {
        let (state, nonce, pkce) = (random::text()?, random::text()?, Pkce::new()?);
        let scope = options.scope(&provider.scopes_supported);
        let max_age = options.max_age.map(|seconds| seconds.to_string());
        let always = [
            ("response_type", "code"),
            ("client_id", &options.client_id),
            ("redirect_uri", &redirect_uri),
            ("scope", &scope),
            ("state", &state),
            ("nonce", &nonce),
            ("code_challenge", &pkce.challenge),
            ("code_challenge_method", "S256"),
        ];
        let google = |value| is_google(provider).then_some(value);
        let optional = [
            ("prompt", options.prompt.as_deref().or_else(|| google("consent"))),
            ("access_type", google("offline")),
            ("login_hint", options.login_hint.as_deref()),
            ("max_age", max_age.as_deref()),
            ("acr_values", options.acr_values.as_deref()),
            ("audience", options.audience.as_deref()),
        ];
        let optional = optional
            .into_iter()
            .filter_map(|(name, value)| Some((name, value?)));
        let resources = options
            .resources
            .iter()
            .map(|resource| ("resource", resource.as_str()));
        let extra: Vec<(&str, &str)> = options
            .extra_parameters
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        // What a person adds by name takes the place of what would be there by itself.
        let is_replaced = |name: &str| extra.iter().any(|(other, _)| *other == name);
        let ours: Vec<(&str, &str)> = always
            .into_iter()
            .chain(optional.chain(resources).filter(|(name, _)| !is_replaced(name)))
            .chain(extra.iter().copied())
            .collect();
        let url = with_parameters(endpoint, &ours);
        Ok(Self {
            url,
            redirect_uri,
            nonce,
            pkce,
            state,
            issuer: provider.issuer.as_str().to_owned(),
            expects_issuer: provider.sends_issuer,
        })
    }

    /// Reads the query of a redirect.
    pub(crate) fn read_response(&self, query: &str) -> Result<Response, ResponseError> {
        if query.len() > RESPONSE_MAX {
            return Err(ResponseError::TooLong);
        }
        let pairs: Vec<_> = form_urlencoded::parse(query.as_bytes()).collect();
        let get = |name: &str| {
            let mut values = pairs
                .iter()
                .filter(|(found, _)| found == name)
                .map(|(_, value)| value.as_ref());
            match (values.next(), values.next()) {
                (_, Some(_)) => Err(ResponseError::Repeated(name.to_owned())),
                (value, None) => Ok(value),
            }
        };
        let state = get("state")?.unwrap_or_default();
        if verify_slices_are_equal(state.as_bytes(), self.state.as_bytes()).is_err() {
            return Err(ResponseError::WrongState);
        }
        // Before the code is sent anywhere: mix-up (RFC 9207 section 2.4).
        match get("iss")? {
            Some(found) if found != self.issuer => {
                let found = sanitize_line(found, 200);
                return Err(ResponseError::WrongIssuer {
                    expected: self.issuer.clone(),
                    found,
                });
            }
            None if self.expects_issuer => return Err(ResponseError::NoIssuer(self.issuer.clone())),
            _ => {}
        }
        match (get("error")?, get("code")?) {
            (Some(error), _) => Ok(Response::Refused(Refusal::new(error, get("error_description")?))),
            (None, Some(code)) if !code.is_empty() => Ok(Response::Code(Secret::new(code.to_owned()))),
            _ => Err(ResponseError::Incomplete),
        }
    }
}

/// Whether the head of a request to the redirect's listener at `127.0.0.1:7` is an answer to the login with this state.
/// For the fuzzers.
#[doc(hidden)]
pub fn is_answer(head: &str, state: &str) -> bool {
    let Ok(url) = Url::parse("https://idp.example/") else {
        return false;
    };
    let authorization = Authorization {
        url,
        redirect_uri: String::new(),
        nonce: String::new(),
        pkce: Pkce::from_verifier(String::new()),
        state: state.to_owned(),
        issuer: "https://idp.example".to_owned(),
        expects_issuer: false,
    };
    let query = crate::callback::read_request(head, "127.0.0.1:7", "/callback");
    query.is_ok_and(|query| match authorization.read_response(query) {
        Ok(_) => true,
        Err(error) => error.is_ours(),
    })
}

/// The endpoint with our parameters. What its own query says of them does not count: no parameter may be there twice
/// (RFC 6749 section 3.1), and a `response_type` or `redirect_uri` of somebody else's least of all.
fn with_parameters(endpoint: &Url, ours: &[(&str, &str)]) -> Url {
    let own: Vec<(String, String)> = endpoint
        .query_pairs()
        .filter(|(name, _)| !ours.iter().any(|(other, _)| other == name))
        .map(|(name, value)| (name.into_owned(), value.into_owned()))
        .collect();
    let mut url = endpoint.clone();
    url.query_pairs_mut().clear().extend_pairs(own).extend_pairs(ours);
    url
}

/// Google gives a refresh token for these parameters instead of a scope, and only together.
fn is_google(provider: &Provider) -> bool {
    provider.issuer.as_str() == "https://accounts.google.com"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::issuer::Issuer;
    use std::collections::HashMap;
    use std::sync::Arc;

    fn provider(issuer: &str, more: &str) -> Provider {
        let document = format!(r#"{{"issuer":"{issuer}","jwks_uri":"https://idp.example/keys"{more}}}"#);
        Provider::parse(&Issuer::parse(issuer).unwrap(), document.as_bytes()).unwrap()
    }

    fn authorization(provider: &Provider, change: impl FnOnce(&mut LoginOptions)) -> Authorization {
        let mut options = LoginOptions::new(Arc::default(), provider.issuer.clone(), "c&d");
        change(&mut options);
        let endpoint = Url::parse("https://idp.example/authorize?tenant=7").unwrap();
        Authorization::new(
            &options,
            provider,
            &endpoint,
            "http://127.0.0.1:9/callback".into(),
        )
        .unwrap()
    }

    #[test]
    fn the_challenge_is_that_of_rfc_7636_appendix_b() {
        let pkce = Pkce::from_verifier("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk".into());
        assert_eq!(pkce.challenge, "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM");
    }

    #[test]
    fn every_request_has_its_own_state_nonce_and_challenge() {
        let provider = provider("https://idp.example", "");
        let requests: Vec<HashMap<String, String>> = (0..3)
            .map(|_| {
                authorization(&provider, |_| ())
                    .url
                    .query_pairs()
                    .into_owned()
                    .collect()
            })
            .collect();
        for name in ["state", "nonce", "code_challenge"] {
            assert!(requests.iter().all(|request| request[name].len() == 43));
            assert!(requests[0][name] != requests[1][name] && requests[1][name] != requests[2][name]);
        }
        let first = &requests[0];
        assert_eq!(
            (first["tenant"].as_str(), first["client_id"].as_str()),
            ("7", "c&d")
        );
        assert_eq!(
            (
                first["code_challenge_method"].as_str(),
                first["response_type"].as_str()
            ),
            ("S256", "code")
        );
        assert_eq!(first["redirect_uri"], "http://127.0.0.1:9/callback");
        assert!(!first.contains_key("prompt") && !first.contains_key("access_type"));
    }

    #[test]
    fn an_endpoint_with_parameters_of_ours_in_it_does_not_speak_for_us() {
        let endpoint = "https://idp.example/a?tenant=7&response_type=token&redirect_uri=https%3A%2F%2Fevil.example&state=x&scope=";
        let provider = provider("https://idp.example", "");
        let options = LoginOptions {
            prompt: Some("login".into()),
            extra_parameters: vec![
                ("prompt".into(), "none".into()),
                ("hd".into(), "example.com".into()),
            ],
            ..LoginOptions::new(Arc::default(), provider.issuer.clone(), "c")
        };
        let endpoint = Url::parse(endpoint).unwrap();
        let authorization =
            Authorization::new(&options, &provider, &endpoint, "http://127.0.0.1:9/cb".into()).unwrap();
        let pairs: Vec<(String, String)> = authorization.url.query_pairs().into_owned().collect();
        let mut names: Vec<&str> = pairs.iter().map(|(name, _)| name.as_str()).collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count, "none is there twice: {pairs:?}");
        let value = |name: &str| {
            let found = pairs.iter().find(|(other, _)| other == name);
            found.map(|(_, value)| value.as_str())
        };
        assert_eq!(value("response_type"), Some("code"));
        assert_eq!(value("redirect_uri"), Some("http://127.0.0.1:9/cb"));
        assert_eq!(
            (value("tenant"), value("prompt"), value("hd")),
            (Some("7"), Some("none"), Some("example.com"))
        );
    }

    #[test]
    fn google_is_asked_the_way_it_wants() {
        let google = provider("https://accounts.google.com", "");
        let query = |authorization: Authorization| -> HashMap<String, String> {
            authorization.url.query_pairs().into_owned().collect()
        };
        let usual = query(authorization(&google, |_| ()));
        assert_eq!(
            (usual["access_type"].as_str(), usual["prompt"].as_str()),
            ("offline", "consent")
        );
        let chosen = query(authorization(&google, |options| {
            options.prompt = Some("select_account".into());
        }));
        assert_eq!(chosen["prompt"], "select_account");
    }

    #[test]
    fn only_the_response_to_this_request_counts() {
        let silent = authorization(&provider("https://idp.example", ""), |_| ());
        let naming = authorization(
            &provider(
                "https://idp.example",
                r#","authorization_response_iss_parameter_supported":true"#,
            ),
            |_| (),
        );
        let (s, n) = (silent.state.as_str(), naming.state.as_str());
        let issuer = "iss=https%3A%2F%2Fidp.example";
        let cases: [(&Authorization, String, Result<&str, &str>); 13] = [
            (&silent, format!("code=abc&state={s}"), Ok("abc")),
            (&silent, format!("code=abc&state={s}&{issuer}"), Ok("abc")),
            (&naming, format!("code=abc&state={n}&{issuer}"), Ok("abc")),
            (
                &naming,
                format!("code=abc&state={n}"),
                Err("does not say which provider"),
            ),
            (
                &silent,
                format!("code=abc&state={s}&iss=https%3A%2F%2Fevil.example"),
                Err("evil.example"),
            ),
            (
                &silent,
                format!("code=abc&state={s}&{issuer}%2F"),
                Err("idp.example/"),
            ),
            (&silent, "code=abc".into(), Err("wrong state")),
            (&silent, "code=abc&state=".into(), Err("wrong state")),
            (&silent, format!("code=abc&state={n}"), Err("wrong state")),
            (&silent, format!("code=abc&code=def&state={s}"), Err("twice")),
            (&silent, format!("code=&state={s}"), Err("neither")),
            (&silent, format!("state={s}"), Err("neither")),
            (
                &silent,
                format!("code={}&state={s}", "x".repeat(RESPONSE_MAX)),
                Err("too long"),
            ),
        ];
        for (authorization, query, expected) in cases {
            match (authorization.read_response(&query), expected) {
                (Ok(Response::Code(code)), Ok(expected)) => assert_eq!(code.expose(), expected),
                (Err(error), Err(expected)) => {
                    assert!(error.to_string().contains(expected), "{query}: {error}");
                }
                (result, _) => panic!("{query}: {result:?}"),
            }
        }
    }

    #[test]
    fn a_refusal_is_told_in_the_providers_own_words_and_harmless() {
        let authorization = authorization(&provider("https://idp.example", ""), |_| ());
        let query = format!(
            "error=access_denied&error_description=no%1b%5b2J%0Aentry%E2%80%AE&state={}",
            authorization.state
        );
        let Ok(Response::Refused(refusal)) = authorization.read_response(&query) else {
            panic!()
        };
        assert_eq!(refusal.to_string(), "access_denied: no [2J entry");
    }
}
