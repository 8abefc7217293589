//! The policy server as the CA of the same process sees it: the same decisions, without HTTP.

use epithet_ca::{LocalDecision, LocalPolicy, LocalReadiness, PolicyRefusal};
use epithet_policy::Policy;
use epithet_wire::ca::Discovery;
use epithet_wire::{ConnectionFields, Token};

/// See the module.
pub(super) struct InProcess {
    policy: Policy,
}

impl InProcess {
    pub(super) fn new(policy: Policy) -> Self {
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
