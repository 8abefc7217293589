//! The agents of live connections: one socket each, opened before ssh is told about it, gone when its certificate is.

use crate::agent_policy::AgentPolicy;
use crate::descriptors::Shares;
use crate::traces::{AgentWatch, Recorder};
use arc_swap::ArcSwap;
use epithet_agent::{
    Activity, AgentSettings, AgentSocket, Askers, Chain, Clock, Credential, Fulfil, Now, Places, Promise,
};
use epithet_wire::broker::AgentInspection;
use epithet_wire::limits::{AGENT_SWEEP, CERTIFICATE_EXPIRY_BUFFER, LAZY_AGENT_STAYS, RENEW_LOOK};
use epithet_wire::{Connection, ConnectionHash, RequestId};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// One connection's agent.
#[derive(Debug)]
pub(crate) struct LiveAgent {
    pub(crate) connection: Connection,
    request_id: Mutex<RequestId>,
    pub(crate) promise: Promise,
    activity: Activity,
    chain: Option<Chain>,
    opened: Duration,
    /// Its certificate is got only when somebody asks for it: ssh itself was not about to log in.
    is_lazy: bool,
    watch: Arc<AgentWatch>,
    askers: Askers,
    close: CancellationToken,
}

/// How long the agent of a refused connection stays, so that ssh finds an empty list rather than nothing.
const REFUSED_STAYS: Duration = Duration::from_secs(20);

/// Why an agent could not be opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AgentsError {
    #[error(
        "there are {most} live agents, which is the limit{why}; close some ssh connections or wait for certificates to end",
        why = if *by_open_files { " of open files (raise `ulimit -n` and start `epithet agent` again)" } else { " (raise `max-agents` for more)" }
    )]
    TooMany {
        /// As many as there may be.
        most: usize,
        /// The system's limit is lower than the configured one.
        by_open_files: bool,
    },
    #[error("cannot open the agent's socket: {0}")]
    Socket(#[from] std::io::Error),
}

/// For whom an agent is opened.
#[derive(Debug)]
pub(crate) struct Opening<'a> {
    pub(crate) connection: &'a Connection,
    pub(crate) request_id: &'a RequestId,
    pub(crate) recorder: &'a Arc<Recorder>,
    /// The person's own agent, as ssh would have used it.
    pub(crate) own_agent: &'a str,
    /// Who asked, for the one connection that it may then make without a bind; 0 where unknown.
    pub(crate) process: u32,
    /// See [`LiveAgent::is_lazy`].
    pub(crate) is_lazy: bool,
}

/// All of them, by ssh's name for the connection.
#[derive(Debug)]
pub(crate) struct Agents {
    dir: PathBuf,
    policy: ArcSwap<AgentPolicy>,
    clock: Clock,
    live: Mutex<HashMap<ConnectionHash, Arc<LiveAgent>>>,
    places: Places,
    tasks: TaskTracker,
    ending: CancellationToken,
}

/// What [`Agents::open`] found or made.
pub(crate) enum Opened {
    /// Somebody was faster: an agent with a certificate, or with one on its way, is there.
    Already,
    /// A new agent is listening and waits for this promise to be kept.
    New(Fulfil),
}

impl Agents {
    pub(crate) fn new(dir: PathBuf, policy: AgentPolicy, clock: Clock, ending: CancellationToken) -> Self {
        Self {
            dir,
            policy: ArcSwap::from_pointee(policy),
            clock,
            live: Mutex::default(),
            places: Places::of(Shares::now().connections),
            tasks: TaskTracker::new(),
            ending,
        }
    }

    /// Agents that are opened from now on behave like this.
    pub(crate) fn follow(&self, policy: AgentPolicy) {
        self.policy.store(Arc::new(policy));
    }

    fn live(&self) -> MutexGuard<'_, HashMap<ConnectionHash, Arc<LiveAgent>>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this connection's agent is listening and has a certificate that has not ended, or will have one.
    ///
    /// If so, what it does from now on is written down by the opening's recorder.
    pub(crate) fn serves(&self, opening: &Opening<'_>) -> bool {
        let found = self.live().get(&opening.connection.hash).cloned();
        found.is_some_and(|agent| self.takes_over(&agent, opening))
    }

