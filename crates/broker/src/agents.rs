//! The agents of live connections: one socket each, opened before ssh is told about it, gone when its certificate is.

use crate::clock;
use crate::traces::{AgentWatch, Recorder};
use epithet_agent::{AgentSettings, AgentSocket, Fulfil, Now, Promise};
use epithet_wire::broker::AgentInspection;
use epithet_wire::limits::{AGENT_SWEEP, AGENTS_MAX};
use epithet_wire::{Connection, ConnectionHash, RequestId};
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// One connection's agent.
#[derive(Debug)]
pub(crate) struct LiveAgent {
    connection: Connection,
    request_id: RequestId,
    promise: Promise,
    opened: Duration,
    watch: Arc<AgentWatch>,
    close: CancellationToken,
}

/// How long the agent of a refused connection stays, so that ssh finds an empty list rather than nothing.
const REFUSED_STAYS: Duration = Duration::from_secs(20);

/// Why an agent could not be opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AgentsError {
    #[error(
        "there are {0} live agents, which is the limit{why}; close some ssh connections or wait for certificates to end",
        why = if *.0 < AGENTS_MAX { " of open files (raise `ulimit -n` and start `epithet agent` again)" } else { "" }
    )]
    TooMany(usize),
    #[error("cannot open the agent's socket: {0}")]
    Socket(#[from] std::io::Error),
}

/// All of them, by ssh's name for the connection.
#[derive(Debug)]
pub(crate) struct Agents {
    dir: PathBuf,
    settings: AgentSettings,
    most: usize,
    live: Mutex<HashMap<ConnectionHash, Arc<LiveAgent>>>,
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
    /// None yet, and never more than `most`.
    pub(crate) fn new(dir: PathBuf, settings: AgentSettings, most: usize, ending: CancellationToken) -> Self {
        Self {
            dir,
            settings,
            most,
            live: Mutex::default(),
            tasks: TaskTracker::new(),
            ending,
        }
    }

    fn live(&self) -> MutexGuard<'_, HashMap<ConnectionHash, Arc<LiveAgent>>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this connection's agent is listening and has a certificate that has not ended, or will have one.
    ///
    /// If so, what it does from now on is written down by `recorder`.
    pub(crate) fn serves(&self, connection: &Connection, recorder: &Arc<Recorder>) -> bool {
        self.live()
            .get(&connection.hash)
            .is_some_and(|agent| agent.takes_over(connection, recorder))
    }

    /// Makes sure that this connection has an agent that is listening when this returns.
    pub(crate) fn open(
        &self,
        connection: &Connection,
        request_id: &RequestId,
        recorder: &Arc<Recorder>,
    ) -> Result<Opened, AgentsError> {
        let mut live = self.live();
        if (live.get(&connection.hash)).is_some_and(|agent| agent.takes_over(connection, recorder)) {
            return Ok(Opened::Already);
        }
        let path = self.dir.join(connection.hash.as_str());
        if let Some(old) = live.remove(&connection.hash) {
            old.close.cancel();
            // It ends a moment later and then sees that the file is no longer its own.
            let _ = std::fs::remove_file(&path);
        }
        if live.len() >= self.most {
            remove_ended(&mut live);
            if live.len() >= self.most {
                return Err(AgentsError::TooMany(self.most));
            }
        }
        let socket = AgentSocket::bind(path)?;
        let (fulfil, promise) = Promise::pending();
        let close = self.ending.child_token();
        let watch = Arc::new(AgentWatch::new(Arc::clone(recorder)));
        let settings = AgentSettings {
            watcher: Some(Arc::clone(&watch) as _),
            ..self.settings.clone()
        };
        self.tasks
            .spawn(socket.serve(promise.clone(), settings, close.clone()));
        let agent = LiveAgent {
            watch,
            connection: connection.clone(),
            request_id: request_id.clone(),
            promise,
            opened: clock::since_boot(),
            close,
        };
        live.insert(connection.hash.clone(), Arc::new(agent));
        Ok(Opened::New(fulfil))
    }

    /// Closes one connection's agent, because its promise could not be kept and ssh was told so.
    pub(crate) fn close(&self, connection: &Connection, request_id: &RequestId) {
        let mut live = self.live();
        if live
            .get(&connection.hash)
            .is_some_and(|agent| agent.request_id == *request_id)
            && let Some(agent) = live.remove(&connection.hash)
        {
            agent.close.cancel();
        }
    }

    /// Closes all of them: keys are wiped, sockets removed.
    pub(crate) fn close_all(&self) {
        for (_, agent) in self.live().drain() {
            agent.close.cancel();
        }
    }

    /// Removes ended agents now and then, until the broker ends.
    pub(crate) async fn sweep(&self) {
        loop {
            tokio::time::sleep(AGENT_SWEEP).await;
            remove_ended(&mut self.live());
        }
    }

    /// Waits until every agent's task is over. Call after [`Self::close_all`].
    pub(crate) async fn closed(&self) {
        self.tasks.close();
        self.tasks.wait().await;
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
            Some(credential) if credential.is_live(Now::read()) => "ready",
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
            request_id: agent.request_id.to_string(),
        }
    }
}

impl LiveAgent {
    /// As [`Self::is_useful`]; a useful one is watched for the connection that asked last.
    fn takes_over(&self, connection: &Connection, recorder: &Arc<Recorder>) -> bool {
        let is_useful = self.is_useful(connection);
        if is_useful {
            recorder.belongs_to(&self.request_id);
            self.watch.follow(Arc::clone(recorder));
        }
        is_useful
    }

    /// Whether ssh would get something from it, for this very connection.
    fn is_useful(&self, connection: &Connection) -> bool {
        let is_live = |credential: &epithet_agent::Credential| credential.is_live(Now::read());
        self.connection == *connection
            && (self.promise.is_pending()
                || self
                    .promise
                    .credential()
                    .is_some_and(|credential| is_live(&credential)))
    }

    fn has_ended(&self) -> bool {
        match self.promise.credential() {
            Some(credential) => !credential.is_live(Now::read()),
            None if self.promise.is_pending() => false,
            None => clock::since_boot().saturating_sub(self.opened) > REFUSED_STAYS,
        }
    }
}

fn remove_ended(live: &mut HashMap<ConnectionHash, Arc<LiveAgent>>) {
    live.retain(|_, agent| {
        let ended = agent.has_ended();
        if ended {
            agent.close.cancel();
        }
        !ended
    });
}
