//! Which hosts the broker handles. Everything else is left to ssh, untouched: no login, no request to a CA.

use epithet_agent::Clock;
use epithet_wire::{HostName, HostPattern};
use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

/// How long a host is left alone after its CA said that it is none of its hosts (status 422).
const NOT_OURS: Duration = Duration::from_secs(600);
/// How many such hosts are remembered.
const NOT_OURS_MAX: usize = 4096;

/// Where the patterns came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GateSource {
    /// `--match` or the configuration file.
    Configuration,
    /// The CA's discovery document.
    Ca,
    /// What the CA said an earlier time; it has not been reached since.
    Remembered,
    /// Nobody named any, so every host is asked about.
    Everything,
    /// Nobody has been able to say yet.
    Unknown,
}

impl GateSource {
    /// The source as `inspect` names it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Configuration => "configuration",
            Self::Ca => "ca",
            Self::Remembered => "ca as it said before; it has not been reached since",
            Self::Everything => "everything",
            Self::Unknown => "unknown",
        }
    }
}

/// Decides which hosts Epithet handles. Everything else is left to ssh.
///
/// Patterns are matched against the host as ssh will dial it (`%h` of the final pass), whatever its case.
#[derive(Debug)]
pub struct HostGate {
    patterns: Vec<HostPattern>,
    source: GateSource,
    left_alone: Mutex<HashMap<String, Duration>>,
    clock: Clock,
}

impl HostGate {
    /// A gate with these patterns.
    pub fn new(patterns: Vec<HostPattern>, source: GateSource, clock: Clock) -> Self {
        Self {
            clock,
            patterns,
            source,
            left_alone: Mutex::default(),
        }
    }

    /// The patterns.
    pub fn patterns(&self) -> &[HostPattern] {
        &self.patterns
    }

    /// Who named them.
    pub fn source(&self) -> GateSource {
        self.source
    }

    /// Whether `host` is one of ours at the moment.
    pub fn admits(&self, host: &HostName) -> bool {
        let name = host.canonical();
        let admitted = match self.source {
            GateSource::Everything => true,
            GateSource::Unknown => false,
            GateSource::Configuration | GateSource::Ca | GateSource::Remembered => {
                self.patterns.iter().any(|pattern| pattern.matches(&name))
            }
        };
        admitted && !self.is_left_alone(&name)
    }

    fn is_left_alone(&self, name: &str) -> bool {
        let left_alone = self
            .left_alone
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        left_alone
            .get(name)
            .is_some_and(|until| self.clock.now().boot < *until)
    }

    /// Remembers that the CA does not certify for `host`.
    pub fn leave_alone(&self, host: &HostName) {
        let mut left_alone = self
            .left_alone
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let now = self.clock.now().boot;
        if left_alone.len() >= NOT_OURS_MAX {
            left_alone.retain(|_, until| now < *until);
        }
        if left_alone.len() < NOT_OURS_MAX {
            left_alone.insert(host.canonical(), now + NOT_OURS);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(name: &str) -> HostName {
        HostName::parse(name).unwrap()
    }

    #[test]
    fn only_hosts_that_somebody_named_are_admitted() {
        let patterns = vec![HostPattern::parse("*.example.com").unwrap()];
        let gate = HostGate::new(patterns, GateSource::Configuration, Clock::default());
        assert!(gate.admits(&host("web.example.com")));
        assert!(gate.admits(&host("WEB.Example.COM.")));
        assert!(!gate.admits(&host("github.com")));
        assert!(
            !HostGate::new(vec![], GateSource::Unknown, Clock::default()).admits(&host("web.example.com"))
        );
        assert!(HostGate::new(vec![], GateSource::Everything, Clock::default()).admits(&host("github.com")));
    }

    #[test]
    fn a_host_the_ca_does_not_know_is_left_alone() {
        let gate = HostGate::new(vec![], GateSource::Everything, Clock::default());
        gate.leave_alone(&host("other.example.com"));
        assert!(!gate.admits(&host("OTHER.example.com")));
        assert!(gate.admits(&host("web.example.com")));
    }
}
