//! `token: command`: a program is asked about each token: its bytes on stdin, a JSON object on stdout, and the exit code.
//!
//! 0 means valid, 1 means invalid, anything else that nobody can tell. It is run with the care of an auth plugin: its
//! output bounded, its time limited, everything it started ended with it. Nothing of the connection reaches it.

use crate::decision::{Login, Person};
use crate::document::CommandSection;
use crate::person::check_identity;
use crate::policy::PolicyError;
use crate::token_check::{Bearer, TokenRefusal};
use crate::verdict_cache::VerdictCache;
use epithet_plugin::{CommandError, Invocation, ProgressSink, Reply, RunError, RunLimits, Runner};
use epithet_wire::display::sanitize_line;
use epithet_wire::{SecretBytes, Token, format_duration};
use jiff::Timestamp;
use serde::Deserialize;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

/// How long the program may take unless configured; a CA waits no longer for its policy server.
const TIMEOUT: Duration = Duration::from_secs(5);
/// How long an answer is used again unless configured.
const KEEP: Duration = Duration::from_secs(60);
/// Programs at once.
const AT_ONCE: usize = 16;
/// Tokens that may wait for one of them to end; more are answered at once that nobody can tell.
const WAITING: usize = 256;
/// Between SIGTERM and SIGKILL for a program that took too long.
const KILL_AFTER: Duration = Duration::from_millis(500);
/// How long a child of the program may hold stdout when the program itself is done.
const STREAM_GRACE: Duration = Duration::from_millis(200);

/// See the module.
#[derive(Debug)]
pub(crate) struct TokenCommand {
    runner: Runner,
    timeout: Duration,
    /// For those who run and those who wait.
    admitted: Arc<Semaphore>,
    /// For those who run.
    running: Arc<Semaphore>,
    cache: VerdictCache,
}

/// What the program prints.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Answer {
    identity: String,
    #[serde(default)]
    groups: Option<Vec<String>>,
    #[serde(default)]
    expires: Option<Expires>,
    #[serde(default)]
    acr: Option<String>,
    #[serde(default)]
    amr: Option<Vec<String>>,
    #[serde(default)]
    auth_time: Option<Expires>,
}

/// Seconds since 1970, or RFC 3339.
#[derive(Debug, Deserialize)]
#[serde(
    untagged,
    expecting = "expires and auth_time must be seconds since 1970 or a time like 2026-01-01T00:00:00Z"
)]
enum Expires {
    Seconds(f64),
    #[serde(deserialize_with = "read_time")]
    Time(Timestamp),
}

fn read_time<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Timestamp, D::Error> {
    let text = String::deserialize(deserializer)?;
    epithet_wire::parse_time(&text).ok_or_else(|| serde::de::Error::custom("not an RFC 3339 time"))
}

