//! How to log in: everything that a person can configure, already parsed.

use crate::client_auth::{ClientAuthChoice, ClientKey};
use crate::flow::{FlowChoice, Surroundings};
use crate::http::Http;
use crate::issuer::Issuer;
use crate::secret::Secret;
use std::sync::Arc;
use std::time::Duration;
use url::Url;

/// Before the broker's own deadline, so that the person reads our words and not "the plugin was ended".
const TIMEOUT: Duration =
    Duration::from_secs(epithet_wire::limits::PLUGIN_DEADLINE.as_secs().saturating_sub(10));

/// Which token is given out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TokenKind {
    /// The ID token: what Epithet's policy server verifies.
    #[default]
    Id,
    /// The access token, for a policy server that asks the provider about it.
    Access,
}

/// The host in the redirect address (RFC 8252 section 7.3). Providers do not take one for the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RedirectHost {
    /// `127.0.0.1`, which RFC 8252 recommends.
    #[default]
    Ipv4,
    /// `[::1]`.
    Ipv6,
    /// `localhost`, which Entra wants to see registered.
    Localhost,
}

impl RedirectHost {
    /// As it stands in an address.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ipv4 => "127.0.0.1",
            Self::Ipv6 => "[::1]",
            Self::Localhost => "localhost",
        }
    }
}

impl std::str::FromStr for RedirectHost {
    type Err = OptionsError;
    fn from_str(text: &str) -> Result<Self, OptionsError> {
        match text {
            "127.0.0.1" => Ok(Self::Ipv4),
            "[::1]" | "::1" => Ok(Self::Ipv6),
            "localhost" => Ok(Self::Localhost),
            _ => Err(OptionsError::RedirectHost(text.to_owned())),
        }
    }
}

/// Why options make no login.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OptionsError {
    /// Without one, the provider cannot know who asks, and we cannot know whether a token is for us.
    #[error("--client-id is empty; it is the id of the application that is registered at the provider")]
    ClientId,
    /// Not a host that a browser on this machine would reach us by.
    #[error("--redirect-host {0:?} is not one of 127.0.0.1, localhost and [::1]")]
    RedirectHost(String),
    /// Not a path.
    #[error("--redirect-path {0:?} must begin with / and have no blank, ? or #")]
    RedirectPath(String),
    /// A scope with a blank, a quote or a control character (RFC 6749 section 3.3).
    #[error("the scope {0:?} has a character that scopes cannot have")]
    Scope(String),
    /// A parameter that the login itself sets.
    #[error("--extra-param {0:?} would replace a parameter that the login needs; leave it out")]
    ExtraParameter(String),
    /// The flow was asked for and what it needs is not there.
    #[error("--flow {flow} is not possible: {reason}")]
    Flow {
        /// Which.
        flow: &'static str,
        /// What is missing.
        reason: String,
    },
    /// The client authentication was asked for and what it needs is not there.
    #[error("--client-auth {method} needs {needs}")]
    ClientAuth {
        /// Which.
        method: &'static str,
        /// What is missing.
        needs: &'static str,
    },
}

/// How to log in.
#[derive(Debug, Clone)]
pub struct LoginOptions {
    /// How requests are made.
    pub http: Arc<Http>,
    /// The provider.
    pub issuer: Issuer,
    /// Our name at the provider.
    pub client_id: String,
    /// Our secret at the provider, which for an installed application is not very secret (RFC 8252 section 8.5).
    pub client_secret: Option<Secret>,
    /// Our key at the provider, for `private_key_jwt`.
    pub client_key: Option<Arc<ClientKey>>,
    /// How we say who we are.
    pub client_auth: ClientAuthChoice,
    /// What to ask for; `openid` is added, and `offline_access` where the provider lists it.
    pub scopes: Vec<String>,
    /// How the person logs in.
    pub flow: FlowChoice,
    /// What there is to log in with.
    pub surroundings: Surroundings,
    /// Ports for the redirect, in this order, for providers that compare them; empty for any free one.
    pub ports: Vec<u16>,
    /// The host of the redirect address.
    pub redirect_host: RedirectHost,
    /// The path of the redirect address; may be empty.
    pub redirect_path: String,
    /// A redirect address elsewhere, for the paste flow.
    pub redirect_uri: Option<Url>,
    /// Which token is given out.
    pub token: TokenKind,
    /// `audience`, which Auth0 and others want for an access token.
    pub audience: Option<String>,
    /// `resource` (RFC 8707).
    pub resources: Vec<String>,
    /// `prompt`.
    pub prompt: Option<String>,
    /// `login_hint`.
    pub login_hint: Option<String>,
    /// `max_age` in seconds; then the token must say when the person logged in.
    pub max_age: Option<u64>,
    /// `acr_values`.
    pub acr_values: Option<String>,
    /// Anything else for the authorization request.
    pub extra_parameters: Vec<(String, String)>,
    /// How long the whole login may take.
    pub timeout: Duration,
    /// How long a browser may be away before a code for another device is offered, when the flow is not fixed.
    pub other_way_after: Duration,
}

