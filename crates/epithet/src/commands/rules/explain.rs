//! `epithet policy explain`

use super::{count, listed, print, rules_of};
use crate::cli::{ExplainOptions, Global};
use crate::config;
use epithet_oidc::clock::unix_now;
use epithet_policy::{Allowed, Decision, Explanation, Login, Part, Person, Question, Rules};
use epithet_wire::{Principal, format_duration};
use std::fmt::Write as _;
use std::process::ExitCode;

/// Says what the rules decide about one login, and what every rule had to do with it.
pub(crate) fn explain(global: &Global, options: &ExplainOptions) -> anyhow::Result<ExitCode> {
    let document = match &options.file {
        Some(file) => rules_of(file)?.0,
        None => config::load(global.config.as_deref())?.policy,
    };
    let rules = Rules::new(&document);
    let now = unix_now();
    let person = Person {
        identity: options.user.clone(),
        groups: options.group.clone(),
        login: Login {
            acr: options.acr.clone(),
            amr: options.amr.clone(),
            at: options.logged_in.map(|ago| now.saturating_sub(ago.as_secs())),
        },
    };
    let question = Question {
        person: &person,
        host: &options.host,
        user: &options.login,
        now,
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
    let principals: Vec<&str> = allowed.principals.iter().map(Principal::as_str).collect();
    if principals.len() > 1 {
        let principals = principals.join(", ");
        writeln!(
            page,
            "  principals  {principals} (the CA needs --allow-principal)"
        )?;
    }
    writeln!(page, "  extensions  {}", listed(terms.extensions.iter()))?;
    if !terms.critical_options.is_empty() {
        writeln!(page, "  options     {}", listed(terms.critical_options.iter()))?;
    }
    Ok(())
}
