//! `epithet policy check` and `epithet policy explain`: what rules say, without a server.

use crate::cli::{CheckOptions, ExplainOptions, Global};
use crate::config;
use anyhow::{Context, bail};
use epithet_policy::{
    Allowed, Decision, Document, Explanation, Part, Person, Policy, PolicyError, Question, Rules, TokenKind,
};
use epithet_wire::display::{sanitize_line, sanitize_text};
use epithet_wire::format_duration;
use epithet_wire::limits::CERTIFICATE_TTL_MAX;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

/// Reads a file of rules; what is wrong is an error with its place, what looks so a warning.
pub(crate) fn check(options: &CheckOptions) -> anyhow::Result<ExitCode> {
    let document = read(&options.file)?;
    let file = options.file.display();
    let mut warnings = document.warnings(options.max_ttl.unwrap_or(CERTIFICATE_TTL_MAX));
    match Policy::new(&document, Arc::default()) {
        Ok(_) => {}
        // A flag or another file may have it.
        Err(missing @ (PolicyError::NoIssuer | PolicyError::NoClientId)) => {
            warnings.push(format!("not in this file: {missing}"));
        }
        Err(error) => bail!("{file}: {error}"),
    }
    let mut page = String::new();
    for warning in &warnings {
        writeln!(page, "{file}: warning: {warning}")?;
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
    Ok(if fails {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

/// Says what the rules decide about one login, and what every rule had to do with it.
pub(crate) fn explain(global: &Global, options: &ExplainOptions) -> anyhow::Result<ExitCode> {
    let document = match &options.file {
        Some(file) => read(file)?,
        None => config::load(global.config.as_deref())?.policy,
    };
    let rules = Rules::new(&document);
    let person = Person {
        identity: options.user.clone(),
        groups: options.group.clone(),
        ..Person::default()
    };
    let question = Question {
        person: &person,
        host: &options.host,
        user: &options.login,
        now: 0,
    };
    let explanation = rules.explain(&question);
    let login = format!("{} as {}@{}", person.identity, options.login, options.host);
    print(&render(&explanation, &login)?)?;
    Ok(match explanation.decision {
        Decision::Allowed(_) => ExitCode::SUCCESS,
        Decision::Denied(_) => ExitCode::FAILURE,
    })
}

fn render(explanation: &Explanation<'_>, login: &str) -> Result<String, std::fmt::Error> {
    let mut page = String::new();
    match &explanation.decision {
        Decision::Allowed(allowed) => {
            writeln!(page, "allowed: {login}")?;
            terms(&mut page, allowed)?;
        }
        Decision::Denied(denial) => {
            writeln!(page, "denied: {login}")?;
            writeln!(page, "  why         {denial}")?;
        }
    }
    let tags = match explanation.tags.is_empty() {
        true => "none".to_owned(),
        false => explanation.tags.join(", "),
    };
    writeln!(page, "  tags        {tags}")?;
    if explanation.allowed_by_default {
        writeln!(page, "  defaults    allow it on every host that has a rule")?;
    }
    let (others, covering): (Vec<_>, Vec<_>) = explanation
        .rules
        .iter()
        .partition(|(_, part)| *part == Part::OtherHosts);
    writeln!(page, "rules, the most precise first:")?;
    let width = covering
        .iter()
        .map(|(pattern, _)| pattern.as_str().len())
        .max()
        .unwrap_or(0);
    for (pattern, part) in covering {
        writeln!(page, "  {:width$}  {part}", pattern.as_str())?;
    }
    if !others.is_empty() {
        writeln!(page, "  {} for other hosts", count(others.len(), "rule"))?;
    }
    Ok(page)
}

fn terms(page: &mut String, allowed: &Allowed<'_>) -> std::fmt::Result {
    let terms = allowed.terms;
    writeln!(page, "  rule        {}", allowed.rule)?;
    writeln!(
        page,
        "  life        {}, unless the token or the CA's own limit ends it earlier",
        format_duration(terms.expiration)
    )?;
    writeln!(page, "  extensions  {}", options_line(&terms.extensions))?;
    if !terms.critical_options.is_empty() {
        writeln!(page, "  options     {}", options_line(&terms.critical_options))?;
    }
    Ok(())
}

fn options_line(options: &BTreeMap<String, String>) -> String {
    let shown = options.iter().map(|(name, value)| match value.is_empty() {
        true => name.clone(),
        false => format!("{name}={value}"),
    });
    let shown: Vec<String> = shown.collect();
    match shown.is_empty() {
        true => "none".to_owned(),
        false => sanitize_line(&shown.join(", "), 2000),
    }
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

fn count(number: usize, what: &str) -> String {
    let s = if number == 1 { "" } else { "s" };
    format!("{number} {what}{s}")
}

fn read(file: &Path) -> anyhow::Result<Document> {
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    Ok(Document::from_yaml(&file.display().to_string(), &text)?)
}

fn print(page: &str) -> anyhow::Result<()> {
    let page = sanitize_text(page.as_bytes());
    std::io::stdout()
        .write_all(page.as_bytes())
        .context("cannot print")
}
