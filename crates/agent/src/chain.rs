//! The person's own agent, offered after ours: its keys are listed, and it is asked for signatures, nothing else.
//!
//! Where ssh uses our socket it does not look at `SSH_AUTH_SOCK` any more, so without this a person whose certificate was
//! denied would lose the keys of their own agent, too.
//!
//! What it promises:
//! - only on a connection that is bound to a login, by a session-bind that was verified: never for a remote host that
//!   came through a forwarded agent, and never for a client that cannot say whether it did;
//! - the same bind is told to the other agent first, so that constraints on its keys (`ssh-add -h`) hold;
//! - a signature is asked for only if it is a login in that session, as the user that the agent was made for;
//! - whatever the other agent does, an answer comes in time.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use epithet_ssh::agent_wire::{
    IDENTITIES_ANSWER, REQUEST_IDENTITIES, SIGN_RESPONSE, framed, read_identities,
};
use epithet_ssh::encoding::{Malformed, Reader};
use epithet_wire::Principal;
use epithet_wire::limits::{AGENT_FRAME_MAX, CHAINED_KEYS_MAX, CHAINED_LIST_DEADLINE, CHAINED_SIGN_DEADLINE};
use tokio::net::UnixStream;
use tokio::time::timeout;
use tracing::{debug, info, warn};

use crate::firewall::Refusal;
use crate::frame;
use crate::message::{Identity, SignRequest};
use crate::session::Session;
use crate::userauth::{Userauth, is_sshsig};

/// When the other agent's keys are offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ChainWhen {
    /// When there is no certificate: it was denied, or did not come in time.
    #[default]
    Denied,
    /// Always, after the certificate.
    Always,
}

/// The person's own agent, for one connection.
#[derive(Debug, Clone)]
pub struct Chain {
    /// When it is offered.
    pub when: ChainWhen,
    /// The user that the connection logs in as.
    pub user: Principal,
    socket: Arc<Mutex<Option<PathBuf>>>,
}

impl Chain {
    /// A chain to the agent at `socket`; none while it is not known where that is.
    pub fn new(when: ChainWhen, user: Principal, socket: Option<PathBuf>) -> Self {
        Self {
            when,
            user,
            socket: Arc::new(Mutex::new(socket)),
        }
    }

    /// The agent is there from now on, for clones too.
    pub fn lead_to(&self, socket: PathBuf) {
        *self.socket.lock().unwrap_or_else(PoisonError::into_inner) = Some(socket);
    }

    fn socket(&self) -> Option<PathBuf> {
        self.socket.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// One client's way to the other agent.
#[derive(Debug, Default)]
pub(crate) struct Chained {
    stream: Option<UnixStream>,
    /// The session-bind that the client sent, to be told to the other agent before anything else.
    bind: Vec<u8>,
}

impl Chained {
    /// Remembers the bind of a connection that goes to a login.
    pub(crate) fn remember_bind(&mut self, message: &[u8]) {
        self.bind = message.to_vec();
        self.stream = None;
    }

    /// The other agent's keys; none when it cannot be asked.
    pub(crate) async fn list(&mut self, chain: &Chain, session: &Session) -> Vec<Identity> {
        if !is_bound_to_a_login(session) {
            return Vec::new();
        }
        let asking = self.ask(chain, &[REQUEST_IDENTITIES]);
        match timeout(CHAINED_LIST_DEADLINE, asking).await {
            Ok(Ok(Some(answer))) => identities(&answer).unwrap_or_else(|error| {
                debug!(%error, "the person's own agent gave a list that is not understood");
                Vec::new()
            }),
            Ok(Ok(None)) => Vec::new(),
            Ok(Err(error)) => {
                self.stream = None;
                debug!(%error, "the person's own agent cannot be asked");
                Vec::new()
            }
            Err(_) => {
                self.stream = None;
                warn!(deadline = ?CHAINED_LIST_DEADLINE, "the person's own agent does not answer; ssh goes on without its keys");
                Vec::new()
            }
        }
    }

    /// The other agent's signature, as it framed it. `message` is the whole request.
    ///
    /// # Errors
    /// Why it was not asked, or that it refused.
    pub(crate) async fn sign(
        &mut self,
        chain: &Chain,
        session: &Session,
        request: &SignRequest<'_>,
        message: &[u8],
    ) -> Result<Vec<u8>, Refusal> {
        may_ask(chain, session, request)?;
        let asking = self.ask(chain, message);
        match timeout(CHAINED_SIGN_DEADLINE, asking).await {
            Ok(Ok(Some(answer))) if answer.first() == Some(&SIGN_RESPONSE) => {
                let host_key = session.last().map(|binding| binding.host_key.as_str());
                info!(
                    user = chain.user.as_str(),
                    host_key, "login signed by the person's own agent"
                );
                Ok(answer)
            }
            Ok(Ok(_)) => Err(Refusal::OtherKey),
            Ok(Err(error)) => {
                self.stream = None;
                debug!(%error, "the person's own agent did not sign");
                Err(Refusal::OtherKey)
            }
            Err(_) => {
                self.stream = None;
                Err(Refusal::OtherKey)
            }
        }
    }

    /// Sends a request and reads the answer. None when there is no such agent.
    async fn ask(&mut self, chain: &Chain, message: &[u8]) -> io::Result<Option<Vec<u8>>> {
        if self.stream.is_none() {
            let Some(socket) = chain.socket() else {
                return Ok(None);
            };
            let mut stream = UnixStream::connect(socket).await?;
            check_peer(&stream)?;
            if !self.bind.is_empty() {
                // An agent that does not know binds says so, and has no constraints that need them.
                exchange(&mut stream, &self.bind).await?;
            }
            self.stream = Some(stream);
        }
        match &mut self.stream {
            Some(stream) => exchange(stream, message).await.map(Some),
            None => Ok(None),
        }
    }
}

/// One request and its answer.
async fn exchange(stream: &mut UnixStream, message: &[u8]) -> io::Result<Vec<u8>> {
    frame::write(stream, &framed(|frame| frame.extend_from_slice(message))).await?;
    let mut answer = Vec::new();
    if frame::read(stream, &mut answer).await? {
        Ok(answer)
    } else {
        Err(io::ErrorKind::UnexpectedEof.into())
    }
}

/// The other agent must be this user's, and not this very process: agents that ask each other never end.
fn check_peer(stream: &UnixStream) -> io::Result<()> {
    let peer = stream.peer_cred()?;
    let refuse = |problem: &str| {
        Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            problem.to_owned(),
        ))
    };
    if peer.uid() != rustix::process::geteuid().as_raw() {
        return refuse("it is another user's");
    }
    let us = i32::try_from(std::process::id()).ok();
    if us.is_some() && peer.pid() == us {
        return refuse("it is one of ours");
    }
    Ok(())
}

