//! The answer to ssh's question, from top to bottom: is this host ours, is an agent there already, who pays, open the
//! agent, and let the certificate come while ssh shakes hands.

use crate::agents::{Agents, AgentsError, Opened};
use crate::gate::Gate;
use crate::login::Lease;
use crate::mint::{Mint, MintError};
use crate::voice::Voice;
use epithet_agent::Fulfil;
use epithet_wire::broker::{Asker, MatchRequest, Reply};
use epithet_wire::{Connection, RequestId};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// What answering needs.
#[derive(Debug)]
pub(crate) struct Matcher {
    pub(crate) gate: Gate,
    pub(crate) agents: Arc<Agents>,
    pub(crate) mint: Mint,
    pub(crate) mints: TaskTracker,
    pub(crate) ending: CancellationToken,
}

impl Matcher {
    /// Answers one question. Dropping the future leaves a login that is under way.
    pub(crate) async fn answer(&self, request: &MatchRequest, voice: &Voice) -> Reply {
        let asker = request.asker.clone().unwrap_or_default();
        let connection = match request.connection().check() {
            Ok(connection) => connection,
            Err(error) => return Reply::deny(format!("{error}; ssh goes on without Epithet")),
        };
        if !self.gate.admits(&connection.remote_host).await {
            return Reply::deny("");
        }
        if self.agents.serves(&connection) {
            return Reply::allow();
        }
        let lease = match self.mint.login.lease(Some(&connection), &asker, voice).await {
            Ok(lease) => lease,
            Err(error) => return Reply::deny(MintError::Login(error).explain()),
        };
        let request_id = request_id();
        match self.agents.open(&connection, &request_id) {
            Ok(Opened::Already) => Reply::allow(),
            Ok(Opened::New(fulfil)) => {
                self.promise(connection, lease, asker, voice, request_id, fulfil)
                    .await
            }
            Err(error @ (AgentsError::TooMany | AgentsError::Socket(_))) => Reply::deny(error.to_string()),
        }
    }

    /// Lets the certificate come on its own when the person can still be told how that went; else waits for it.
    async fn promise(
        &self,
        connection: Connection,
        lease: Lease,
        asker: Asker,
        voice: &Voice,
        request_id: RequestId,
        fulfil: Fulfil,
    ) -> Reply {
        let (mint, agents) = (self.mint.clone(), Arc::clone(&self.agents));
        let (gate, ending) = (self.gate.clone(), self.ending.clone());
        let (speaker, outlives) = (voice.clone(), voice.outlives_match());
        let minting = self.mints.spawn(async move {
            let minted = mint.credential(&connection, lease, &asker, &speaker, &request_id);
            match ending.run_until_cancelled(minted).await {
                Some(Ok(credential)) => {
                    fulfil.ready(Arc::new(credential));
                    Ok(())
                }
                Some(Err(error)) => {
                    tracing::warn!(%request_id, host = %connection.remote_host, user = %connection.remote_user, %error, "no certificate");
                    if let MintError::NotHandled(_) = error {
                        gate.leave_alone(&connection.remote_host);
                    }
                    // Said before ssh is let go on, so that the reason stands above ssh's own words.
                    if outlives {
                        speaker.say(&format!("epithet: {}\n", error.explain()));
                    }
                    fulfil.refuse();
                    if !outlives {
                        agents.close(&connection, &request_id);
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

fn request_id() -> RequestId {
    let mut bytes = [0; 8];
    // A request without a random name is still a request; the CA's serial tells them apart.
    let _ = aws_lc_rs::rand::fill(&mut bytes);
    RequestId::from_random(bytes)
}
