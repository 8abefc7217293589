//! `epithet policy check`, `explain`, `test` and `replay`: what rules say, without a server.

mod check;
mod excerpt;
mod expected;
mod explain;
mod replay;

use anyhow::{Context, bail};
use epithet_policy::{Document, DocumentError};
use epithet_wire::display::{sanitize_line, sanitize_text};
use epithet_wire::limits::RULES_FILE_MAX;
use std::io::{Read, Write as _};
use std::path::Path;

pub(crate) use check::check;
pub(crate) use expected::test;
pub(crate) use explain::explain;
pub(crate) use replay::replay;

/// A file's text, if it is one and not far larger than rules can be.
fn read(file: &Path) -> anyhow::Result<String> {
    let shown = file.display();
    let cannot = || format!("cannot read {shown}");
    let opened = std::fs::File::open(file).with_context(cannot)?;
    if opened.metadata().with_context(cannot)?.is_dir() {
        bail!("{shown} is a directory; name the file in it");
    }
    let mut bytes = Vec::new();
    opened
        .take(RULES_FILE_MAX + 1)
        .read_to_end(&mut bytes)
        .with_context(cannot)?;
    if bytes.len() as u64 > RULES_FILE_MAX {
        bail!(
            "{shown} is larger than {} MiB, the most that is read of one file; is it the right one?",
            RULES_FILE_MAX >> 20
        );
    }
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let line = error.as_bytes()[..at]
            .iter()
            .filter(|byte| **byte == b'\n')
            .count()
            + 1;
        anyhow::anyhow!("{shown} is no text in UTF-8: see line {line}, byte {at} of the file")
    })
}

/// The rules of a file, and its text.
fn rules_of(file: &Path) -> anyhow::Result<(Document, String)> {
    let text = read(file)?;
    let document = Document::from_yaml(&file.display().to_string(), &text);
    Ok((document.map_err(|error| shown(&error, &text))?, text))
}

/// An error with the line that it is about.
fn shown(error: &DocumentError, text: &str) -> anyhow::Error {
    let problem = match other_kind(&error.problem) {
        Some(what) => format!("{}: {what}", error.file),
        None => crate::config::with_suggestion(&error.to_string()),
    };
    let excerpt = error.place.and_then(|place| excerpt::of(text, place));
    anyhow::anyhow!(
        "{}\n{}",
        problem.trim_end(),
        excerpt.unwrap_or_default().trim_end()
    )
}

/// What a file is that was taken for another kind, by the keys at its top.
fn other_kind(problem: &str) -> Option<&'static str> {
    let is_unknown = |keys: &[&str]| {
        let mut keys = keys.iter();
        keys.any(|key| problem.starts_with(&format!("unknown field `{key}`")))
    };
    let wants = |key: &str| problem.contains(&format!("expected one of {key}"));
    if wants("rules, decisions")
        && is_unknown(&["users", "groups", "defaults", "hosts", "oidc", "policy", "token"])
    {
        return Some(
            "these are rules; what is asked for is a table of expected decisions (epithet policy test --help)",
        );
    }
    if wants("users, groups") && is_unknown(&["rules", "decisions"]) {
        return Some(
            "this is a table of expected decisions; what is asked for are the rules that it is about",
        );
    }
    None
}

fn count(number: usize, what: &str) -> String {
    let s = if number == 1 { "" } else { "s" };
    format!("{number} {what}{s}")
}

/// Names and values for people: `a, b=c`, or `none`.
fn listed<'a>(options: impl Iterator<Item = (&'a String, &'a String)>) -> String {
    let shown = options.map(|(name, value)| match value.is_empty() {
        true => name.clone(),
        false => format!("{name}={value}"),
    });
    let shown: Vec<String> = shown.collect();
    match shown.is_empty() {
        true => "none".to_owned(),
        false => sanitize_line(&shown.join(", "), 2000),
    }
}

/// Prints a page. Somebody who has read enough of it (`| head`) is no reason to fail.
fn print(page: &str) -> anyhow::Result<()> {
    let page = sanitize_text(page.as_bytes());
    let mut stdout = std::io::stdout();
    match stdout.write_all(page.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error).context("cannot print"),
        _ => Ok(()),
    }
}
