//! The gate as it is now: from configuration once and for all, or following what the CA says.

use crate::discovery::{DiscoveryWatch, Knowledge, Said};
use crate::hosts::{GateSource, HostGate};
use arc_swap::ArcSwap;
use epithet_agent::Clock;
use epithet_wire::HostName;
use epithet_wire::HostPattern;
use std::sync::Arc;
use std::time::Duration;

/// How long a `match` waits for a CA that has not said yet which hosts are its own.
const PATIENCE: Duration = Duration::from_secs(2);
/// The same for a CA that could not be reached the last time, when every ssh to anywhere waits this long for one that still
/// gives no answer at all: two round trips and a TLS handshake with a CA far away fit into it.
const LITTLE_PATIENCE: Duration = Duration::from_secs(1);

/// See the module. Clones share the gate.
#[derive(Debug, Clone)]
pub(crate) struct Gate {
    current: Arc<ArcSwap<HostGate>>,
    discovery: Option<DiscoveryWatch>,
    clock: Clock,
}

impl Gate {
    /// A gate that the person's configuration names.
    pub(crate) fn configured(patterns: Vec<HostPattern>, clock: Clock) -> Self {
        Self::new(patterns, GateSource::Configuration, None, clock)
    }

    /// A gate for every host that ssh asks about, because ssh itself was told which those are.
    pub(crate) fn everything(clock: Clock) -> Self {
        Self::new(Vec::new(), GateSource::Everything, None, clock)
    }

    /// A gate that follows the CA.
    pub(crate) fn following(discovery: DiscoveryWatch, clock: Clock) -> Self {
        Self::new(Vec::new(), GateSource::Unknown, Some(discovery), clock)
    }

    fn new(
        patterns: Vec<HostPattern>,
        source: GateSource,
        discovery: Option<DiscoveryWatch>,
        clock: Clock,
    ) -> Self {
        let gate = HostGate::new(patterns, source, clock.clone());
        Self {
            current: Arc::new(ArcSwap::from_pointee(gate)),
            discovery,
            clock,
        }
    }

    /// Takes what the CA said an earlier time, while it has not said anything yet.
    pub(crate) fn recall(&self, patterns: &[String]) {
        if self.current.load().source() != GateSource::Unknown {
            return;
        }
        let (patterns, source) = match patterns {
            [] => (Vec::new(), GateSource::Everything),
            texts => (understood(texts), GateSource::Remembered),
        };
        self.store(patterns, source);
    }

    fn store(&self, patterns: Vec<HostPattern>, source: GateSource) {
        let gate = HostGate::new(patterns, source, self.clock.clone());
        self.current.store(Arc::new(gate));
    }

    /// Whether hosts were named, by a CA or by configuration.
    fn names_hosts(&self) -> bool {
        !matches!(
            self.current.load().source(),
            GateSource::Unknown | GateSource::Everything
        )
    }

    /// Whether it is known which hosts are ours.
    pub(crate) fn is_known(&self) -> bool {
        self.current.load().source() != GateSource::Unknown
    }

    /// Why it is not known which hosts are ours, if a CA was asked and did not say.
    pub(crate) fn problem(&self) -> Option<String> {
        match self.discovery.as_ref()?.now() {
            Knowledge::Unreachable(problem) => Some(problem),
            Knowledge::Unknown | Knowledge::Known(_) => None,
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
        if let Knowledge::Known(said) = discovery.look(patience).await {
            self.learn(&said);
        }
        self.current.load().admits(host)
    }

    pub(crate) fn leave_alone(&self, host: &HostName) {
        self.current.load().leave_alone(host);
    }

    /// Takes over what the CA says. True when the hosts changed. Silence while another CA was not to be asked changes no
    /// hosts that were named.
    pub(crate) fn learn(&self, said: &Said) -> bool {
        let advertised = said.patterns();
        if said.is_partial && self.names_hosts() {
            return false;
        }
        let patterns = understood(advertised);
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
        self.store(patterns, source);
        true
    }
}

fn understood(texts: &[String]) -> Vec<HostPattern> {
    let mut patterns = Vec::new();
    for text in texts {
        match HostPattern::parse(text) {
            Ok(pattern) => patterns.push(pattern),
            Err(error) => {
                tracing::warn!(%error, "the CA advertises a pattern that is not understood; it is left out");
            }
        }
    }
    patterns
}

#[cfg(test)]
mod tests {
    use super::*;
    use epithet_wire::ca::Discovery;

    fn said(patterns: &[&str], is_partial: bool) -> Said {
        let match_patterns = patterns.iter().map(|text| (*text).to_owned()).collect();
        Said {
            discovery: Some(Discovery {
                match_patterns,
                ..Discovery::default()
            }),
            is_partial,
        }
    }

    fn gate() -> Gate {
        Gate::new(Vec::new(), GateSource::Unknown, None, Clock::default())
    }

    fn admitted(gate: &Gate) -> [bool; 2] {
        ["web.corp", "github.com"].map(|host| gate.now().admits(&HostName::parse(host).unwrap()))
    }

    /// The second of two CAs that names no hosts must not open the gate while the first one is away.
    #[test]
    fn silence_while_another_ca_is_away_changes_no_hosts_that_were_named() {
        let learned = gate();
        assert!(learned.learn(&said(&["*.corp"], false)));
        assert!(!learned.learn(&said(&[], true)));
        assert_eq!(admitted(&learned), [true, false]);
        assert!(learned.learn(&said(&[], false)));
        assert_eq!(admitted(&learned), [true, true]);

        let remembered = gate();
        remembered.recall(&["*.corp".to_owned()]);
        assert!(!remembered.learn(&said(&[], true)));
        assert_eq!(admitted(&remembered), [true, false]);

        let new = gate();
        assert!(new.learn(&said(&[], true)));
        assert_eq!(admitted(&new), [true, true]);
    }
}
