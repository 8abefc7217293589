//! The whole login: refresh while that works, else ask the person, and believe nothing that is not verified.
//!
//! With a state the old token is never given out again: whoever runs the plugin does so because that one has
//! done its service. A provider that is down is an error and the state stays as it is; only a provider that says
//! no to the refresh token sends the person to log in again.

use crate::authorization::{Authorization, Response, ResponseError};
use crate::callback::{Answer, ListenError, Listener};
use crate::claims::Claims;
use crate::client_auth::{self, ClientAuthChoice};
use crate::clock;
use crate::device::{self, DeviceError};
use crate::document::Document;
use crate::flow::{self, Flow, FlowChoice};
use crate::http::FetchError;
use crate::id_token::{self, Expectation, Previous, TokenError};
use crate::jwks::{KeyError, KeySet};
use crate::key_cache::fetch_keys;
use crate::options::{LoginOptions, OptionsError, TokenKind};
use crate::page::Page;
use crate::provider::{Provider, ProviderError};
use crate::random::NoRandomness;
use crate::secret::Secret;
use crate::state::{Kept, Saved};
use crate::token_endpoint::{self, Refusal, TokenEndpointError, TokenSet};
use crate::ui::{LoginUi, Notice};
use epithet_wire::SecretBytes;
use std::sync::Arc;
use tokio::time::timeout;
use url::Url;

/// A token that comes straight from a login was issued no longer ago than this, in seconds.
const FRESH_TOKEN: u64 = 600;

/// How the token was got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// With the refresh token of an earlier login; nobody had to do anything.
    Refreshed,
    /// The person logged in.
    LoggedIn(Flow),
}

/// A login that worked.
#[derive(Debug)]
pub struct Outcome {
    /// What to give out.
    pub token: SecretBytes,
    /// What to remember.
    pub state: SecretBytes,
    /// What the ID token says; `None` when a refresh for an access token brought none.
    pub claims: Option<Claims>,
    /// How it was got.
    pub how: How,
}

