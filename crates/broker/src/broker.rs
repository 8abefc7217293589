//! The broker as a whole: what is made at the start, who answers what, what a reload changes, and what is undone at the end.

mod house;

use crate::agents::Agents;
use crate::descriptors::Shares;
use crate::discovery::{Knowledge, Said};
use crate::file_id::FileId;
use crate::key_stock::KeyStock;
use crate::listener::{self, Answers};
use crate::login::Login;
use crate::match_::Matcher;
use crate::mint::MintError;
use crate::outfit::{Household, Outfit};
use crate::renew::keep_renewing;
use crate::run_dir::{RunDir, RunDirError, SocketOwner};
use crate::settings::Settings;
use crate::ssh_config::{SshConfig, Unsayable};
use crate::ssh_glue::{SshGlue, render_or_nothing};
use crate::traces::Traces;
use crate::voice::Voice;
use arc_swap::ArcSwap;
use epithet_plugin::Guard;
use epithet_wire::ProfileName;
use epithet_wire::broker::{Asker, HostsInspection, Inspection, MemoryInspection, Reply, Request};
use epithet_wire::limits::DRAIN;
use jiff::Timestamp;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::UnixListener;
use tokio::sync::{mpsc, oneshot};
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
    /// What ssh's configuration cannot say.
    #[error(transparent)]
    Ssh(#[from] Unsayable),
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
    /// The socket that was opened, to know it by.
    socket_file: Mutex<Option<FileId>>,
    listener: Option<UnixListener>,
    parts: Arc<Parts>,
    reloader: Reloader,
    reloads: Option<mpsc::Receiver<Reload>>,
}

/// New settings, and where to say what they change.
#[derive(Debug)]
struct Reload {
    settings: Box<Settings>,
    outcome: oneshot::Sender<Result<Vec<&'static str>, String>>,
}

/// Gives a running broker new settings.
#[derive(Debug, Clone)]
pub struct Reloader(mpsc::Sender<Reload>);

impl Reloader {
    /// Has the broker go on with these settings, and returns the keys whose values changed.
    ///
    /// # Errors
    /// Why the broker goes on with the old ones.
    pub async fn reload(&self, settings: Settings) -> Result<Vec<&'static str>, String> {
        let (outcome, answer) = oneshot::channel();
        let settings = Box::new(settings);
        let ending = || "the broker is shutting down".to_owned();
        let sent = self.0.send(Reload { settings, outcome }).await;
        sent.map_err(|_| ending())?;
        answer.await.map_err(|_| ending())?
    }
}

/// What answers requests.
#[derive(Debug)]
struct Parts {
    started_at: Timestamp,
    broker_socket: PathBuf,
    agent_dir: PathBuf,
    household: Household,
    now: ArcSwap<Now>,
}

/// What configuration made of the broker, and what answers ssh with it.
#[derive(Debug)]
struct Now {
    outfit: Outfit,
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
        let glue = SshGlue::new(settings.ssh.clone(), settings.binary.clone());
        glue.ask_version().await;
        ssh_config(&settings, &glue, &run_dir).render()?;
        let listener = match inherited {
            Some(inherited) => listener::take_over(inherited, &broker_socket),
            None => listener::bind(&broker_socket),
        }
        .map_err(|error| BrokerError::Socket(broker_socket.clone(), error))?;
        let socket_file = Mutex::new(FileId::at(&broker_socket));

