//! The broker's side: a runner that nothing can hang.
//!
//! [`Runner::run`] is the whole job. What it stands on, in the order of use: [`command`] starts the program with exactly
//! its five streams, [`streams`] reads them within their limits, [`group`] waits for it and ends it with everything it
//! started, [`guard`] does so when this process can't any more, [`error`] says what went wrong to a person.

mod command;
mod error;
mod group;
mod guard;
mod progress;
mod run;
mod streams;

pub use command::{CommandError, PluginCommand};
pub use error::{Evidence, RunError};
pub use guard::{Guard, guard_main};
pub use progress::{Progress, ProgressFeed, ProgressSink, progress_channel};
pub use run::{Observation, Reply, RunLimits, Runner};
pub use streams::{Exit, Stream, Transcript};

pub(crate) use run::Stdin;
pub(crate) use streams::contains;

const _: () = {
    assert!(crate::STATE_MAX == epithet_wire::limits::PLUGIN_STATE_MAX);
    assert!(crate::TOKEN_MAX == epithet_wire::limits::TOKEN_MAX);
};
