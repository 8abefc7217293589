//! The CA's numbers.

use epithet_serve::latency_histogram;
use http::StatusCode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use std::time::Duration;

type Labels = Vec<(&'static str, &'static str)>;

/// Counters and histograms of a CA. Clones count together.
#[derive(Debug, Clone)]
pub struct CaMetrics {
    requests: Family<Labels, Counter>,
    issue_seconds: Histogram,
    policy_seconds: Histogram,
    audit_failures: Counter,
}

/// How a request can end. Each is shown from the start, at 0: `increase()` does not see the first of what was not there.
const OUTCOMES: [&str; 9] = [
    "issued",
    "repeated",
    "denied",
    "token_refused",
    "not_this_ca",
    "too_many",
    "bad_request",
    "busy",
    "failed",
];

impl Default for CaMetrics {
    fn default() -> Self {
        let requests = Family::<Labels, Counter>::default();
        for outcome in OUTCOMES {
            drop(requests.get_or_create(&vec![("outcome", outcome)]));
        }
        Self {
            requests,
            issue_seconds: latency_histogram(),
            policy_seconds: latency_histogram(),
            audit_failures: Counter::default(),
        }
    }
}

impl CaMetrics {
    /// Shows them in a registry.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "ca_requests",
            "Requests for a certificate by how they ended",
            self.requests.clone(),
        );
        registry.register(
            "ca_issue_seconds",
            "How long requests took that ended with a certificate",
            self.issue_seconds.clone(),
        );
        registry.register(
            "ca_policy_seconds",
            "How long policy took to decide",
            self.policy_seconds.clone(),
        );
        registry.register(
            "ca_audit_failures",
            "Lines of the audit log that could not be written, each a certificate that was not issued",
            self.audit_failures.clone(),
        );
    }

    pub(crate) fn answered(&self, outcome: &'static str, took: Duration) {
        self.requests.get_or_create(&vec![("outcome", outcome)]).inc();
        if outcome == "issued" {
            self.issue_seconds.observe(took.as_secs_f64());
        }
    }

    pub(crate) fn policy_took(&self, took: Duration) {
        self.policy_seconds.observe(took.as_secs_f64());
    }

    pub(crate) fn audit_failed(&self) {
        self.audit_failures.inc();
    }
}

/// The name of an outcome other than a certificate.
pub(crate) fn outcome_of(status: StatusCode) -> &'static str {
    match status {
        StatusCode::UNAUTHORIZED => "token_refused",
        StatusCode::FORBIDDEN => "denied",
        StatusCode::UNPROCESSABLE_ENTITY => "not_this_ca",
        StatusCode::TOO_MANY_REQUESTS => "too_many",
        status if status.is_client_error() => "bad_request",
        _ => "failed",
    }
}
