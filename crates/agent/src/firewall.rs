//! What the agent answers, as a pure function of what the connection has said, what the agent holds, and the time.
//!
//! The agent signs one kind of message: the login that its certificate was made for. `ForwardAgent yes` gives this
//! very socket to the remote host, and any program of the same user can open it, so a signature on anything else
//! would be somebody else's.

use std::fmt;

use epithet_wire::display::sanitize_line;

use crate::clock::Now;
use crate::credential::Credential;
use crate::message::{Reply, Request, SessionBind, SignRequest};
use crate::session::{BindError, Session};
use crate::userauth::{Userauth, is_sshsig};

/// What is configured about the firewall.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rules {
    /// Whether the remote host may log in further with the certificate, through `ForwardAgent`.
    ///
    /// Even then only to a host that it has a bound session with, and only as the certificate's user.
    pub allow_forwarding: bool,
    /// Whether a connection that was never bound to a session may sign.
    ///
    /// OpenSSH before 8.9 and most libraries do not send `session-bind@openssh.com`. With `false` (the default) they
    /// can log in: a connection on which no bind was ever tried signs a well-formed login as the certificate's user to
    /// whatever host it names. Such a client cannot say that a connection is a forwarded one either, so the socket sets
    /// this for every connection but the one that a process asked for (see [`Askers`](crate::Askers)).
    pub require_bind: bool,
    /// Whether the connection may be a forwarded one that cannot be told from a login: its process did not ask for it,
    /// and a client that never binds has used this agent.
    ///
    /// The remote end of such a connection may well be a newer ssh, which binds it to its own login onward. So a bind
    /// proves nothing here.
    pub is_suspect: bool,
}

/// Why something was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// A message that does not follow its format.
    Malformed {
        /// The message's type.
        kind: u8,
    },
    /// A message that this agent has no answer for.
    Unsupported {
        /// The message's type.
        kind: u8,
    },
    /// A session-bind that does not hold.
    Bind(BindError),
    /// Nothing to sign with: the certificate was denied, has ended, or was removed.
    NoCredential,
    /// A signature with a key that the agent does not have.
    OtherKey,
    /// A flag that Ed25519 does not have.
    Flags(u32),
    /// A signature on a connection with a failed bind.
    Poisoned,
    /// A signature on a file, a commit or for another protocol.
    SshSig,
    /// Something that is not an ssh login.
    NotALogin,
    /// A login as somebody else.
    OtherUser(String),
    /// A login by a connection that was never bound.
    NotBound,
    /// A login by a remote host.
    Forwarded,
    /// A login that may be a remote host's.
    NotAskedFor,
    /// A login in a session that was not bound.
    OtherSession,
    /// A login to another host than the session's.
    OtherHost,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed { kind } => write!(f, "a damaged message of type {kind}"),
            Self::Unsupported { kind } => write!(
                f,
                "a message of type {kind}; this agent lists and signs, nothing else"
            ),
            Self::Bind(error) => write!(f, "a session-bind: {error}"),
            Self::NoCredential => f.write_str("a signature, but there is no certificate, or not any more"),
            Self::OtherKey => f.write_str("a signature with another key"),
            Self::Flags(flags) => write!(
                f,
                "a signature with flags {flags:#x}, which ed25519 does not have"
            ),
            Self::Poisoned => f.write_str("a signature on a connection whose session-bind failed"),
            Self::SshSig => f.write_str("an SSHSIG signature (of a file, a commit, or for another protocol)"),
            Self::NotALogin => f.write_str("a signature on something that is not an ssh login"),
            Self::OtherUser(user) => write!(f, "a login as {:?}", sanitize_line(user, 128)),
            Self::NotBound => {
                f.write_str("a login without session-bind, on a connection that its process did not ask for (is it a forwarded one?)")
            }
            Self::Forwarded => {
                f.write_str("a login by a remote host through the forwarded agent (allow-forwarding does not name that host)")
            }
            Self::NotAskedFor => f.write_str(
                "a login that its process did not ask for, by an agent that a client without session-bind uses (allow-forwarding is off)",
            ),
            Self::OtherSession => f.write_str("a login in another session than the connection is bound to"),
            Self::OtherHost => f.write_str("a login to another host than the connection is bound to"),
        }
    }
}

impl Refusal {
    /// A small number for the kind of refusal, so that each is logged loudly once.
    pub(crate) fn kind(&self) -> u32 {
        match self {
            Self::Malformed { .. } => 0,
            Self::Unsupported { .. } => 1,
            Self::Bind(_) => 2,
            Self::NoCredential => 3,
            Self::OtherKey => 4,
            Self::Flags(_) => 5,
            Self::Poisoned => 6,
            Self::SshSig => 7,
            Self::NotALogin => 8,
            Self::OtherUser(_) => 9,
            Self::NotBound => 10,
            Self::Forwarded => 11,
            Self::OtherSession => 12,
            Self::OtherHost => 13,
            Self::NotAskedFor => 14,
        }
    }
}

