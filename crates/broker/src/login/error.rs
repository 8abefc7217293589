//! Why nobody could be logged in, and what a person reads about it.

use crate::auth_source::AuthSourceError;
use epithet_plugin::RunError;
use epithet_wire::format_duration;
use std::sync::Arc;
use std::time::Duration;

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

/// At least one, and rounded up: who comes back then is not turned away again.
fn whole_seconds(wait: Duration) -> Duration {
    let begun = u64::from(wait.subsec_nanos() > 0);
    Duration::from_secs((wait.as_secs() + begun).max(1))
}
