//! How the program says that something went wrong, and with which exit code.
//!
//! 0 success, 1 failure, 80 wrong command line: the codes that users of epithet 0.19 know.

use crate::cli::FromVariable;
use std::io::Write;
use std::process::ExitCode;

/// The exit code of a wrong command line.
const USAGE: u8 = 80;

/// Prints what clap has to say: help and version to stdout, a usage error to stderr.
pub(crate) fn usage(error: clap::Error) -> ExitCode {
    let error = with_the_nearest(error);
    let plain = error.render().to_string();
    // A closed stdout is no reason for another error.
    match without_credentials(&plain) {
        Some(safe) => {
            let _ = std::io::stderr().write_all(safe.as_bytes());
        }
        None => {
            let _ = error.print();
        }
    }
    if error.use_stderr() {
        ExitCode::from(USAGE)
    } else {
        ExitCode::SUCCESS
    }
}

/// Of several commands that one may have meant, the nearest: clap names them in any order, hidden ones too.
fn with_the_nearest(mut error: clap::Error) -> clap::Error {
    use clap::error::{ContextKind, ContextValue};
    let typed = match error.get(ContextKind::InvalidSubcommand) {
        Some(ContextValue::String(typed)) => typed.clone(),
        _ => return error,
    };
    if let Some(ContextValue::Strings(names)) = error.get(ContextKind::SuggestedSubcommand) {
        let nearest = names
            .iter()
            .min_by_key(|name| strsim::damerau_levenshtein(&typed, name));
        if let Some(nearest) = nearest.cloned() {
            error.insert(
                ContextKind::SuggestedSubcommand,
                ContextValue::Strings(vec![nearest]),
            );
        }
    }
    error
}

/// The text with user names and passwords of URLs taken out; `None` when there are none. A refused value is quoted, and
/// the journal keeps what a service says.
fn without_credentials(text: &str) -> Option<String> {
    let mut safe = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + "://".len());
        safe.push_str(before);
        let end = after
            .find(|c: char| c == '/' || c == '\'' || c.is_whitespace())
            .unwrap_or(after.len());
        rest = match after[..end].rfind('@') {
            Some(sign) => {
                safe.push_str("[redacted]");
                &after[sign..]
            }
            None => after,
        };
    }
    safe.push_str(rest);
    (safe != text).then_some(safe)
}

/// Prints an error with its causes: `epithet: error: <what>`, further lines indented below. A flag that it names and that was not
/// typed is said to be from the environment.
pub(crate) fn report(error: &anyhow::Error, from_environment: &[FromVariable]) -> ExitCode {
    let mut text = error.to_string();
    for cause in error.chain().skip(1) {
        let cause = cause.to_string();
        if !text.contains(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
    }
    for FromVariable { flag, variable } in from_environment {
        if names(&text, flag) {
            text = format!("{}\n{flag} is from the environment: {variable}", text.trim_end());
        }
    }
    let text = epithet_wire::display::sanitize_text(text.as_bytes()).replace('\n', "\n  ");
    let _ = writeln!(std::io::stderr(), "epithet: error: {}", text.trim_end());
    ExitCode::FAILURE
}

/// Whether the text names a flag, and not only one that begins so.
fn names(text: &str, flag: &str) -> bool {
    let goes_on = |c: char| c == '-' || c.is_ascii_alphanumeric();
    text.match_indices(flag)
        .any(|(at, _)| !text[at + flag.len()..].starts_with(goes_on))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flag_is_named_by_all_of_its_name() {
        for (text, is_named) in [
            ("--max-ttl: too long", true),
            ("give --max-ttl", true),
            ("--max-ttl-of-all and --max-ttl", true),
            ("--max-ttl-of-all", false),
            ("--max-ttls", false),
            ("", false),
        ] {
            assert_eq!(names(text, "--max-ttl"), is_named, "{text}");
        }
    }

    #[test]
    fn a_quoted_url_loses_its_password_and_nothing_else() {
        let cases = [
            (
                "invalid value 'https://me:pw@ca/x' for",
                Some("invalid value 'https://[redacted]@ca/x' for"),
            ),
            (
                "https://token@ca https://ca",
                Some("https://[redacted]@ca https://ca"),
            ),
            ("a://u:p@s@h", Some("a://[redacted]@h")),
            ("https://ca.example.com/a@b and me@example.com", None),
            ("nothing at all", None),
        ];
        for (text, safe) in cases {
            assert_eq!(without_credentials(text).as_deref(), safe, "{text}");
        }
    }
}
