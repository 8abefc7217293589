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
    #[error("the last login failed{}; a program without a terminal may start one again only in {}; to log in now, do it in a terminal", because(.failure), format_duration(whole_seconds(*.wait)))]
    TooSoon {
        /// How long.
        wait: Duration,
        /// What that login failed with, as it was explained then.
        failure: Option<String>,
    },
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
            Self::TooSoon {
                failure: Some(failure),
                ..
            } => match failure.split_once('\n') {
                Some((_, more)) => format!("{self}\n{more}"),
                None => self.to_string(),
            },
            other => other.to_string(),
        }
    }
}

/// The first line of a failure, as part of a sentence.
fn because(failure: &Option<String>) -> String {
    let line = failure.as_deref().and_then(|failure| failure.lines().next());
    line.map_or_else(String::new, |line| format!(": {line}"))
}

/// At least one, and rounded up: who comes back then is not turned away again.
fn whole_seconds(wait: Duration) -> Duration {
    let begun = u64::from(wait.subsec_nanos() > 0);
    Duration::from_secs((wait.as_secs() + begun).max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_comes_too_soon_reads_what_the_last_login_failed_with() {
        let wait = Duration::from_millis(4100);
        let failure = "the auth plugin exited with status 3\n  command: ./x\n  it said: no network";
        let error = LoginError::TooSoon {
            wait,
            failure: Some(failure.to_owned()),
        };
        let said = error.explain();
        let (first, more) = said.split_once('\n').unwrap();
        assert_eq!(
            first,
            "the last login failed: the auth plugin exited with status 3; a program without a terminal may start one again only in 5s; to log in now, do it in a terminal"
        );
        assert_eq!(more, "  command: ./x\n  it said: no network");
        let error = LoginError::TooSoon { wait, failure: None };
        assert!(error.explain().starts_with("the last login failed; "));
    }
}
