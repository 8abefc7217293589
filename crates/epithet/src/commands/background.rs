//! The broker without a terminal: started by `epithet agent --background`, asked by `status`, ended by `stop`.
//!
//! The process that was typed starts itself again as the broker and waits for its first word: that it serves, or why
//! not. The broker's stderr is the typed process's until then, and the log file after that.

mod log;
mod status;
mod stop;

pub(crate) use log::{Log, log, path as log_path};
pub(crate) use status::status;
pub(crate) use stop::stop;

use crate::cli::BrokerChoice;
use crate::commands::ask_broker::{converse, why_not};
use crate::commands::profile_flag;
use crate::terminal::short_path;
use anyhow::{Context, bail};
use epithet_broker::RunDir;
use epithet_wire::ProfileName;
use epithet_wire::broker::{Empty, Request};
use epithet_wire::limits::{BACKGROUND_ANSWER, BACKGROUND_START};
use std::ffi::OsString;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// How the broker's first line begins once its socket listens.
const READY: &str = "ready: ";
/// How the line begins that names the log file.
const LOG: &str = "log: ";

/// Between two questions to a broker that has not answered.
const LOOK: Duration = Duration::from_millis(100);

/// What became of a start.
pub(crate) enum Started {
    /// The broker serves. The log file, as it said.
    Serving { process: u32, log: String },
    /// It ended by itself; what it said has been shown.
    Ended(ExitStatus),
}

/// Starts the broker with the arguments of this process.
pub(crate) fn again_without_terminal(profile: &ProfileName) -> anyhow::Result<ExitCode> {
    let typed = std::env::args_os().skip(1);
    let arguments = typed.map(|word| match word == "--background" {
        true => OsString::from("--detached"),
        false => word,
    });
    match start(arguments)? {
        Started::Serving { process, log } => {
            say(&format!("epithet: the broker serves (process {process})"));
            say(&format!("  log:   {log}"));
            let flag = profile_flag(profile);
            say(&format!("  look:  epithet agent status{flag}"));
            say(&format!("  end:   epithet agent stop{flag}"));
            Ok(ExitCode::SUCCESS)
        }
        Started::Ended(status) if status.success() => Ok(ExitCode::SUCCESS),
        Started::Ended(status) => Ok(status
            .code()
            .and_then(|code| u8::try_from(code).ok())
            .map_or(ExitCode::FAILURE, ExitCode::from)),
    }
}

/// Starts `epithet ARGUMENTS`, which has to be a detached broker, and returns once it serves or has ended.
pub(crate) fn start(arguments: impl IntoIterator<Item = OsString>) -> anyhow::Result<Started> {
    let program = std::env::current_exe().context("cannot find the running program")?;
    let mut broker = Command::new(&program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {}", program.display()))?;
    let words = words(&mut broker);
    let end = Instant::now() + BACKGROUND_START;
    let (mut serves, mut log) = (false, String::new());
    loop {
        match words.recv_timeout(end.saturating_duration_since(Instant::now())) {
            Ok(line) if line.starts_with(READY) => serves = true,
            Ok(line) if serves && line.starts_with(LOG) => {
                log = line[LOG.len()..].to_owned();
                let process = broker.id();
                return Ok(Started::Serving { process, log });
            }
            Ok(_) if serves => {}
            Ok(line) => say(&line),
            Err(RecvTimeoutError::Disconnected) => {
                let status = broker.wait().context("cannot wait for the broker")?;
                return Ok(Started::Ended(status));
            }
            Err(RecvTimeoutError::Timeout) => {
                // It is our child and has not been waited for, so the id is still its own.
                let _ = broker.kill();
                let _ = broker.wait();
                bail!(
                    "the broker did not serve within {} and was ended{log}\ntry: epithet agent -vv, which says what it is doing",
                    epithet_wire::format_duration(BACKGROUND_START)
                );
            }
        }
    }
}

/// The lines that the broker says on stderr, as they come.
fn words(broker: &mut Child) -> Receiver<String> {
    let (sender, receiver) = channel();
    if let Some(stderr) = broker.stderr.take() {
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
    }
    receiver
}

/// Says where the log is, which is the parent's sign to go, and lets go of the terminal.
///
/// # Errors
/// When the parent has gone: whoever pressed Ctrl-C does not want a broker either.
pub(crate) fn leave_terminal(log: &Log) -> anyhow::Result<()> {
    let file = log.file()?;
    writeln!(std::io::stderr(), "{LOG}{}", short_path(&log.path))
        .context("whoever started this broker has gone")?;
    rustix::stdio::dup2_stderr(&file).context("cannot redirect stderr to the log file")
}

/// Leaves the session of the terminal: closing it, and Ctrl-C in it, are not for the broker.
pub(crate) fn leave_session() {
    // Fails only for the leader of a process group, which a process that was just started by another is not.
    let _ = rustix::process::setsid();
}

/// What a broker in the background that is not needed says: one is there that serves.
///
/// # Errors
/// When the one that is there does not answer, so that nobody serves.
pub(crate) fn say_already_running(home: &Path, profile: &ProfileName) -> anyhow::Result<ExitCode> {
    let choice = BrokerChoice {
        broker: None,
        name: Some(profile.clone()),
    };
    let request = Request {
        inspect: Some(Empty {}),
        ..Request::default()
    };
    let end = Instant::now() + BACKGROUND_ANSWER;
    while let Err(error) = converse(&choice, &request) {
        if Instant::now() < end {
            std::thread::sleep(LOOK);
            continue;
        }
        let flag = profile_flag(profile);
        let process = match RunDir::holder(home, profile) {
            Some(holder) => format!(" (process {})", holder.process),
            None => String::new(),
        };
        let words = why_not(&error);
        bail!(
            "a broker of profile \"{profile}\" is there{process} and does not answer: {words}\ntry: epithet agent stop{flag} && epithet agent --background{flag}"
        );
    }
    say(&format!(
        "epithet: the broker of profile \"{profile}\" is running already"
    ));
    Ok(ExitCode::SUCCESS)
}

/// What a broker in the background says that a service manager starts when it is needed.
pub(crate) fn say_waited_for(profile: &ProfileName) -> ExitCode {
    say(&format!(
        "epithet: the broker of profile \"{profile}\" starts with the next ssh: a service manager listens for it"
    ));
    ExitCode::SUCCESS
}

fn say(text: &str) {
    // Nobody there to read it is no error.
    let _ = writeln!(std::io::stderr(), "{text}");
}
