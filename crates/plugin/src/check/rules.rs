//! The rules of the protocol, each a question to what was seen.

use super::report::{Finding, Report, RunFigures, Verdict};
use super::{CheckOptions, Runs};
use crate::host::{Exit, Observation, PluginCommand, Reply, RunError, contains};
use std::time::Duration;

/// Anything shorter is found by chance.
pub(super) const SECRET_MIN: usize = 8;
/// Many proxies and servers refuse headers above 8 KiB, of which `Authorization: Bearer ` is a part.
const TOKEN_COMFORTABLE: usize = 7 * 1024;
/// State is copied on every run, and nobody needs more than a few tokens.
const STATE_COMFORTABLE: usize = 1024 * 1024;
/// A run with state should not need a person; ssh waits for it.
const SECOND_RUN_COMFORTABLE: Duration = Duration::from_secs(5);
/// On success, stderr is for the log.
const STDERR_COMFORTABLE: u64 = 4 * 1024;

/// Judges what was seen.
pub(super) fn judge(command: &PluginCommand, options: &CheckOptions, runs: &Runs) -> Report {
    let named = [
        ("first", Some(&runs.first)),
        ("second", runs.second.as_ref()),
        ("foreign-state", runs.foreign_state.as_ref()),
        ("ended-early", runs.ended.as_ref()),
    ];
    let seen: Vec<(&'static str, &Observation)> = named
        .into_iter()
        .filter_map(|(name, run)| run.map(|run| (name, run)))
        .collect();
    let mut findings = vec![first_run(options, &runs.first)];
    if let Ok(first) = &runs.first.outcome {
        findings.extend([token_form(first), token_size(first), state(first)]);
    } else {
        findings.extend(["token-form", "token-size", "state"].map(skipped));
    }
    match (&runs.first.outcome, &runs.second) {
        (Ok(first), Some(second)) => {
            findings.extend([
                second_run(second),
                state_kept(first, second),
                token_renewal(first, second),
                time(second),
            ]);
        }
        _ => findings.extend(["second-run", "state-kept", "token-renewal", "time"].map(skipped)),
    }
    findings.push(
        runs.foreign_state
            .as_ref()
            .map_or_else(|| skipped("foreign-state"), foreign_state),
    );
    findings.push(runs.ended.as_ref().map_or_else(|| skipped("sigterm"), sigterm));
    findings.extend([secrets(&seen), streams(&seen), failures(&seen), stderr(&seen)]);
    Report {
        command: command.to_string(),
        conforms: findings.iter().all(|finding| finding.verdict != Verdict::Fail),
        findings,
        runs: seen.iter().map(|(name, run)| RunFigures::of(name, run)).collect(),
    }
}

fn pass(rule: &'static str, seen: impl Into<String>) -> Finding {
    Finding {
        rule,
        verdict: Verdict::Pass,
        seen: seen.into(),
        remedy: None,
    }
}

fn warning(rule: &'static str, seen: impl Into<String>, remedy: &'static str) -> Finding {
    Finding {
        verdict: Verdict::Warning,
        remedy: Some(remedy),
        ..pass(rule, seen)
    }
}

fn fail(rule: &'static str, seen: impl Into<String>, remedy: &'static str) -> Finding {
    Finding {
        verdict: Verdict::Fail,
        remedy: Some(remedy),
        ..pass(rule, seen)
    }
}

fn skipped(rule: &'static str) -> Finding {
    Finding {
        verdict: Verdict::Skipped,
        ..pass(rule, "not tried, for there was no successful first run")
    }
}

/// What whoever writes a plugin can do about a run that failed.
pub fn remedy(error: &RunError) -> &'static str {
    match error {
        RunError::NotFound { .. } => "check the command's path; relative ones start at the current folder",
        RunError::NotExecutable { .. } => "make the program executable: chmod +x",
        RunError::BadInterpreter { .. } => "correct the script's first line",
        RunError::Exited { status, .. } if *status > 128 => {
            "find out what ends a program that it runs: the status is 128 and the signal's number"
        }
        RunError::Exited { .. } => {
            "exit with status 0 when there is a token, and say on stderr why there is none"
        }
        RunError::EmptyToken { .. } => "print the token on stdout",
        RunError::TokenTooLarge { .. } => "print nothing but the token on stdout",
        RunError::StateTooLarge { .. } => "keep less in the state on fd 3",
        RunError::Timeout { .. } => {
            "finish in time; without --interactive, fail rather than wait for a person"
        }
        RunError::Killed { .. }
        | RunError::Spawn { .. }
        | RunError::Cancelled { .. }
        | RunError::Io { .. } => "try again, and find out what ends it",
    }
}