    /// Makes sure that this connection has an agent that is listening when this returns.
    pub(crate) fn open(&self, opening: &Opening<'_>) -> Result<Opened, AgentsError> {
        let Opening {
            connection, recorder, ..
        } = *opening;
        let policy = self.policy.load();
        let mut live = self.live();
        if (live.get(&connection.hash)).is_some_and(|agent| self.takes_over(agent, opening)) {
            return Ok(Opened::Already);
        }
        let path = self.dir.join(connection.hash.as_str());
        if let Some(old) = live.remove(&connection.hash) {
            old.shut();
            // It ends a moment later and then sees that the file is no longer its own.
            let _ = std::fs::remove_file(&path);
        }
        make_room(
            &mut live,
            policy.max_agents,
            Shares::now().agents,
            self.clock.now(),
        )?;
        let socket = AgentSocket::bind(path)?;
        let (fulfil, promise) = Promise::pending();
        let close = self.ending.child_token();
        let watch = Arc::new(AgentWatch::new(recorder));
        let chain = policy.chain.map(|when| {
            let user = connection.remote_user.clone();
            Chain::new(when, user, self.own_agent(opening.own_agent))
        });
        let askers = Askers::default();
        askers.asked(opening.process);
        let agent = LiveAgent {
            connection: connection.clone(),
            request_id: Mutex::new(opening.request_id.clone()),
            promise: promise.clone(),
            activity: socket.activity(),
            chain: chain.clone(),
            opened: self.clock.now().boot,
            is_lazy: opening.is_lazy,
            watch: Arc::clone(&watch),
            askers: askers.clone(),
            close: close.clone(),
        };
        let settings = AgentSettings {
            allow_forwarding: policy.allows_forwarding(&connection.remote_host),
            wait: policy.wait,
            chain,
            places: self.places.clone(),
            askers: Some(askers),
            watcher: Some(watch),
            clock: self.clock.clone(),
            ..AgentSettings::default()
        };
        self.tasks.spawn(socket.serve(promise, settings, close));
        live.insert(connection.hash.clone(), Arc::new(agent));
        Ok(Opened::New(fulfil))
    }

    /// Whether a live agent serves this connection, too; then it is watched for the one that asked last.
    fn takes_over(&self, agent: &LiveAgent, opening: &Opening<'_>) -> bool {
        let is_useful = agent.is_useful(opening, self.clock.now());
        if is_useful {
            agent.askers.asked(opening.process);
            opening.recorder.belongs_to(&agent.request_id());
            agent.watch.follow(opening.recorder);
            if let (Some(chain), Some(socket)) = (&agent.chain, self.own_agent(opening.own_agent)) {
                chain.lead_to(socket);
            }
        }
        is_useful
    }

    /// The person's own agent, unless it is one of Epithet's: those of two profiles would ask each other without end.
    fn own_agent(&self, named: &str) -> Option<PathBuf> {
        let path = Path::new(named);
        let real = path.is_absolute().then(|| path.canonicalize().ok())??;
        let dir = real.parent()?;
        let is_epithet = dir.canonicalize().ok()? == self.dir.canonicalize().ok()?
            || dir.parent()?.join("broker.sock").exists() && dir.ends_with("agent");
        (!is_epithet).then_some(real)
    }

    /// Closes one connection's agent, because its promise could not be kept and ssh was told so.
    pub(crate) fn close(&self, connection: &Connection, request_id: &RequestId) {
        let mut live = self.live();
        if (live.get(&connection.hash)).is_some_and(|agent| agent.request_id() == *request_id)
            && let Some(agent) = live.remove(&connection.hash)
        {
            agent.shut();
        }
    }

    /// Closes all of them: keys are wiped, sockets removed.
    pub(crate) fn close_all(&self) {
        for (_, agent) in self.live().drain() {
            agent.shut();
        }
    }

    /// Removes ended agents now and then, until the broker ends.
    pub(crate) async fn sweep(&self) {
        loop {
            tokio::time::sleep(AGENT_SWEEP).await;
            let now = self.clock.now();
            self.live().retain(|_, agent| !agent.close_if_ended(now));
        }
    }

