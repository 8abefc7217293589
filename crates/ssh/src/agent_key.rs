//! A CA key that an ssh-agent holds, and with it any that an agent can reach: security modules (PKCS#11), tokens, clouds.
//!
//! The agent is asked for each signature and its answer is verified with the public key before anybody sees it, so a
//! wrong agent can refuse but not deceive. Connections are kept; when the agent was restarted they are made anew.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use epithet_wire::display::sanitize_line;
use epithet_wire::limits::{CA_AGENT_CONNECTIONS, CA_AGENT_DEADLINE, KEY_FAILING};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::agent_address::{AgentAddress, AgentKeyName};
use crate::agent_message::{self, Answer};
use crate::agent_wire::{self, Identity, RsaHash};
use crate::ca_key::{CaPublicKey, CaPublicKeyError};
use crate::encoding::Malformed;
use crate::jws::JwsAlgorithm;
use crate::line::fingerprint;

/// A CA key in an ssh-agent.
#[derive(Debug)]
pub struct AgentKey {
    agent: Agent,
    public: CaPublicKey,
    /// When a signature last failed; none since one succeeded.
    failed: Mutex<Option<(Instant, AgentError)>>,
}

/// An agent's socket, and connections to it.
#[derive(Debug)]
struct Agent {
    socket: PathBuf,
    room: Semaphore,
    idle: Mutex<Vec<UnixStream>>,
}

/// Why a key in an agent cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AgentError {
    /// No socket was named, and the environment names none.
    #[error("SSH_AUTH_SOCK is not set; set it, or name the agent's socket: agent:/path/to/socket#{0}")]
    NoSocket(AgentKeyName),
    /// Nobody answers at the socket.
    #[error("the ssh-agent at {} cannot be reached: {reason}", socket.display())]
    Unreachable {
        /// The agent's socket.
        socket: PathBuf,
        /// The system's reason.
        reason: String,
    },
    /// No answer in time.
    #[error("the ssh-agent at {} did not answer within {} s", .0.display(), CA_AGENT_DEADLINE.as_secs())]
    TimedOut(PathBuf),
    /// Bytes that no agent sends.
    #[error("the answer of the ssh-agent at {} is not one: {problem}", socket.display())]
    Garbled {
        /// The agent's socket.
        socket: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// The agent said no.
    #[error(
        "the ssh-agent at {} refused; is it locked, does the key need confirmation, or is its token gone?", .0.display()
    )]
    Refused(PathBuf),
    /// The key is not there.
    #[error("the ssh-agent at {} does not hold {wanted}; it holds {held}", socket.display())]
    NoSuchKey {
        /// The agent's socket.
        socket: PathBuf,
        /// The key that was named.
        wanted: String,
        /// Those that are there.
        held: String,
    },
    /// Two keys of this comment.
    #[error("the ssh-agent at {} holds several keys with the comment {comment:?}; name the key by its fingerprint: {held}", socket.display())]
    Ambiguous {
        /// The agent's socket.
        socket: PathBuf,
        /// The comment.
        comment: String,
        /// Those that are there.
        held: String,
    },
    /// A key that cannot be a CA's.
    #[error(transparent)]
    Type(#[from] CaPublicKeyError),
    /// A signature that is not one of this message by this key, or of another algorithm than was asked for.
    #[error("the ssh-agent at {} made a signature that does not verify", .0.display())]
    Signature(PathBuf),
}

impl AgentKey {
    /// Finds the key that `address` names. `default` is the socket of the environment's `SSH_AUTH_SOCK`.
    ///
    /// # Errors
    /// [`AgentError`] says what is there instead.
    pub async fn find(address: &AgentAddress, default: Option<&Path>) -> Result<Self, AgentError> {
        let socket = address
            .socket
            .as_deref()
            .or(default)
            .ok_or_else(|| AgentError::NoSocket(address.key.clone()))?;
        let agent = Agent {
            socket: socket.to_owned(),
            room: Semaphore::new(CA_AGENT_CONNECTIONS),
            idle: Mutex::default(),
        };
        let identities = agent.identities().await?;
        let public = choose(&identities, &address.key, socket)?;
        Ok(Self {
            agent,
            public,
            failed: Mutex::default(),
        })
    }

    /// The public half.
    pub fn public(&self) -> &CaPublicKey {
        &self.public
    }

    /// The algorithm of [`AgentKey::sign_jws`]. Agents make no RSA-PSS signatures, so RSA keys have RS256 here: the one
    /// that most JWT libraries know of those that agents can make.
    pub fn jws_algorithm(&self) -> JwsAlgorithm {
        match self.public.jws_algorithm() {
            JwsAlgorithm::Ps256 => JwsAlgorithm::Rs256,
            other => other,
        }
    }

    /// Has `message` signed, and returns the signature as SSH carries it: `string algorithm, string signature`.
    ///
    /// # Errors
    /// [`AgentError`]: the agent is not there, refuses, or its signature does not hold.
    pub async fn sign(&self, message: &[u8]) -> Result<Vec<u8>, AgentError> {
        self.sign_with(message, RsaHash::Sha512).await
    }

    async fn sign_with(&self, message: &[u8], hash: RsaHash) -> Result<Vec<u8>, AgentError> {
        let signed = self.sign_once(message, hash).await;
        let failure = signed.as_ref().err().cloned();
        *lock(&self.failed) = failure.map(|error| (Instant::now(), error));
        signed
    }

