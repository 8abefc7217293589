//! The gate as it is now: from configuration once and for all, or following what the CA says.

use crate::discovery::{DiscoveryWatch, Knowledge};
use crate::hosts::{GateSource, HostGate};
use arc_swap::ArcSwap;
use epithet_wire::HostName;
use epithet_wire::HostPattern;
use epithet_wire::ca::Discovery;
use std::sync::Arc;
use std::time::Duration;

/// How long a `match` waits for a CA that has not said yet which hosts are its own.
const PATIENCE: Duration = Duration::from_secs(2);
/// The same for a CA that could not be reached the last time: every ssh to anywhere waits this long.
const LITTLE_PATIENCE: Duration = Duration::from_millis(300);

/// See the module. Clones share the gate.
#[derive(Debug, Clone)]
pub(crate) struct Gate {
    current: Arc<ArcSwap<HostGate>>,
    discovery: Option<DiscoveryWatch>,
}

impl Gate {
    /// A gate that the person's configuration names.
    pub(crate) fn configured(patterns: Vec<HostPattern>) -> Self {
        let gate = HostGate::new(patterns, GateSource::Configuration);
        Self {
            current: Arc::new(ArcSwap::from_pointee(gate)),
            discovery: None,
        }
    }

    /// A gate that follows the CA.
    pub(crate) fn following(discovery: DiscoveryWatch) -> Self {
        let gate = HostGate::new(Vec::new(), GateSource::Unknown);
        Self {
            current: Arc::new(ArcSwap::from_pointee(gate)),
            discovery: Some(discovery),
        }
    }

    /// The gate at this moment.
    pub(crate) fn now(&self) -> Arc<HostGate> {
        self.current.load_full()
    }

    /// Whether `host` is one of ours; asks the CA first if it has not said.
    pub(crate) async fn admits(&self, host: &HostName) -> bool {
        let gate = self.current.load();
        if gate.source() != GateSource::Unknown {
            return gate.admits(host);
        }
        let Some(discovery) = &self.discovery else {
            return false;
        };
        let patience = match discovery.now() {
            Knowledge::Unreachable(_) => LITTLE_PATIENCE,
            _ => PATIENCE,
        };
        if let Knowledge::Known(known) = discovery.get(patience).await {
            self.learn(known.as_deref());
        }
        self.current.load().admits(host)
    }

    pub(crate) fn leave_alone(&self, host: &HostName) {
        self.current.load().leave_alone(host);
    }

    /// Takes over what the CA says. True when the hosts changed.
    pub(crate) fn learn(&self, discovery: Option<&Discovery>) -> bool {
        let advertised = discovery
            .map(|discovery| discovery.match_patterns.as_slice())
            .unwrap_or_default();
        let mut patterns = Vec::new();
        for text in advertised {
            match HostPattern::parse(text) {
                Ok(pattern) => patterns.push(pattern),
                Err(error) => {
                    tracing::warn!(%error, "the CA advertises a pattern that is not understood; it is left out");
                }
            }
        }
        let source = if advertised.is_empty() {
            GateSource::Everything
        } else {
            GateSource::Ca
        };
        let now = self.current.load();
        if now.source() == source && now.patterns() == patterns {
            return false;
        }
        if source == GateSource::Everything {
            tracing::warn!(
                "the CA does not say which hosts are its own, so it is asked about every host you connect to; name yours with --match"
            );
        }
        self.current.store(Arc::new(HostGate::new(patterns, source)));
        true
    }
}
