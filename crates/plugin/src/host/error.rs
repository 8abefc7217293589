//! Why a run gave no token, said so that the person who configured the plugin can act on it.

use super::PluginCommand;
use super::streams::{Stream, Transcript};
use crate::{STATE_MAX, TOKEN_MAX};
use epithet_wire::format_duration;
use std::fmt::Write as _;
use std::io;
use std::time::Duration;

/// What is known about a run that failed.
#[derive(Debug, Clone)]
pub struct Evidence {
    /// The command as it was configured.
    pub command: PluginCommand,
    /// The end of what the plugin wrote to stderr, without anything that could harm a terminal.
    pub stderr: String,
    /// How many bytes of stderr came before that.
    pub stderr_skipped: u64,
}

/// A run of a plugin that failed. It changed nothing: the caller's state and token are still the ones to use.
///
/// `Display` is one line for a log; [`explain`](RunError::explain) is what a person should read.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The program, or a program it needs (exit status 127), is not there.
    #[error("the auth plugin was not found{}", .program.as_ref().map(|name| format!(": {name}")).unwrap_or_default())]
    NotFound {
        /// The program that is missing, where that can be told.
        program: Option<String>,
        /// What is known.
        evidence: Box<Evidence>,
    },
    /// The program's file is there and may not be executed (exit status 126).
    #[error("the auth plugin cannot be executed{}", .program.as_ref().map(|name| format!(": {name}")).unwrap_or_default())]
    NotExecutable {
        /// The file, where it can be told.
        program: Option<String>,
        /// What is known.
        evidence: Box<Evidence>,
    },
    /// The script's first line names an interpreter that is not there.
    #[error("the auth plugin {program} asks for an interpreter that is not there: {}", .interpreter.escape_debug())]
    BadInterpreter {
        /// The script.
        program: String,
        /// What its `#!` line asks for.
        interpreter: String,
        /// What is known.
        evidence: Box<Evidence>,
    },
    /// The system did not start the program.
    #[error("the auth plugin could not be started: {source}")]
    Spawn {
        /// What the system said.
        source: io::Error,
        /// What is known.
        evidence: Box<Evidence>,
    },
    /// It exited with a status that is not 0.
    #[error("the auth plugin exited with status {status}{}", shells_signal(*.status))]
    Exited {
        /// The status.
        status: i32,
        /// What is known.
        evidence: Box<Evidence>,
    },
    /// A signal that was not ours ended it.
    #[error("the auth plugin was ended by signal {signal}{}", signal_name(*.signal))]
    Killed {
        /// The signal's number.
        signal: i32,
        /// What is known.
        evidence: Box<Evidence>,
    },
    /// It exited with status 0 and had printed nothing on stdout.
    #[error("the auth plugin succeeded without printing a token")]
    EmptyToken {
        /// What is known.
        evidence: Box<Evidence>,
    },
    /// More than [`TOKEN_MAX`] bytes on stdout.
    #[error("the auth plugin printed a token larger than {TOKEN_MAX} bytes on stdout")]
    TokenTooLarge {
        /// What is known.
        evidence: Box<Evidence>,
    },
    /// More than [`STATE_MAX`] bytes on fd 3.
    #[error("the auth plugin wrote a state larger than {STATE_MAX} bytes on fd 3")]
    StateTooLarge {
        /// What is known.
        evidence: Box<Evidence>,
    },
    /// It was not finished at the deadline and was ended.
    #[error("the auth plugin did not finish within {} and was ended", format_duration(*.after))]
    Timeout {
        /// The deadline.
        after: Duration,
        /// Whether it ignored SIGTERM and had to be killed.
        forced: bool,
        /// What is known.
        evidence: Box<Evidence>,
    },
    /// Nobody waits for it any more, and it was ended.
    #[error("the login was cancelled")]
    Cancelled {
        /// Whether it ignored SIGTERM and had to be killed.
        forced: bool,
        /// What is known.
        evidence: Box<Evidence>,
    },
    /// The system failed while the plugin ran.
    #[error("the auth plugin's run failed while {doing}: {source}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// What the system said.
        source: io::Error,
        /// What is known.
        evidence: Box<Evidence>,
    },
}

