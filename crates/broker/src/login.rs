//! The login: the one place that holds state and token, and that runs the auth plugin.
//!
//! What it promises:
//! - at most one run at a time; whoever comes while it runs joins it, sees what was said so far, and shares its result;
//! - the run is ended when the last who waits for it leaves; nobody is given the result of a run that was being ended;
//! - state and token are replaced together, and only by a run that succeeded;
//! - every token has a generation, so that a late 401 for an old token never discards a newer one.
//!
//! It never looks into a token or a state.

use crate::auth_source::{AuthSource, AuthSourceError};
use crate::storm::StormGuard;
use crate::transcript::Transcript;
use crate::voice::Voice;
use arc_swap::ArcSwap;
use epithet_agent::{Clock, Now};
use epithet_plugin::{Directive, Guard, Invocation, Reply, RunError, RunLimits, Runner, progress_channel};
use epithet_wire::broker::{Asker, LoginInspection};
use epithet_wire::display::sanitize_line;
use epithet_wire::limits::CERTIFICATE_EXPIRY_BUFFER;
use epithet_wire::{Connection, PluginState, Token, format_duration};
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// A token on loan, with the number of the run that brought it.
#[derive(Debug, Clone)]
pub(crate) struct Lease {
    pub(crate) token: Token,
    pub(crate) generation: u64,
    /// Whether a run of the plugin brought it just now.
    pub(crate) is_fresh: bool,
}

impl Lease {
    /// Where it came from, for a trace.
    pub(crate) fn note(&self) -> &'static str {
        if self.is_fresh {
            "auth plugin ran"
        } else {
            "token at hand"
        }
    }
}

/// Why nobody could be logged in.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum LoginError {
    /// It is not known how to log in.
    #[error(transparent)]
    Source(#[from] Arc<AuthSourceError>),
    /// The plugin failed.
    #[error("{0}")]
    Plugin(Arc<RunError>),
    /// Too soon after a login that nobody completed.
    #[error("the last login was not completed, so a program without a terminal may start one again only in {}; to log in now, run ssh (or `epithet login`) in a terminal", format_duration(whole_seconds(*.0)))]
    TooSoon(Duration),
    /// Somebody logged out while it ran.
    #[error("you logged out meanwhile")]
    Forgotten,
    /// The broker is ending.
    #[error("the broker is shutting down")]
    Ending,
}

impl LoginError {
    /// The lines a person should read.
    pub(crate) fn explain(&self) -> String {
        match self {
            Self::Plugin(error) => error.explain(),
            other => other.to_string(),
        }
    }
}

/// How to log in, as configured.
#[derive(Debug)]
pub(crate) struct Way {
    pub(crate) source: AuthSource,
    pub(crate) limits: RunLimits,
    /// How long a token may be used again.
    pub(crate) token_reuse: Duration,
}

/// See the module.
pub(crate) struct Login {
    way: ArcSwap<Way>,
    clock: Clock,
    guard: Arc<Guard>,
    ending: CancellationToken,
    inner: Mutex<Inner>,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login")
            .field("source", &self.way.load().source.describe())
            .finish_non_exhaustive()
    }
}

#[derive(Debug, Default)]
struct Inner {
    state: PluginState,
    /// The run that left the state said that it can be revoked.
    can_log_out: bool,
    held: Option<Held>,
    generation: u64,
    /// Counts the times everything was forgotten, so that a run begun before brings nothing back.
    epoch: u64,
    run: Option<Arc<Run>>,
    /// How the next run shall log in, because somebody asked for that while one was under way.
    next_flow: String,
    storm: StormGuard,
    logins: u64,
    failures: u64,
    last_error: Option<String>,
}

/// The token of the last run.
#[derive(Debug)]
struct Held {
    token: Token,
    obtained: Duration,
    obtained_at: u64,
    /// When the first certificate that was obtained with it ends, seconds since 1970.
    first_expiry: Option<u64>,
}

/// Which token is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wanted {
    /// The held one will do while it may be reused.
    AnyGood,
    /// One of a run that ends from now on.
    New,
}

/// What a run that succeeded brought.
struct Success {
    reply: Reply,
    can_log_out: bool,
}

/// What a logout found, and nobody has any more.
#[derive(Debug)]
pub(crate) struct Forgotten {
    pub(crate) state: PluginState,
    /// The plugin said that it can revoke what the state stands for.
    pub(crate) can_be_revoked: bool,
    pub(crate) had_token: bool,
    /// The run that was under way and is being ended.
    ending: Option<Arc<Run>>,
}

impl Forgotten {
    /// Waits until the run that was under way is gone.
    pub(crate) async fn ended(&self) {
        if let Some(run) = &self.ending {
            let _ = run.outcome().await;
        }
    }
}

/// A plugin at work, and who waits for it.
#[derive(Debug)]
struct Run {
    transcript: Transcript,
    waiters: Mutex<usize>,
    cancel: CancellationToken,
    /// Another run takes its place; who waits for this one waits for that.
    is_superseded: AtomicBool,
    outcome: watch::Receiver<Option<Result<Lease, LoginError>>>,
}

