//! The broker's side: a runner that nothing can hang.
//!
//! [`Runner::run`] is the whole job, told in `run`. What it stands on, in the order of use: `start` starts the `command` with
//! exactly its five streams, `stdin` writes the old state, `streams` reads what comes within limits, `group` waits for the
//! process and ends it with everything it started, `guard` does so when the broker can't any more, and `error` says what
//! went wrong to a person.

mod command;
mod directive;
mod error;
mod group;
mod guard;
mod open_files;
mod progress;
mod run;
mod runner;
mod start;
mod stdin;
mod streams;

pub use command::{CommandError, PluginCommand};
pub use directive::Directive;
pub use error::{Evidence, RunError};
pub use guard::{Guard, guard_main};
pub use open_files::raise_open_files;
#[doc(hidden)]
pub use progress::through;
pub use progress::{Progress, ProgressFeed, ProgressSink, progress_channel};
pub use runner::{Farewell, Observation, Reply, RunLimits, Runner};
pub use streams::{Exit, Stream, Transcript};

pub(crate) use open_files::restoration;
pub(crate) use stdin::Stdin;
pub(crate) use streams::contains;

/// Has a command start as plugins do, but for their streams: in a session of its own, with default signals and the limit of open
/// files that this process was started with, and with no descriptor but the three standard ones.
pub fn start_cleanly(command: &mut std::process::Command) {
    crate::fd::start_clean(command, 3, || {});
}

const _: () = {
    assert!(crate::STATE_MAX == epithet_wire::limits::PLUGIN_STATE_MAX);
    assert!(crate::TOKEN_MAX == epithet_wire::limits::TOKEN_MAX);
};