impl Evidence {
    pub(crate) fn of(command: &PluginCommand, heard: &Transcript) -> Box<Self> {
        Box::new(Self {
            command: command.clone(),
            stderr: heard.stderr(),
            stderr_skipped: heard.stderr_skipped(),
        })
    }
}

impl RunError {
    pub(crate) fn over_limit(stream: Stream, evidence: Box<Evidence>) -> Self {
        match stream {
            Stream::State => Self::StateTooLarge { evidence },
            _ => Self::TokenTooLarge { evidence },
        }
    }

    /// What is known about the run.
    pub fn evidence(&self) -> &Evidence {
        match self {
            Self::NotFound { evidence, .. }
            | Self::NotExecutable { evidence, .. }
            | Self::BadInterpreter { evidence, .. }
            | Self::Spawn { evidence, .. }
            | Self::Exited { evidence, .. }
            | Self::Killed { evidence, .. }
            | Self::EmptyToken { evidence }
            | Self::TokenTooLarge { evidence }
            | Self::StateTooLarge { evidence }
            | Self::Timeout { evidence, .. }
            | Self::Cancelled { evidence, .. }
            | Self::Io { evidence, .. } => evidence,
        }
    }

    /// The command as it was configured.
    pub fn command(&self) -> &PluginCommand {
        &self.evidence().command
    }

    /// The end of what the plugin wrote to stderr.
    pub fn stderr(&self) -> &str {
        &self.evidence().stderr
    }

    /// What a person can do about it: one sentence or a command to try.
    pub fn remedy(&self) -> String {
        let by_hand = format!("epithet plugin run -- {}", self.command().as_arguments());
        match self {
            Self::NotFound { program: None, .. } => format!(
                "a program that the plugin needs is missing from the broker's PATH; see with: {by_hand}"
            ),
            Self::NotFound {
                program: Some(name), ..
            } if name.contains('/') => {
                "check the path in --auth; a relative one starts at the folder in which the agent was started"
                    .to_owned()
            }
            Self::NotFound { .. } => "install it, or give its full path in --auth".to_owned(),
            Self::NotExecutable { program, .. } => format!(
                "chmod +x {}",
                program.as_deref().unwrap_or("the file that the message names")
            ),
            Self::BadInterpreter { interpreter, .. } if interpreter.ends_with('\r') => {
                "the script has Windows line ends; convert it: sed -i 's/\\r$//' SCRIPT".to_owned()
            }
            Self::BadInterpreter { .. } => {
                "install the interpreter, or correct the script's first line".to_owned()
            }
            Self::Spawn { source, .. } if source.kind() == io::ErrorKind::WouldBlock => {
                "too many processes; see `ulimit -u`".to_owned()
            }
            Self::Spawn { .. } | Self::Io { .. } | Self::Exited { .. } | Self::Killed { .. } => by_hand,
            Self::EmptyToken { .. } => {
                format!("the token goes to stdout, messages go to stderr; see with: {by_hand}")
            }
            Self::TokenTooLarge { .. } => {
                format!("only the token may go to stdout, everything else to stderr; see with: {by_hand}")
            }
            Self::StateTooLarge { .. } => "keep less in the state that goes to fd 3".to_owned(),
            Self::Timeout { .. } => {
                "run ssh again and finish the login in time, or allow more with --auth-timeout".to_owned()
            }
            Self::Cancelled { .. } => "run ssh again".to_owned(),
        }
    }

    /// The lines a person should read: what happened, to which command, what the plugin said, what to try.
    pub fn explain(&self) -> String {
        let mut lines = format!("{self}\n  command: {}\n", one_line(&self.command().to_string()));
        if let Self::Timeout { forced: true, .. } | Self::Cancelled { forced: true, .. } = self {
            lines.push_str("  it ignored SIGTERM and was killed\n");
        }
        let said = self.stderr().trim_end();
        let skipped = self.evidence().stderr_skipped;
        if skipped > 0 {
            // Writing to a string cannot fail.
            let _ = writeln!(lines, "  it said (after {skipped} bytes that are not shown):");
        } else if said.is_empty() {
            lines.push_str("  it said nothing\n");
        }
        match (said.contains('\n') || skipped > 0, said) {
            (_, "") => {}
            (false, said) => lines.push_str(&format!("  it said: {}\n", said.trim_start())),
            (true, said) => {
                if skipped == 0 {
                    lines.push_str("  it said:\n");
                }
                for line in said.lines() {
                    let _ = writeln!(lines, "    {line}");
                }
            }
        }
        let _ = write!(lines, "  try: {}", self.remedy());
        lines
    }
}

