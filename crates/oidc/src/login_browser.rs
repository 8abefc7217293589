//! Logging in with a browser, here or elsewhere: authorization code and PKCE.

use crate::authorization::{Authorization, Response, ResponseError};
use crate::callback::{Answer, Listener, Serving};
use crate::flow::{Flow, FlowChoice};
use crate::login::{FlowError, LoginError};
use crate::page::Page;
use crate::session::{FirstToken, Session, Verified};
use crate::token_endpoint;
use crate::ui::{LoginUi, Notice};
use std::sync::Arc;
use url::Url;

impl Session<'_> {
    /// Authorization code with PKCE: the browser comes back to our listener, or the person brings the address.
    pub(crate) async fn log_in_with_a_browser(
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
            Response::Refused(refusal) if refusal.forbids_the_flow() => {
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
}

/// Waits for the browser to come back, or for the person to paste the address on which it ended elsewhere.
async fn wait_for_response(
    serving: &mut Serving,
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
