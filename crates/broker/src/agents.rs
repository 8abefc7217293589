//! The agents of live connections: one socket each, opened before ssh is told about it, gone when its certificate is.

mod inspect;
mod room;

use crate::agent_policy::AgentPolicy;
use crate::by_name::{ByName, NameTooLong};
use crate::descriptors::Shares;
use crate::live_agent::LiveAgent;
use crate::own_agent::own_agent;
use crate::run_dir::make_private;
use crate::traces::{AgentWatch, Recorder};
use arc_swap::ArcSwap;
use epithet_agent::{AgentSettings, AgentSocket, Askers, Chain, Clock, Fulfil, Places, Promise};
use epithet_wire::limits::{AGENT_SWEEP, CERTIFICATE_EXPIRY_BUFFER, RENEW_LOOK};
use epithet_wire::{Connection, ConnectionHash, RequestId};
use room::LoggedIn;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

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
    /// Where this ssh looks for the agent, if it does not know `%C`.
    pub(crate) name: Option<&'a ByName>,
    /// The person's own agent, as ssh would have used it.
    pub(crate) own_agent: &'a str,
    /// Who asked, for the one connection that it may then make without a bind; 0 where unknown.
    pub(crate) process: u32,
    /// Its certificate is got only when somebody asks the agent for it: this ssh is not about to log in.
    pub(crate) is_on_demand: bool,
}

/// All of them, by ssh's name for the connection.
#[derive(Debug)]
pub(crate) struct Agents {
    dir: PathBuf,
    policy: ArcSwap<AgentPolicy>,
    clock: Clock,
    live: Mutex<HashMap<ConnectionHash, Arc<LiveAgent>>>,
    gone: LoggedIn,
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
            gone: LoggedIn::default(),
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
        let live = self.live();
        let found = live.get(&opening.connection.hash);
        // A link that cannot be made is a reason to be said, when `open` fails with it, too.
        found.is_some_and(|agent| self.takes_over(agent, opening) && agent.answer_to(opening.name).is_ok())
    }

    /// Whether somebody has logged in by this connection since the broker started, so that a master may be there for it.
    pub(crate) fn has_logged_in(&self, hash: &ConnectionHash) -> bool {
        let is_live = (self.live().get(hash)).is_some_and(|agent| agent.activity.signatures() > 0);
        is_live || self.gone.contains(hash)
    }

    /// Where an ssh that does not know `%C` looks for this connection's agent.
    pub(crate) fn name_of(&self, connection: &Connection) -> Result<ByName, NameTooLong> {
        ByName::of(&self.dir, connection)
    }

    /// Whether the person wants their own agent offered, and this is one.
    pub(crate) fn chains(&self, own: &str) -> bool {
        self.policy.load().chain.is_some() && own_agent(own, &self.dir).is_some()
    }

    /// Makes sure that this connection has an agent that is listening when this returns.
    pub(crate) fn open(&self, opening: &Opening<'_>) -> Result<Opened, AgentsError> {
        let Opening {
            connection, recorder, ..
        } = *opening;
        let policy = self.policy.load();
        let mut live = self.live();
        if let Some(agent) = live.get(&connection.hash)
            && self.takes_over(agent, opening)
        {
            agent.answer_to(opening.name)?;
            return Ok(Opened::Already);
        }
        let path = self.dir.join(connection.hash.as_str());
        if let Some(old) = live.remove(&connection.hash) {
            self.gone.end(&old);
            // It ends a moment later and then sees that the file is no longer its own.
            let _ = std::fs::remove_file(&path);
        }
        self.make_room(&mut live, policy.max_agents, Shares::now().agents)?;
        let socket = self.bind(&path)?;
        let (fulfil, promise) = Promise::pending();
        if opening.is_on_demand {
            fulfil.on_demand();
        }
        let close = self.ending.child_token();
        let watch = Arc::new(AgentWatch::new(recorder));
        let chain = policy.chain.map(|when| {
            let user = connection.remote_user.clone();
            Chain::new(when, user, own_agent(opening.own_agent, &self.dir))
        });
        let askers = Askers::default();
        askers.asked(opening.process);
        let agent = LiveAgent {
            connection: connection.clone(),
            request_id: Mutex::new(opening.request_id.clone()),
            promise: promise.clone(),
            activity: socket.activity(),
            stamp: socket.stamp(),
            chain: chain.clone(),
            opened: self.clock.now().boot,
            watch: Arc::clone(&watch),
            askers: askers.clone(),
            name: OnceLock::new(),
            close: close.clone(),
        };
        agent.answer_to(opening.name)?;
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

    /// Opens a socket, in a directory that is made anew where it has been removed.
    fn bind(&self, path: &Path) -> std::io::Result<AgentSocket> {
        match AgentSocket::bind(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                make_private(&self.dir, 0o077).map_err(std::io::Error::other)?;
                tracing::warn!(directory = %self.dir.display(), "the agents' directory had been removed, and was made again");
                AgentSocket::bind(path)
            }
            bound => bound,
        }
    }

    /// Whether a live agent serves this connection, too; then it is watched for the one that asked last.
    fn takes_over(&self, agent: &LiveAgent, opening: &Opening<'_>) -> bool {
        let is_there = agent.stamp.is_at(&self.dir.join(agent.connection.hash.as_str()));
        let is_useful = is_there && agent.is_useful(opening, self.clock.now());
        if is_useful {
            agent.askers.asked(opening.process);
            opening.recorder.belongs_to(&agent.request_id());
            agent.watch.follow(opening.recorder);
            if let (Some(chain), Some(socket)) = (&agent.chain, own_agent(opening.own_agent, &self.dir)) {
                chain.lead_to(socket);
            }
        }
        is_useful
    }

    /// Closes one connection's agent, because its promise could not be kept and ssh was told so.
    pub(crate) fn close(&self, connection: &Connection, request_id: &RequestId) {
        let mut live = self.live();
        if (live.get(&connection.hash)).is_some_and(|agent| agent.request_id() == *request_id)
            && let Some(agent) = live.remove(&connection.hash)
        {
            self.gone.end(&agent);
        }
    }

    /// Closes all of them: keys are wiped, sockets removed.
    pub(crate) fn close_all(&self) {
        for (_, agent) in self.live().drain() {
            self.gone.end(&agent);
        }
    }

    /// Removes ended agents now and then, until the broker ends.
    pub(crate) async fn sweep(&self) {
        loop {
            tokio::time::sleep(AGENT_SWEEP).await;
            let now = self.clock.now();
            self.live().retain(|_, agent| {
                let has_ended = agent.has_ended(now);
                if has_ended {
                    self.gone.end(agent);
                }
                !has_ended
            });
        }
    }

    /// Waits until every agent's task is over. Call after [`Self::close_all`].
    pub(crate) async fn closed(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Those that somebody logged in by within `in_use` and whose certificate ends within `before`, or within a quarter of
    /// its life if that is less. Being asked for keys is not enough: a program that looks now and then, or a remote host, would
    /// have a certificate renewed for ever.
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
                (agent.activity.last_signature()).is_some_and(|last| now.boot.saturating_sub(last) < in_use);
            is_used && credential.is_live(now) && certificate.valid_before() <= now.unix + window
        };
        self.live().values().filter(is_due).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::traces::Traces;
    use epithet_agent::Credential;
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
                name: None,
                own_agent: "",
                is_on_demand: false,
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
}
