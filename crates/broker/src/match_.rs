//! The answer to ssh's question, from top to bottom: is this host ours, is an agent there already, is anything needed, who
//! pays, open the agent, and let the certificate come while ssh shakes hands (`promising`).

use crate::agents::{Agents, AgentsError, Opened, Opening};
use crate::asking_ssh::AskingSsh;
use crate::by_name::{ByName, connection_hash, machine_name};
use crate::gate::Gate;
use crate::login::Lease;
use crate::mint::{Errand, Mint, MintError};
use crate::ssh_glue::SshGlue;
use crate::traces::{Recorder, Traces};
use crate::voice::Voice;
use epithet_wire::broker::{Asker, MatchRequest, Reply};
use epithet_wire::{Connection, RequestId};
use std::sync::Arc;
use std::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// What answering needs.
#[derive(Debug)]
pub(crate) struct Matcher {
    pub(crate) gate: Gate,
    pub(crate) agents: Arc<Agents>,
    pub(crate) mint: Mint,
    pub(crate) traces: Arc<Traces>,
    pub(crate) mints: TaskTracker,
    pub(crate) ending: CancellationToken,
    /// Which OpenSSH is here.
    pub(crate) glue: Arc<SshGlue>,
}

/// What an ssh needs of us.
enum Need {
    /// A socket: it logs in nowhere.
    Nothing,
    /// A socket, in case the master that is there does not serve it.
    MasterIsThere,
    /// A certificate.
    Certificate,
    /// A certificate, unless a master is there; that is found out while ssh goes on.
    Unless(AskingSsh),
}

impl Matcher {
    /// Answers one question. Dropping the future leaves a login that is under way.
    pub(crate) async fn answer(&self, request: &MatchRequest, voice: &Voice) -> Reply {
        let asked = Instant::now();
        let asker = request.asker.clone().unwrap_or_default();
        let mut fields = request.connection();
        if request.by_name {
            fields.hash = connection_hash(&machine_name(), &fields);
        }
        let connection = match fields.check() {
            Ok(connection) => connection,
            Err(error) => return Reply::deny(format!("{error}; ssh goes on without Epithet")),
        };
        if !self.gate.admits(&connection.remote_host).await {
            return Reply::deny("");
        }
        let request_id = request_id();
        let recorder = self.traces.begin(&connection, &request_id, asked);
        recorder.phase("gate", asked, "");
        let name = request.by_name.then(|| self.agents.name_of(&connection));
        let reply = match name.transpose() {
            Ok(name) => {
                self.admitted(connection, name.as_ref(), request_id, &asker, voice, &recorder)
                    .await
            }
            Err(too_long) => {
                recorder.conclude(&too_long.to_string());
                Reply::deny(too_long.to_string())
            }
        };
        recorder.phase("match", asked, "");
        reply
    }

    /// The answer for a host that is ours.
    async fn admitted(
        &self,
        connection: Connection,
        name: Option<&ByName>,
        request_id: RequestId,
        asker: &Asker,
        voice: &Voice,
        recorder: &Arc<Recorder>,
    ) -> Reply {
        let mut opening = Opening {
            connection: &connection,
            request_id: &request_id,
            recorder,
            name,
            own_agent: &asker.agent_socket,
            process: asker.process,
            is_on_demand: !asker.purpose.is_connect(),
        };
        if self.agents.serves(&opening) {
            recorder.conclude(AGENT_WAS_THERE);
            return Reply::allow();
        }
        let need = self.need(&connection, asker, voice, recorder).await;
        opening.is_on_demand = matches!(need, Need::Nothing | Need::MasterIsThere);
        let lease = match opening.is_on_demand {
            true => None,
            false => match self.lease(&connection, asker, voice, recorder).await {
                Ok(lease) => Some(lease),
                Err(error) => {
                    recorder.conclude(first_line(&error.explain()));
                    return Reply::deny(error.explain());
                }
            },
        };
        match self.agents.open(&opening) {
            Ok(Opened::Already) => {
                recorder.conclude(AGENT_WAS_THERE);
                Reply::allow()
            }
            Ok(Opened::New(fulfil)) => {
                let errand = Errand {
                    connection,
                    lease,
                    asker: asker.clone(),
                    request_id,
                    recorder: Arc::clone(recorder),
                };
                match need {
                    Need::Nothing => self.promise_on_demand(errand, fulfil, None),
                    Need::MasterIsThere => self.promise_on_demand(errand, fulfil, Some(voice)),
                    Need::Certificate => return self.promise(errand, voice, fulfil, None).await,
                    Need::Unless(ssh) => return self.promise(errand, voice, fulfil, Some(ssh)).await,
                }
                Reply::allow()
            }
            Err(error @ (AgentsError::TooMany { .. } | AgentsError::Socket(_))) => {
                recorder.conclude(&error.to_string());
                Reply::deny(error.to_string())
            }
        }
    }

    /// What this ssh needs. A master is looked for where there may well be one, or where a login would have to be started; a
    /// first connection with a login at hand waits for nothing.
    async fn need(&self, connection: &Connection, asker: &Asker, voice: &Voice, recorder: &Recorder) -> Need {
        if !asker.purpose.is_connect() {
            // `ssh -G` and `ssh -O` log in nowhere: they get a socket, and what it costs more is paid when somebody uses it.
            return Need::Nothing;
        }
        let has_token = self.mint.login.has_token();
        if has_token && !self.agents.has_logged_in(&connection.hash) {
            return Need::Certificate;
        }
        let Some(ssh) = AskingSsh::of(asker.process) else {
            return Need::Certificate;
        };
        if has_token && self.is_promised(asker, voice) {
            return Need::Unless(ssh);
        }
        let phase = recorder.open("master");
        let has_master = ssh.has_master(connection).await;
        phase.end(if has_master { "is there" } else { "none" });
        match has_master {
            true => Need::MasterIsThere,
            false => Need::Certificate,
        }
    }

    /// A token: the one at hand, or that of a login.
    async fn lease(
        &self,
        connection: &Connection,
        asker: &Asker,
        voice: &Voice,
        recorder: &Recorder,
    ) -> Result<Lease, MintError> {
        let phase = recorder.open("login");
        let lease = self.mint.login.lease(Some(connection), asker, voice).await;
        let note = match &lease {
            Ok(lease) => lease.note(),
            Err(_) => "failed",
        };
        phase.end(note);
        Ok(lease?)
    }
}

/// The outcome of a connection that needed no certificate of its own.
const AGENT_WAS_THERE: &str = "agent was there";

pub(crate) fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

/// A new request's name.
pub(crate) fn request_id() -> RequestId {
    let mut bytes = [0; 8];
    // A request without a random name is still a request; the CA's serial tells them apart.
    let _ = aws_lc_rs::rand::fill(&mut bytes);
    RequestId::from_random(bytes)
}