/// Whether the connection is known to come from a client here that is logging in somewhere.
fn is_bound_to_a_login(session: &Session) -> bool {
    let is_to_a_login = session.last().is_some_and(|binding| !binding.is_forwarded);
    is_to_a_login && !session.is_poisoned() && !session.is_forwarded()
}

/// Only what ssh itself would ask for at this moment is passed on.
fn may_ask(chain: &Chain, session: &Session, request: &SignRequest<'_>) -> Result<(), Refusal> {
    let binding = session.last().ok_or(Refusal::OtherKey)?;
    if session.is_poisoned() {
        return Err(Refusal::Poisoned);
    }
    if session.is_forwarded() {
        return Err(Refusal::Forwarded);
    }
    if is_sshsig(request.data) {
        return Err(Refusal::SshSig);
    }
    let login = Userauth::parse(request.data).map_err(|_| Refusal::NotALogin)?;
    if login.key != request.key {
        return Err(Refusal::OtherKey);
    }
    if login.user != chain.user.as_str() {
        return Err(Refusal::OtherUser(login.user.into()));
    }
    if *login.session_id != *binding.session_id {
        return Err(Refusal::OtherSession);
    }
    match login.host_key {
        Some(host_key) if epithet_ssh::fingerprint(host_key) != binding.host_key => Err(Refusal::OtherHost),
        _ => Ok(()),
    }
}

/// Reads `SSH_AGENT_IDENTITIES_ANSWER`, up to [`CHAINED_KEYS_MAX`] keys of it.
fn identities(answer: &[u8]) -> Result<Vec<Identity>, Malformed> {
    let mut reader = Reader::new(answer);
    if reader.u8()? != IDENTITIES_ANSWER {
        return Ok(Vec::new());
    }
    let (mut keys, mut size) = (Vec::new(), 0);
    read_identities(reader, |blob, comment| {
        size += blob.len() + comment.len() + 8;
        // Half of a frame leaves room for the certificate in front.
        if keys.len() < CHAINED_KEYS_MAX && size <= AGENT_FRAME_MAX / 2 {
            keys.push(Identity {
                blob: blob.to_vec(),
                comment: comment.to_vec(),
            });
        }
        Ok(())
    })?;
    Ok(keys)
}

#[cfg(test)]
mod tests {
    use super::*;
    use epithet_ssh::agent_wire::put_identities;
    use proptest::prelude::*;

    fn answer(keys: usize) -> Vec<u8> {
        let blobs: Vec<_> = (0..keys).map(|number| format!("key {number}")).collect();
        let mut answer = Vec::new();
        put_identities(
            &mut answer,
            blobs.iter().map(|blob| (blob.as_bytes(), &b"\xff comment"[..])),
        );
        answer
    }

    #[test]
    fn lists_are_read_to_the_last_byte_and_up_to_the_limit() {
        for (there, kept) in [
            (0, 0),
            (3, 3),
            (CHAINED_KEYS_MAX, CHAINED_KEYS_MAX),
            (CHAINED_KEYS_MAX + 1, CHAINED_KEYS_MAX),
        ] {
            assert_eq!(identities(&answer(there)).unwrap().len(), kept);
        }
        assert!(identities(&[5]).unwrap().is_empty());
        let whole = answer(2);
        for length in 0..whole.len() {
            assert!(identities(&whole[..length]).is_err(), "{length}");
        }
        assert!(identities(&[&whole[..], &[0]].concat()).is_err());
        // A count that would need four thousand million keys is not believed.
        assert!(identities(&[IDENTITIES_ANSWER, 255, 255, 255, 255]).is_err());
    }

    proptest! {
        #[test]
        fn no_list_is_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = identities(&bytes);
            let mut typed = vec![IDENTITIES_ANSWER, 0, 0, 0, 2];
            typed.extend_from_slice(&bytes);
            let _ = identities(&typed);
        }
    }
}
