//! Which agents go, and what is remembered of them.

use super::{Agents, AgentsError};
use crate::live_agent::LiveAgent;
use epithet_wire::ConnectionHash;
use epithet_wire::limits::CONNECTIONS_REMEMBERED;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

impl Agents {
    /// Makes room for one more agent: the ended one goes that was useful the longest time ago, else the one that an ssh was given
    /// which logs in nowhere and has not asked for anything. A live one never does.
    pub(super) fn make_room(
        &self,
        live: &mut HashMap<ConnectionHash, Arc<LiveAgent>>,
        configured: usize,
        possible: usize,
    ) -> Result<(), AgentsError> {
        let (now, most) = (self.clock.now(), configured.min(possible));
        while live.len() >= most {
            let ended = live.iter().filter(|(_, agent)| {
                // One that was refused is kept for ssh to find, but not at this price.
                agent.has_ended(now) || agent.promise.credential().is_none() && !agent.promise.is_pending()
            });
            let oldest = ended.min_by_key(|(_, agent)| agent.last_useful()).or_else(|| {
                // `ssh -G` over a list of hosts must not take the places of those who log in.
                let unused = live
                    .iter()
                    .filter(|(_, agent)| agent.promise.is_on_demand() && !agent.promise.is_wanted());
                unused.min_by_key(|(_, agent)| agent.last_useful())
            });
            let Some(hash) = oldest.map(|(hash, _)| hash.clone()) else {
                return Err(AgentsError::TooMany {
                    most,
                    by_open_files: possible < configured,
                });
            };
            if let Some(agent) = live.remove(&hash) {
                self.gone.end(&agent);
            }
        }
        Ok(())
    }
}

/// The connections by which somebody logged in and whose agents are gone, up to [`CONNECTIONS_REMEMBERED`].
#[derive(Debug, Default)]
pub(super) struct LoggedIn(Mutex<HashSet<ConnectionHash>>);

impl LoggedIn {
    /// Ends an agent, and remembers it if it was of use.
    pub(super) fn end(&self, agent: &LiveAgent) {
        if agent.activity.signatures() > 0 {
            let mut hashes = self.hashes();
            // Which one is forgotten does not matter much: a certificate is got for an ssh that may not need it.
            if hashes.len() >= CONNECTIONS_REMEMBERED
                && let Some(hash) = hashes.iter().next().cloned()
            {
                hashes.remove(&hash);
            }
            hashes.insert(agent.connection.hash.clone());
        }
        agent.shut();
    }

    pub(super) fn contains(&self, hash: &ConnectionHash) -> bool {
        self.hashes().contains(hash)
    }

    fn hashes(&self) -> MutexGuard<'_, HashSet<ConnectionHash>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