/// What is to be done about a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Answer it.
    Reply(Reply),
    /// Forget the key, then answer with success.
    Empty,
    /// Decline it with this answer, and log why.
    Refuse(Reply, Refusal),
}

/// Decides about one request. `credential` is none while there is none, or none any more.
pub fn answer(
    session: &mut Session,
    credential: Option<&Credential>,
    rules: Rules,
    request: &Request<'_>,
    now: Now,
) -> Verdict {
    let live = credential.filter(|credential| credential.is_live(now));
    match request {
        Request::Identities => Verdict::Reply(list(session, live, rules)),
        Request::Sign(request) => match may_sign(session, live, rules, request) {
            Ok(credential) => Verdict::Reply(Reply::Signature(credential.sign(request.data))),
            Err(refusal) => Verdict::Refuse(Reply::Failure, refusal),
        },
        Request::Bind(bind) => record_bind(session, bind),
        Request::Query => Verdict::Reply(Reply::Extensions),
        // RFC 9987 section 3.4: to be honoured whatever the policy. Who removes the key can only lose by it.
        Request::RemoveAll => Verdict::Empty,
        Request::Remove { key } => match live {
            Some(credential) if credential.certificate().blob() == *key => Verdict::Empty,
            _ => Verdict::Refuse(Reply::Failure, Refusal::OtherKey),
        },
        Request::Unsupported { kind } => {
            Verdict::Refuse(Reply::Failure, Refusal::Unsupported { kind: *kind })
        }
        Request::Malformed { kind, .. } => {
            Verdict::Refuse(Reply::Failure, Refusal::Malformed { kind: *kind })
        }
    }
}

/// The certificate, for a connection that could use it.
///
/// A remote host that may not sign learns nothing either: a certificate names the person and the CA.
fn list(session: &Session, live: Option<&Credential>, rules: Rules) -> Reply {
    let is_barred =
        session.is_poisoned() || rules.is_suspect || (session.is_forwarded() && !rules.allow_forwarding);
    match live {
        Some(credential) if !is_barred => Reply::Identity {
            blob: credential.certificate().blob().to_vec(),
            comment: sanitize_line(credential.certificate().key_id(), 128),
        },
        _ => Reply::NoIdentities,
    }
}

fn record_bind(session: &mut Session, bind: &SessionBind<'_>) -> Verdict {
    match session.bind(bind) {
        Ok(()) => Verdict::Reply(Reply::Success),
        Err(error) => Verdict::Refuse(Reply::ExtensionFailure, Refusal::Bind(error)),
    }
}

/// The credential that may sign the request, or why none may.
fn may_sign<'a>(
    session: &Session,
    live: Option<&'a Credential>,
    rules: Rules,
    request: &SignRequest<'_>,
) -> Result<&'a Credential, Refusal> {
    let credential = live.ok_or(Refusal::NoCredential)?;
    let certificate = credential.certificate();
    if session.is_poisoned() {
        return Err(Refusal::Poisoned);
    }
    if is_sshsig(request.data) {
        return Err(Refusal::SshSig);
    }
    if request.key != certificate.blob() {
        return Err(Refusal::OtherKey);
    }
    if request.flags != 0 {
        return Err(Refusal::Flags(request.flags));
    }
    let login = Userauth::parse(request.data).map_err(|_| Refusal::NotALogin)?;
    if login.key != certificate.blob() || login.algorithm != certificate.algorithm() {
        return Err(Refusal::OtherKey);
    }
    if login.user != credential.user().as_str() {
        return Err(Refusal::OtherUser(login.user.into()));
    }
    check_session(session, rules, &login)?;
    Ok(credential)
}

/// Whether the login is in the session that the connection is bound to.
fn check_session(session: &Session, rules: Rules, login: &Userauth<'_>) -> Result<(), Refusal> {
    if rules.is_suspect {
        return Err(Refusal::NotAskedFor);
    }
    let Some(binding) = session.last() else {
        return if rules.require_bind {
            Err(Refusal::NotBound)
        } else {
            Ok(())
        };
    };
    if session.is_forwarded() && !rules.allow_forwarding {
        return Err(Refusal::Forwarded);
    }
    // A connection that ends at the forwarding host itself has no login of its own to sign.
    if binding.is_forwarded || *binding.session_id != *login.session_id {
        return Err(Refusal::OtherSession);
    }
    match login.host_key {
        Some(host_key) if epithet_ssh::fingerprint(host_key) != binding.host_key => Err(Refusal::OtherHost),
        _ => Ok(()),
    }
}
