//! The whole login: refresh while that works, else ask the person, and believe nothing that is not verified.
//!
//! With a state the old token is never given out again: whoever runs the plugin does so because that one has
//! done its service. A provider that is down is an error and the state stays as it is; only a provider that says
//! no to the refresh token sends the person to log in again.

use crate::authorization::ResponseError;
use crate::callback::ListenError;
use crate::claims::Claims;
use crate::flow::{self, Flow, FlowChoice};
use crate::id_token::TokenError;
use crate::options::{LoginOptions, OptionsError};
use crate::provider::ProviderError;
use crate::random::NoRandomness;
use crate::session::{Refresh, Session, Verified};
use crate::state::Saved;
use crate::token_endpoint::{Refusal, TokenEndpointError};
use crate::ui::{LoginUi, Notice};
use epithet_wire::SecretBytes;
use tokio::time::timeout;

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
    #[error("nobody logged in within {seconds} s (--timeout)")]
    TimedOut {
        /// The limit, from `--timeout`.
        seconds: u64,
    },
    /// A login without an ID token.
    #[error("the provider sent no {0}; is the application registered for OpenID Connect?")]
    NoToken(&'static str),
    /// No flow is left.
    #[error("there is no way left to log in: {0}")]
    NoFlow(String),
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

/// A flow that worked.
pub(crate) struct LoggedIn {
    pub(crate) verified: Verified,
    /// How it worked: while one flow waits, another may be offered and be quicker.
    pub(crate) flow: Flow,
}

/// Why a flow ended without a token.
pub(crate) enum FlowError {
    /// The provider does not allow this one; another may be.
    Unsuitable(String),
    /// This one is not possible here and now; another may be.
    NotHere(String),
    Final(LoginError),
}

impl<E: Into<LoginError>> From<E> for FlowError {
    fn from(error: E) -> Self {
        Self::Final(error.into())
    }
}

impl Session<'_> {
    /// Every flow in turn until one works or the person says no.
    async fn ask_the_person(mut self, ui: &mut dyn LoginUi) -> Result<Outcome, LoginError> {
        // Before anybody goes anywhere: without it, whatever they bring back is of no use.
        self.token_endpoint()?;
        let mut reasons = Vec::new();
        let mut flows = flow::order(
            self.options.flow,
            &self.saved.in_vain,
            self.options.surroundings,
            &self.provider,
        );
        flows.reverse();
        while let Some(flow) = flows.pop() {
            let result = match flow {
                Flow::Device => self.log_in_with_a_code(ui).await,
                Flow::Browser | Flow::Paste => {
                    let may_offer_a_code = flow == Flow::Browser && flows.contains(&Flow::Device);
                    self.log_in_with_a_browser(ui, flow, may_offer_a_code).await
                }
            };
            let why = match result {
                Ok(LoggedIn {
                    verified,
                    flow: worked,
                }) => {
                    if worked != flow {
                        self.was_in_vain(flow);
                    }
                    self.saved.in_vain.retain(|one| *one != worked);
                    return self.finish(&verified, How::LoggedIn(worked));
                }
                Err(FlowError::Final(error)) => return Err(error),
                Err(FlowError::NotHere(why)) => why,
                Err(FlowError::Unsuitable(why)) => {
                    self.was_in_vain(flow);
                    // With a browser here or elsewhere, the provider is asked the same question.
                    if flow != Flow::Device {
                        flows.retain(|next| *next == Flow::Device);
                    }
                    why
                }
            };
            ui.show(&Notice::Note(format!("The {flow} login is not possible: {why}.")));
            reasons.push((flow, why));
        }
        match self.options.flow {
            FlowChoice::Only(flow) => {
                let reason = reasons.pop().map(|(_, why)| why).unwrap_or_default();
                let flow = match flow {
                    Flow::Browser => "browser",
                    Flow::Device => "device",
                    Flow::Paste => "paste",
                };
                Err(OptionsError::Flow { flow, reason }.into())
            }
            FlowChoice::Auto if reasons.is_empty() => Err(LoginError::NoFlow(
                "the provider has neither an authorization nor a device endpoint".to_owned(),
            )),
            FlowChoice::Auto => {
                let reasons: Vec<_> = reasons
                    .iter()
                    .map(|(flow, why)| format!("{flow}: {why}"))
                    .collect();
                Err(LoginError::NoFlow(reasons.join("; ")))
            }
        }
    }

    /// Remembers that the next login had better begin in another way.
    fn was_in_vain(&mut self, flow: Flow) {
        if !self.saved.in_vain.contains(&flow) {
            self.saved.in_vain.push(flow);
        }
    }
}
