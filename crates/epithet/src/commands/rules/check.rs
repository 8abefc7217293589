//! `epithet policy check`

use super::{count, excerpt, print, rules_of};
use crate::cli::CheckOptions;
use anyhow::bail;
use epithet_ca::ALLOWED_EXTENSIONS;
use epithet_policy::{CaLimits, Document, Policy, PolicyError, TokenKind, Warning};
use epithet_wire::limits::CERTIFICATE_TTL_MAX;
use std::fmt::Write as _;
use std::process::ExitCode;
use std::sync::Arc;

/// Reads a file of rules; what is wrong is an error with its place, what looks so a warning.
pub(crate) fn check(options: &CheckOptions) -> anyhow::Result<ExitCode> {
    let (document, text) = rules_of(&options.file)?;
    let file = options.file.display();
    let extensions = ALLOWED_EXTENSIONS.iter().map(|name| (*name).to_owned());
    let limits = CaLimits {
        max_ttl: options.max_ttl.unwrap_or(CERTIFICATE_TTL_MAX),
        extensions: extensions
            .chain(options.allow_extension.iter().cloned())
            .collect(),
    };
    let mut warnings = document.warnings(&text, &limits);
    match Policy::new(&document, Arc::default()) {
        Ok(_) => {}
        // A flag or another file may have it.
        Err(missing @ (PolicyError::NoIssuer | PolicyError::NoClientId)) => warnings.push(Warning {
            place: None,
            problem: format!("not in this file: {missing}"),
        }),
        Err(error) => bail!("{file}: {error}"),
    }
    let mut page = String::new();
    for warning in &warnings {
        match warning.place {
            Some((line, column)) => writeln!(page, "{file}:{line}:{column}: warning: {warning}")?,
            None => writeln!(page, "{file}: warning: {warning}")?,
        }
        page += &warning
            .place
            .and_then(|place| excerpt::of(&text, place))
            .unwrap_or_default();
    }
    writeln!(
        page,
        "{file}: {}, {}, {}, tokens by {}; {}",
        count(document.users.len(), "user"),
        count(document.groups.len(), "group"),
        count(document.hosts.len(), "host pattern"),
        token_kind(&document),
        match warnings.len() {
            0 => "nothing wrong".to_owned(),
            several => count(several, "warning"),
        }
    )?;
    print(&page)?;
    let fails = options.strict && !warnings.is_empty();
    Ok(match fails {
        true => ExitCode::FAILURE,
        false => ExitCode::SUCCESS,
    })
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
