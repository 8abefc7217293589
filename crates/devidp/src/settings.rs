//! What a development provider can be told before it starts.

use epithet_wire::SecretBytes;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

/// When a login comes with a refresh token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefreshTokens {
    /// With every login, as Okta does for clients that may refresh.
    Always,
    /// When `offline_access` was asked for (OpenID Connect Core, section 11).
    OfflineAccess,
    /// Never: every token is paid for with a login.
    Never,
}

/// How a [`DevProvider`](crate::DevProvider) behaves. The default is a strict provider with long lives.
///
/// Lives are counted in whole seconds, as the protocol's are.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where to listen: a loopback address; port 0 takes any free one.
    pub listen: SocketAddr,
    /// The one client that this provider knows.
    pub client_id: String,
    /// The client's secret; without one it is a public client and must not send any.
    pub client_secret: Option<SecretBytes>,
    /// The name that the login page suggests when the client gives no `login_hint`.
    pub default_user: String,
    /// What follows the `@` in the e-mail address of a person who signed in with a bare name.
    pub email_domain: String,
    /// The life of ID tokens.
    pub id_token_life: Duration,
    /// The life of access tokens.
    pub access_token_life: Duration,
    /// The life of refresh tokens; each rotation begins a new one.
    pub refresh_token_life: Duration,
    /// The life of authorization codes.
    pub code_life: Duration,
    /// The life of device codes.
    pub device_code_life: Duration,
    /// How long a device waits between two questions. Asking sooner is answered `slow_down`.
    pub device_interval: Duration,
    /// Whether the device flow (RFC 8628) is offered.
    pub device_flow: bool,
    /// When refresh tokens are given out.
    pub refresh_tokens: RefreshTokens,
    /// Whether a refresh token is for one use, with a new one in each answer.
    pub rotate_refresh_tokens: bool,
    /// Whether a refresh is answered with a new ID token; OpenID Connect lets a provider leave it out.
    pub id_token_on_refresh: bool,
    /// Claims that every ID token gets besides the standard ones, `groups` for instance.
    pub extra_claims: serde_json::Map<String, serde_json::Value>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            client_id: "epithet".to_owned(),
            client_secret: None,
            default_user: "alice".to_owned(),
            email_domain: "example.com".to_owned(),
            id_token_life: Duration::from_secs(600),
            access_token_life: Duration::from_secs(600),
            refresh_token_life: Duration::from_secs(8 * 3600),
            code_life: Duration::from_secs(60),
            device_code_life: Duration::from_secs(600),
            device_interval: Duration::from_secs(5),
            device_flow: true,
            refresh_tokens: RefreshTokens::Always,
            rotate_refresh_tokens: true,
            id_token_on_refresh: true,
            extra_claims: serde_json::Map::new(),
        }
    }
}
