//! The policy's numbers: how it decided, and how long that took.

use epithet_serve::latency_histogram;
use http::StatusCode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use std::time::Duration;

/// Counters and a histogram of a policy. Clones count together.
#[derive(Debug, Clone)]
pub struct PolicyMetrics {
    decisions: Family<Vec<(&'static str, &'static str)>, Counter>,
    decision_seconds: Histogram,
}

/// How a question can end. Each is shown from the start, at 0: `increase()` does not see the first of what was not there.
const OUTCOMES: [&str; 6] = [
    "allowed",
    "denied",
    "token_refused",
    "unavailable",
    "bad_request",
    "not_the_ca",
];

impl Default for PolicyMetrics {
    fn default() -> Self {
        let decisions = Family::<Vec<(&'static str, &'static str)>, Counter>::default();
        for outcome in OUTCOMES {
            drop(decisions.get_or_create(&vec![("outcome", outcome)]));
        }
        Self {
            decisions,
            decision_seconds: latency_histogram(),
        }
    }
}

impl PolicyMetrics {
    /// Shows them in a registry.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "policy_decisions",
            "Questions by how they were answered",
            self.decisions.clone(),
        );
        registry.register(
            "policy_decision_seconds",
            "How long it took to verify a token and to decide",
            self.decision_seconds.clone(),
        );
    }

    /// A question was decided.
    pub(crate) fn decided(&self, outcome: &'static str, took: Duration) {
        self.refused(outcome);
        self.decision_seconds.observe(took.as_secs_f64());
    }

    /// A question was none that could be decided.
    pub(crate) fn refused(&self, outcome: &'static str) {
        self.decisions.get_or_create(&vec![("outcome", outcome)]).inc();
    }
}

/// The name of an outcome other than a yes.
pub(crate) fn outcome_of(status: StatusCode) -> &'static str {
    match status {
        StatusCode::UNAUTHORIZED => "token_refused",
        StatusCode::FORBIDDEN => "denied",
        status if status.is_client_error() => "bad_request",
        _ => "unavailable",
    }
}