impl TokenCommand {
    pub(crate) fn new(section: &CommandSection) -> Result<Self, PolicyError> {
        let wrong = |problem: &str| PolicyError::Token(problem.to_owned());
        let command = section
            .run
            .clone()
            .ok_or_else(|| wrong("command is required: the program to ask about tokens"))?;
        command.validate().map_err(|error| match error {
            CommandError::Empty => wrong("command is empty; name the program to ask about tokens"),
            CommandError::Nul => wrong("command contains a NUL byte"),
        })?;
        let timeout = section.timeout.map_or(TIMEOUT, |span| span.0);
        if timeout.is_zero() {
            return Err(wrong("command.timeout must be longer than 0s"));
        }
        Ok(Self {
            runner: Runner::new(command),
            timeout,
            admitted: Arc::new(Semaphore::new(AT_ONCE + WAITING)),
            running: Arc::new(Semaphore::new(AT_ONCE)),
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
        match self.run(token).await {
            Ok(reply) => {
                if !reply.stderr.is_empty() {
                    tracing::info!(stderr = %sanitize_line(&reply.stderr, 1000), "the token command says");
                }
                read(reply.token.expose(), now).map_err(|problem| match problem {
                    Problem::Ended => TokenRefusal::Invalid("the token has ended".to_owned()),
                    Problem::Answer(problem) => self.cannot_tell(&problem, &reply.stderr),
                })
            }
            Err(Failure::Busy) => Err(self.cannot_tell("too many tokens at once", "")),
            Err(Failure::Run(RunError::Exited { status: 1, evidence })) => {
                let said = sanitize_line(evidence.stderr.lines().next().unwrap_or_default(), 300);
                tracing::info!(stderr = %sanitize_line(&evidence.stderr, 1000), "the token command refuses a token");
                Err(TokenRefusal::Invalid(match said.is_empty() {
                    true => "the token is not valid".to_owned(),
                    false => said,
                }))
            }
            Err(Failure::Run(error)) => Err(self.cannot_tell(&what_happened(&error), error.stderr())),
        }
    }

    /// Runs the program when there is a place. It keeps its place until it is gone, also when whoever asks leaves.
    async fn run(&self, token: &Token) -> Result<Reply, Failure> {
        let begun = Instant::now();
        let admitted = Arc::clone(&self.admitted).try_acquire_owned();
        let admitted = admitted.map_err(|_| Failure::Busy)?;
        let place = Arc::clone(&self.running).acquire_owned();
        let place = tokio::time::timeout(self.timeout, place).await;
        let (Ok(Ok(place)), stdin) = (place, SecretBytes::new(token.expose().to_vec())) else {
            return Err(Failure::Busy);
        };
        let runner = self.runner.clone().with_limits(RunLimits {
            deadline: self.timeout.saturating_sub(begun.elapsed()),
            stream_grace: STREAM_GRACE,
            kill_after: KILL_AFTER,
        });
        let running = tokio::spawn(async move {
            let _held = (admitted, place);
            let (progress, never) = (ProgressSink::discard(), CancellationToken::new());
            runner.run(&stdin, &Invocation::default(), progress, never).await
        });
        // A task that is gone was ended with the process.
        running.await.map_err(|_| Failure::Busy)?.map_err(Failure::Run)
    }

    /// For the log all of it, for the person who asks that it is not their fault.
    fn cannot_tell(&self, problem: &str, stderr: &str) -> TokenRefusal {
        let (problem, stderr) = (sanitize_line(problem, 1000), sanitize_line(stderr, 1000));
        tracing::error!(command = %self.runner.command(), problem, stderr, "the token command cannot tell");
        TokenRefusal::Unavailable("the policy server's token command cannot tell; try again".to_owned())
    }
}

/// Why there is no answer to read.
#[derive(Debug)]
enum Failure {
    Busy,
    Run(RunError),
}

/// A failed run in the words of this use of it: to the runner every program is an auth plugin.
fn what_happened(error: &RunError) -> String {
    let named = |name: &Option<String>| name.as_ref().map(|name| format!(": {name}")).unwrap_or_default();
    match error {
        RunError::NotFound { program, .. } => format!("not found{}; check policy.command", named(program)),
        RunError::NotExecutable { program, .. } => format!("not executable{}; run: chmod +x", named(program)),
        RunError::BadInterpreter {
            program, interpreter, ..
        } => {
            format!("{program} asks for an interpreter that is not there: {interpreter}")
        }
        RunError::Spawn { source, .. } => format!("could not be started: {source}"),
        RunError::Exited { status, .. } => format!("exited with status {status}; 0 is valid, 1 is not valid"),
        RunError::Killed { signal, .. } => format!("was ended by signal {signal}"),
        RunError::EmptyToken { .. } => "exited with status 0 and printed nothing".to_owned(),
        RunError::TokenTooLarge { .. } => "printed more than 64 KiB".to_owned(),
        RunError::StateTooLarge { .. } => "wrote too much to fd 3, which is not used".to_owned(),
        RunError::Timeout { after, .. } => format!("was ended after {}", format_duration(*after)),
        RunError::Cancelled { .. } => "was cancelled".to_owned(),
        RunError::Io { doing, source, .. } => format!("failed while {doing}: {source}"),
    }
}

/// Why an answer is none.
#[derive(Debug)]
enum Problem {
    Ended,
    Answer(String),
}

fn read(answer: &[u8], now: u64) -> Result<Bearer, Problem> {
    let answer: Answer = epithet_wire::read_document(answer)
        .map_err(|error| Problem::Answer(format!("its answer is not understood: {error}")))?;
    if answer.identity.is_empty() {
        return Err(Problem::Answer("its answer has an empty identity".to_owned()));
    }
    check_identity(&answer.identity).map_err(Problem::Answer)?;
    // What is negative has ended; a fraction counts as the second before it.
    let seconds = |time: Expires| match time {
        Expires::Seconds(seconds) => seconds as u64,
        Expires::Time(time) => u64::try_from(time.as_second()).unwrap_or(0),
    };
    let expires_at = answer.expires.map(seconds);
    if expires_at.is_some_and(|end| end <= now) {
        return Err(Problem::Ended);
    }
    Ok(Bearer {
        person: Person {
            identity: answer.identity,
            groups: answer.groups.unwrap_or_default(),
            login: Login {
                acr: answer.acr,
                amr: answer.amr.unwrap_or_default(),
                at: answer.auth_time.map(seconds),
            },
            unverified_email: None,
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
        let never = read(br#"{"identity":"c","expires":"9999-12-31T23:59:59Z"}"#, 1000).unwrap();
        assert_eq!(never.expires_at, u64::try_from(Timestamp::MAX.as_second()).ok());
        let array = read(br#"["c"]"#, 1000).unwrap_err();
        assert!(matches!(array, Problem::Answer(words) if words.contains("expected an object")));
        let bare = read(br#"{"identity":"d","groups":null,"expires":1000.0e3}"#, 1000).unwrap();
        assert_eq!((bare.person.groups.len(), bare.expires_at), (0, Some(1_000_000)));
        let strong = read(
            br#"{"identity":"e","acr":"phr","amr":["hwk"],"auth_time":"2026-01-01T00:00:00Z"}"#,
            1000,
        );
        let login = strong.unwrap().person.login;
        assert_eq!(
            (login.acr.as_deref(), login.at),
            (Some("phr"), Some(1_767_225_600))
        );
        assert_eq!(login.amr, ["hwk"]);
        for ended in [
            "1000",
            "1000.9",
            "-5",
            "0",
            "\"1960-01-01T00:00:00Z\"",
            "\"1970-01-01T00:16:40Z\"",
        ] {
            let answer = format!(r#"{{"identity":"alice","expires":{ended}}}"#);
            assert!(
                matches!(read(answer.as_bytes(), 1000), Err(Problem::Ended)),
                "{ended}"
            );
        }
        for bad in [
            "",
            "alice",
            "{}",
            r#"{"identity":""}"#,
            "{\"identity\":\"J\u{f6}rg\"}",
            r#"{"identity":"a","amr":"hwk"}"#,
            r#"{"identity":"a","auth_time":"now"}"#,
            r#"{"identity":"a","admin":true}"#,
            r#"{"identity":1}"#,
            r#"{"identity":"a"} {"identity":"b"}"#,
            r#"{"identity":"a","identity":"b"}"#,
            r#"{"identity":"a","groups":"b"}"#,
            "[]",
            r#"{"identity":"a","expires":"soon"}"#,
        ] {
            assert!(
                matches!(read(bad.as_bytes(), 1000), Err(Problem::Answer(_))),
                "{bad}"
            );
        }
    }
}
