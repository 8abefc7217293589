//! Logging in with a browser, here or elsewhere: authorization code and PKCE.

use crate::authorization::{Authorization, Response, ResponseError};
use crate::callback::Listener;
use crate::flow::{Flow, FlowChoice};
use crate::login::{FlowError, LoggedIn, LoginError};
use crate::page::Page;
use crate::session::{FirstToken, Session, Verified};
use crate::token_endpoint;
use crate::ui::{LoginUi, Notice};
use crate::waiting::Came;
use std::sync::Arc;
use url::Url;

impl Session<'_> {
    /// Authorization code with PKCE: the browser comes back to our listener, or the person brings the address.
    ///
    /// With `may_offer_a_code`, a person whose browser does not come back is shown a code after a while.
    pub(crate) async fn log_in_with_a_browser(
        &mut self,
        ui: &mut dyn LoginUi,
        flow: Flow,
        may_offer_a_code: bool,
    ) -> Result<LoggedIn, FlowError> {
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
                    return Err(FlowError::NotHere(error.to_string()));
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
            let code_after = may_offer_a_code.then_some(options.other_way_after);
            ui.show(&Notice::Browser {
                url,
                is_open,
                code_after,
            });
        } else if let Ok(deliver_to) = Url::parse(&own_address) {
            ui.show(&Notice::Paste {
                url,
                deliver_to,
                is_loopback: elsewhere.is_none(),
            });
        }

        let came = self
            .wait_for_the_person(&mut serving, &authorization, ui, flow, may_offer_a_code)
            .await;
        let (result, browser) = match came {
            Came::Response(response, browser) => {
                let verified = self.redeem(response, &authorization).await;
                (verified.map(|verified| LoggedIn { verified, flow }), browser)
            }
            Came::Tokens(tokens) => {
                let verified = self.verify(tokens, Some(FirstToken { nonce: None }), None).await;
                let logged_in = |verified| LoggedIn {
                    verified,
                    flow: Flow::Device,
                };
                (verified.map(logged_in).map_err(FlowError::from), None)
            }
            Came::Refusal(refusal) => (Err(LoginError::Refused(refusal).into()), None),
        };
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

fn last_page(result: &Result<LoggedIn, FlowError>) -> Page {
    match result {
        Ok(logged_in) => {
            let claims = logged_in.verified.claims.as_ref();
            let name = claims.and_then(|claims| {
                let name = || claims.raw.get("name").and_then(|name| name.as_str());
                claims.email.as_deref().or_else(name)
            });
            Page::success(
                name.map(|name| epithet_wire::display::sanitize_line(name, 100))
                    .as_deref(),
            )
        }
        Err(FlowError::Unsuitable(why) | FlowError::NotHere(why)) => Page::failure(why),
        Err(FlowError::Final(error)) => Page::failure(&error.to_string()),
    }
}