fn first_run(options: &CheckOptions, run: &Observation) -> Finding {
    let with = if options.state.is_empty() {
        "an empty stdin"
    } else {
        "the state it was given"
    };
    match &run.outcome {
        Ok(reply) => pass(
            "first-run",
            format!(
                "with {with}: a token of {} bytes after {:.1?}",
                reply.token.size(),
                reply.elapsed
            ),
        ),
        Err(error) => fail("first-run", format!("with {with}: {error}"), remedy(error)),
    }
}

/// What browsers and their launchers print when they hand a page to a running one.
const BROWSER_LINES: [&[u8]; 3] = [
    b"Opening in existing browser session",
    b"Created new window in existing",
    b"[GFX1-]",
];

fn token_form(reply: &Reply) -> Finding {
    const RULE: &str = "token-form";
    let token = reply.token.expose();
    if BROWSER_LINES.iter().any(|line| contains(token, line)) {
        return fail(
            RULE,
            "a browser's message is in front of or behind the token",
            "start the browser with its stdout and stderr away from the plugin's: xdg-open URL >/dev/null 2>&1",
        );
    }
    let trimmed = token.trim_ascii();
    if trimmed.is_empty() {
        return fail(
            RULE,
            "the token is nothing but white space",
            "print the token on stdout",
        );
    }
    let is_text = std::str::from_utf8(trimmed)
        .is_ok_and(|text| !text.chars().any(|c| c.is_control() && c != '\n' && c != '\r'));
    let lines = trimmed.split(|byte| *byte == b'\n').count();
    if is_text && lines > 1 {
        return fail(
            RULE,
            format!("stdout holds {lines} lines of text: messages have become part of the token"),
            "print nothing but the token on stdout; messages go to stderr, progress to fd 4",
        );
    }
    if trimmed.len() != token.len() {
        return warning(
            RULE,
            "the token has white space around it, which only OpenID Connect validation forgives",
            "end it without a line feed: printf %s \"$token\" instead of echo",
        );
    }
    if is_text && token.contains(&b' ') {
        return warning(
            RULE,
            "there are blanks in the token",
            "make sure that stdout holds the token only",
        );
    }
    if token.iter().all(u8::is_ascii_graphic) {
        pass(RULE, "visible ASCII, sent as it is")
    } else {
        pass(RULE, "binary, sent base64url-encoded")
    }
}

fn token_size(reply: &Reply) -> Finding {
    let seen = format!("{} bytes", reply.token.size());
    if reply.token.size() > TOKEN_COMFORTABLE {
        return warning(
            "token-size",
            format!("{seen}: many proxies refuse headers above 8 KiB"),
            "ask the provider for a token with fewer claims",
        );
    }
    pass("token-size", seen)
}

fn state(reply: &Reply) -> Finding {
    match reply.state.len() {
        0 => pass("state", "none: every run begins anew"),
        size if size > STATE_COMFORTABLE => warning(
            "state",
            format!("{size} bytes, to be read and written by every run"),
            "keep only what the next run needs",
        ),
        size => pass("state", format!("{size} bytes on fd 3")),
    }
}

fn second_run(run: &Observation) -> Finding {
    match &run.outcome {
        Ok(reply) => pass(
            "second-run",
            format!("with the state of the first: ok after {:.1?}", reply.elapsed),
        ),
        Err(error) => fail(
            "second-run",
            format!("with the state of the first: {error}"),
            remedy(error),
        ),
    }
}

fn state_kept(first: &Reply, second: &Observation) -> Finding {
    const RULE: &str = "state-kept";
    match &second.outcome {
        Err(_) => skipped(RULE),
        Ok(second) if second.state.is_empty() && !first.state.is_empty() => warning(
            RULE,
            "the second run wrote no state, and that replaces what it was given",
            "write the state to fd 3 on every run, also when it did not change",
        ),
        Ok(second) if second.state.is_empty() => pass(RULE, "there is none to keep"),
        Ok(second) if second.state == first.state => pass(RULE, "the second run wrote the same state again"),
        Ok(_) => pass(RULE, "the second run wrote a new state"),
    }
}

fn token_renewal(first: &Reply, second: &Observation) -> Finding {
    const RULE: &str = "token-renewal";
    match &second.outcome {
        Err(_) => skipped(RULE),
        Ok(second) if second.token == first.token => pass(
            RULE,
            "the same token again: once a CA rejects it, running the plugin again won't help",
        ),
        Ok(_) => pass(RULE, "a new token on the second run"),
    }
}