/// A command of several lines, on one.
fn one_line(text: &str) -> String {
    epithet_wire::display::sanitize_line(text, 2000)
}

/// A shell that ran a program which a signal ended exits with 128 and the signal's number.
fn shells_signal(status: i32) -> String {
    match status - 128 {
        signal @ 1..=64 => format!(
            ", which from a shell means that signal {signal}{} ended what it ran",
            signal_name(signal)
        ),
        _ => String::new(),
    }
}

fn signal_name(signal: i32) -> String {
    use rustix::process::Signal;
    let names = [
        (Signal::HUP, "SIGHUP"),
        (Signal::INT, "SIGINT"),
        (Signal::QUIT, "SIGQUIT"),
        (Signal::ILL, "SIGILL"),
        (Signal::TRAP, "SIGTRAP"),
        (Signal::ABORT, "SIGABRT"),
        (Signal::BUS, "SIGBUS"),
        (Signal::FPE, "SIGFPE"),
        (Signal::KILL, "SIGKILL, perhaps for want of memory"),
        (Signal::SEGV, "SIGSEGV"),
        (Signal::PIPE, "SIGPIPE"),
        (Signal::ALARM, "SIGALRM"),
        (Signal::TERM, "SIGTERM"),
        (Signal::XCPU, "SIGXCPU"),
        (Signal::XFSZ, "SIGXFSZ"),
        (Signal::SYS, "SIGSYS"),
    ];
    let name = names.iter().find(|(known, _)| known.as_raw() == signal);
    name.map(|(_, name)| format!(" ({name})")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn evidence(stderr: &str, stderr_skipped: u64) -> Box<Evidence> {
        Box::new(Evidence {
            command: PluginCommand::Shell("./login.sh".to_owned()),
            stderr: stderr.to_owned(),
            stderr_skipped,
        })
    }

    #[test]
    fn an_explanation_says_what_happened_to_what_and_what_to_try() {
        let error = RunError::Exited {
            status: 3,
            evidence: evidence("no network\n", 0),
        };
        assert_eq!(
            error.explain(),
            "the auth plugin exited with status 3\n  command: ./login.sh\n  it said: no network\n  \
             try: epithet plugin run -- ./login.sh"
        );
    }

    #[test]
    fn several_lines_silence_and_a_skipped_beginning_are_each_told() {
        let killed = |stderr, skipped| {
            RunError::Killed {
                signal: 9,
                evidence: evidence(stderr, skipped),
            }
            .explain()
        };
        assert!(killed("", 0).contains("signal 9 (SIGKILL"));
        assert!(killed("", 0).contains("\n  it said nothing\n"));
        assert!(killed("one\ntwo\n", 0).contains("\n  it said:\n    one\n    two\n  try:"));
        let long = killed("end\n", 10);
        assert!(
            long.contains("\n  it said (after 10 bytes that are not shown):\n    end\n  try:"),
            "{long}"
        );
    }

    #[test]
    fn a_status_by_which_a_shell_tells_of_a_signal_is_translated() {
        for (status, said) in [
            (137, Some("signal 9 (SIGKILL, perhaps for want of memory)")),
            (143, Some("signal 15 (SIGTERM)")),
            (162, Some("signal 34 ended")),
            (128, None),
            (193, None),
            (255, None),
            (3, None),
        ] {
            let error = RunError::Exited {
                status,
                evidence: evidence("", 0),
            };
            let text = error.to_string();
            assert!(text.starts_with(&format!("the auth plugin exited with status {status}")));
            assert_eq!(text.contains("signal"), said.is_some(), "{text}");
            assert!(text.contains(said.unwrap_or_default()), "{text}");
        }
    }

    #[test]
    fn the_deadline_is_named_and_so_is_force() {
        let error = RunError::Timeout {
            after: Duration::from_secs(300),
            forced: true,
            evidence: evidence("", 0),
        };
        assert!(error.to_string().contains("within 5m"), "{error}");
        assert!(error.explain().contains("ignored SIGTERM and was killed"));
        assert!(error.explain().contains("--auth-timeout"));
    }
}
