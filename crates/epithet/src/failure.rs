//! How the program says that something went wrong, and with which exit code.
//!
//! 0 success, 1 failure, 80 wrong command line: the codes that users of epithet 0.19 know.

use std::io::Write;
use std::process::ExitCode;

/// The exit code of a wrong command line.
const USAGE: u8 = 80;

/// Prints what clap has to say: help and version to stdout, a usage error to stderr.
pub(crate) fn usage(error: &clap::Error) -> ExitCode {
    // A closed stdout is no reason for another error.
    let _ = error.print();
    if error.use_stderr() {
        ExitCode::from(USAGE)
    } else {
        ExitCode::SUCCESS
    }
}

/// Prints an error with its causes: `epithet: error: <what>`, further lines indented below.
pub(crate) fn report(error: &anyhow::Error) -> ExitCode {
    let mut text = error.to_string();
    for cause in error.chain().skip(1) {
        let cause = cause.to_string();
        if !text.contains(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
    }
    let text = epithet_wire::display::sanitize_text(text.as_bytes()).replace('\n', "\n  ");
    let _ = writeln!(std::io::stderr(), "epithet: error: {}", text.trim_end());
    ExitCode::FAILURE
}
