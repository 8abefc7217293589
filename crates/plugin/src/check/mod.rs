//! `epithet plugin check`: runs a plugin through the protocol and says, rule by rule, whether it keeps to it.
//!
//! Four runs: as on a first login, again with the state of the first, with a state that is not its own, and one that is
//! ended early. What was seen is judged by the rules; nothing in the report is a secret.

mod report;
mod rules;

pub use report::{Finding, Report, RunFigures, SecretFigures, Verdict};
pub use rules::remedy;

use crate::host::{Observation, PluginCommand, ProgressSink, RunLimits, Runner, Stdin};
use crate::{Invocation, STATE_MAX};
use epithet_wire::{PluginState, SecretBytes};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How to check a plugin.
#[derive(Debug, Clone)]
pub struct CheckOptions {
    /// State to begin with instead of none: for a plugin whose login needs a person, and who has logged in before.
    pub state: PluginState,
    /// Whether a person is there to complete a login in the first two runs.
    pub interactive: bool,
    /// Deadlines of every run. A plugin that talks to a person needs longer than one that doesn't.
    pub limits: RunLimits,
    /// How long the last run gets to come to the point at which it is ended.
    pub settle: Duration,
}

impl Default for CheckOptions {
    fn default() -> Self {
        Self {
            state: PluginState::default(),
            interactive: false,
            limits: RunLimits::default(),
            settle: Duration::from_secs(1),
        }
    }
}

/// What the runs showed. A run that made no sense after the ones before it is missing.
struct Runs {
    first: Observation,
    second: Option<Observation>,
    foreign_state: Option<Observation>,
    ended: Option<Observation>,
}

/// Runs the plugin through the protocol and reports.
///
/// `progress` shows what the plugin tells a person while it is checked. `cancel` ends the check early; the report then
/// says that the plugin was interrupted.
pub async fn check(
    command: PluginCommand,
    options: &CheckOptions,
    progress: ProgressSink,
    cancel: CancellationToken,
) -> Report {
    let runner = Runner::new(command).with_limits(options.limits);
    let with_person = Invocation {
        host: "plugin-check.invalid".to_owned(),
        user: "check".to_owned(),
        port: 22,
        interactive: options.interactive,
        remote_session: false,
    };
    let alone = Invocation {
        interactive: false,
        ..with_person.clone()
    };
    let run = async |what: &str, runner: &Runner, state: &PluginState, invocation: &Invocation| {
        progress.push(format!("epithet plugin check: {what}\n").as_bytes());
        runner
            .observe(state, invocation, progress.clone(), cancel.clone())
            .await
    };

    let begins = match options.state.is_empty() {
        true => "run 1 of 4, as on a first login: nothing on stdin",
        false => "run 1 of 4, with the state that was given",
    };
    let first = run(begins, &runner, &options.state, &with_person).await;
    let mut runs = Runs {
        first,
        second: None,
        foreign_state: None,
        ended: None,
    };
    if let Ok(reply) = &runs.first.outcome {
        let state = reply.state.clone();
        let again = "run 2 of 4, with the state of the first";
        runs.second = Some(run(again, &runner, &state, &with_person).await);
        let foreign = "run 3 of 4, with a state that is not its own";
        runs.foreign_state = Some(run(foreign, &runner, &foreign_state(), &alone).await);
        // Its stdin stays open: a plugin that reads its state is waiting when its time is over.
        let waiting = runner
            .clone()
            .with_stdin(Stdin::StaysOpen)
            .with_limits(RunLimits {
                deadline: options.settle,
                ..options.limits
            });
        let ended = "run 4 of 4, which is ended early";
        runs.ended = Some(run(ended, &waiting, &state, &alone).await);
    }
    rules::judge(runner.command(), options, &runs)
}

/// Bytes no plugin wrote, more than a pipe holds: one that reads nothing leaves them, one that reads meets every value.
fn foreign_state() -> PluginState {
    const SIZE: usize = STATE_MAX / 8;
    SecretBytes::new((0..=u8::MAX).cycle().take(SIZE).collect())
}
