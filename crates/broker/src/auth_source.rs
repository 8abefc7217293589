//! Where the way to log in comes from: the person's configuration, or, when that says nothing, the CA.
//!
//! A CA gives issuer and client id as data. They are checked, pinned on first use, and become separate arguments of
//! this very binary's `auth oidc`; nothing a CA says ever reaches a shell, and a command from a CA is refused.

use crate::ca_address::CaAddress;
use crate::ca_client::CaHttp;
use crate::discovery::{DiscoveryWatch, Knowledge};
use crate::pins::{Pin, PinError, Pins};
use epithet_plugin::PluginCommand;
use epithet_wire::ca::DiscoveryAuth;
use epithet_wire::limits::CA_DEADLINE;
use epithet_wire::{Endpoint, EndpointError};
use std::path::PathBuf;
use tokio_util::sync::CancellationToken;

/// The longest issuer, client id and scope that a CA may name.
const ISSUER_MAX: usize = 2048;
const CLIENT_ID_MAX: usize = 256;
const SCOPE_MAX: usize = 64;
const SCOPES_MAX: usize = 64;

/// Where the way to log in comes from.
#[derive(Debug)]
pub(crate) enum AuthSource {
    /// `--auth`.
    Configured(PluginCommand),
    /// The CA's discovery document.
    Discovered {
        discovery: DiscoveryWatch,
        ca: String,
        pins: Pins,
        binary: PathBuf,
    },
}

/// Why it is not known how to log in.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AuthSourceError {
    #[error(
        "the CA {0} has not said how to log in ({1}); check the CA's URL and the network, or name a plugin with --auth"
    )]
    Unreachable(String, String),
    #[error("the CA {0} does not say how to log in; name a plugin with --auth")]
    Silent(String),
    #[error(
        "the CA {0} wants a command to be run on this machine, which is refused; name a plugin of your own with --auth"
    )]
    Command(String),
    #[error("the CA {0} names a way to log in that is not known here (`{1}`); name a plugin with --auth")]
    Kind(String, String),
    #[error("the CA {ca} names an unusable {field}: {problem}")]
    Field {
        ca: String,
        field: &'static str,
        problem: String,
    },
    #[error(transparent)]
    Pin(#[from] PinError),
    #[error("the login was given up")]
    Cancelled,
}

impl AuthSource {
    /// The command to run.
    pub(crate) async fn command(&self, cancel: &CancellationToken) -> Result<PluginCommand, AuthSourceError> {
        match self {
            Self::Configured(command) => Ok(command.clone()),
            Self::Discovered {
                discovery,
                ca,
                pins,
                binary,
            } => {
                let knowledge = cancel.run_until_cancelled(discovery.get(CA_DEADLINE)).await;
                let discovered = match knowledge.ok_or(AuthSourceError::Cancelled)? {
                    Knowledge::Known(said) => said.discovery.as_ref().and_then(|found| found.auth.clone()),
                    Knowledge::Unreachable(problem) => {
                        return Err(AuthSourceError::Unreachable(ca.clone(), problem));
                    }
                    Knowledge::Unknown => {
                        return Err(AuthSourceError::Unreachable(
                            ca.clone(),
                            "no answer yet".to_owned(),
                        ));
                    }
                };
                let auth = discovered.ok_or_else(|| AuthSourceError::Silent(ca.clone()))?;
                let arguments = arguments(ca, &auth)?;
                pins.check(ca, &Pin::from(&auth))?;
                let mut command = vec![binary.to_string_lossy().into_owned()];
                command.extend(arguments);
                Ok(PluginCommand::Argv(command))
            }
        }
    }

    /// Whether both log in the same person in the same way, so that token and state of one serve the other.
    pub(crate) fn is_same_login(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Configured(ours), Self::Configured(theirs)) => ours == theirs,
            (Self::Discovered { ca: ours, .. }, Self::Discovered { ca: theirs, .. }) => ours == theirs,
            _ => false,
        }
    }

    /// The command as `inspect` shows it.
    pub(crate) fn describe(&self) -> String {
        match self {
            Self::Configured(command) => command.to_string(),
            Self::Discovered { ca, .. } => format!("auth oidc as {ca} says"),
        }
    }
}

/// What a CA names at this moment, checked as if it were to be used: for a person to agree to.
///
/// # Errors
/// A sentence about the CA: unreachable, silent, or naming something unusable.
pub async fn fetch_pin(http: &CaHttp, ca: &CaAddress) -> Result<Pin, String> {
    let discovery = http.discovery(ca, &epithet_agent::Clock::default()).await?;
    let auth = discovery
        .and_then(|discovery| discovery.auth)
        .ok_or("it does not say how to log in")?;
    arguments(&ca.to_string(), &auth).map_err(|error| error.to_string())?;
    Ok(Pin::from(&auth))
}

