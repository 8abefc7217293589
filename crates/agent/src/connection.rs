//! One client of an agent: reads a message, asks the firewall, answers, and again.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::net::UnixStream;
use tracing::{debug, info, warn};

use crate::chain::{Chain, ChainWhen, Chained};
use crate::clock::Now;
use crate::credential::Credential;
use crate::firewall::{self, Refusal, Rules, Verdict};
use crate::frame;
use crate::message::{Identity, Reply, Request, is_session_bind};
use crate::promise::Promise;
use crate::session::Session;
use crate::socket::AgentSettings;
use crate::watcher::Watcher;

/// A message buffer larger than this is given back after use; ordinary messages are well under 4 KiB.
const BUFFER_KEPT: usize = 16 * 1024;

/// What the connections of one agent share.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    /// The kinds of refusals that were logged already.
    refusals: AtomicU32,
    /// Whether a client that does not bind its connection has used this agent.
    has_unbound_clients: AtomicBool,
    signatures: AtomicU64,
    /// Milliseconds on the boot clock; zero is never.
    last_request: AtomicU64,
    /// The same, of a login that was signed with the certificate.
    last_signature: AtomicU64,
}

impl Shared {
    pub(crate) fn signatures(&self) -> u64 {
        self.signatures.load(Ordering::Relaxed)
    }

    pub(crate) fn last_request(&self) -> Option<Duration> {
        read(&self.last_request)
    }

    pub(crate) fn last_signature(&self) -> Option<Duration> {
        read(&self.last_signature)
    }

    fn note_request(&self, now: Now) {
        write(&self.last_request, now);
    }

    fn note_signature(&self, now: Now) {
        self.signatures.fetch_add(1, Ordering::Relaxed);
        write(&self.last_signature, now);
    }

    /// Takes note of a client that uses the connection it asked for without binding it: a newer ssh binds first.
    fn note_client(&self, standing: Standing, session: &Session, request: &Request<'_>) {
        let uses = matches!(request, Request::Identities | Request::Sign(_));
        if standing.has_asked && uses && session.last().is_none() {
            self.has_unbound_clients.store(true, Ordering::Relaxed);
        }
    }

    /// What holds for a connection now.
    fn rules(&self, standing: Standing, settings: &AgentSettings) -> Rules {
        let may_forward = standing.has_asked || settings.allow_forwarding;
        Rules {
            allow_forwarding: settings.allow_forwarding,
            require_bind: settings.require_bind || !may_forward,
            is_suspect: !may_forward && self.has_unbound_clients.load(Ordering::Relaxed),
        }
    }

    /// Whether a refusal of this kind is the agent's first.
    fn is_news(&self, refusal: &Refusal) -> bool {
        let bit = 1 << refusal.kind();
        self.refusals.fetch_or(bit, Ordering::Relaxed) & bit == 0
    }
}

fn read(moment: &AtomicU64) -> Option<Duration> {
    match moment.load(Ordering::Relaxed) {
        0 => None,
        milliseconds => Some(Duration::from_millis(milliseconds)),
    }
}

fn write(moment: &AtomicU64, now: Now) {
    let milliseconds = u64::try_from(now.boot.as_millis()).unwrap_or(u64::MAX);
    moment.store(milliseconds, Ordering::Relaxed);
}

/// Who is at the other end of a connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Standing {
    /// Whether its process asked for this connection; true where nobody keeps account.
    pub(crate) has_asked: bool,
}

/// Serves one client until it leaves or breaks the framing.
pub(crate) async fn serve(
    mut stream: UnixStream,
    promise: Promise,
    standing: Standing,
    settings: Arc<AgentSettings>,
    shared: Arc<Shared>,
) {
    if let Err(error) = converse(&mut stream, &promise, standing, &settings, &shared).await {
        debug!(%error, "agent connection closed");
    }
}