        let guard = Guard::reexec(&[settings.guard]).map_err(BrokerError::Guard)?;
        let clock = settings.clock.clone();
        let agents = Agents::new(
            agent_dir.clone(),
            settings.agents.clone(),
            clock.clone(),
            ending.child_token(),
        );
        let outfit = Outfit::new(settings, None, &ending);
        let household = Household {
            agents: Arc::new(agents),
            login: Arc::new(Login::new(outfit.way(), clock, guard, ending.clone())),
            traces: Arc::new(Traces::default()),
            keys: Arc::new(KeyStock::default()),
            mints: TaskTracker::new(),
            glue: Arc::new(glue),
            ending,
        };
        household.keys.refill();
        let now = Now {
            matcher: outfit.matcher(&household),
            outfit,
        };
        let parts = Parts {
            started_at: Timestamp::now(),
            broker_socket,
            agent_dir,
            household,
            now: ArcSwap::from_pointee(now),
        };
        let (sender, reloads) = mpsc::channel(1);
        let broker = Self {
            run_dir,
            socket_file,
            listener: Some(listener),
            parts: Arc::new(parts),
            reloader: Reloader(sender),
            reloads: Some(reloads),
        };
        broker.first_word().await;
        broker.write_ssh_config()?;
        Ok(broker)
    }

    /// For new settings while it runs.
    pub fn reloader(&self) -> Reloader {
        self.reloader.clone()
    }

    /// Gives the CA a moment to say which hosts are its own, unless it has said so an earlier time.
    async fn first_word(&self) {
        let now = self.parts.now.load_full();
        let Some(discovery) = &now.outfit.discovery else {
            return;
        };
        if now.outfit.settings.follows_ca() {
            now.outfit.recall_hosts();
        }
        let patience = match now.outfit.gate.is_known() {
            true => Duration::ZERO,
            false => FIRST_WORD,
        };
        if let Knowledge::Known(said) = discovery.watch.get(patience).await {
            self.learn(&now.outfit, &said);
        }
    }

    /// Takes over the CA's patterns, and remembers them.
    fn learn(&self, outfit: &Outfit, said: &Said) {
        if !outfit.settings.follows_ca() {
            return;
        }
        let now = outfit.settings.clock.now().unix;
        if !said.is_partial {
            outfit
                .remembered()
                .remember(&outfit.pool.addresses(), said.patterns(), now);
        }
        outfit.gate.learn(said);
    }

    /// Writes the file for the ssh that is here and the hosts that are known.
    fn write_ssh_config(&self) -> Result<(), RunDirError> {
        let now = self.parts.now.load();
        let settings = &now.outfit.settings;
        let patterns = match settings.follows_ca() {
            true => now.outfit.gate.now().patterns().to_vec(),
            false => settings.patterns.clone(),
        };
        let config = SshConfig {
            patterns,
            ..ssh_config(settings, &self.parts.household.glue, &self.run_dir)
        };
        let (text, problem) = render_or_nothing(&config);
        if let Some(problem) = problem {
            tracing::warn!(%problem, "ssh is not asked for anything");
        }
        let is_there = std::fs::read_to_string(self.run_dir.ssh_config()).is_ok_and(|there| there == text);
        if is_there {
            return Ok(());
        }
        self.run_dir.write_ssh_config(&text)
    }

    fn rewrite_ssh_config(&self) {
        if let Err(error) = self.write_ssh_config() {
            tracing::warn!(%error, "the ssh configuration could not be rewritten");
        }
    }

    /// The broker's socket.
    pub fn socket(&self) -> PathBuf {
        self.run_dir.broker_socket()
    }

    /// The file to include.
    pub fn ssh_config(&self) -> PathBuf {
        self.run_dir.ssh_config()
    }

    /// Answers until `ending` is cancelled, then removes everything that was made. Takes two seconds at most to end,
    /// and two more when a plugin does not let itself be ended.
    pub async fn serve(mut self) {
        let parts = Arc::clone(&self.parts);
        let household = parts.household.clone();
        let sweeping = tokio::spawn({
            let agents = Arc::clone(&household.agents);
            async move { agents.sweep().await }
        });
        let renewing = tokio::spawn({
            let (agents, traces) = (Arc::clone(&household.agents), Arc::clone(&household.traces));
            let parts = Arc::clone(&parts);
            keep_renewing(agents, move || parts.renewing_mint(), traces)
        });
        let (listener, reloads) = (self.listener.take(), self.reloads.take());
        let (answers, ending) = (Arc::clone(&parts), household.ending.clone());
        let (listeners, newer) = mpsc::channel(1);
        let serving = tokio::spawn(async move {
            if let Some(listener) = listener {
                listener::serve(listener, newer, answers, Shares::now().requests, ending).await;
            }
        });
        tokio::select! {
            () = self.follow(reloads) => {}
            () = self.keep_house(&listeners) => {}
        }

        sweeping.abort();
        renewing.abort();
        household.agents.close_all();
        household.mints.close();
        let quiet = async {
            let _ = serving.await;
            household.mints.wait().await;
            household.agents.closed().await;
            household.login.ended().await;
        };
        if tokio::time::timeout(DRAIN, quiet).await.is_err() {
            tracing::warn!("something did not end in time and is left behind");
        }
        household.login.forget();
    }

    /// Follows what changes until the end: the CA's patterns, the programs on this machine, the configuration.
    async fn follow(&self, mut reloads: Option<mpsc::Receiver<Reload>>) {
        let ending = self.parts.household.ending.clone();
        loop {
            let parts = Arc::clone(&self.parts);
            let now = parts.now.load_full();
            let learning = async {
                let Some(discovery) = &now.outfit.discovery else {
                    return std::future::pending().await;
                };
                let mut changes = discovery.watch.changes();
                loop {
                    if changes.changed().await.is_err() {
                        return std::future::pending().await;
                    }
                    if let Knowledge::Known(said) = changes.borrow_and_update().clone() {
                        self.learn(&now.outfit, &said);
                        // Also when a match learned it first.
                        self.rewrite_ssh_config();
                    }
                }
            };
            tokio::select! {
                () = ending.cancelled() => return,
                () = learning => {}
                () = parts.household.glue.changed() => {
                    parts.household.glue.ask_version().await;
                    tracing::info!("ssh or this program is another one now; the ssh configuration is written anew");
                    self.rewrite_ssh_config();
                }
                Some(reload) = next(&mut reloads) => {
                    let outcome = self.reload(*reload.settings).await;
                    let _ = reload.outcome.send(outcome);
                }
            }
        }
    }

    /// Goes on with new settings. Agents that are there keep their certificates; state and token stay if the way to log in
    /// is the same.
    async fn reload(&self, settings: Settings) -> Result<Vec<&'static str>, String> {
        let before = self.parts.now.load_full();
        let old = &before.outfit.settings;
        if settings.profile != old.profile || settings.home != old.home {
            return Err(
                "`name` and the home directory cannot change while the broker runs; restart it".to_owned(),
            );
        }
        ssh_config(&settings, &self.parts.household.glue, &self.run_dir)
            .render()
            .map_err(|error| error.to_string())?;
        let changed = old.differences(&settings);
        let household = &self.parts.household;
        household.agents.follow(settings.agents.clone());
        let outfit = Outfit::new(settings, Some(&before.outfit), &household.ending);
        household.login.follow(outfit.way());
        let now = Now {
            matcher: outfit.matcher(household),
            outfit,
        };
        self.parts.now.store(Arc::new(now));
        self.first_word().await;
        self.rewrite_ssh_config();
        tracing::info!(?changed, "the configuration was read again");
        Ok(changed)
    }
}

