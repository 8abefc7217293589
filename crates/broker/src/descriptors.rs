//! How the limit of open files is shared out, so that neither live agents nor whoever asks can use up what a run of the
//! plugin and the broker's socket need.

use epithet_wire::limits::{AGENTS_IN_USE, AGENTS_MAX_RANGE, BROKER_CONNECTIONS, DESCRIPTORS_RESERVED};
use rustix::process::{Resource, getrlimit};

/// Whoever asks has a connection, and may pass a stderr along.
const PER_REQUEST: usize = 2;

/// How many there may be of each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shares {
    /// Live agents.
    pub(crate) agents: usize,
    /// Connections with agents at once, whichever those are. With more agents than these leave room for, which are
    /// thousands, they are not all there at the same moment.
    pub(crate) connections: usize,
    /// Requests at once on the broker's socket.
    pub(crate) requests: usize,
}

/// How many agents a broker may have at once that may open `limit` files.
pub fn agents_at_once(limit: usize) -> usize {
    Shares::of(limit).agents
}

impl Shares {
    /// By this process's limit.
    pub(crate) fn now() -> Self {
        let limit = getrlimit(Resource::Nofile).current;
        Self::of(limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX)))
    }

    /// By a limit of descriptors. There is always room for one of each.
    fn of(limit: usize) -> Self {
        let free = limit.saturating_sub(DESCRIPTORS_RESERVED);
        let requests = (free / 2 / PER_REQUEST).clamp(1, BROKER_CONNECTIONS);
        let rest = free.saturating_sub(requests * PER_REQUEST);
        // Each has its socket, and now and then a connection of an ssh; but never thousands of them at once.
        let agents = (rest / 2).max(rest.saturating_sub(AGENTS_IN_USE));
        Self {
            agents: agents.clamp(1, AGENTS_MAX_RANGE.1),
            connections: (rest / 2).clamp(1, AGENTS_MAX_RANGE.1),
            requests,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_high_limit_changes_nothing_and_a_low_one_is_never_exceeded() {
        let all = Shares {
            agents: AGENTS_MAX_RANGE.1,
            connections: AGENTS_MAX_RANGE.1,
            requests: BROKER_CONNECTIONS,
        };
        let enough =
            DESCRIPTORS_RESERVED + AGENTS_MAX_RANGE.1 + AGENTS_IN_USE + BROKER_CONNECTIONS * PER_REQUEST;
        assert_eq!(Shares::of(usize::MAX), all);
        assert_eq!(Shares::of(enough).agents, all.agents);
        assert!(Shares::of(enough - 1).agents < AGENTS_MAX_RANGE.1);
        for limit in 44..20_000 {
            let Shares {
                agents,
                connections,
                requests,
            } = Shares::of(limit);
            let used = DESCRIPTORS_RESERVED + agents + agents.min(AGENTS_IN_USE) + requests * PER_REQUEST;
            assert!(used <= limit, "{used} of {limit}");
            let used = used - agents.min(AGENTS_IN_USE) + connections;
            assert!(used <= limit || agents > AGENTS_IN_USE, "{used} of {limit}");
        }
        assert_eq!(
            Shares::of(0),
            Shares {
                agents: 1,
                connections: 1,
                requests: 1
            }
        );
    }
}
