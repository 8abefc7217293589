//! The numbers of a server, gathered from its parts, on a listener of their own.

use anyhow::Context;
use epithet_ca::{AuditLog, CaMetrics};
use epithet_policy::Policy;
use epithet_serve::{Listen, Looked, Settings, Tls, metrics_router, tls_expiry};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// How often files were read again, by kind and result.
#[derive(Debug, Clone, Default)]
pub(super) struct Reloads(Family<Vec<(&'static str, &'static str)>, Counter>);

impl Reloads {
    /// This kind is read again here. Both results are shown from the start, at 0: `increase()` does not see the first of what
    /// was not there.
    pub(super) fn expect(&self, what: &'static str) {
        for result in ["ok", "failed"] {
            drop(self.0.get_or_create(&vec![("what", what), ("result", result)]));
        }
    }

    pub(super) fn note(&self, what: &'static str, worked: bool) {
        let result = if worked { "ok" } else { "failed" };
        self.0
            .get_or_create(&vec![("what", what), ("result", result)])
            .inc();
    }
}

/// Everything that is counted.
pub(super) struct Numbers {
    pub(super) reloads: Reloads,
    registry: Registry,
}

impl Numbers {
    /// Those of a server with these TLS files and this policy, as far as it has them.
    pub(super) fn new(tls: Option<&Tls>, policy: Option<&Arc<Policy>>) -> Self {
        let reloads = Reloads::default();
        let mut registry = Registry::with_prefix("epithet");
        registry.register(
            "reloads",
            "How often files were read or opened again (audit log, TLS files, rules, the CA's keys), by result",
            reloads.0.clone(),
        );
        if let Some(tls) = tls {
            reloads.expect("tls");
            registry.register_collector(tls_expiry(tls.clone()));
        }
        if let Some(policy) = policy {
            reloads.expect("rules");
            register_policy(&mut registry, policy);
        }
        Self { reloads, registry }
    }

    /// And those of a CA.
    pub(super) fn of_ca(&mut self) -> CaMetrics {
        let ca = CaMetrics::default();
        ca.register(&mut self.registry);
        ca
    }

    /// And how the audit log's file fares.
    pub(super) fn of_audit(&mut self, audit: &AuditLog) {
        self.reloads.expect("audit");
        self.registry.register(
            "ca_audit_files_lost",
            "How often the audit log's file was deleted while it was in use",
            audit.files_lost(),
        );
    }

    /// Serves them until the end.
    pub(super) async fn serve(self, address: &str, ending: CancellationToken) -> anyhow::Result<()> {
        let listener = Listen::parse(address)
            .context("--metrics-listen")?
            .bind()
            .await
            .context("--metrics-listen")?;
        crate::logging::say(&format!("metrics: listening on {}", listener.address()));
        let router = metrics_router(self.registry);
        tokio::spawn(epithet_serve::serve(
            listener,
            router,
            Settings::default(),
            ending,
        ));
        Ok(())
    }
}

fn register_policy(registry: &mut Registry, policy: &Arc<Policy>) {
    policy.metrics().register(registry);
    let look = |read: fn(&Policy) -> Option<u64>| {
        let policy = Arc::clone(policy);
        move || read(&policy).map(|number| number as f64)
    };
    registry.register_collector(Looked::new(
        "policy_jwks_age_seconds",
        "Seconds since the oldest identity provider's keys were fetched or confirmed",
        look(Policy::keys_age),
    ));
    registry.register_collector(Looked::new(
        "policy_rules_age_seconds",
        "Seconds since the rules in force were read",
        look(|policy| {
            let age = jiff::Timestamp::now().duration_since(policy.status().loaded_at);
            u64::try_from(age.as_secs()).ok()
        }),
    ));
    registry.register_collector(Looked::counter(
        "policy_rules_reloads",
        "How often the rules were read again and took effect",
        look(|policy| Some(policy.status().reloads)),
    ));
    registry.register_collector(Looked::counter(
        "policy_rules_failed_reloads",
        "How often the rules were read again and could not be used",
        look(|policy| Some(policy.status().failed_reloads)),
    ));
}
