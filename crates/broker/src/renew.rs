//! Renewal before the end, for agents that somebody uses: the next ssh to that host finds a certificate waiting.
//!
//! Only when it was asked for, and never by troubling a person: without a token at hand the plugin is run only if its last
//! run left a state to go on from, and it is told that nobody is there.

use crate::agents::Agents;
use crate::live_agent::LiveAgent;
use crate::match_::request_id;
use crate::mint::{Errand, Mint};
use crate::traces::Traces;
use crate::voice::Voice;
use epithet_wire::broker::Asker;
use epithet_wire::limits::{RENEW_BEFORE, RENEW_IN_USE, RENEW_LOOK, RENEWALS};
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;
use tokio::task::JoinSet;

/// Looks for agents to renew, until the future is dropped.
pub(crate) async fn keep_renewing(agents: Arc<Agents>, mint: impl Fn() -> Option<Mint>, traces: Arc<Traces>) {
    // Each certificate is renewed once, and a failure is not tried again: ssh itself asks when it needs one.
    let mut tried = HashSet::new();
    let mut under_way = JoinSet::new();
    loop {
        tokio::time::sleep(RENEW_LOOK).await;
        let Some(mint) = mint() else { continue };
        let due = agents.ending_soon(RENEW_IN_USE, RENEW_BEFORE);
        let serial = |agent: &LiveAgent| {
            let credential = agent.promise.credential()?;
            Some((agent.connection.hash.clone(), credential.certificate().serial()))
        };
        tried.retain(|known| due.iter().any(|agent| serial(agent).as_ref() == Some(known)));
        // A few at once, so that a slow CA does not let the others end meanwhile; those that are left are due next time, too.
        while under_way.try_join_next().is_some() {}
        for agent in due {
            if under_way.len() >= RENEWALS {
                break;
            }
            if serial(&agent).is_some_and(|serial| tried.insert(serial)) {
                let (mint, traces) = (mint.clone(), Arc::clone(&traces));
                under_way.spawn(async move { renew(&agent, &mint, &traces).await });
            }
        }
    }
}

/// Gets a newer certificate for one agent.
async fn renew(agent: &LiveAgent, mint: &Mint, traces: &Traces) {
    if !mint.login.can_do_without_a_person() {
        return;
    }
    let (asked, request_id) = (Instant::now(), request_id());
    let recorder = traces.begin(&agent.connection, &request_id, asked);
    let errand = Errand {
        connection: agent.connection.clone(),
        lease: None,
        asker: Asker {
            command: "renewal before the certificate ends".to_owned(),
            ..Asker::default()
        },
        request_id: request_id.clone(),
        recorder: Arc::clone(&recorder),
    };
    match mint.credential(&errand, &Voice::silent()).await {
        Ok(credential) => {
            agent.renew(Arc::new(credential), request_id);
            recorder.conclude("certificate (renewed before the old one ended)");
        }
        Err(error) => {
            tracing::warn!(%request_id, host = %agent.connection.remote_host, %error, "a certificate could not be renewed before its end");
            recorder.conclude(&format!("not renewed: {error}"));
        }
    }
}
