//! Which SSH sessions an agent connection serves, by `session-bind@openssh.com` (OpenSSH `PROTOCOL.agent` section 1).
//!
//! ssh binds a connection before it uses it: to the host it logs in to, or, for a forwarded agent, to the host the
//! connection comes from. The host's signature over the session id proves both, so that a session cannot be claimed
//! by somebody who is not in it.

use epithet_ssh::{SignatureError, fingerprint, verify_host_signature};
use epithet_wire::limits::{AGENT_BINDINGS_MAX, AGENT_SESSION_ID_MAX};

use crate::message::SessionBind;

/// What one agent connection has said about itself.
#[derive(Debug, Default)]
pub struct Session {
    bindings: Vec<Binding>,
    /// A bind failed. From then on nothing that the connection says can be believed: without this, a forwarded
    /// connection could have its bind fail on purpose and pass for a local one (OpenSSH 6d51feab1).
    is_poisoned: bool,
}

/// One hop, in the order of the hops.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binding {
    /// The hop's session.
    pub session_id: Box<[u8]>,
    /// The fingerprint of the host key, or certificate, that signed the session id.
    pub host_key: String,
    /// Whether the connection comes from the host, rather than going to it.
    pub is_forwarded: bool,
}

/// Why a bind is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BindError {
    /// A bind failed before.
    #[error("an earlier session-bind on the connection failed")]
    Poisoned,
    /// Nobody hops that far.
    #[error("more than {AGENT_BINDINGS_MAX} sessions on one connection")]
    TooMany,
    /// A hash is never so long, and never empty.
    #[error("a session id of {0} bytes")]
    SessionId(usize),
    /// The connection goes to a host already; nothing can come after that.
    #[error("the connection is already bound to a login")]
    AlreadyBound,
    /// The same session by another host.
    #[error("the session is already bound with another host key")]
    OtherHostKey,
    /// The host did not sign the session id.
    #[error("the host's signature over the session id does not hold: {0}")]
    Signature(#[from] SignatureError),
}

impl Session {
    /// Records a bind. A refused one poisons the connection.
    ///
    /// # Errors
    /// [`BindError`] says what is wrong with it.
    pub fn bind(&mut self, bind: &SessionBind<'_>) -> Result<(), BindError> {
        let verdict = self.check(bind);
        match &verdict {
            Ok(Some(binding)) => self.bindings.push(binding.clone()),
            Ok(None) => {}
            Err(_) => self.poison(),
        }
        verdict.map(|_| ())
    }

    /// Marks the connection as one whose bind failed.
    pub fn poison(&mut self) {
        self.is_poisoned = true;
    }

    /// The binding to add, or none when it is there already.
    fn check(&self, bind: &SessionBind<'_>) -> Result<Option<Binding>, BindError> {
        if self.is_poisoned {
            return Err(BindError::Poisoned);
        }
        if bind.session_id.is_empty() || bind.session_id.len() > AGENT_SESSION_ID_MAX {
            return Err(BindError::SessionId(bind.session_id.len()));
        }
        if self.bindings.iter().any(|binding| !binding.is_forwarded) {
            return Err(BindError::AlreadyBound);
        }
        // Before anything else is believed, and before any comparison with what was bound before.
        verify_host_signature(bind.host_key, bind.session_id, bind.signature)?;
        let host_key = fingerprint(bind.host_key);
        let same_session = self
            .bindings
            .iter()
            .find(|known| *known.session_id == *bind.session_id);
        match same_session {
            Some(known) if known.host_key == host_key => return Ok(None),
            Some(_) => return Err(BindError::OtherHostKey),
            None => {}
        }
        if self.bindings.len() >= AGENT_BINDINGS_MAX {
            return Err(BindError::TooMany);
        }
        Ok(Some(Binding {
            session_id: bind.session_id.into(),
            host_key,
            is_forwarded: bind.is_forwarding,
        }))
    }

    /// Whether a bind failed.
    pub fn is_poisoned(&self) -> bool {
        self.is_poisoned
    }

    /// Whether the connection comes from a remote host at some point.
    pub fn is_forwarded(&self) -> bool {
        self.bindings.iter().any(|binding| binding.is_forwarded)
    }

    /// The last hop: the one that a login can be for. None when the connection was never bound.
    pub fn last(&self) -> Option<&Binding> {
        self.bindings.last()
    }
}
