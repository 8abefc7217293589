//! One connection's agent as the broker sees it: whether it is of use, to whom, and when it is over.

use crate::agents::Opening;
use crate::by_name::ByName;
use crate::traces::AgentWatch;
use epithet_agent::{Activity, Askers, Chain, Credential, Now, Promise, SocketStamp};
use epithet_wire::limits::LAZY_AGENT_STAYS;
use epithet_wire::{Connection, RequestId};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// One connection's agent.
#[derive(Debug)]
pub(crate) struct LiveAgent {
    pub(crate) connection: Connection,
    pub(crate) request_id: Mutex<RequestId>,
    pub(crate) promise: Promise,
    pub(crate) activity: Activity,
    pub(crate) stamp: SocketStamp,
    pub(crate) chain: Option<Chain>,
    pub(crate) opened: Duration,
    pub(crate) watch: Arc<AgentWatch>,
    pub(crate) askers: Askers,
    /// Where an ssh looks for it that does not know `%C`.
    pub(crate) name: OnceLock<ByName>,
    pub(crate) close: CancellationToken,
}

/// How long the agent of a refused connection stays, so that ssh finds an empty list rather than nothing.
const REFUSED_STAYS: Duration = Duration::from_secs(20);

impl LiveAgent {
    pub(crate) fn request_id(&self) -> RequestId {
        self.request_id
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Takes a newer certificate, which was got under another name. `false` when there is none any more to replace.
    pub(crate) fn renew(&self, credential: Arc<Credential>, request_id: RequestId) -> bool {
        let renewed = self.promise.renew(credential);
        if renewed {
            *self.request_id.lock().unwrap_or_else(PoisonError::into_inner) = request_id;
        }
        renewed
    }

    /// Makes sure that the opening's ssh finds it.
    pub(crate) fn answer_to(&self, name: Option<&ByName>) -> std::io::Result<()> {
        let Some(name) = name else {
            return Ok(());
        };
        name.make()?;
        self.name.get_or_init(|| name.clone());
        Ok(())
    }

    /// Closes the socket and forgets the credential; what is on its way is not waited for.
    pub(crate) fn shut(&self) {
        if let Some(name) = self.name.get() {
            name.remove();
        }
        self.promise.withdraw();
        self.close.cancel();
    }

    /// Whether ssh would get something from it, for this very connection.
    pub(crate) fn is_useful(&self, opening: &Opening<'_>, now: Now) -> bool {
        // One on demand speaks to nobody's terminal, so an ssh that is about to log in gets one of its own.
        let is_promised = self.promise.is_pending() && (!self.promise.is_on_demand() || opening.is_on_demand);
        self.connection == *opening.connection && (is_promised || self.has_live_certificate(now))
    }

    /// Whether its certificate is there and has not ended.
    pub(crate) fn has_live_certificate(&self, now: Now) -> bool {
        (self.promise.credential()).is_some_and(|credential| credential.is_live(now))
    }

    pub(crate) fn has_ended(&self, now: Now) -> bool {
        let age = now.boot.saturating_sub(self.opened);
        match self.promise.credential() {
            Some(credential) => !credential.is_live(now),
            None if self.promise.is_pending() => {
                self.promise.is_on_demand() && !self.promise.is_wanted() && age > LAZY_AGENT_STAYS
            }
            None => age > REFUSED_STAYS,
        }
    }

    /// Since when nobody has had any use of it.
    pub(crate) fn last_useful(&self) -> Duration {
        self.activity.last_request().unwrap_or(self.opened)
    }
}