async fn converse(
    stream: &mut UnixStream,
    promise: &Promise,
    standing: Standing,
    settings: &AgentSettings,
    shared: &Shared,
) -> io::Result<()> {
    let (mut session, mut chained) = (Session::default(), Chained::default());
    let mut message = Vec::new();
    while frame::read(stream, &mut message).await? {
        let (asked, request) = (Instant::now(), Request::decode(&message));
        if matches!(request, Request::Malformed { .. }) && is_session_bind(&message) {
            session.poison();
        }
        let credential = match request {
            Request::Identities | Request::Sign(_) => promise.settled(settings.wait).await,
            _ => promise.credential(),
        };
        shared.note_client(standing, &session, &request);
        let rules = shared.rules(standing, settings);
        let now = settings.clock.now();
        shared.note_request(now);
        let mut verdict = firewall::answer(&mut session, credential.as_deref(), rules, &request, now);
        if matches!(
            (&request, &verdict),
            (Request::Bind(_), Verdict::Reply(Reply::Success))
        ) {
            chained.remember_bind(&message);
        }
        if let Some(chain) = &settings.chain
            && is_offered(chain, promise, credential.as_deref())
            && !may_be_forwarded(rules, &session)
        {
            verdict = with_other_agent(verdict, chain, &mut chained, &session, &request, &message).await;
        }
        if let Some(watcher) = &settings.watcher {
            tell(watcher.as_ref(), &request, &verdict, asked);
        }
        let reply = carry_out(verdict, promise, &session, credential.as_deref(), shared, now);
        // Not held while the peer takes its time to read, so that a withdrawn key is really gone.
        drop(credential);
        frame::write(stream, &reply.frame()).await?;
        if message.capacity() > BUFFER_KEPT {
            message = Vec::new();
        }
    }
    Ok(())
}

/// Whether the person's own agent is to be offered. Who emptied this agent wants it empty.
fn is_offered(chain: &Chain, promise: &Promise, credential: Option<&Credential>) -> bool {
    !promise.is_withdrawn()
        && match chain.when {
            ChainWhen::Always => true,
            ChainWhen::Denied => credential.is_none(),
        }
}

/// What becomes of the firewall's verdict when the person's own agent is asked, too: its keys stand after ours, and it
/// is asked for signatures that are not ours to make.
async fn with_other_agent(
    verdict: Verdict,
    chain: &Chain,
    chained: &mut Chained,
    session: &Session,
    request: &Request<'_>,
    message: &[u8],
) -> Verdict {
    match (request, verdict) {
        (Request::Identities, Verdict::Reply(ours)) => {
            let mut keys = match ours {
                Reply::Identity { blob, comment } => vec![Identity {
                    blob,
                    comment: comment.into_bytes(),
                }],
                _ => Vec::new(),
            };
            for key in chained.list(chain, session).await {
                if !keys.iter().any(|known| known.blob == key.blob) {
                    keys.push(key);
                }
            }
            Verdict::Reply(Reply::Identities(keys))
        }
        (Request::Sign(sign), Verdict::Refuse(_, Refusal::OtherKey | Refusal::NoCredential)) => {
            match chained.sign(chain, session, sign, message).await {
                Ok(answer) => Verdict::Reply(Reply::Relayed(answer)),
                Err(refusal) => Verdict::Refuse(Reply::Failure, refusal),
            }
        }
        (_, verdict) => verdict,
    }
}

/// Whether a remote host may be at the other end without saying so: it gets nothing of the person's own agent either.
fn may_be_forwarded(rules: Rules, session: &Session) -> bool {
    rules.is_suspect || (rules.require_bind && session.last().is_none())
}

/// Tells the watcher about an answer.
fn tell(watcher: &dyn Watcher, request: &Request<'_>, verdict: &Verdict, asked: Instant) {
    match (request, verdict) {
        (Request::Identities, Verdict::Reply(Reply::Identity { .. })) => watcher.listed(asked, 1),
        (Request::Identities, Verdict::Reply(Reply::Identities(keys))) => watcher.listed(asked, keys.len()),
        (Request::Identities, _) => watcher.listed(asked, 0),
        (Request::Sign(_), Verdict::Reply(_)) => watcher.signed(asked),
        (Request::Sign(_), Verdict::Refuse(_, refusal)) => watcher.refused(asked, &refusal.to_string()),
        _ => {}
    }
}

/// Does and logs what the firewall decided.
fn carry_out(
    verdict: Verdict,
    promise: &Promise,
    session: &Session,
    credential: Option<&Credential>,
    shared: &Shared,
    now: Now,
) -> Reply {
    let user = credential.map(|credential| credential.user().as_str());
    match verdict {
        Verdict::Reply(reply) => {
            if let (Reply::Signature(_), Some(credential)) = (&reply, credential) {
                shared.note_signature(now);
                info!(
                    user,
                    serial = credential.certificate().serial(),
                    host_key = session.last().map(|binding| binding.host_key.as_str()),
                    forwarded = session.is_forwarded(),
                    "login signed"
                );
            }
            reply
        }
        Verdict::Empty => {
            promise.withdraw();
            info!(user, "agent emptied");
            Reply::Success
        }
        Verdict::Refuse(reply, refusal) => {
            let reason = refusal.to_string();
            if shared.is_news(&refusal) {
                warn!(user, forwarded = session.is_forwarded(), reason, "agent refused");
            } else {
                debug!(
                    user,
                    forwarded = session.is_forwarded(),
                    reason,
                    "agent refused again"
                );
            }
            reply
        }
    }
}
