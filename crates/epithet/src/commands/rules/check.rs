//! `epithet policy check`

use super::{count, excerpt, print, read};
use crate::cli::CheckOptions;
use crate::config;
use anyhow::bail;
use epithet_ca::ALLOWED_EXTENSIONS;
use epithet_policy::{CaLimits, Document, Findings, TokenKind};
use epithet_wire::limits::CERTIFICATE_TTL_MAX;
use std::fmt::Write as _;
use std::process::ExitCode;
use std::sync::Arc;

/// Reads a file of rules, and says everything that is wrong with it or looks so, each with its place.
pub(crate) fn check(options: &CheckOptions) -> anyhow::Result<ExitCode> {
    let text = read(&options.file)?;
    let file = options.file.display().to_string();
    let found = Findings::of(&file, &text, &ca_limits(options));
    print(&render(&found, &file, &text)?)?;
    let (errors, warnings) = (found.errors.len(), found.warnings.len());
    if errors > 0 {
        let more = if found.is_cut { " and perhaps more" } else { "" };
        bail!(
            "{file} cannot be used: {}{more}, {}",
            count(errors, "error"),
            count(warnings, "warning")
        );
    }
    let fails = options.strict && warnings > 0;
    Ok(match fails {
        true => ExitCode::FAILURE,
        false => ExitCode::SUCCESS,
    })
}

fn ca_limits(options: &CheckOptions) -> CaLimits {
    let extensions = ALLOWED_EXTENSIONS.iter().map(|name| (*name).to_owned());
    let principals = options.allow_principal.clone();
    CaLimits {
        max_ttl: options.max_ttl.unwrap_or(CERTIFICATE_TTL_MAX),
        extensions: extensions
            .chain(options.allow_extension.iter().cloned())
            .collect(),
        allows_principal: Arc::new(move |name| principals.iter().any(|pattern| pattern.matches(name))),
    }
}

/// Errors and warnings in the order in which they stand in the file, each with its line, and a last line that counts.
fn render(found: &Findings, file: &str, text: &str) -> Result<String, std::fmt::Error> {
    let errors = found
        .errors
        .iter()
        .map(|error| (error.place, "error", config::with_suggestion(&error.problem)));
    let warnings = found
        .warnings
        .iter()
        .map(|warning| (warning.place, "warning", warning.to_string()));
    let mut all: Vec<_> = errors.chain(warnings).collect();
    all.sort_by_key(|(place, ..)| place.unwrap_or_default());
    let mut page = String::new();
    for (place, kind, problem) in all {
        match place {
            Some((line, column)) => writeln!(page, "{file}:{line}:{column}: {kind}: {}", problem.trim_end())?,
            None => writeln!(page, "{file}: {kind}: {}", problem.trim_end())?,
        }
        page += &place
            .and_then(|place| excerpt::of(text, place))
            .unwrap_or_default();
    }
    if found.errors.is_empty() {
        let document = &found.document;
        writeln!(
            page,
            "{file}: {}, {}, {}, tokens by {}; {}",
            count(document.users.len(), "user"),
            count(document.groups.len(), "group"),
            count(document.hosts.len(), "host pattern"),
            token_kind(document),
            match found.warnings.len() {
                0 => "nothing wrong".to_owned(),
                several => count(several, "warning"),
            }
        )?;
    }
    Ok(page)
}

fn token_kind(document: &Document) -> String {
    match document.token_kind() {
        TokenKind::Oidc => match document.oidc.further.len() {
            0 => "oidc".to_owned(),
            further => format!("oidc ({} issuers)", further + 1),
        },
        TokenKind::Introspection => "introspection".to_owned(),
        TokenKind::Command => "command".to_owned(),
    }
}