impl Run {
    fn waiters(&self) -> MutexGuard<'_, usize> {
        self.waiters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Joins the run, unless its last waiter has left and it is being ended.
    fn join(self: &Arc<Self>, voice: &Voice) -> Option<Waiting> {
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

    async fn outcome(&self) -> Result<Lease, LoginError> {
        let mut outcome = self.outcome.clone();
        match outcome.wait_for(Option::is_some).await {
            Ok(result) => result.clone().unwrap_or(Err(LoginError::Ending)),
            Err(_) => Err(LoginError::Ending),
        }
    }
}

/// One who waits for a run. Dropping the last one ends the run.
struct Waiting {
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

impl Login {
    pub(crate) fn new(way: Way, clock: Clock, guard: Guard, ending: CancellationToken) -> Self {
        Self {
            way: ArcSwap::from_pointee(way),
            clock,
            guard: Arc::new(guard),
            ending,
            inner: Mutex::default(),
        }
    }

    /// Logs in like this from now on. What was obtained in another way is forgotten: it may be somebody else's.
    pub(crate) fn follow(&self, way: Way) {
        let is_the_same = self.way.load().source.is_same_login(&way.source);
        self.way.store(Arc::new(way));
        if !is_the_same {
            self.forget();
        }
    }

    /// Whether a certificate can be paid for without troubling anybody, as far as that can be known: there is a token,
    /// or a state with which the plugin may get one.
    pub(crate) fn can_do_without_a_person(&self) -> bool {
        let token_reuse = self.way.load().token_reuse;
        let inner = self.inner();
        !inner.state.is_empty() || inner.reusable(token_reuse, self.clock.now()).is_some()
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A token that may be used: the held one while it may be reused, else the result of a run of the plugin.
    ///
    /// Dropping the future leaves the run; it ends when nobody waits for it any more.
    pub(crate) async fn lease(
        self: &Arc<Self>,
        connection: Option<&Connection>,
        asker: &Asker,
        voice: &Voice,
    ) -> Result<Lease, LoginError> {
        self.obtain(Wanted::AnyGood, connection, asker, voice).await
    }

    /// A run of the plugin even if the held token could be reused: for `epithet login`. Until it succeeds, what is held
    /// stays good for everybody else.
    ///
    /// When the person wants to log in in a certain way, a run that is under way (its browser shows an error, say) is
    /// ended; those who wait for it wait for this one.
    pub(crate) async fn renew(self: &Arc<Self>, asker: &Asker, voice: &Voice) -> Result<Lease, LoginError> {
        if !asker.flow.is_empty()
            && let Some(run) = self.supersede(&asker.flow)
        {
            let _ = run.outcome().await;
        }
        self.obtain(Wanted::New, None, asker, voice).await
    }

    /// Ends the run that is under way, if there is one, so that the next logs in with this flow.
    fn supersede(&self, flow: &str) -> Option<Arc<Run>> {
        let mut inner = self.inner();
        let run = inner.run.clone()?;
        flow.clone_into(&mut inner.next_flow);
        run.is_superseded.store(true, Ordering::SeqCst);
        run.transcript
            .say("epithet: `epithet login` was run elsewhere, so this begins again in another way\n");
        run.cancel.cancel();
        Some(run)
    }

    async fn obtain(
        self: &Arc<Self>,
        wanted: Wanted,
        connection: Option<&Connection>,
        asker: &Asker,
        voice: &Voice,
    ) -> Result<Lease, LoginError> {
        loop {
            let (run, waiting) = {
                let mut inner = self.inner();
                if wanted == Wanted::AnyGood
                    && let Some(lease) = inner.reusable(self.way.load().token_reuse, self.clock.now())
                {
                    return Ok(lease);
                }
                let run = match &inner.run {
                    Some(run) => Arc::clone(run),
                    None => {
                        inner
                            .storm
                            .admit(asker.terminal, self.clock.now().boot)
                            .map_err(LoginError::TooSoon)?;
                        self.start(&mut inner, connection, asker)
                    }
                };
                let waiting = run.join(voice);
                (run, waiting)
            };
            if waiting.is_some() {
                let outcome = run.outcome().await;
                if outcome.is_ok() || !run.is_superseded.load(Ordering::SeqCst) {
                    return outcome;
                }
            }
            // That run is being ended: wait until it is gone, then begin again.
            let _ = run.outcome().await;
        }
    }

    /// The CA answered 401 to this token: it is forgotten, unless a newer one has taken its place. The state stays.
    pub(crate) fn reject(&self, lease: &Lease) {
        let mut inner = self.inner();
        if inner.generation == lease.generation {
            inner.held = None;
        }
    }

    /// A certificate that ends at `valid_before` was obtained with this token; once that is over, the token is too.
    pub(crate) fn paid_for(&self, lease: &Lease, valid_before: u64) {
        let mut inner = self.inner();
        if inner.generation == lease.generation
            && let Some(held) = &mut inner.held
        {
            held.first_expiry = Some(
                held.first_expiry
                    .map_or(valid_before, |first| first.min(valid_before)),
            );
        }
    }

    /// Forgets token and state, ends a run that is under way, and gives back what was forgotten, so that it can be
    /// revoked.
    pub(crate) fn forget(&self) -> Forgotten {
        let mut inner = self.inner();
        let had_token = inner.held.take().is_some();
        inner.storm = StormGuard::default();
        inner.epoch += 1;
        if let Some(run) = &inner.run {
            run.cancel.cancel();
        }
        Forgotten {
            had_token,
            can_be_revoked: std::mem::take(&mut inner.can_log_out),
            state: std::mem::take(&mut inner.state),
            ending: inner.run.clone(),
        }
    }

    /// Cancelled when the broker ends.
    pub(crate) fn ending(&self) -> &CancellationToken {
        &self.ending
    }

    /// A runner for the plugin as it is configured, with this deadline.
    pub(crate) async fn runner(
        &self,
        deadline: Duration,
        cancel: &CancellationToken,
    ) -> Result<Runner, LoginError> {
        let way = self.way.load_full();
        let command = way
            .source
            .command(cancel)
            .await
            .map_err(|error| LoginError::Source(Arc::new(error)))?;
        let limits = RunLimits {
            deadline,
            ..way.limits
        };
        Ok(Runner::new(command)
            .with_limits(limits)
            .with_guard(Arc::clone(&self.guard)))
    }

    /// Waits until no plugin runs any more. Something else must have ended it.
    pub(crate) async fn ended(&self) {
        loop {
            let run = self.inner().run.clone();
            match run {
                Some(run) => drop(run.outcome().await),
                None => return,
            }
        }
    }

    /// What `inspect` shows: nothing secret.
    pub(crate) fn inspect(&self) -> LoginInspection {
        let inner = self.inner();
        LoginInspection {
            command: self.way.load().source.describe(),
            token: inner.held.is_some(),
            token_since: (inner.held.as_ref())
                .and_then(|held| jiff::Timestamp::from_second(i64::try_from(held.obtained_at).ok()?).ok()),
            state_bytes: inner.state.len(),
            logins: inner.logins,
            failures: inner.failures,
            running: inner.run.is_some(),
            last_error: inner.last_error.clone(),
        }
    }

    /// Starts a run. The caller holds the lock and has seen that there is none.
    fn start(
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

    /// Stores what a successful run brought, or counts a failure; the run is over in the same moment.
    fn conclude(
        &self,
        run: &Run,
        epoch: u64,
        result: Result<Success, LoginError>,
    ) -> Result<Lease, LoginError> {
        let mut inner = self.inner();
        inner.run = None;
        if inner.epoch != epoch {
            // Somebody logged out while it ran. Nothing comes back, and nobody failed to complete a login.
            return Err(LoginError::Forgotten);
        }
        match result {
            Ok(Success { reply, can_log_out }) => {
                let said = sanitize_line(&reply.stderr, 2000);
                tracing::info!(token_bytes = reply.token.size(), state_bytes = reply.state.len(), elapsed = ?reply.elapsed, stderr = %said, "auth plugin succeeded");
                inner.generation += 1;
                inner.state = reply.state;
                inner.can_log_out = can_log_out;
                inner.held = Some(Held {
                    token: reply.token.clone(),
                    obtained: self.clock.now().boot,
                    obtained_at: self.clock.now().unix,
                    first_expiry: None,
                });
                inner.storm.answered();
                inner.logins += 1;
                inner.last_error = None;
                Ok(Lease {
                    token: reply.token,
                    generation: inner.generation,
                    is_fresh: true,
                })
            }
            Err(error) if run.is_superseded.load(Ordering::SeqCst) => Err(error),
            Err(error) => {
                let said = error.to_string();
                tracing::warn!(error = %sanitize_line(&said, 2000), "auth plugin failed");
                inner.storm.unanswered(self.clock.now().boot);
                inner.failures += 1;
                inner.last_error = said.lines().next().map(str::to_owned);
                Err(error)
            }
        }
    }
}

impl Inner {
    /// The held token, while it is young and no certificate obtained with it has ended.
    fn reusable(&self, token_reuse: Duration, now: Now) -> Option<Lease> {
        let held = self.held.as_ref()?;
        let is_young = now.boot.saturating_sub(held.obtained) < token_reuse;
        let is_spent = held
            .first_expiry
            .is_some_and(|expiry| expiry <= now.unix + CERTIFICATE_EXPIRY_BUFFER.as_secs());
        (is_young && !is_spent).then(|| Lease {
            token: held.token.clone(),
            generation: self.generation,
            is_fresh: false,
        })
    }
}

/// At least one, and rounded up: who comes back then is not turned away again.
fn whole_seconds(wait: Duration) -> Duration {
    let begun = u64::from(wait.subsec_nanos() > 0);
    Duration::from_secs((wait.as_secs() + begun).max(1))
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