/// Whether a broker of `profile` could start here, before anything is there: whether its sockets have a place, and ssh's
/// configuration can name that and `binary`.
///
/// # Errors
/// [`BrokerError::RunDir`] or [`BrokerError::Ssh`], as [`Broker::start`] would end with.
pub fn can_start(
    home: &Path,
    runtime_dir: Option<&Path>,
    profile: &ProfileName,
    binary: &Path,
) -> Result<(), BrokerError> {
    let broker_socket = RunDir::broker_socket_of(home, runtime_dir, profile)?;
    let config = SshConfig {
        program: SshGlue::new(None, binary.to_owned()).match_program(),
        agent_dir: broker_socket.with_file_name("agent"),
        broker_socket,
        patterns: Vec::new(),
        tag: None,
        version: None,
    };
    config.render()?;
    Ok(())
}

/// The file that people include, as far as the settings determine it.
fn ssh_config(settings: &Settings, glue: &SshGlue, run_dir: &RunDir) -> SshConfig {
    SshConfig {
        program: glue.match_program(),
        broker_socket: run_dir.broker_socket(),
        agent_dir: run_dir.agent_dir(),
        patterns: settings.patterns.clone(),
        tag: settings.tag.clone(),
        version: glue.version(),
    }
}

async fn next(reloads: &mut Option<mpsc::Receiver<Reload>>) -> Option<Reload> {
    match reloads {
        Some(reloads) => reloads.recv().await,
        None => None,
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
            self.household.glue.look();
            return self.now.load_full().matcher.answer(request, &voice).await;
        }
        if let Some(asker) = &request.login {
            return self.log_in(asker, &voice).await;
        }
        if let Some(asker) = &request.logout {
            return self.log_out(asker, &voice).await;
        }
        if request.trace.is_some() {
            return Reply {
                traces: Some(self.household.traces.all()),
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
    /// What gets certificates, if they are to be renewed.
    fn renewing_mint(&self) -> Option<crate::mint::Mint> {
        let now = self.now.load();
        let renews = now.outfit.settings.agents.renew;
        renews.then(|| now.outfit.mint(&self.household))
    }

    /// Logs in now, whether or not a token is held.
    async fn log_in(&self, asker: &Asker, voice: &Voice) -> Reply {
        match self.household.login.renew(asker, voice).await {
            Ok(_) => Reply::allow(),
            Err(error) => Reply::deny(MintError::Login(error).explain()),
        }
    }

    /// Forgets everything that could log anybody in, then has it revoked.
    async fn log_out(&self, asker: &Asker, voice: &Voice) -> Reply {
        let forgotten = self.household.login.forget();
        self.household.agents.close_all();
        self.household.login.revoke(forgotten, asker, voice).await
    }

    fn inspect(&self) -> Inspection {
        let now = self.now.load();
        let (settings, gate) = (&now.outfit.settings, now.outfit.gate.now());
        Inspection {
            profile: settings.profile.to_string(),
            version: settings.version.clone(),
            pid: std::process::id(),
            started_at: Some(self.started_at),
            socket_path: self.broker_socket.display().to_string(),
            agent_socket_dir: self.agent_dir.display().to_string(),
            hosts: HostsInspection {
                patterns: gate.patterns().iter().map(ToString::to_string).collect(),
                source: match &settings.tag {
                    Some(tag) => format!("tag {tag}"),
                    None => gate.source().name().to_owned(),
                },
                problem: now.outfit.gate.problem(),
            },
            login: self.household.login.inspect(),
            memory: memory(),
            agents: self.household.agents.inspect(),
            ca_endpoints: now.outfit.pool.inspect(),
        }
    }
}
