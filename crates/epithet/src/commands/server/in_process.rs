//! The policy server as the CA of the same process sees it: the same decisions, without HTTP.

use epithet_ca::{Decide, Deciding, Discovering, PolicyRefusal};
use epithet_policy::{Policy, Refusal};
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

impl Decide for InProcess {
    fn decide<'a>(&'a self, token: &'a Token, connection: &'a ConnectionFields) -> Deciding<'a> {
        Box::pin(async move {
            let response = self.policy.decide(token, connection).await.map_err(refusal)?;
            Ok(response.cert_params)
        })
    }

    fn discovery(&self) -> Discovering<'_> {
        Box::pin(async move { Ok(self.policy.discovery()) })
    }
}

/// A refusal is the user's, unless the policy server could not tell.
fn refusal(refusal: Refusal) -> PolicyRefusal {
    match refusal.status.is_client_error() {
        true => PolicyRefusal::Refused {
            status: refusal.status.as_u16(),
            message: refusal.message,
        },
        false => PolicyRefusal::Unavailable(refusal.message),
    }
}
