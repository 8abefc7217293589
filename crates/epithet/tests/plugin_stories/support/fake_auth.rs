//! The provider's token endpoint as the page's Python plugin knows it: `access_token` and a `refresh_token` for one use.

use super::http::{HttpServer, Response};
use super::real_server::stale_id_token;
use epithet_testkit::devidp::DevProvider;
use serde_json::json;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// A token endpoint whose access tokens are ID tokens of a development provider.
#[derive(Debug)]
pub(crate) struct FakeAuth {
    ledger: Arc<Mutex<Ledger>>,
    server: HttpServer,
}

#[derive(Debug, Default)]
struct Ledger {
    /// What each request came with: the grant type, and the refresh token if there was one.
    grants: Vec<(String, Option<String>)>,
    /// Whether the next access token is one that has ended.
    is_next_stale: bool,
}

impl FakeAuth {
    /// Starts it.
    pub(crate) fn start(provider: Arc<DevProvider>) -> Self {
        let ledger: Arc<Mutex<Ledger>> = Arc::default();
        let shared = Arc::clone(&ledger);
        let server = HttpServer::start(move |request| {
            let form: HashMap<String, String> =
                url::form_urlencoded::parse(&request.body).into_owned().collect();
            let mut ledger = shared.lock().unwrap_or_else(PoisonError::into_inner);
            let number = ledger.grants.len();
            let (grant, refresh_token) = (form.get("grant_type"), form.get("refresh_token"));
            let is_refresh = grant.is_some_and(|grant| grant == "refresh_token");
            if request.path != "/token" || is_refresh && refresh_token != Some(&refresh_token_number(number))
            {
                return Response {
                    status: 400,
                    body: json!({"error": "invalid_grant"}).to_string(),
                };
            }
            ledger
                .grants
                .push((grant.cloned().unwrap_or_default(), refresh_token.cloned()));
            let access_token = if std::mem::take(&mut ledger.is_next_stale) {
                stale_id_token(&provider)
            } else {
                provider.mint_id_token("alice", &json!({}))
            };
            let body =
                json!({"access_token": access_token, "refresh_token": refresh_token_number(number + 1)});
            Response {
                status: 200,
                body: body.to_string(),
            }
        });
        Self { ledger, server }
    }

    /// Where plugins ask.
    pub(crate) fn token_endpoint(&self) -> String {
        format!("{}/token", self.server.url())
    }

    /// Makes the next access token one that has ended.
    pub(crate) fn let_the_next_token_be_stale(&self) {
        self.ledger
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .is_next_stale = true;
    }

    /// What was granted: the grant type, and the refresh token it was granted for.
    pub(crate) fn grants(&self) -> Vec<(String, Option<String>)> {
        self.ledger
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .grants
            .clone()
    }
}

/// The refresh token that comes with the nth answer, and is good for the next request only.
pub(crate) fn refresh_token_number(number: usize) -> String {
    format!("refresh-{number}")
}
