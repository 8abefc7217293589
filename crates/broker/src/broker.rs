//! The broker as a whole: what is made at the start, who answers what, and what is undone at the end.

use crate::agents::Agents;
use crate::auth_source::AuthSource;
use crate::ca_pool::CaPool;
use crate::descriptors::Shares;
use crate::discovery::{DiscoveryWatch, Knowledge};
use crate::gate::Gate;
use crate::listener::{self, Answers};
use crate::login::Login;
use crate::match_::Matcher;
use crate::mint::{Mint, MintError};
use crate::pins::Pins;
use crate::run_dir::{RunDir, RunDirError, SocketOwner};
use crate::settings::Settings;
use crate::ssh_config::{PathError, SshConfig};
use crate::traces::Traces;
use crate::voice::Voice;
use epithet_agent::AgentSettings;
use epithet_plugin::{Guard, RunLimits};
use epithet_wire::broker::{Asker, HostsInspection, Inspection, MemoryInspection, Reply, Request};
use epithet_wire::limits::{CA_DEADLINE, DRAIN};
use jiff::Timestamp;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::UnixListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long the start waits for the CA to say which hosts are its own, so that the first ssh needs not.
const FIRST_WORD: Duration = Duration::from_secs(2);

/// Why a broker could not start.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// The run directory.
    #[error(transparent)]
    RunDir(#[from] RunDirError),
    /// A path that ssh's configuration cannot hold.
    #[error(transparent)]
    Path(#[from] PathError),
    /// The process that ends plugins when the broker is killed.
    #[error("cannot find the running program, which also guards plugins: {0}")]
    Guard(std::io::Error),
    /// The socket.
    #[error("cannot open the broker's socket {0}: {1}")]
    Socket(PathBuf, std::io::Error),
}

/// A broker that listens. [`Broker::serve`] makes it answer.
#[derive(Debug)]
pub struct Broker {
    run_dir: RunDir,
    listener: Option<UnixListener>,
    parts: Arc<Parts>,
    discovery: Option<DiscoveryWatch>,
    config: SshConfig,
    ending: CancellationToken,
}

/// What answers requests.
#[derive(Debug)]
struct Parts {
    settings: Settings,
    started_at: Timestamp,
    broker_socket: PathBuf,
    agent_dir: PathBuf,
    login: Arc<Login>,
    pool: Arc<CaPool>,
    agents: Arc<Agents>,
    traces: Arc<Traces>,
    matcher: Matcher,
}

impl Broker {
    /// Claims the run directory, opens the socket and writes the ssh configuration.
    ///
    /// It comes up without a network, CA or provider; those are asked when they are needed.
    pub async fn start(mut settings: Settings, ending: CancellationToken) -> Result<Self, BrokerError> {
        let inherited = settings.inherited.take();
        let owner = match &inherited {
            Some(_) => SocketOwner::ServiceManager,
            None => SocketOwner::Broker,
        };
        let (home, runtime_dir) = (&settings.home, settings.runtime_dir.as_deref());
        let run_dir = RunDir::claim(home, runtime_dir, &settings.profile, owner)?;
        let (broker_socket, agent_dir) = (run_dir.broker_socket(), run_dir.agent_dir());
        let config = SshConfig {
            program: settings.match_program.clone(),
            broker_socket: broker_socket.clone(),
            agent_dir: agent_dir.clone(),
            patterns: settings.patterns.clone(),
        };
        config.render()?;
        let listener = match inherited {
            Some(inherited) => listener::take_over(inherited, &broker_socket),
            None => listener::bind(&broker_socket),
        }
        .map_err(|error| BrokerError::Socket(broker_socket.clone(), error))?;

        let pool = Arc::new(CaPool::new(
            settings.http.clone(),
            settings.ca_cooldown,
            settings.cas.clone(),
        ));
        let asks_ca = settings.patterns.is_empty() || settings.auth.is_none();
        let discovery = asks_ca.then(|| DiscoveryWatch::start(Arc::clone(&pool), ending.clone()));
        let gate = match &discovery {
            Some(discovery) if settings.patterns.is_empty() => Gate::following(discovery.clone()),
            _ => Gate::configured(settings.patterns.clone()),
        };
        let source = match (&settings.auth, &discovery) {
            (None, Some(discovery)) => AuthSource::Discovered {
                discovery: discovery.clone(),
                ca: pool.name(),
                pins: Pins::at(settings.home.join(".epithet/pins")),
                binary: settings.binary.clone(),
            },
            (auth, _) => AuthSource::Configured(
                auth.clone()
                    .unwrap_or_else(|| unreachable!("discovery runs without --auth")),
            ),
        };
        let limits = RunLimits {
            deadline: settings.auth_timeout,
            ..RunLimits::default()
        };
        let guard = Guard::reexec(&[settings.guard]).map_err(BrokerError::Guard)?;
        let login = Arc::new(Login::new(
            source,
            limits,
            settings.token_reuse,
            guard,
            ending.clone(),
        ));
        let agent_settings = AgentSettings {
            allow_forwarding: settings.allow_forwarding,
            // A certificate may need a new login first; ssh itself would wait for ever.
            wait: settings.auth_timeout + CA_DEADLINE,
            ..AgentSettings::default()
        };
        let agents = Arc::new(Agents::new(
            agent_dir.clone(),
            agent_settings,
            Shares::now().agents,
            ending.child_token(),
        ));
        let traces = Arc::new(Traces::default());
        let matcher = Matcher {
            gate,
            agents: Arc::clone(&agents),
            mint: Mint {
                login: Arc::clone(&login),
                pool: Arc::clone(&pool),
            },
            traces: Arc::clone(&traces),
            mints: TaskTracker::new(),
            ending: ending.clone(),
        };
        let parts = Parts {
            settings,
            started_at: Timestamp::now(),
            broker_socket,
            agent_dir,
            login,
            pool,
            agents,
            traces,
            matcher,
        };
        let mut broker = Self {
            run_dir,
            listener: Some(listener),
            parts: Arc::new(parts),
            discovery,
            config,
            ending,
        };
        broker.first_word().await;
        broker.write_ssh_config()?;
        Ok(broker)
    }

    /// Gives the CA a moment to say which hosts are its own.
    async fn first_word(&mut self) {
        let Some(discovery) = &self.discovery else { return };
        if let Knowledge::Known(known) = discovery.get(FIRST_WORD).await {
            self.follow(known.as_deref());
        }
    }

    /// Takes over the CA's patterns. True when they changed.
    fn follow(&mut self, discovery: Option<&epithet_wire::ca::Discovery>) -> bool {
        if !self.parts.settings.patterns.is_empty() {
            return false;
        }
        let gate = &self.parts.matcher.gate;
        let changed = gate.learn(discovery);
        self.config.patterns = gate.now().patterns().to_vec();
        changed
    }

    fn write_ssh_config(&self) -> Result<(), BrokerError> {
        Ok(self.run_dir.write_ssh_config(&self.config.render()?)?)
    }

    /// The broker's socket.
    pub fn socket(&self) -> PathBuf {
        self.run_dir.broker_socket()
    }

    /// The file to include.
    pub fn ssh_config(&self) -> PathBuf {
        self.run_dir.ssh_config()
    }

    /// Answers until `ending` is cancelled, then removes everything that was made. Takes at most about two seconds to end.
    pub async fn serve(mut self) {
        let parts = Arc::clone(&self.parts);
        let sweeping = tokio::spawn({
            let agents = Arc::clone(&parts.agents);
            async move { agents.sweep().await }
        });
        let listener = self.listener.take();
        let (answers, ending) = (Arc::clone(&parts), self.ending.clone());
        let serving = tokio::spawn(async move {
            if let Some(listener) = listener {
                listener::serve(listener, answers, Shares::now().requests, ending).await;
            }
        });
        self.follow_ca().await;

        sweeping.abort();
        parts.agents.close_all();
        parts.matcher.mints.close();
        let quiet = async {
            let _ = serving.await;
            parts.matcher.mints.wait().await;
            parts.agents.closed().await;
            parts.login.ended().await;
        };
        if tokio::time::timeout(DRAIN, quiet).await.is_err() {
            tracing::warn!("something did not end in time and is left behind");
        }
        parts.login.forget();
    }

    /// Follows the CA's patterns until the end.
    async fn follow_ca(&mut self) {
        let ending = self.ending.clone();
        let Some(discovery) = self.discovery.clone() else {
            return ending.cancelled().await;
        };
        let mut changes = discovery.changes();
        while let Some(Ok(())) = ending.run_until_cancelled(changes.changed()).await {
            let Knowledge::Known(known) = changes.borrow_and_update().clone() else {
                continue;
            };
            if self.follow(known.as_deref())
                && let Err(error) = self.write_ssh_config()
            {
                tracing::warn!(%error, "the ssh configuration could not be rewritten");
            }
        }
        ending.cancelled().await;
    }
}

fn memory() -> MemoryInspection {
    let memory = epithet_plugin::locked_memory();
    MemoryInspection {
        held_bytes: memory.held,
        locked_bytes: memory.locked,
    }
}

impl Answers for Parts {
    async fn answer(&self, request: Request, voice: Voice) -> Reply {
        if let Some(request) = &request.match_ {
            return self.matcher.answer(request, &voice).await;
        }
        if let Some(asker) = &request.login {
            return self.log_in(asker, &voice).await;
        }
        if let Some(asker) = &request.logout {
            return self.log_out(asker, &voice).await;
        }
        if request.trace.is_some() {
            return Reply {
                traces: Some(self.traces.all()),
                ..Reply::default()
            };
        }
        Reply {
            inspect: Some(Box::new(self.inspect())),
            ..Reply::default()
        }
    }
}

impl Parts {
    /// Logs in now, whether or not a token is held.
    async fn log_in(&self, asker: &Asker, voice: &Voice) -> Reply {
        match self.login.renew(asker, voice).await {
            Ok(_) => Reply::allow(),
            Err(error) => Reply::deny(MintError::Login(error).explain()),
        }
    }

    /// Forgets everything that could log anybody in, then has it revoked.
    async fn log_out(&self, asker: &Asker, voice: &Voice) -> Reply {
        let forgotten = self.login.forget();
        self.agents.close_all();
        self.login.revoke(forgotten, asker, voice).await
    }

    fn inspect(&self) -> Inspection {
        let gate = self.matcher.gate.now();
        Inspection {
            profile: self.settings.profile.to_string(),
            version: self.settings.version.clone(),
            pid: std::process::id(),
            started_at: Some(self.started_at),
            socket_path: self.broker_socket.display().to_string(),
            agent_socket_dir: self.agent_dir.display().to_string(),
            hosts: HostsInspection {
                patterns: gate.patterns().iter().map(ToString::to_string).collect(),
                source: gate.source().name().to_owned(),
            },
            login: self.login.inspect(),
            memory: memory(),
            agents: self.agents.inspect(),
            ca_endpoints: self.pool.inspect(),
        }
    }
}