    /// Waits until every agent's task is over. Call after [`Self::close_all`].
    pub(crate) async fn closed(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Those that somebody used within `in_use` and whose certificate ends within `before`, or within a quarter of its
    /// life if that is less.
    pub(crate) fn ending_soon(&self, in_use: Duration, before: Duration) -> Vec<Arc<LiveAgent>> {
        let now = self.clock.now();
        let is_due = |agent: &&Arc<LiveAgent>| {
            let Some(credential) = agent.promise.credential() else {
                return false;
            };
            let certificate = credential.certificate();
            let life = certificate
                .valid_before()
                .saturating_sub(certificate.valid_after());
            // Below this there would be no time left to do it in.
            let least = (CERTIFICATE_EXPIRY_BUFFER + 3 * RENEW_LOOK).as_secs();
            let window = before.as_secs().min(life / 4).max(least);
            let is_used =
                (agent.activity.last_request()).is_some_and(|last| now.boot.saturating_sub(last) < in_use);
            is_used && credential.is_live(now) && certificate.valid_before() <= now.unix + window
        };
        self.live().values().filter(is_due).cloned().collect()
    }

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

impl LiveAgent {
    fn request_id(&self) -> RequestId {
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

    /// Closes the socket and forgets the credential; what is on its way is not waited for.
    fn shut(&self) {
        self.promise.withdraw();
        self.close.cancel();
    }

    /// Whether ssh would get something from it, for this very connection.
    fn is_useful(&self, opening: &Opening<'_>, now: Now) -> bool {
        // A lazy one speaks to nobody's terminal, so an ssh that is about to log in gets one of its own.
        let will_have_one = self.promise.is_pending() && (!self.is_lazy || opening.is_lazy);
        let has_one = || (self.promise.credential()).is_some_and(|credential| credential.is_live(now));
        self.connection == *opening.connection && (will_have_one || has_one())
    }

    fn has_ended(&self, now: Now) -> bool {
        let age = now.boot.saturating_sub(self.opened);
        match self.promise.credential() {
            Some(credential) => !credential.is_live(now),
            None if self.promise.is_pending() => {
                self.is_lazy && !self.promise.is_wanted() && age > LAZY_AGENT_STAYS
            }
            None => age > REFUSED_STAYS,
        }
    }

    fn close_if_ended(&self, now: Now) -> bool {
        let has_ended = self.has_ended(now);
        if has_ended {
            self.shut();
        }
        has_ended
    }

    /// Since when nobody has had any use of it.
    fn last_useful(&self) -> Duration {
        self.activity.last_request().unwrap_or(self.opened)
    }
}

/// Makes room for one more agent: the ended one goes that was useful the longest time ago. A live one never does.
fn make_room(
    live: &mut HashMap<ConnectionHash, Arc<LiveAgent>>,
    configured: usize,
    possible: usize,
    now: Now,
) -> Result<(), AgentsError> {
    let most = configured.min(possible);
    while live.len() >= most {
        let ended = live.iter().filter(|(_, agent)| {
            // One that was refused is kept for ssh to find, but not at this price.
            agent.has_ended(now) || agent.promise.credential().is_none() && !agent.promise.is_pending()
        });
        let oldest = ended.min_by_key(|(_, agent)| agent.last_useful());
        let Some(hash) = oldest.map(|(hash, _)| hash.clone()) else {
            return Err(AgentsError::TooMany {
                most,
                by_open_files: possible < configured,
            });
        };
        if let Some(agent) = live.remove(&hash) {
            agent.shut();
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::traces::Traces;
    use epithet_ssh::{CaKey, CertificateSpec, SubjectKey, SubjectPublicKey};
    use epithet_wire::ConnectionFields;
    use std::os::unix::fs::PermissionsExt;
    use std::time::Instant;

    struct Scene {
        dir: tempfile::TempDir,
        clock: Clock,
        agents: Agents,
        traces: Traces,
        ca: CaKey,
    }

    impl Scene {
        fn new(max_agents: usize) -> Self {
            let dir = tempfile::tempdir().unwrap();
            std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
            let clock = Clock::movable();
            let policy = AgentPolicy {
                allow_forwarding: Vec::new(),
                chain: None,
                wait: Duration::from_secs(1),
                max_agents,
                renew: false,
            };
            let agents = Agents::new(
                dir.path().to_owned(),
                policy,
                clock.clone(),
                CancellationToken::new(),
            );
            Self {
                dir,
                clock,
                agents,
                traces: Traces::default(),
                ca: CaKey::generate_ed25519().unwrap(),
            }
        }

        fn open(&self, number: usize) -> Result<Opened, AgentsError> {
            let connection = ConnectionFields {
                remote_host: "web".into(),
                remote_user: "root".into(),
                port: 22,
                hash: format!("{number:040x}"),
                ..ConnectionFields::default()
            };
            let connection = connection.check().unwrap();
            let request_id = RequestId::from_random([0; 8]);
            let recorder = self.traces.begin(&connection, &request_id, Instant::now());
            self.agents.open(&Opening {
                connection: &connection,
                request_id: &request_id,
                recorder: &recorder,
                process: 0,
                own_agent: "",
                is_lazy: false,
            })
        }

        /// Opens an agent that has a certificate for so many seconds.
        fn open_for(&self, number: usize, life: u64) {
            let Opened::New(fulfil) = self.open(number).unwrap() else {
                panic!("{number} is there already")
            };
            let key = SubjectKey::generate().unwrap();
            let now = self.clock.now();
            let certificate = CertificateSpec {
                subject: SubjectPublicKey::parse(&key.public_line()).unwrap(),
                serial: 1,
                key_id: "alice".parse().unwrap(),
                principals: vec!["root".parse().unwrap()],
                valid_after: now.unix - 60,
                valid_before: now.unix + life,
                critical_options: [].into(),
                extensions: [].into(),
            }
            .sign(&self.ca)
            .unwrap();
            let credential = Credential::new(key, certificate, "root".parse().unwrap(), now).unwrap();
            assert!(fulfil.ready(Arc::new(credential)));
        }

        fn hashes(&self) -> Vec<String> {
            self.agents
                .inspect()
                .into_iter()
                .map(|agent| agent.hash)
                .collect()
        }
    }

    #[tokio::test]
    async fn the_ended_one_that_was_useful_the_longest_time_ago_makes_room_and_a_live_one_never() {
        let scene = Scene::new(3);
        scene.open_for(1, 300);
        scene.clock.sleep(Duration::from_secs(10));
        scene.open_for(2, 60);
        scene.clock.sleep(Duration::from_secs(10));
        scene.open_for(3, 60);
        assert!(matches!(scene.open(4), Err(AgentsError::TooMany { most: 3, .. })));
        scene.clock.sleep(Duration::from_secs(60));
        scene.open_for(5, 300);
        let hash = |number: usize| format!("{number:040x}");
        assert_eq!(
            scene.hashes(),
            [hash(1), hash(3), hash(5)],
            "the second made room"
        );
        scene.open_for(6, 300);
        assert_eq!(scene.hashes(), [hash(1), hash(5), hash(6)]);
        assert!(matches!(scene.open(7), Err(AgentsError::TooMany { most: 3, .. })));
    }

    #[tokio::test]
    async fn a_certificate_that_ended_while_the_machine_slept_is_gone_with_its_socket() {
        for sleeps in [true, false] {
            let scene = Scene::new(10);
            scene.open_for(1, 300);
            let socket = scene.dir.path().join(format!("{:040x}", 1));
            assert!(socket.exists());
            if sleeps {
                scene.clock.sleep(Duration::from_secs(296));
            } else {
                // A calendar that is set forward ends it, too; set back, the counting clock does.
                scene.clock.set_calendar(3600);
            }
            let sweeping = scene.agents.sweep();
            let gone = async {
                while socket.exists() {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            };
            tokio::select! {
                () = sweeping => unreachable!("it sweeps for ever"),
                () = gone => {}
                () = tokio::time::sleep(Duration::from_secs(30)) => panic!("the socket is there after 30 s"),
            }
            assert!(scene.hashes().is_empty());
        }
    }

    #[tokio::test]
    async fn a_calendar_that_is_set_back_gives_no_certificate_more_life() {
        let scene = Scene::new(10);
        scene.open_for(1, 300);
        scene.clock.set_calendar(-3600);
        assert_eq!(scene.agents.inspect()[0].state, "ready");
        scene.clock.sleep(Duration::from_secs(296));
        assert_eq!(scene.agents.inspect()[0].state, "ended");
    }

    #[tokio::test]
    async fn an_agent_of_ours_is_never_the_other_agent() {
        let scene = Scene::new(10);
        scene.open_for(1, 300);
        let own = scene.dir.path().join(format!("{:040x}", 1));
        let link = tempfile::tempdir().unwrap();
        let elsewhere = link.path().join("agent.sock");
        std::os::unix::fs::symlink(&own, &elsewhere).unwrap();
        let profile = link.path().join("run/work");
        std::fs::create_dir_all(profile.join("agent")).unwrap();
        for file in ["broker.sock", "agent/abc"] {
            std::fs::write(profile.join(file), "").unwrap();
        }
        let named = |path: &Path| scene.agents.own_agent(path.to_str().unwrap());
        for path in [
            &own,
            &elsewhere,
            &profile.join("agent/abc"),
            Path::new("relative"),
            Path::new(""),
        ] {
            assert_eq!(named(path), None, "{}", path.display());
        }
        let other = link.path().join("gpg-agent");
        std::fs::write(&other, "").unwrap();
        assert_eq!(named(&other), Some(other.canonicalize().unwrap()));
    }
}
