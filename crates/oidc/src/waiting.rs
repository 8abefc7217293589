//! Waiting for a person with a browser: it comes back by itself, or they paste the address on which it ended; and when
//! nothing comes for a while, they may take a code for another device instead.
//!
//! A provider that does not like our redirect address says so on a page of its own and never sends the browser back:
//! nobody here can know. That is why another way is offered by time.

use crate::authorization::{Authorization, Response, ResponseError};
use crate::callback::{Answer, Heard, Serving};
use crate::device::{self, DeviceCode, DeviceError};
use crate::flow::Flow;
use crate::session::Session;
use crate::token_endpoint::{Refusal, TokenEndpointError, TokenSet};
use crate::ui::{LoginUi, Notice};
use std::pin::Pin;
use tokio::time::{Instant, sleep_until};

/// What the waiting ended with.
pub(crate) enum Came {
    /// The provider's answer to our request, and the browser that brought it and waits for its page.
    Response(Result<Response, ResponseError>, Option<Answer>),
    /// Tokens, for the code that was entered on another device.
    Tokens(TokenSet),
    /// The person, or the provider for them, refused on the other device.
    Refusal(Refusal),
}

type Pending<'p, T> = Option<Pin<Box<dyn Future<Output = T> + Send + 'p>>>;

impl Session<'_> {
    /// Waits until the person has logged in or refused, in whatever way.
    pub(crate) async fn wait_for_the_person(
        &self,
        serving: &mut Serving,
        authorization: &Authorization,
        ui: &mut dyn LoginUi,
        flow: Flow,
        may_offer_a_code: bool,
    ) -> Came {
        let mut can_paste = true;
        let mut silence_ends = (flow == Flow::Browser).then(|| Instant::now() + self.options.other_way_after);
        let mut asking: Pending<'_, Result<DeviceCode, TokenEndpointError>> = None;
        let mut entering: Pending<'_, Result<TokenSet, DeviceError>> = None;
        loop {
            tokio::select! {
                Some(heard) = serving.hear() => match heard {
                    Heard::Answer(mut answer) => {
                        return Came::Response(answer.take_response(), Some(answer));
                    }
                    Heard::Stray(error) => ui.show(&Notice::Note(format!(
                        "A browser came here, but {error}. Still waiting for the right one."
                    ))),
                },
                pasted = ui.pasted(), if can_paste => match pasted {
                    None => can_paste = false,
                    Some(text) => match authorization.read_response(query_of(&text)) {
                        Err(error) if !error.is_ours() => {
                            ui.show(&Notice::Note(format!("That is not it: {error}. Paste the whole address on which the browser ended.")));
                        }
                        response => return Came::Response(response, None),
                    },
                },
                () = until(silence_ends) => {
                    silence_ends = None;
                    ui.show(&Notice::Silence {
                        redirect_uri: authorization.redirect_uri.clone(),
                        has_code: may_offer_a_code,
                    });
                    if may_offer_a_code {
                        asking = self.ask_for_a_code();
                    }
                }
                result = ready(&mut asking) => {
                    asking = None;
                    match result {
                        Ok(code) => {
                            ui.show(&Notice::code(&code));
                            entering = self.wait_for_the_code(code);
                        }
                        Err(error) => ui.show(&Notice::Note(format!(
                            "A code for another device cannot be had: {error}. Still waiting for the browser."
                        ))),
                    }
                }
                result = ready(&mut entering) => {
                    entering = None;
                    let why = match result {
                        Ok(tokens) => return Came::Tokens(tokens),
                        Err(DeviceError::Denied(refusal)) if !refusal.forbids_the_flow() => {
                            return Came::Refusal(refusal);
                        }
                        Err(DeviceError::Denied(refusal)) => refusal.to_string(),
                        Err(DeviceError::Expired) => "it was not entered in time".to_owned(),
                        Err(DeviceError::Endpoint(error)) => error.to_string(),
                    };
                    ui.show(&Notice::Note(format!(
                        "The code is of no use any more: {why}. Still waiting for the browser."
                    )));
                }
            }
        }
    }

    fn ask_for_a_code(&self) -> Pending<'_, Result<DeviceCode, TokenEndpointError>> {
        let endpoint = self.provider.device_authorization_endpoint.as_ref()?;
        Some(Box::pin(device::request_code(
            self.options,
            &self.provider,
            self.auth,
            endpoint,
        )))
    }

    fn wait_for_the_code(&self, code: DeviceCode) -> Pending<'_, Result<TokenSet, DeviceError>> {
        let endpoint = self.provider.token_endpoint.as_ref()?;
        Some(Box::pin(async move {
            device::wait(self.options, self.auth, endpoint, &code).await
        }))
    }
}

async fn until(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

/// The result of what is under way; nothing, ever, when nothing is.
async fn ready<T>(pending: &mut Pending<'_, T>) -> T {
    match pending {
        Some(pending) => pending.await,
        None => std::future::pending().await,
    }
}

/// The query of a pasted address, or the text itself when somebody pasted only the query.
fn query_of(text: &str) -> &str {
    let text = text.trim();
    let text = text.split_once('?').map_or(text, |(_, query)| query);
    text.split_once('#').map_or(text, |(query, _)| query)
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
