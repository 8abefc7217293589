//! How a promise to ssh is kept: the certificate is got while ssh shakes hands, or when somebody asks the agent for it.

use crate::asking_ssh::AskingSsh;
use crate::match_::{Matcher, first_line};
use crate::mint::{Errand, Mint, MintError};
use crate::presence::Presence;
use crate::voice::Voice;
use epithet_agent::{Credential, Fulfil};
use epithet_ssh::OpenSshVersion;
use epithet_wire::broker::{Asker, Reply};
use std::sync::Arc;

/// The first OpenSSH that says which host it talks to (`session-bind@openssh.com`).
const BINDS: OpenSshVersion = OpenSshVersion::new(8, 9);

impl Matcher {
    /// Whether ssh is let go on before the certificate is there.
    ///
    /// Only when the person can still be told how that went. And an older ssh is not: where its certificate is denied it would
    /// find an empty agent of ours in the place of the person's own, which is not offered to those who cannot say which host
    /// they talk to.
    pub(crate) fn is_promised(&self, asker: &Asker, voice: &Voice) -> bool {
        let cannot_bind = self.glue.version().is_some_and(|version| version < BINDS);
        voice.outlives_match() && !(cannot_bind && self.agents.chains(&asker.agent_socket))
    }

    /// Lets the certificate come on its own, or waits for it. With an ssh in `unless`, none is got before somebody asks, if a
    /// master is there for that one.
    pub(crate) async fn promise(
        &self,
        mut errand: Errand,
        voice: &Voice,
        fulfil: Fulfil,
        unless: Option<AskingSsh>,
    ) -> Reply {
        let (mint, agents) = (self.mint.clone(), Arc::clone(&self.agents));
        let (gate, ending) = (self.gate.clone(), self.ending.clone());
        let is_promised = self.is_promised(&errand.asker, voice);
        let mut speaker = voice.clone();
        let minting = self.mints.spawn(async move {
            let minted = async {
                let has_master = match &unless {
                    Some(ssh) => ssh.has_master(&errand.connection).await,
                    None => false,
                };
                match has_master {
                    true => {
                        fulfil.on_demand();
                        on_demand(&mint, &mut errand, &fulfil, &mut speaker).await
                    }
                    false => Some(mint.credential(&errand, &speaker).await),
                }
            };
            match ending.run_until_cancelled(minted).await {
                Some(Some(Ok(credential))) => {
                    errand.recorder.conclude("certificate");
                    fulfil.ready(Arc::new(credential));
                    Ok(())
                }
                Some(Some(Err(error))) => {
                    let explanation = none(&errand, &error);
                    let connection = &errand.connection;
                    if let MintError::NotHandled(_) = error {
                        gate.leave_alone(&connection.remote_host);
                    }
                    // Said before ssh is let go on, so that the reason stands above ssh's own words.
                    if is_promised {
                        speaker.say(&format!("epithet: {explanation}\n"));
                    }
                    fulfil.refuse();
                    if !is_promised {
                        agents.close(connection, &errand.request_id);
                    }
                    Err(explanation)
                }
                Some(None) => Ok(()),
                None => Err("the broker is shutting down".to_owned()),
            }
        });
        if is_promised {
            return Reply::allow();
        }
        match minting.await {
            Ok(Ok(())) => Reply::allow(),
            Ok(Err(explanation)) => Reply::deny(explanation),
            Err(_) => Reply::deny("the broker failed inside; see its log"),
        }
    }

    /// Gets the certificate once somebody asks the agent for it. `voice` is that of an ssh which may be the one that asks.
    pub(crate) fn promise_on_demand(&self, mut errand: Errand, fulfil: Fulfil, voice: Option<&Voice>) {
        let (mint, ending) = (self.mint.clone(), self.ending.clone());
        let voice = voice.filter(|voice| voice.outlives_match());
        let mut speaker = voice.cloned().unwrap_or_else(Voice::silent);
        if voice.is_none() {
            // Whoever uses it later is somebody else than the ssh that asked.
            errand.asker.terminal = false;
        }
        self.mints.spawn(async move {
            let minted = on_demand(&mint, &mut errand, &fulfil, &mut speaker);
            match ending.run_until_cancelled(minted).await.flatten() {
                Some(Ok(credential)) => {
                    errand.recorder.conclude("certificate");
                    fulfil.ready(Arc::new(credential));
                }
                Some(Err(error)) => {
                    let explanation = none(&errand, &error);
                    speaker.say(&format!("epithet: {explanation}\n"));
                    fulfil.refuse();
                }
                None => {}
            }
        });
    }
}

/// A certificate, got when somebody asks for it; none when the agent is closed unused.
///
/// The ssh that asked us is spoken to as long as it is there: what it lent is let go of when it ends.
async fn on_demand(
    mint: &Mint,
    errand: &mut Errand,
    fulfil: &Fulfil,
    voice: &mut Voice,
) -> Option<Result<Credential, MintError>> {
    errand.recorder.conclude("nothing was needed yet");
    errand.lease = None;
    let mut asker = match voice.outlives_match() {
        true => Presence::of(errand.asker.process),
        false => None,
    };
    loop {
        if asker.is_none() {
            *voice = Voice::silent();
            errand.asker.terminal = false;
        }
        tokio::select! {
            () = fulfil.wanted() => break,
            () = fulfil.withdrawn() => return None,
            () = end_of(asker.as_ref()) => asker = None,
        }
    }
    tokio::select! {
        minted = mint.credential(errand, voice) => Some(minted),
        // Whoever asked for it has gone, and with it the person who would log in.
        () = end_of(asker.as_ref()) => None,
    }
}

/// Waits for the end of a process that is watched; for ever where none is.
async fn end_of(process: Option<&Presence>) {
    match process {
        Some(process) => process.ended().await,
        None => std::future::pending().await,
    }
}

/// Writes down that there is no certificate, and gives the words for the person.
fn none(errand: &Errand, error: &MintError) -> String {
    let Errand {
        connection,
        request_id,
        recorder,
        ..
    } = errand;
    tracing::warn!(%request_id, host = %connection.remote_host, user = %connection.remote_user, %error, "no certificate");
    let explanation = error.explain();
    recorder.conclude(first_line(&explanation));
    explanation
}
