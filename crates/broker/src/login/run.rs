//! One run of the plugin: who waits for it, what it is told, and what it says while it works.

use super::{Inner, Lease, Login, LoginError};
use crate::transcript::Transcript;
use crate::voice::Voice;
use epithet_plugin::{Directive, Invocation, Reply, progress_channel};
use epithet_wire::broker::Asker;
use epithet_wire::display::sanitize_line;
use epithet_wire::{Connection, PluginState};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// A plugin at work, and who waits for it.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) transcript: Transcript,
    waiters: Mutex<usize>,
    pub(super) cancel: CancellationToken,
    /// Another run takes its place; who waits for this one waits for that.
    pub(super) is_superseded: AtomicBool,
    /// The plugin was told that a person is there.
    pub(super) is_interactive: bool,
    outcome: watch::Receiver<Option<Result<Lease, LoginError>>>,
}

impl Run {
    fn waiters(&self) -> MutexGuard<'_, usize> {
        self.waiters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Joins the run, unless its last waiter has left and it is being ended.
    pub(super) fn join(self: &Arc<Self>, voice: &Voice) -> Option<Waiting> {
        let mut waiters = self.waiters();
        if self.cancel.is_cancelled() {
            return None;
        }
        *waiters += 1;
        drop(waiters);
        let listener = self.transcript.join(voice);
        Some(Waiting {
            run: Arc::clone(self),
            listener,
        })
    }

    pub(super) async fn outcome(&self) -> Result<Lease, LoginError> {
        let mut outcome = self.outcome.clone();
        match outcome.wait_for(Option::is_some).await {
            Ok(result) => result.clone().unwrap_or(Err(LoginError::Ending)),
            Err(_) => Err(LoginError::Ending),
        }
    }
}

/// One who waits for a run. Dropping the last one ends the run.
pub(super) struct Waiting {
    run: Arc<Run>,
    listener: u64,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.run.transcript.leave(self.listener);
        let mut waiters = self.run.waiters();
        *waiters -= 1;
        if *waiters == 0 {
            self.run.cancel.cancel();
        }
    }
}

/// What a run that succeeded brought.
pub(super) struct Success {
    pub(super) reply: Reply,
    pub(super) can_log_out: bool,
}

impl Login {
    /// Starts a run. The caller holds the lock and has seen that there is none.
    pub(super) fn start(
        self: &Arc<Self>,
        inner: &mut Inner,
        connection: Option<&Connection>,
        asker: &Asker,
    ) -> Arc<Run> {
        let (sender, outcome) = watch::channel(None);
        let run = Arc::new(Run {
            transcript: Transcript::new(introduction(connection, asker)),
            waiters: Mutex::new(0),
            cancel: self.ending.child_token(),
            is_superseded: AtomicBool::new(false),
            is_interactive: asker.terminal,
            outcome,
        });
        inner.run = Some(Arc::clone(&run));
        let (login, state, epoch) = (Arc::clone(self), inner.state.clone(), inner.epoch);
        let invocation = invocation(connection, asker);
        let flow = match std::mem::take(&mut inner.next_flow) {
            flow if asker.flow.is_empty() => flow,
            _ => asker.flow.clone(),
        };
        let started = Arc::clone(&run);
        tokio::spawn(async move {
            let result = login.run_plugin(&started, state, invocation, &flow).await;
            let result = login.conclude(&started, epoch, result);
            started.transcript.close();
            let _ = sender.send(Some(result));
        });
        run
    }

    async fn run_plugin(
        &self,
        run: &Run,
        state: PluginState,
        invocation: Invocation,
        flow: &str,
    ) -> Result<Success, LoginError> {
        let runner = self
            .runner(self.way.load().limits.deadline, &run.cancel)
            .await?
            .with_variable(LOGIN_FLOW, flow);
        let command = runner.command();
        tracing::info!(command = %command, state_bytes = state.len(), "auth plugin started");
        let (sink, mut progress) = progress_channel();
        let running = runner.run(&state, &invocation, sink, run.cancel.clone());
        let telling = async {
            let mut can_log_out = false;
            while let Some(piece) = progress.next().await {
                if !piece.text.is_empty() {
                    run.transcript.say(&piece.text);
                }
                for directive in piece.directives {
                    match directive {
                        Directive::CanLogOut => can_log_out = true,
                        Directive::Paste(deliver_to) => run.transcript.offer_paste(deliver_to),
                        _ => {}
                    }
                }
            }
            can_log_out
        };
        let explaining = async {
            tokio::time::sleep(SLOW).await;
            let shown = sanitize_line(&command.to_string(), 80);
            run.transcript
                .say_if_silent(&format!("epithet: waiting for the auth plugin ({shown})\n"));
            std::future::pending::<()>().await;
        };
        // The runner lets go of the sink when it ends, and with that the telling ends too, having told everything.
        let told = async { tokio::join!(running, telling) };
        tokio::select! {
            (result, can_log_out) = told => match result {
                Ok(reply) => Ok(Success { reply, can_log_out }),
                Err(error) => Err(LoginError::Plugin(Arc::new(error))),
            },
            () = explaining => unreachable!("explaining never ends"),
        }
    }
}

/// How the person wants to log in this time, as the plugin finds it in its environment; empty when it shall choose.
const LOGIN_FLOW: &str = "EPITHET_LOGIN_FLOW";
/// After how long a plugin that says nothing is explained to the person who waits.
const SLOW: Duration = Duration::from_secs(3);

/// The line above the plugin's first words: what the login is for, and which program asked.
fn introduction(connection: Option<&Connection>, asker: &Asker) -> String {
    let purpose = match connection {
        Some(connection) => format!(
            "to reach {} as {}",
            connection.remote_host, connection.remote_user
        ),
        None => "as you asked".to_owned(),
    };
    match sanitize_line(&asker.command, 120) {
        command if command.is_empty() => format!("epithet: logging in {purpose}\n"),
        command => format!(
            "epithet: logging in {purpose} (asked for by process {}: {command})\n",
            asker.process
        ),
    }
}

pub(crate) fn invocation(connection: Option<&Connection>, asker: &Asker) -> Invocation {
    Invocation {
        host: connection
            .map(|connection| connection.remote_host.to_string())
            .unwrap_or_default(),
        user: connection
            .map(|connection| connection.remote_user.to_string())
            .unwrap_or_default(),
        port: connection.map(|connection| connection.port).unwrap_or_default(),
        interactive: asker.terminal,
        remote_session: asker.remote_session,
    }
}
