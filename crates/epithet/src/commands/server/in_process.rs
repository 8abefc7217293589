//! The policy server as the CA of the same process sees it: the same decisions, without HTTP.

use axum::Router;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use epithet_ca::{LocalDecision, LocalPolicy, LocalReadiness, PolicyRefusal};
use epithet_policy::Policy;
use epithet_wire::ca::Discovery;
use epithet_wire::{ConnectionFields, Token};
use std::sync::Arc;

/// See the module.
pub(super) struct InProcess {
    policy: Arc<Policy>,
}

impl InProcess {
    pub(super) fn new(policy: Arc<Policy>) -> Self {
        Self { policy }
    }
}

impl LocalPolicy for InProcess {
    fn decide<'a>(&'a self, token: &'a Token, connection: &'a ConnectionFields) -> LocalDecision<'a> {
        Box::pin(async move {
            self.policy
                .decide(token, connection)
                .await
                .map_err(|refusal| PolicyRefusal {
                    status: refusal.status,
                    message: refusal.message,
                    grounds: refusal.grounds,
                })
        })
    }

    fn discovery(&self) -> Discovery {
        self.policy.discovery()
    }

    fn ready(&self) -> LocalReadiness<'_> {
        Box::pin(async move { self.policy.ready().await.map_err(|error| error.to_string()) })
    }
}

/// The CA's routes, with a `/readyz` that says when a reload failed, as the policy server's own does.
pub(super) fn say_when_rules_are_old(router: Router, policy: Arc<Policy>) -> Router {
    router.layer(from_fn_with_state(policy, readiness))
}

async fn readiness(State(policy): State<Arc<Policy>>, request: Request, next: Next) -> Response {
    let asks = request.uri().path() == "/readyz";
    let response = next.run(request).await;
    if asks && response.status() == StatusCode::OK && policy.reload_failed() {
        return policy.status().readiness().into_response();
    }
    response
}
