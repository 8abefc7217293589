//! `token: command`: a program is asked about each token: its bytes on stdin, a JSON object on stdout, and the exit code.
//!
//! 0 means valid, 1 means invalid, anything else that nobody can tell. It is run with the care of an auth plugin: its
//! output bounded, its time limited, everything it started ended with it. Nothing of the connection reaches it.

use crate::decision::Person;
use crate::document::CommandSection;
use crate::policy::PolicyError;
use crate::token_check::{Bearer, TokenRefusal};
use crate::verdict_cache::VerdictCache;
use epithet_plugin::{Invocation, ProgressSink, RunError, RunLimits, Runner};
use epithet_wire::display::sanitize_line;
use epithet_wire::{SecretBytes, Token};
use jiff::Timestamp;
use serde::Deserialize;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

/// How long the program may take unless configured.
const TIMEOUT: Duration = Duration::from_secs(5);
/// How long an answer is used again unless configured.
const KEEP: Duration = Duration::from_secs(60);
/// Programs at once; who comes later waits, as long as the program may take.
const AT_ONCE: usize = 16;

/// See the module.
#[derive(Debug)]
pub(crate) struct TokenCommand {
    runner: Runner,
    timeout: Duration,
    places: Semaphore,
    cache: VerdictCache,
}

/// What the program prints.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Answer {
    identity: String,
    #[serde(default)]
    groups: Vec<String>,
    #[serde(default)]
    expires: Option<Expires>,
}

/// Seconds since 1970, or RFC 3339.
#[derive(Debug, Deserialize)]
#[serde(
    untagged,
    expecting = "expires must be seconds since 1970 or a time like 2026-01-01T00:00:00Z"
)]
enum Expires {
    Seconds(u64),
    Time(Timestamp),
}

impl TokenCommand {
    pub(crate) fn new(section: &CommandSection) -> Result<Self, PolicyError> {
        let wrong = |problem: String| PolicyError::Token(format!("command.{problem}"));
        let command = section
            .run
            .clone()
            .ok_or_else(|| wrong("run is required: the program to ask".to_owned()))?;
        command
            .validate()
            .map_err(|error| wrong(format!("run: {error}")))?;
        let timeout = section.timeout.map_or(TIMEOUT, |span| span.0);
        if timeout.is_zero() {
            return Err(wrong("timeout must be longer than 0s".to_owned()));
        }
        let limits = RunLimits {
            deadline: timeout,
            stream_grace: Duration::from_millis(200),
            ..RunLimits::default()
        };
        Ok(Self {
            runner: Runner::new(command).with_limits(limits),
            timeout,
            places: Semaphore::new(AT_ONCE),
            cache: VerdictCache::new(section.cache.map_or(KEEP, |span| span.0)),
        })
    }

    pub(crate) async fn holder(&self, token: &Token, now: u64) -> Result<Bearer, TokenRefusal> {
        if let Some(answer) = self.cache.get(token.expose(), now) {
            return answer;
        }
        let answer = self.ask(token, now).await;
        self.cache.put(token.expose(), &answer, now);
        answer
    }

    async fn ask(&self, token: &Token, now: u64) -> Result<Bearer, TokenRefusal> {
        let unavailable = |problem: &str| {
            tracing::error!(command = %self.runner.command(), problem, "the token command cannot tell");
            TokenRefusal::Unavailable("the policy server's token command cannot tell; try again".to_owned())
        };
        let Ok(Ok(_place)) = tokio::time::timeout(self.timeout, self.places.acquire()).await else {
            return Err(unavailable("too many tokens at once"));
        };
        let stdin = SecretBytes::new(token.expose().to_vec());
        let invocation = Invocation::default();
        let (progress, never) = (ProgressSink::discard(), CancellationToken::new());
        match self.runner.run(&stdin, &invocation, progress, never).await {
            Ok(reply) => {
                if !reply.stderr.is_empty() {
                    tracing::info!(stderr = %sanitize_line(&reply.stderr, 1000), "the token command says");
                }
                read(reply.token.expose(), now).map_err(|problem| match problem {
                    Problem::Ended => TokenRefusal::Invalid("the token has ended".to_owned()),
                    Problem::Answer(problem) => unavailable(&problem),
                })
            }
            Err(error @ RunError::Exited { .. }) if exit_status(&error) == Some(1) => {
                let said = error
                    .stderr()
                    .lines()
                    .next()
                    .unwrap_or("the token is not valid")
                    .to_owned();
                Err(TokenRefusal::Invalid(sanitize_line(&said, 300)))
            }
            Err(error) => Err(unavailable(&sanitize_line(&error.explain(), 1000))),
        }
    }
}

fn exit_status(error: &RunError) -> Option<i32> {
    match error {
        RunError::Exited { status, .. } => Some(*status),
        _ => None,
    }
}

/// Why an answer is none.
#[derive(Debug)]
enum Problem {
    Ended,
    Answer(String),
}

fn read(answer: &[u8], now: u64) -> Result<Bearer, Problem> {
    let answer: Answer = serde_json::from_slice(answer)
        .map_err(|error| Problem::Answer(format!("its answer is not understood: {error}")))?;
    if answer.identity.is_empty() {
        return Err(Problem::Answer("its answer has an empty identity".to_owned()));
    }
    let expires_at = match answer.expires {
        None => None,
        Some(Expires::Seconds(seconds)) => Some(seconds),
        Some(Expires::Time(time)) => Some(u64::try_from(time.as_second()).map_err(|_| Problem::Ended)?),
    };
    if expires_at.is_some_and(|end| end <= now) {
        return Err(Problem::Ended);
    }
    Ok(Bearer {
        person: Person {
            identity: answer.identity,
            groups: answer.groups,
        },
        expires_at,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_an_identity_with_groups_and_an_end() {
        let full = read(br#"{"identity":"alice","groups":["admin"],"expires":1010}"#, 1000).unwrap();
        assert_eq!(
            (full.person.identity.as_str(), full.expires_at),
            ("alice", Some(1010))
        );
        assert_eq!(full.person.groups, ["admin"]);
        let short = read(br#" {"identity":"bob"} "#, 1000).unwrap();
        assert_eq!(short.expires_at, None);
        let text = read(br#"{"identity":"c","expires":"2026-01-01T00:00:00Z"}"#, 1000).unwrap();
        assert_eq!(text.expires_at, Some(1_767_225_600));
        assert!(matches!(
            read(br#"{"identity":"alice","expires":1000}"#, 1000),
            Err(Problem::Ended)
        ));
        for bad in [
            "",
            "alice",
            "{}",
            r#"{"identity":""}"#,
            r#"{"identity":"a","admin":true}"#,
            r#"{"identity":1}"#,
            r#"{"identity":"a","expires":"soon"}"#,
        ] {
            assert!(
                matches!(read(bad.as_bytes(), 1000), Err(Problem::Answer(_))),
                "{bad}"
            );
        }
    }
}
