//! What a person has configured about their agents.

use epithet_agent::ChainWhen;
use epithet_wire::{HostName, HostPattern};
use std::time::Duration;

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentPolicy {
    /// The hosts that may go on with the certificate when the agent is forwarded to them (`ssh -A`).
    pub allow_forwarding: Vec<HostPattern>,
    /// When the person's own agent is offered after ours; `None` is never.
    pub chain: Option<ChainWhen>,
    /// How long ssh's agent request waits for a certificate that is on its way; ssh itself would wait for ever.
    pub wait: Duration,
    /// Agents at once.
    pub max_agents: usize,
    /// Whether certificates of agents in use are renewed before they end.
    pub renew: bool,
}

impl AgentPolicy {
    pub(crate) fn allows_forwarding(&self, host: &HostName) -> bool {
        let name = host.canonical();
        self.allow_forwarding.iter().any(|pattern| pattern.matches(&name))
    }
}
