//! The answer to ssh's question, from top to bottom: is this host ours, is an agent there already, who pays, open the
//! agent, and let the certificate come while ssh shakes hands.

use crate::agents::{Agents, AgentsError, Opened, Opening};
use crate::gate::Gate;
use crate::login::Lease;
use crate::mint::{Errand, Mint, MintError};
use crate::traces::{Recorder, Traces};
use crate::voice::Voice;
use epithet_agent::Fulfil;
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
}

impl Matcher {
    /// Answers one question. Dropping the future leaves a login that is under way.
    pub(crate) async fn answer(&self, request: &MatchRequest, voice: &Voice) -> Reply {
        let asked = Instant::now();
        let asker = request.asker.clone().unwrap_or_default();
        let connection = match request.connection().check() {
            Ok(connection) => connection,
            Err(error) => return Reply::deny(format!("{error}; ssh goes on without Epithet")),
        };
        if !self.gate.admits(&connection.remote_host).await {
            return Reply::deny("");
        }
        let request_id = request_id();
        let recorder = self.traces.begin(&connection, &request_id, asked);
        recorder.phase("gate", asked, "");
        let reply = self
            .admitted(connection, request_id, &asker, voice, &recorder)
            .await;
        recorder.phase("match", asked, "");
        reply
    }

    /// The answer for a host that is ours.
    async fn admitted(
        &self,
        connection: Connection,
        request_id: RequestId,
        asker: &Asker,
        voice: &Voice,
        recorder: &Arc<Recorder>,
    ) -> Reply {
        // `ssh -G` and `ssh -O` log in nowhere: they get a socket, and what it costs more is paid when somebody uses it.
        let is_lazy = !asker.purpose.is_connect();
        let opening = Opening {
            connection: &connection,
            request_id: &request_id,
            recorder,
            own_agent: &asker.agent_socket,
            process: asker.process,
            is_lazy,
        };
        if self.agents.serves(&opening) {
            recorder.conclude(AGENT_WAS_THERE);
            return Reply::allow();
        }
        let lease = match is_lazy {
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
                let mut errand = Errand {
                    connection,
                    lease,
                    asker: asker.clone(),
                    request_id,
                    recorder: Arc::clone(recorder),
                };
                if is_lazy {
                    // Whoever uses it later is somebody else than the ssh that asked.
                    errand.asker.terminal = false;
                    recorder.conclude("nothing was needed yet");
                    self.promise_lazily(errand, fulfil);
                    return Reply::allow();
                }
                self.promise(errand, voice, fulfil).await
            }
            Err(error @ (AgentsError::TooMany { .. } | AgentsError::Socket(_))) => {
                recorder.conclude(&error.to_string());
                Reply::deny(error.to_string())
            }
        }
    }

    /// Gets the certificate once somebody asks the agent for it.
    fn promise_lazily(&self, errand: Errand, fulfil: Fulfil) {
        let (mint, ending) = (self.mint.clone(), self.ending.clone());
        self.mints.spawn(async move {
            let minted = async {
                // An agent that is closed unused takes this task along.
                tokio::select! {
                    () = fulfil.wanted() => Some(mint.credential(&errand, &Voice::silent()).await),
                    () = fulfil.withdrawn() => None,
                }
            };
            match ending.run_until_cancelled(minted).await.flatten() {
                Some(Ok(credential)) => {
                    errand.recorder.conclude("certificate");
                    fulfil.ready(Arc::new(credential));
                }
                Some(Err(error)) => {
                    tracing::warn!(request_id = %errand.request_id, host = %errand.connection.remote_host, %error, "no certificate");
                    errand.recorder.conclude(first_line(&error.explain()));
                    fulfil.refuse();
                }
                None => {}
            }
        });
    }

    /// A token: the one at hand, or that of a login.
    async fn lease(
        &self,
        connection: &Connection,
        asker: &Asker,
        voice: &Voice,
        recorder: &Recorder,
    ) -> Result<Lease, MintError> {
        let began = Instant::now();
        let lease = self.mint.login.lease(Some(connection), asker, voice).await;
        let note = match &lease {
            Ok(lease) => lease.note(),
            Err(_) => "failed",
        };
        recorder.phase("login", began, note);
        Ok(lease?)
    }

    /// Lets the certificate come on its own when the person can still be told how that went; else waits for it.
    async fn promise(&self, errand: Errand, voice: &Voice, fulfil: Fulfil) -> Reply {
        let (mint, agents) = (self.mint.clone(), Arc::clone(&self.agents));
        let (gate, ending) = (self.gate.clone(), self.ending.clone());
        let (speaker, outlives) = (voice.clone(), voice.outlives_match());
        let minting = self.mints.spawn(async move {
            let minted = mint.credential(&errand, &speaker);
            match ending.run_until_cancelled(minted).await {
                Some(Ok(credential)) => {
                    errand.recorder.conclude("certificate");
                    fulfil.ready(Arc::new(credential));
                    Ok(())
                }
                Some(Err(error)) => {
                    let Errand { connection, request_id, recorder, .. } = &errand;
                    tracing::warn!(%request_id, host = %connection.remote_host, user = %connection.remote_user, %error, "no certificate");
                    recorder.conclude(first_line(&error.explain()));
                    if let MintError::NotHandled(_) = error {
                        gate.leave_alone(&connection.remote_host);
                    }
                    // Said before ssh is let go on, so that the reason stands above ssh's own words.
                    if outlives {
                        speaker.say(&format!("epithet: {}\n", error.explain()));
                    }
                    fulfil.refuse();
                    if !outlives {
                        agents.close(connection, request_id);
                    }
                    Err(error.explain())
                }
                None => Err("the broker is shutting down".to_owned()),
            }
        });
        if outlives {
            return Reply::allow();
        }
        match minting.await {
            Ok(Ok(())) => Reply::allow(),
            Ok(Err(explanation)) => Reply::deny(explanation),
            Err(_) => Reply::deny("the broker failed inside; see its log"),
        }
    }
}

/// The outcome of a connection that needed no certificate of its own.
const AGENT_WAS_THERE: &str = "agent was there";

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

/// A new request's name.
pub(crate) fn request_id() -> RequestId {
    let mut bytes = [0; 8];
    // A request without a random name is still a request; the CA's serial tells them apart.
    let _ = aws_lc_rs::rand::fill(&mut bytes);
    RequestId::from_random(bytes)
}