impl LoginOptions {
    /// The usual: scopes `openid profile email`, a flow chosen by what there is, any free port.
    pub fn new(http: Arc<Http>, issuer: Issuer, client_id: impl Into<String>) -> Self {
        Self {
            http,
            issuer,
            client_id: client_id.into(),
            client_secret: None,
            client_key: None,
            client_auth: ClientAuthChoice::Auto,
            scopes: ["openid", "profile", "email"].map(str::to_owned).to_vec(),
            flow: FlowChoice::Auto,
            surroundings: Surroundings::default(),
            ports: Vec::new(),
            redirect_host: RedirectHost::default(),
            redirect_path: "/callback".to_owned(),
            redirect_uri: None,
            token: TokenKind::default(),
            audience: None,
            resources: Vec::new(),
            prompt: None,
            login_hint: None,
            max_age: None,
            acr_values: None,
            extra_parameters: Vec::new(),
            timeout: TIMEOUT,
            other_way_after: epithet_wire::limits::LOGIN_OTHER_WAY,
        }
    }

    /// Whether the options make sense by themselves, before the provider is asked anything.
    pub fn check(&self) -> Result<(), OptionsError> {
        if self.client_id.trim().is_empty() {
            return Err(OptionsError::ClientId);
        }
        let path = &self.redirect_path;
        let is_path = path.is_empty() || path.starts_with('/');
        if !is_path
            || path
                .bytes()
                .any(|byte| byte <= b' ' || byte >= 0x7f || b"?#\\\"<>".contains(&byte))
        {
            return Err(OptionsError::RedirectPath(path.clone()));
        }
        for scope in &self.scopes {
            let is_scope = |byte: u8| matches!(byte, 0x21 | 0x23..=0x5b | 0x5d..=0x7e);
            if scope.is_empty() || !scope.bytes().all(is_scope) {
                return Err(OptionsError::Scope(scope.clone()));
            }
        }
        if let Some((name, _)) = self
            .extra_parameters
            .iter()
            .find(|(name, _)| RESERVED.contains(&name.as_str()))
        {
            return Err(OptionsError::ExtraParameter(name.clone()));
        }
        Ok(())
    }

    /// The scopes to ask for: `openid` always, `offline_access` where the provider says that it knows it.
    pub(crate) fn scope(&self, supported: &[String]) -> String {
        let mut scopes: Vec<&str> = self.scopes.iter().map(String::as_str).collect();
        if !scopes.contains(&"openid") {
            scopes.insert(0, "openid");
        }
        if supported.iter().any(|scope| scope == "offline_access") && !scopes.contains(&"offline_access") {
            scopes.push("offline_access");
        }
        scopes.join(" ")
    }
}

/// Parameters of the authorization request that belong to the login.
const RESERVED: [&str; 11] = [
    "client_id",
    "client_secret",
    "redirect_uri",
    "response_type",
    "response_mode",
    "scope",
    "state",
    "nonce",
    "code_challenge",
    "code_challenge_method",
    "request",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> LoginOptions {
        LoginOptions::new(Arc::default(), Issuer::parse("https://idp.example").unwrap(), "c")
    }

    #[test]
    fn options_that_make_no_login_name_the_flag() {
        type Change = fn(&mut LoginOptions);
        let cases: [(Change, &str); 6] = [
            (|options| options.client_id = " ".into(), "--client-id"),
            (
                |options| options.redirect_path = "callback".into(),
                "--redirect-path",
            ),
            (|options| options.redirect_path = "/a?b".into(), "--redirect-path"),
            (|options| options.scopes = vec!["a b".into()], "scope"),
            (|options| options.scopes = vec!["a\"".into()], "scope"),
            (
                |options| options.extra_parameters = vec![("state".into(), "x".into())],
                "--extra-param",
            ),
        ];
        assert!(options().check().is_ok());
        for (change, flag) in cases {
            let mut options = options();
            change(&mut options);
            let error = options.check().unwrap_err().to_string();
            assert!(error.contains(flag), "{error}");
        }
    }

    #[test]
    fn offline_access_is_asked_for_where_it_is_known() {
        let mut options = options();
        assert_eq!(options.scope(&[]), "openid profile email");
        assert_eq!(
            options.scope(&["offline_access".into()]),
            "openid profile email offline_access"
        );
        options.scopes = vec!["groups".into(), "offline_access".into()];
        assert_eq!(
            options.scope(&["offline_access".into()]),
            "openid groups offline_access"
        );
    }
}