/// The arguments of our own plugin for what a CA said, each checked.
fn arguments(ca: &str, auth: &DiscoveryAuth) -> Result<Vec<String>, AuthSourceError> {
    let field = |field, problem: &str| AuthSourceError::Field {
        ca: ca.to_owned(),
        field,
        problem: problem.to_owned(),
    };
    if auth.command.is_some() || auth.kind.as_deref() == Some("command") {
        return Err(AuthSourceError::Command(ca.to_owned()));
    }
    if let Some(kind) = auth.kind.as_deref().filter(|kind| *kind != "oidc") {
        let shown = epithet_wire::display::sanitize_line(kind, 40);
        return Err(AuthSourceError::Kind(ca.to_owned(), shown));
    }
    if auth
        .client_secret
        .as_ref()
        .is_some_and(|secret| !secret.is_empty())
    {
        return Err(field(
            "client_secret",
            "a secret is never taken from a CA; configure --auth with --client-secret-file",
        ));
    }
    let is_plain = |text: &str, max: usize| {
        (1..=max).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
    };
    if !is_plain(&auth.issuer, ISSUER_MAX) {
        return Err(field(
            "issuer",
            "it must be a URL of visible ASCII, at most 2048 bytes",
        ));
    }
    match Endpoint::parse(&auth.issuer) {
        Ok(Endpoint::Http(_)) => {}
        Err(error @ EndpointError::Credentials(_)) => return Err(field("issuer", &error.to_string())),
        Ok(Endpoint::Unix(_)) | Err(_) => return Err(field("issuer", "it must be an https URL")),
    }
    if auth
        .issuer
        .contains(['`', '$', '\'', '"', '\\', ';', '|', '<', '>'])
    {
        return Err(field("issuer", "it has characters that no issuer has"));
    }
    if !is_plain(&auth.client_id, CLIENT_ID_MAX) || auth.client_id.starts_with('-') {
        return Err(field(
            "client_id",
            "it must be 1 to 256 visible ASCII characters and not begin with `-`",
        ));
    }
    let is_scope = |scope: &String| is_plain(scope, SCOPE_MAX) && !scope.contains([',', '"', '\\']);
    if auth.scopes.len() > SCOPES_MAX || !auth.scopes.iter().all(is_scope) {
        return Err(field(
            "scopes",
            "at most 64 words of visible ASCII without commas and quotes",
        ));
    }
    let mut arguments = vec!["auth".to_owned(), "oidc".to_owned()];
    arguments.push(format!("--issuer={}", auth.issuer));
    arguments.push(format!("--client-id={}", auth.client_id));
    if !auth.scopes.is_empty() {
        arguments.push(format!("--scopes={}", auth.scopes.join(",")));
    }
    Ok(arguments)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn auth(issuer: &str, client_id: &str) -> DiscoveryAuth {
        DiscoveryAuth {
            issuer: issuer.into(),
            client_id: client_id.into(),
            ..DiscoveryAuth::default()
        }
    }

    #[test]
    fn data_becomes_separate_arguments() {
        let mut auth = auth("https://accounts.example.com/x", "id.apps");
        auth.scopes = vec!["openid".into(), "email".into()];
        assert_eq!(
            arguments("ca", &auth).unwrap(),
            [
                "auth",
                "oidc",
                "--issuer=https://accounts.example.com/x",
                "--client-id=id.apps",
                "--scopes=openid,email"
            ]
        );
    }

    #[test]
    fn whatever_could_become_a_command_is_refused_by_name() {
        let i = "https://i.example.com";
        let cases = [
            (auth("https://x; touch /tmp/pwned #", "c"), "issuer"),
            (auth("https://x/$(id)", "c"), "issuer"),
            (auth("https://x/`id`", "c"), "issuer"),
            (auth("--help", "c"), "issuer"),
            (auth("http://i.example.com", "c"), "issuer"),
            (auth("https://x\n", "c"), "issuer"),
            (auth("https://x\0", "c"), "issuer"),
            (auth("", "c"), "issuer"),
            (auth(i, ""), "client_id"),
            (auth(i, "-x"), "client_id"),
            (auth(i, "a b"), "client_id"),
            (auth(i, &"c".repeat(257)), "client_id"),
            (
                DiscoveryAuth {
                    scopes: vec!["a b".into()],
                    ..auth(i, "c")
                },
                "scopes",
            ),
            (
                DiscoveryAuth {
                    client_secret: Some("s".into()),
                    ..auth(i, "c")
                },
                "client_secret",
            ),
            (
                DiscoveryAuth {
                    command: Some("touch /tmp/pwned".into()),
                    ..auth(i, "c")
                },
                "command",
            ),
            (
                DiscoveryAuth {
                    kind: Some("command".into()),
                    ..auth(i, "c")
                },
                "command",
            ),
            (
                DiscoveryAuth {
                    kind: Some("saml".into()),
                    ..auth(i, "c")
                },
                "saml",
            ),
        ];
        for (auth, word) in cases {
            let error = arguments("https://ca.example.com", &auth)
                .unwrap_err()
                .to_string();
            assert!(error.contains(word), "{error}");
        }
    }
}
