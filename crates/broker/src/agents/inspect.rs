//! What `inspect` shows of the agents.

use super::Agents;
use crate::live_agent::LiveAgent;
use epithet_wire::broker::AgentInspection;

impl Agents {
    pub(crate) fn inspect(&self) -> Vec<AgentInspection> {
        let agents: Vec<_> = self.live().values().cloned().collect();
        let mut inspected: Vec<_> = agents.iter().map(|agent| self.inspect_one(agent)).collect();
        inspected.sort_by(|a, b| (&a.remote_host, &a.hash).cmp(&(&b.remote_host, &b.hash)));
        inspected
    }

    fn inspect_one(&self, agent: &LiveAgent) -> AgentInspection {
        let credential = agent.promise.credential();
        let state = match &credential {
            Some(credential) if credential.is_live(self.clock.now()) => "ready",
            Some(_) => "ended",
            None if agent.promise.is_pending() => "waiting",
            None => "refused",
        };
        let certificate = credential.as_ref().map(|credential| credential.certificate());
        AgentInspection {
            hash: agent.connection.hash.to_string(),
            socket_path: self
                .dir
                .join(agent.connection.hash.as_str())
                .display()
                .to_string(),
            expires_at: certificate.and_then(|certificate| {
                jiff::Timestamp::from_second(i64::try_from(certificate.valid_before()).ok()?).ok()
            }),
            certificate: certificate
                .map(|certificate| format!("{}\n", certificate.line()))
                .unwrap_or_default(),
            state: state.to_owned(),
            remote_host: agent.connection.remote_host.to_string(),
            remote_user: agent.connection.remote_user.to_string(),
            port: agent.connection.port,
            request_id: agent.request_id().to_string(),
        }
    }
}
