//! Commands that only ask a running broker.

use crate::cli::{BrokerChoice, LoginOptions};
use crate::commands::profile_flag;
use crate::terminal::short_path;
use anyhow::bail;
use epithet_broker::RunDir;
use epithet_match::{BrokerClient, ClientError, follow};
use epithet_wire::ProfileName;
use epithet_wire::broker::{Asker, Reply, Request};
use epithet_wire::display::sanitize_text;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// `epithet login`
pub(crate) fn login(options: &LoginOptions) -> anyhow::Result<ExitCode> {
    let flow = match options.paste {
        true => "paste",
        false => options.flow.as_deref().unwrap_or_default(),
    };
    let asker = Asker {
        flow: flow.to_owned(),
        ..asker("epithet login")
    };
    if flow == "paste" && !asker.terminal {
        bail!("--paste needs a terminal, at which you can paste the address");
    }
    let request = Request {
        login: Some(asker),
        ..Request::default()
    };
    converse(&options.broker, &request)?;
    say("logged in");
    Ok(ExitCode::SUCCESS)
}

/// `epithet logout`
pub(crate) fn logout(choice: &BrokerChoice) -> anyhow::Result<ExitCode> {
    let request = Request {
        logout: Some(asker("epithet logout")),
        ..Request::default()
    };
    converse(choice, &request)?;
    say("logged out: the broker forgot state, token and every certificate");
    Ok(ExitCode::SUCCESS)
}

/// This process, as the one who asks.
pub(crate) fn asker(command: &str) -> Asker {
    Asker {
        terminal: std::io::stderr().is_terminal() || std::fs::File::open("/dev/tty").is_ok(),
        remote_session: std::env::var_os("SSH_CONNECTION").is_some(),
        command: command.to_owned(),
        process: std::process::id(),
        stderr: false,
        ..Asker::default()
    }
}

/// Asks the broker, prints what it says meanwhile to stderr, and returns its last reply. A "no" is an error.
pub(crate) fn converse(choice: &BrokerChoice, request: &Request) -> anyhow::Result<Reply> {
    let socket = socket(choice)?;
    let explain = |error: ClientError| explain(&error, choice, &socket);
    let mut broker = BrokerClient::send(&socket, request, false).map_err(explain)?;
    let mut tell = |text: &str| {
        // A closed terminal is no reason to give up.
        let _ = std::io::stderr().write_all(text.as_bytes());
    };
    let reply = follow(&mut broker, &mut tell).map_err(explain)?;
    match &reply.result {
        Some(result) if !result.allow => bail!("{}", sanitize_text(result.error.as_bytes()).trim_end()),
        _ => Ok(reply),
    }
}

/// What is wrong with which broker, and what starts one.
fn explain(error: &ClientError, choice: &BrokerChoice, socket: &Path) -> anyhow::Error {
    let socket = short_path(socket);
    let ClientError::NoBroker(_) = error else {
        return anyhow::anyhow!("{error} (at {socket})");
    };
    let profile = match (&choice.broker, &choice.name) {
        (None, Some(name)) => name.clone(),
        _ => ProfileName::default(),
    };
    let flag = profile_flag(&profile);
    let whose = match flag.is_empty() {
        true => String::new(),
        false => format!(" for profile \"{profile}\""),
    };
    anyhow::anyhow!("{error}{whose}\nnobody listens at {socket}\ntry: epithet agent --background{flag}")
}

/// Why a broker that is there cannot be asked, in one line: that none is running is not what is wrong with it.
pub(crate) fn why_not(error: &anyhow::Error) -> String {
    let words = format!("{error:#}");
    let mut lines = words.lines();
    let first = lines.next().unwrap_or_default();
    lines
        .find(|line| line.starts_with("nobody listens"))
        .unwrap_or(first)
        .to_owned()
}

/// The socket of the chosen broker: named, or where the profile's broker says that it is, or where one would be.
///
/// A broker that lives may have another `$XDG_RUNTIME_DIR` than this shell, or this shell none.
pub(crate) fn socket(choice: &BrokerChoice) -> anyhow::Result<PathBuf> {
    if let Some(socket) = &choice.broker {
        return Ok(socket.clone());
    }
    let profile = choice.name.clone().unwrap_or_default();
    let home = crate::config::home()?;
    if let Some(holder) = RunDir::holder(&home, &profile) {
        return Ok(holder.socket);
    }
    Ok(RunDir::broker_socket_of(
        &home,
        runtime_dir().as_deref(),
        &profile,
    )?)
}

/// `$XDG_RUNTIME_DIR`
pub(crate) fn runtime_dir() -> Option<PathBuf> {
    std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from)
}

fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "epithet: {text}");
}
