//! The login: the one place that holds state and token, and that runs the auth plugin.
//!
//! What it promises:
//! - at most one run at a time; whoever comes while it runs joins it, sees what was said so far, and shares its result;
//! - the run is ended when the last who waits for it leaves; nobody is given the result of a run that was being ended;
//! - state and token are replaced together, and only by a run that succeeded;
//! - every token has a generation, so that a late 401 for an old token never discards a newer one.
//!
//! It never looks into a token or a state.

mod error;
mod forgotten;
mod run;

pub(crate) use error::LoginError;
pub(crate) use forgotten::Forgotten;
pub(crate) use run::invocation;
use run::{Run, Success};

use crate::auth_source::AuthSource;
use crate::storm::StormGuard;
use crate::voice::Voice;
use arc_swap::ArcSwap;
use epithet_agent::{Clock, Now};
use epithet_plugin::{Guard, RunLimits, Runner};
use epithet_wire::broker::{Asker, LoginInspection};
use epithet_wire::display::sanitize_line;
use epithet_wire::limits::CERTIFICATE_EXPIRY_BUFFER;
use epithet_wire::{Connection, PluginState, Token};
use std::fmt;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
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
    /// The same with all that a person should read, for whoever comes too soon after it.
    last_failure: Option<String>,
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

    /// Whether there is a token that may be used now.
    pub(crate) fn has_token(&self) -> bool {
        let token_reuse = self.way.load().token_reuse;
        self.inner().reusable(token_reuse, self.clock.now()).is_some()
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
                    Some(run) => {
                        tracing::info!(terminal = asker.terminal, "joins the login that is under way");
                        Arc::clone(run)
                    }
                    None => {
                        let admitted = inner.storm.admit(asker.terminal, self.clock.now().boot);
                        admitted.map_err(|wait| LoginError::TooSoon {
                            wait,
                            failure: inner.last_failure.clone(),
                        })?;
                        self.start(&mut inner, connection, asker)
                    }
                };
                let waiting = run.join(voice);
                (run, waiting)
            };
            if waiting.is_some() {
                let outcome = run.outcome().await;
                let is_superseded = run.is_superseded.load(Ordering::SeqCst);
                // A run that was told that nobody is there fails where a person could have helped, and here is one.
                let was_for_nobody =
                    asker.terminal && !run.is_interactive && matches!(outcome, Err(LoginError::Plugin(_)));
                if outcome.is_ok() || !(is_superseded || was_for_nobody) {
                    return outcome;
                }
            }
            // That run is being ended, or has failed: wait until it is gone, then begin again.
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
        let way = self.way.load();
        let inner = self.inner();
        LoginInspection {
            command: way.source.describe(),
            token: inner.held.is_some(),
            token_since: (inner.held.as_ref())
                .and_then(|held| jiff::Timestamp::from_second(i64::try_from(held.obtained_at).ok()?).ok()),
            token_serves: inner.reusable(way.token_reuse, self.clock.now()).is_some(),
            state_bytes: inner.state.len(),
            logins: inner.logins,
            failures: inner.failures,
            running: inner.run.is_some(),
            last_error: inner.last_error.clone(),
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
                inner.last_failure = None;
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
                inner.last_failure = Some(error.explain());
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
