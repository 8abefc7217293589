//! `epithet plugin`: run a plugin by hand as the broker would, or check it against the protocol.

use crate::cli::{Global, PluginCommand as Command};
use anyhow::{Context, bail};
use epithet_plugin::check::{self, CheckOptions, SecretFigures};
use epithet_plugin::{Exit, Invocation, Observation, PluginCommand, RunLimits, Runner, progress_channel};
use epithet_wire::{PluginState, SecretBytes, Token, format_duration};
use std::ffi::OsString;
use std::io::{IsTerminal, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;
use tracing_subscriber::filter::LevelFilter;

/// Runs the chosen part of the kit.
pub(crate) fn run(global: &Global, command: Command) -> anyhow::Result<ExitCode> {
    crate::logging::start(global, &crate::config::Common::default(), LevelFilter::WARN)?;
    match command {
        Command::Run {
            state,
            save_state,
            interactive,
            timeout,
            command,
        } => run_once(
            &plugin(command)?,
            state.as_deref(),
            save_state.as_deref(),
            interactive || std::io::stderr().is_terminal(),
            timeout,
        ),
        Command::Check {
            state,
            interactive,
            json,
            timeout,
            command,
        } => {
            let limits = RunLimits {
                deadline: timeout,
                ..RunLimits::default()
            };
            let state = initial_state(state.as_deref())?;
            let options = CheckOptions {
                state,
                interactive,
                limits,
                ..CheckOptions::default()
            };
            judge(plugin(command)?, &options, json)
        }
    }
}

/// Several runs, judged rule by rule. Progress goes to stderr as it comes, so that a person can complete a login.
fn judge(command: PluginCommand, options: &CheckOptions, json: bool) -> anyhow::Result<ExitCode> {
    let report = crate::runtime::run(1, |ending| async move {
        let (sink, mut progress) = progress_channel();
        let telling = async {
            while let Some(piece) = progress.next().await {
                // Nobody reading stderr is no reason not to check.
                let _ = std::io::stderr().write_all(piece.text.as_bytes());
            }
        };
        let checking = check::check(command, options, sink, ending);
        Ok(tokio::join!(checking, telling).0)
    })?;
    let text = match json {
        true => serde_json::to_string_pretty(&report)?,
        false => report.to_string(),
    };
    writeln!(std::io::stdout(), "{text}").context("cannot print")?;
    Ok(if report.conforms {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// One run, with everything that went over the streams; secrets only by their size.
fn run_once(
    command: &PluginCommand,
    state: Option<&Path>,
    save_state: Option<&Path>,
    interactive: bool,
    timeout: Duration,
) -> anyhow::Result<ExitCode> {
    let state = initial_state(state)?;
    let invocation = Invocation {
        interactive,
        remote_session: std::env::var_os("SSH_CONNECTION").is_some(),
        ..Invocation::default()
    };
    let mut out = std::io::stdout();
    let variables = invocation
        .variables()
        .map(|(name, value)| format!("{name}={value}"));
    writeln!(out, "env   {}", variables.join(" ")).context("cannot print")?;
    let first = if state.is_empty() { ": a first login" } else { "" };
    writeln!(out, "fd 0  {} bytes of state{first}", state.len()).context("cannot print")?;
    let observation = crate::runtime::run(1, |ending| async move {
        let (sink, mut progress) = progress_channel();
        let limits = RunLimits {
            deadline: timeout,
            ..RunLimits::default()
        };
        let runner = Runner::new(command.clone()).with_limits(limits);
        let telling = async {
            while let Some(piece) = progress.next().await {
                for line in piece.text.lines() {
                    let _ = writeln!(std::io::stdout(), "fd 4  {line}");
                }
                for directive in piece.directives {
                    let _ = writeln!(std::io::stdout(), "fd 4  (for the broker) {directive}");
                }
            }
        };
        let running = runner.observe(&state, &invocation, sink, ending);
        Ok(tokio::join!(running, telling).0)
    })?;
    report(&observation, save_state)
}

fn report(observation: &Observation, save_state: Option<&Path>) -> anyhow::Result<ExitCode> {
    let mut out = std::io::stdout();
    for line in streams(observation) {
        writeln!(out, "{line}").context("cannot print")?;
    }
    let reply = match &observation.outcome {
        Ok(reply) => reply,
        Err(error) => {
            writeln!(out, "failed: the broker would keep its old state and token").context("cannot print")?;
            bail!("{error}\ntry: {}", check::remedy(error));
        }
    };
    writeln!(out, "success after {}", format_duration(reply.elapsed)).context("cannot print")?;
    if let Some(path) = save_state {
        let mut file = std::fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(path)
            .with_context(|| format!("--save-state {}", path.display()))?;
        file.write_all(reply.state.expose())
            .with_context(|| format!("--save-state {}", path.display()))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// What went over the streams, secrets by their size and fingerprint, and how it ended.
fn streams(observation: &Observation) -> Vec<String> {
    let seen = &observation.transcript;
    let mut lines: Vec<String> = (seen.stderr().lines())
        .map(|line| format!("fd 2  {line}"))
        .collect();
    let figures = |bytes: &[u8]| {
        let figures = SecretFigures::of(bytes);
        match figures.bytes {
            0 => "nothing".to_owned(),
            size => format!("{size} bytes (SHA-256 {}...)", figures.sha256_prefix),
        }
    };
    let token = figures(seen.token_bytes());
    lines.push(match &observation.outcome {
        Ok(reply) => format!("fd 1  a token of {token}, {}", form(&reply.token)),
        Err(_) => format!("fd 1  {token}"),
    });
    lines.push(format!("fd 3  {} of new state", figures(seen.state_bytes())));
    if !seen.left_open().is_empty() {
        let held: Vec<_> = seen.left_open().iter().map(ToString::to_string).collect();
        lines.push(format!(
            "note  something that it started still holds {}: every login waits a second for that",
            held.join(", ")
        ));
    }
    lines.extend(match seen.exit() {
        Some(Exit::Status(status)) => Some(format!("exit  status {status}")),
        Some(Exit::Signal(signal)) => Some(format!("exit  by signal {signal}")),
        None => None,
    });
    lines
}

/// How a token travels, and what about it is probably not meant.
fn form(token: &Token) -> &'static str {
    let bytes = token.expose();
    if !token.header_value().encoded {
        "sent as it is"
    } else if bytes.trim_ascii().len() < bytes.len() {
        "sent base64url-encoded because there is white space around it (printf %s instead of echo?)"
    } else if bytes.is_ascii() && bytes.iter().all(|byte| !byte.is_ascii_control()) {
        "sent base64url-encoded because there are blanks in it"
    } else {
        "sent base64url-encoded because it is not visible ASCII"
    }
}

fn initial_state(path: Option<&Path>) -> anyhow::Result<PluginState> {
    let Some(path) = path else {
        return Ok(PluginState::default());
    };
    let bytes = std::fs::read(path).with_context(|| format!("--state {}", path.display()))?;
    Ok(SecretBytes::new(bytes))
}

/// The words after `--`: one word is a command for the shell, as in `--auth`; more are program and arguments.
fn plugin(words: Vec<OsString>) -> anyhow::Result<PluginCommand> {
    let words = words
        .into_iter()
        .map(|word| {
            word.into_string()
                .map_err(|word| anyhow::anyhow!("{word:?} is not UTF-8"))
        })
        .collect::<anyhow::Result<Vec<_>>>()?;
    let command = match <[String; 1]>::try_from(words) {
        Ok([text]) => PluginCommand::Shell(text),
        Err(words) => PluginCommand::Argv(words),
    };
    command.validate()?;
    Ok(command)
}