    async fn sign_once(&self, message: &[u8], hash: RsaHash) -> Result<Vec<u8>, AgentError> {
        let flags = if self.public.is_rsa() { hash.flag() } else { 0 };
        let request = agent_message::sign_request(self.public.blob(), message, flags);
        match self.agent.ask(&request).await? {
            Answer::Signature(signature) if self.public.verify_own(message, &signature, hash) => {
                Ok(signature)
            }
            Answer::Signature(_) => Err(AgentError::Signature(self.agent.socket.clone())),
            Answer::Failure => Err(AgentError::Refused(self.agent.socket.clone())),
            Answer::Identities(_) => Err(self.agent.garbled(&"keys instead of a signature")),
        }
    }

    /// Has the signing input of a JWS signed (RFC 7515 section 5.1), and returns the raw signature.
    ///
    /// # Errors
    /// As [`AgentKey::sign`].
    pub async fn sign_jws(&self, signing_input: &[u8]) -> Result<Vec<u8>, AgentError> {
        let signature = self.sign_with(signing_input, RsaHash::Sha256).await?;
        self.public
            .jws_form(&signature)
            .map_err(|error: Malformed| self.agent.garbled(&error))
    }

    /// Whether the agent still holds the key, and the last signature succeeded (or failed a while ago, so that one that
    /// nobody asks because it is not ready becomes so again).
    ///
    /// # Errors
    /// The reason why not.
    pub async fn ready(&self) -> Result<(), AgentError> {
        let identities = self.agent.identities().await?;
        if identities
            .iter()
            .all(|identity| identity.blob != self.public.blob())
        {
            return Err(AgentError::NoSuchKey {
                socket: self.agent.socket.clone(),
                wanted: self.public.fingerprint(),
                held: held(&identities),
            });
        }
        match &*lock(&self.failed) {
            Some((at, error)) if at.elapsed() < KEY_FAILING => Err(error.clone()),
            _ => Ok(()),
        }
    }
}

/// The one key of this name.
fn choose(identities: &[Identity], name: &AgentKeyName, socket: &Path) -> Result<CaPublicKey, AgentError> {
    let is_it = |identity: &&Identity| match name {
        AgentKeyName::Fingerprint(wanted) => fingerprint(&identity.blob) == *wanted,
        AgentKeyName::Comment(comment) => identity.comment == comment.as_bytes(),
    };
    let mut found = identities.iter().filter(is_it);
    match (found.next(), found.next(), name) {
        (Some(one), None, _) | (Some(one), Some(_), AgentKeyName::Fingerprint(_)) => {
            Ok(CaPublicKey::from_blob(&one.blob)?)
        }
        (None, ..) => Err(AgentError::NoSuchKey {
            socket: socket.to_owned(),
            wanted: name.to_string(),
            held: held(identities),
        }),
        (Some(_), Some(_), AgentKeyName::Comment(comment)) => Err(AgentError::Ambiguous {
            socket: socket.to_owned(),
            comment: comment.clone(),
            held: held(identities),
        }),
    }
}

/// An agent's keys for a message: fingerprints and comments.
fn held(identities: &[Identity]) -> String {
    const SHOWN: usize = 8;
    if identities.is_empty() {
        return "no key".to_owned();
    }
    let mut shown: Vec<_> = identities
        .iter()
        .take(SHOWN)
        .map(|identity| {
            format!(
                "{} ({})",
                fingerprint(&identity.blob),
                sanitize_line(&String::from_utf8_lossy(&identity.comment), 64)
            )
        })
        .collect();
    if identities.len() > SHOWN {
        shown.push(format!("{} more", identities.len() - SHOWN));
    }
    shown.join(", ")
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Agent {
    async fn identities(&self) -> Result<Vec<Identity>, AgentError> {
        match self.ask(&agent_message::list_request()).await? {
            Answer::Identities(identities) => Ok(identities),
            Answer::Failure => Err(AgentError::Refused(self.socket.clone())),
            Answer::Signature(_) => Err(self.garbled(&"a signature that nobody asked for")),
        }
    }

    /// One question and its answer, within the deadline, the wait for a free connection included.
    async fn ask(&self, request: &[u8]) -> Result<Answer, AgentError> {
        let whole = async {
            let _room = self.room.acquire().await;
            // A kept connection may be one to an agent that has ended since; then it is tried once more with a new one.
            let kept = lock(&self.idle).pop();
            if let Some(stream) = kept {
                match self.exchange(stream, request).await {
                    Ok(message) => return Ok(message),
                    Err(_) => lock(&self.idle).clear(),
                }
            }
            let stream = UnixStream::connect(&self.socket).await?;
            self.exchange(stream, request).await
        };
        let message = timeout(CA_AGENT_DEADLINE, whole)
            .await
            .map_err(|_| AgentError::TimedOut(self.socket.clone()))?
            .map_err(|error| self.unreachable(&error))?;
        agent_message::parse(&message).map_err(|error| self.garbled(&error))
    }

    /// The connection is kept only when the answer came whole: whoever gives up in the middle drops it.
    async fn exchange(&self, mut stream: UnixStream, request: &[u8]) -> io::Result<Vec<u8>> {
        stream.write_all(request).await?;
        let mut field = [0; 4];
        stream.read_exact(&mut field).await?;
        let length =
            agent_wire::length(field).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        let mut message = vec![0; length];
        stream.read_exact(&mut message).await?;
        lock(&self.idle).push(stream);
        Ok(message)
    }

    fn unreachable(&self, error: &io::Error) -> AgentError {
        AgentError::Unreachable {
            socket: self.socket.clone(),
            reason: match error.kind() {
                io::ErrorKind::UnexpectedEof => "it hung up".to_owned(),
                _ => error.to_string(),
            },
        }
    }

    fn garbled(&self, problem: &dyn std::fmt::Display) -> AgentError {
        AgentError::Garbled {
            socket: self.socket.clone(),
            problem: problem.to_string(),
        }
    }
}