fn time(second: &Observation) -> Finding {
    let took = second.transcript.elapsed();
    let seen = format!("the second run took {took:.1?}");
    if took > SECOND_RUN_COMFORTABLE {
        return warning(
            "time",
            seen,
            "with state, get a new token without a person; ssh waits for it",
        );
    }
    pass("time", seen)
}

fn foreign_state(run: &Observation) -> Finding {
    const RULE: &str = "foreign-state";
    match &run.outcome {
        Ok(_) => pass(RULE, "a state that is not its own is no obstacle"),
        Err(RunError::Exited { status, .. }) => warning(
            RULE,
            format!(
                "a state that is not its own is an error (exit status {status}) until the agent restarts"
            ),
            "treat state that cannot be read, perhaps of an older version, as none",
        ),
        Err(error) => fail(
            RULE,
            format!("with a state that is not its own: {error}"),
            remedy(error),
        ),
    }
}

fn sigterm(run: &Observation) -> Finding {
    const RULE: &str = "sigterm";
    match &run.outcome {
        Err(RunError::Timeout { forced: true, .. } | RunError::Cancelled { forced: true, .. }) => warning(
            RULE,
            "it ignored SIGTERM and had to be killed",
            "end on SIGTERM: somebody closed the terminal, or the time is over",
        ),
        Err(RunError::Timeout { .. } | RunError::Cancelled { .. }) => {
            pass(RULE, "it ends when it is asked to")
        }
        _ => pass(RULE, "it was done before it could be asked to end"),
    }
}

fn secrets(runs: &[(&'static str, &Observation)]) -> Finding {
    const RULE: &str = "secrets";
    for (name, run) in runs {
        let seen = &run.transcript;
        for (secret, what) in [(seen.token_bytes(), "token"), (seen.state_bytes(), "state")] {
            let secret = secret.trim_ascii();
            // Beyond the size of what is kept of the other streams there is nothing to find.
            if !(SECRET_MIN..=64 * 1024).contains(&secret.len()) {
                continue;
            }
            for (stream, tail) in [("stderr", &seen.messages), ("fd 4", &seen.progress)] {
                if tail.holds(secret) {
                    return fail(
                        RULE,
                        format!("the {name} run printed its {what} on {stream}, which is shown and logged"),
                        "print secrets nowhere but on stdout and fd 3",
                    );
                }
            }
        }
    }
    pass(RULE, "neither token nor state on stderr or fd 4")
}

fn streams(runs: &[(&'static str, &Observation)]) -> Finding {
    let held = runs
        .iter()
        .find(|(_, run)| !run.transcript.left_open().is_empty());
    match held {
        None => pass("streams", "all are closed when it exits"),
        Some((name, run)) => {
            let left: Vec<String> = run
                .transcript
                .left_open()
                .iter()
                .map(ToString::to_string)
                .collect();
            warning(
                "streams",
                format!(
                    "after the {name} run somebody held {} open: every login waits a second longer",
                    left.join(", ")
                ),
                "start a browser or helper without the plugin's streams: COMMAND </dev/null >/dev/null 2>&1 3>&- 4>&-",
            )
        }
    }
}

fn failures(runs: &[(&'static str, &Observation)]) -> Finding {
    const RULE: &str = "failures";
    let failed = || {
        runs.iter()
            .filter(|(_, run)| matches!(run.transcript.exit(), Some(Exit::Status(status)) if status != 0))
    };
    if let Some((name, _)) = failed().find(|(_, run)| run.transcript.stderr_bytes() == 0) {
        return warning(
            RULE,
            format!("the {name} run failed without saying why"),
            "say on stderr what happened and what to do; it is shown to the person who waits",
        );
    }
    if let Some((name, _)) = failed().find(|(_, run)| !run.transcript.token_bytes().is_empty()) {
        return warning(
            RULE,
            format!("the {name} run failed and yet wrote to stdout"),
            "messages about a failure go to stderr",
        );
    }
    pass(
        RULE,
        if failed().next().is_some() {
            "it says why it fails"
        } else {
            "none seen"
        },
    )
}

fn stderr(runs: &[(&'static str, &Observation)]) -> Finding {
    let talkative = runs
        .iter()
        .filter(|(_, run)| run.outcome.is_ok())
        .map(|(_, run)| run.transcript.stderr_bytes())
        .max()
        .unwrap_or(0);
    if talkative > STDERR_COMFORTABLE {
        return warning(
            "stderr",
            format!("{talkative} bytes on success, all of it for the log"),
            "be brief on stderr when all is well",
        );
    }
    pass("stderr", format!("at most {talkative} bytes on success"))
}