/// Why there is no token. Each case is a situation in which a person can do something.
#[derive(Debug, thiserror::Error)]
pub enum LoginError {
    /// The options make no login.
    #[error(transparent)]
    Options(#[from] OptionsError),
    /// The provider cannot be reached or used. The state is as it was; try again later.
    #[error(transparent)]
    Provider(#[from] ProviderError),
    /// The token endpoint refused, or is unwell.
    #[error(transparent)]
    Endpoint(#[from] TokenEndpointError),
    /// The token that came is not to be believed.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The person, or the provider for them, said no.
    #[error("the login was refused: {0}")]
    Refused(Refusal),
    /// The provider's answer had our state and yet does not count.
    #[error("{0}")]
    Response(#[from] ResponseError),
    /// No listener for the browser.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// Nobody entered the code.
    #[error("the code was not entered in time; start again")]
    CodeExpired,
    /// Nobody logged in.
    #[error("nobody logged in within {seconds} s")]
    TimedOut {
        /// The limit, from `--timeout`.
        seconds: u64,
    },
    /// A login without an ID token.
    #[error("the provider sent no {0}; is the application registered for OpenID Connect?")]
    NoToken(&'static str),
    /// No flow is left.
    #[error("there is no way left to log in: {}", .0.join("; "))]
    NoFlow(Vec<String>),
    /// Nothing safe can be done.
    #[error(transparent)]
    Randomness(#[from] NoRandomness),
}

/// Logs in: by refresh when `state` allows it, else with the person's help.
///
/// # Errors
/// See [`LoginError`]. The state is then to be kept as it was.
pub async fn login(
    options: &LoginOptions,
    state: &[u8],
    ui: &mut dyn LoginUi,
) -> Result<Outcome, LoginError> {
    options.check()?;
    let seconds = options.timeout.as_secs();
    timeout(options.timeout, run(options, state, ui))
        .await
        .map_err(|_| LoginError::TimedOut { seconds })?
}

async fn run(options: &LoginOptions, state: &[u8], ui: &mut dyn LoginUi) -> Result<Outcome, LoginError> {
    let mut session = Session::open(options, Saved::read(state, options)).await?;
    if let Some(refresh_token) = session.saved.refresh_token.clone() {
        match session.refresh(&refresh_token).await? {
            Refresh::Done(outcome) => return Ok(*outcome),
            Refresh::Over(why) => ui.show(&Notice::Note(format!("{why}; please log in again."))),
        }
    }
    session.ask_the_person(ui).await
}

/// One login at one provider.
struct Session<'o> {
    options: &'o LoginOptions,
    saved: Saved,
    provider: Provider,
    discovery: Document,
    keys: Option<(KeySet, Document)>,
    auth: ClientAuthChoice,
}

enum Refresh {
    Done(Box<Outcome>),
    /// The refresh token has had its day.
    Over(String),
}

/// Why a flow ended without a token.
enum FlowError {
    /// This one is not possible here; another may be.
    Unsuitable(String),
    Final(LoginError),
}

impl<E: Into<LoginError>> From<E> for FlowError {
    fn from(error: E) -> Self {
        Self::Final(error.into())
    }
}

/// Tokens of which the ID token, if there is one, has been verified.
struct Verified {
    tokens: TokenSet,
    claims: Option<Claims>,
}

impl<'o> Session<'o> {
    /// Finds the provider. The keys are fetched when there is something to verify, so that the browser opens first.
    async fn open(options: &'o LoginOptions, saved: Saved) -> Result<Self, LoginError> {
        let now = clock::unix_now();
        let known = saved.discovery.as_ref();
        let (provider, discovery) = Provider::discover(&options.http, &options.issuer, known, now).await?;
        let auth = client_auth::choose(options, &provider)?;
        Ok(Self {
            options,
            saved,
            provider,
            discovery,
            keys: None,
            auth,
        })
    }

    /// A new token for the old refresh token.
    async fn refresh(&mut self, refresh_token: &Secret) -> Result<Refresh, LoginError> {
        let grant = [
            ("grant_type", "refresh_token"),
            ("refresh_token", refresh_token.expose()),
        ];
        let endpoint = self.token_endpoint()?;
        let mut result = token_endpoint::request(self.options, self.auth, &endpoint, &grant).await;
        if matches!(result, Err(TokenEndpointError::Unavailable(_)))
            && let Some(endpoint) = self.moved_from(&endpoint).await
        {
            result = token_endpoint::request(self.options, self.auth, &endpoint, &grant).await;
        }
        let tokens = match result {
            Ok(tokens) => tokens,
            Err(TokenEndpointError::Refused(refusal)) if ends_the_session(&refusal) => {
                return Ok(Refresh::Over(format!(
                    "The provider ended the session ({refusal})"
                )));
            }
            Err(error) => return Err(error.into()),
        };
        if tokens.id_token.is_none() && self.options.token == TokenKind::Id {
            return Ok(Refresh::Over(
                "The provider renewed the session without an ID token".to_owned(),
            ));
        }
        let previous = self.saved.previous.clone();
        let verified = match self.verify(tokens, None, previous.as_ref()).await {
            // Whoever this is for now, it is not the login that we remember.
            Err(LoginError::Token(error @ TokenError::Changed(_))) => return Ok(Refresh::Over(sentence(&error))),
            result => result?,
        };
        Ok(Refresh::Done(Box::new(self.finish(&verified, How::Refreshed)?)))
    }

    /// Every flow in turn until one works or the person says no.
    async fn ask_the_person(mut self, ui: &mut dyn LoginUi) -> Result<Outcome, LoginError> {
        let mut reasons = Vec::new();
        let mut flows = flow::order(
            self.options.flow,
            self.saved.flow,
            self.options.surroundings,
            &self.provider,
        );
        flows.reverse();
        while let Some(flow) = flows.pop() {
            let result = match flow {
                Flow::Device => self.log_in_with_a_code(ui).await,
                Flow::Browser | Flow::Paste => self.log_in_with_a_browser(ui, flow).await,
            };
            match result {
                Ok(verified) => return self.finish(&verified, How::LoggedIn(flow)),
                Err(FlowError::Final(error)) => return Err(error),
                Err(FlowError::Unsuitable(why)) => {
                    ui.show(&Notice::Note(format!("The {flow} login is not possible: {why}.")));
                    reasons.push(format!("{flow}: {why}"));
                    // With a browser here or elsewhere, the provider is asked the same question.
                    if flow != Flow::Device {
                        flows.retain(|next| *next == Flow::Device);
                    }
                }
            }
        }
        if reasons.is_empty() {
            reasons.push("the provider has neither an authorization nor a device endpoint".to_owned());
        }
        match (self.options.flow, reasons) {
            (FlowChoice::Only(flow), mut reasons) => {
                let reason = reasons.pop().unwrap_or_default();
                let flow = match flow {
                    Flow::Browser => "browser",
                    Flow::Device => "device",
                    Flow::Paste => "paste",
                };
                Err(OptionsError::Flow { flow, reason }.into())
            }
            (FlowChoice::Auto, reasons) => Err(LoginError::NoFlow(reasons)),
        }
    }

    /// Authorization code with PKCE: the browser comes back to our listener, or the person brings the address.
    async fn log_in_with_a_browser(
        &mut self,
        ui: &mut dyn LoginUi,
        flow: Flow,
    ) -> Result<Verified, FlowError> {
        let Some(endpoint) = self.provider.authorization_endpoint.clone() else {
            return Err(FlowError::Unsuitable(
                "the provider has no authorization endpoint".to_owned(),
            ));
        };
        let options = self.options;
        let listener =
            match Listener::bind(options.redirect_host, &options.ports, &options.redirect_path).await {
                Ok(listener) => listener,
                Err(error) if options.flow == FlowChoice::Auto => {
                    return Err(FlowError::Unsuitable(error.to_string()));
                }
                Err(error) => return Err(error.into()),
            };
        let own_address = listener.redirect_uri();
        let elsewhere = options.redirect_uri.as_ref().filter(|_| flow == Flow::Paste);
        let redirect_uri = elsewhere.map_or_else(|| own_address.clone(), Url::to_string);
        let authorization = Arc::new(Authorization::new(
            options,
            &self.provider,
            &endpoint,
            redirect_uri,
        )?);
        tracing::debug!(%flow, port = listener.port(), "waiting for the browser");
        let mut serving = listener.serve(authorization.clone());

        let url = authorization.url.clone();
        if flow == Flow::Browser {
            let is_open = match ui.open_browser(&url) {
                Ok(()) => true,
                Err(reason) => {
                    tracing::debug!(%reason, "no browser was started");
                    false
                }
            };
            ui.show(&Notice::Browser { url, is_open });
        } else if let Ok(deliver_to) = Url::parse(&own_address) {
            ui.show(&Notice::Paste {
                url,
                deliver_to,
                is_loopback: elsewhere.is_none(),
            });
        }

        let (response, browser) = wait_for_response(&mut serving, &authorization, ui).await;
        let result = self.redeem(response, &authorization).await;
        if let Some(browser) = browser {
            browser.show(last_page(&result)).await;
        }
        serving.close().await;
        result
    }

    /// Turns the response into tokens.
    async fn redeem(
        &mut self,
        response: Result<Response, ResponseError>,
        authorization: &Authorization,
    ) -> Result<Verified, FlowError> {
        let code = match response? {
            Response::Code(code) => code,
            Response::Refused(refusal) if forbids_the_flow(&refusal) => {
                return Err(FlowError::Unsuitable(refusal.to_string()));
            }
            Response::Refused(refusal) => return Err(LoginError::Refused(refusal).into()),
        };
        let grant = [
            ("grant_type", "authorization_code"),
            ("code", code.expose()),
            ("redirect_uri", authorization.redirect_uri.as_str()),
            ("code_verifier", authorization.pkce.verifier.expose()),
        ];
        let endpoint = self.token_endpoint()?;
        let tokens = token_endpoint::request(self.options, self.auth, &endpoint, &grant).await?;
        Ok(self
            .verify(
                tokens,
                Some(FirstToken {
                    nonce: Some(&authorization.nonce),
                }),
                None,
            )
            .await?)
    }

    /// A code that the person enters on any device.
    async fn log_in_with_a_code(&mut self, ui: &mut dyn LoginUi) -> Result<Verified, FlowError> {
        let Some(endpoint) = self.provider.device_authorization_endpoint.clone() else {
            return Err(FlowError::Unsuitable(
                "the provider has no device endpoint".to_owned(),
            ));
        };
        let code = match device::request_code(self.options, &self.provider, self.auth, &endpoint).await {
            Ok(code) => code,
            Err(TokenEndpointError::Refused(refusal)) if forbids_the_flow(&refusal) => {
                return Err(FlowError::Unsuitable(refusal.to_string()));
            }
            Err(TokenEndpointError::Unavailable(FetchError::Status {
                status: status @ 400..=499,
                ..
            })) => {
                return Err(FlowError::Unsuitable(format!(
                    "the device endpoint answers with status {status}"
                )));
            }
            Err(error) => return Err(error.into()),
        };
        ui.show(&Notice::DeviceCode {
            user_code: code.user_code.clone(),
            verification_uri: code.verification_uri.clone(),
            complete: code.complete.clone(),
            expires_in: code.expires_in,
        });
        let endpoint = self.token_endpoint()?;
        let tokens = match device::wait(self.options, self.auth, &endpoint, &code).await {
            Ok(tokens) => tokens,
            Err(DeviceError::Expired) => return Err(LoginError::CodeExpired.into()),
            Err(DeviceError::Denied(refusal)) if !forbids_the_flow(&refusal) => {
                return Err(LoginError::Refused(refusal).into());
            }
            Err(
                DeviceError::Endpoint(TokenEndpointError::Refused(refusal)) | DeviceError::Denied(refusal),
            ) if forbids_the_flow(&refusal) => {
                return Err(FlowError::Unsuitable(refusal.to_string()));
            }
            Err(DeviceError::Denied(refusal)) => return Err(LoginError::Refused(refusal).into()),
            Err(DeviceError::Endpoint(error)) => return Err(error.into()),
        };
        Ok(self
            .verify(tokens, Some(FirstToken { nonce: None }), None)
            .await?)
    }

    /// Verifies the ID token; keys that changed in the meantime are fetched once.
    async fn verify(
        &mut self,
        tokens: TokenSet,
        first: Option<FirstToken<'_>>,
        previous: Option<&Previous>,
    ) -> Result<Verified, LoginError> {
        let Some(id_token) = &tokens.id_token else {
            return match (first, self.options.token) {
                (None, TokenKind::Access) => Ok(Verified { tokens, claims: None }),
                _ => Err(LoginError::NoToken("ID token")),
            };
        };
        let id_token = id_token.expose().as_bytes();
        let known = self
            .keys
            .take()
            .map(|(_, document)| document)
            .or_else(|| self.saved.keys.clone());
        let (mut keys, mut document) = self.fetch_keys(known.as_ref()).await?;
        let algorithms = self.provider.algorithms.clone();
        let expected = Expectation {
            nonce: first.as_ref().and_then(|first| first.nonce),
            access_token: tokens.access_token.as_ref().map(Secret::expose),
            max_age: self.options.max_age.filter(|_| first.is_some()),
            issued_within: first.is_some().then_some(FRESH_TOKEN),
            previous,
            ..Expectation::new(self.options.issuer.as_str(), &self.options.client_id, &algorithms)
        };
        let mut result = id_token::verify(id_token, &keys, &expected, clock::unix_now());
        if let Err(TokenError::Key(KeyError::Unknown(_) | KeyError::Signature)) = result {
            (keys, document) = self.fetch_keys(Some(&document.expired())).await?;
            result = id_token::verify(id_token, &keys, &expected, clock::unix_now());
        }
        self.keys = Some((keys, document));
        let claims = Some(result?);
        Ok(Verified { tokens, claims })
    }

    async fn fetch_keys(&self, known: Option<&Document>) -> Result<(KeySet, Document), ProviderError> {
        fetch_keys(&self.options.http, &self.provider, known, clock::unix_now()).await
    }

    /// What is given out and what is remembered.
    fn finish(&self, verified: &Verified, how: How) -> Result<Outcome, LoginError> {
        let (token, name) = match self.options.token {
            TokenKind::Id => (&verified.tokens.id_token, "ID token"),
            TokenKind::Access => (&verified.tokens.access_token, "access token"),
        };
        let token = token.as_ref().ok_or(LoginError::NoToken(name))?;
        let kept = Kept {
            tokens: &verified.tokens,
            claims: verified.claims.as_ref(),
            // A verified token of a login has the login's own nonce.
            nonce: verified.claims.as_ref().filter(|_| how != How::Refreshed).and_then(|it| it.raw.get("nonce")?.as_str()),
            flow: match how {
                How::LoggedIn(flow) => Some(flow),
                How::Refreshed => None,
            },
            discovery: &self.discovery,
            keys: self
                .keys
                .as_ref()
                .map(|(_, document)| document)
                .or(self.saved.keys.as_ref()),
            now: clock::unix_now(),
        };
        // After a login, what was remembered of the one before is of no use: it may have been somebody else.
        let before = Saved::default();
        let saved = if how == How::Refreshed {
            &self.saved
        } else {
            &before
        };
        Ok(Outcome {
            token: SecretBytes::new(token.expose().as_bytes().to_vec()),
            state: SecretBytes::new(saved.write(self.options, &kept)),
            claims: verified.claims.clone(),
            how,
        })
    }

    /// Where the token endpoint is now, if the discovery document that we remembered has become wrong.
    async fn moved_from(&mut self, endpoint: &Url) -> Option<Url> {
        let (options, now) = (self.options, clock::unix_now());
        let known = self.discovery.expired();
        let (provider, discovery) = Provider::discover(&options.http, &options.issuer, Some(&known), now).await.ok()?;
        (self.provider, self.discovery) = (provider, discovery);
        self.provider.token_endpoint.clone().filter(|now| now != endpoint)
    }

    fn token_endpoint(&self) -> Result<Url, LoginError> {
        let missing = || ProviderError::Member {
            issuer: self.options.issuer.to_string(),
            member: "token_endpoint",
        };
        Ok(self.provider.token_endpoint.clone().ok_or_else(missing)?)
    }
}

/// A token straight from a login, and the nonce it must have when the login went through a browser.
struct FirstToken<'n> {
    nonce: Option<&'n str>,
}

fn sentence(error: &TokenError) -> String {
    let text = error.to_string();
    let mut characters = text.chars();
    characters.next().map(|first| first.to_uppercase().chain(characters).collect()).unwrap_or_default()
}

/// Waits for the browser to come back, or for the person to paste the address on which it ended elsewhere.
async fn wait_for_response(
    serving: &mut crate::callback::Serving,
    authorization: &Authorization,
    ui: &mut dyn LoginUi,
) -> (Result<Response, ResponseError>, Option<Answer>) {
    let mut can_paste = true;
    loop {
        tokio::select! {
            Some(mut answer) = serving.answer() => return (answer.take_response(), Some(answer)),
            pasted = ui.pasted(), if can_paste => match pasted {
                None => can_paste = false,
                Some(text) => match authorization.read_response(query_of(&text)) {
                    Err(error) if !error.is_ours() => {
                        ui.show(&Notice::Note(format!("That is not it: {error}. Paste the whole address on which the browser ended.")));
                    }
                    response => return (response, None),
                },
            },
        }
    }
}

/// The query of a pasted address, or the text itself when somebody pasted only the query.
fn query_of(text: &str) -> &str {
    let text = text.trim();
    let text = text.split_once('?').map_or(text, |(_, query)| query);
    text.split_once('#').map_or(text, |(query, _)| query)
}

fn last_page(result: &Result<Verified, FlowError>) -> Page {
    match result {
        Ok(verified) => {
            let claims = verified.claims.as_ref();
            let name = claims.and_then(|claims| {
                let name = || claims.raw.get("name").and_then(|name| name.as_str());
                claims.email.as_deref().or_else(name)
            });
            Page::success(
                name.map(|name| epithet_wire::display::sanitize_line(name, 100))
                    .as_deref(),
            )
        }
        Err(FlowError::Unsuitable(why)) => Page::failure(why),
        Err(FlowError::Final(error)) => Page::failure(&error.to_string()),
    }
}

/// Answers to a refresh after which only the person can help.
fn ends_the_session(refusal: &Refusal) -> bool {
    const ENDS: [&str; 8] = [
        "invalid_grant",
        "invalid_token",
        "login_required",
        "interaction_required",
        "consent_required",
        "account_selection_required",
        "unauthorized_client",
        "unsupported_grant_type",
    ];
    ENDS.contains(&refusal.error.as_str())
}

/// Answers that speak about the flow or the client's permission for it, not about the person.
fn forbids_the_flow(refusal: &Refusal) -> bool {
    const FORBIDS: [&str; 6] = [
        "unauthorized_client",
        "unsupported_grant_type",
        "unsupported_response_type",
        "redirect_uri_mismatch",
        "invalid_request",
        "invalid_request_uri",
    ];
    FORBIDS.contains(&refusal.error.as_str())
        // Conditional Access of Entra forbids the device flow like this.
        || refusal.description.as_deref().is_some_and(|text| text.contains("AADSTS53003"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pasted_address_is_understood_in_whatever_form() {
        for text in [
            "http://127.0.0.1:7/callback?code=a&state=b",
            "  https://elsewhere.example/cb?code=a&state=b#_=_\n",
            "?code=a&state=b",
            "code=a&state=b",
        ] {
            assert_eq!(query_of(text), "code=a&state=b", "{text}");
        }
    }
}
