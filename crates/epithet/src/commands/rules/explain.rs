//! `epithet policy explain`

use super::{count, listed, print, rules_of};
use crate::cli::{ExplainOptions, Global};
use crate::config;
use epithet_oidc::clock::unix_now;
use epithet_policy::{
    Allowed, Decision, Denial, Document, Explanation, Login, Part, Person, Question, Rules,
};
use epithet_wire::{Principal, format_duration};
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::process::ExitCode;

/// Users that are named to whoever may not be another one.
const HINTED: usize = 8;

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
        ..Person::default()
    };
    let question = Question {
        person: &person,
        host: &options.host,
        user: &options.login,
        now,
    };
    let explanation = rules.explain(&question);
    let login = format!("{} as {}@{}", person.identity, options.login, options.host);
    let hints = hints(&document, &rules, &question, &explanation);
    print(&render(&explanation, &login, &hints)?)?;
    Ok(match explanation.decision {
        Decision::Allowed(_) => ExitCode::SUCCESS,
        Decision::Denied(_) => ExitCode::FAILURE,
    })
}

/// What somebody may have meant whose login is denied.
fn hints(
    document: &Document,
    rules: &Rules,
    question: &Question<'_>,
    explanation: &Explanation<'_>,
) -> Vec<String> {
    let mut hints = Vec::new();
    let person = question.person;
    match explanation.decision {
        _ if document.users.is_empty() && document.groups.is_empty() && document.hosts.is_empty() => {
            hints
                .push("there are no users, groups or hosts in these rules; is it the right file?".to_owned());
        }
        Decision::Denied(Denial::UnknownUser) => {
            let near = |known: &&String| {
                let distance =
                    strsim::damerau_levenshtein(&person.identity.to_lowercase(), &known.to_lowercase());
                let local = known
                    .split_once('@')
                    .is_some_and(|(local, _)| local == person.identity);
                (local || distance <= 2.max(person.identity.len() / 5)).then_some((!local, distance))
            };
            let nearest = document
                .users
                .keys()
                .filter_map(|known| Some((near(&known)?, known)))
                .min();
            if let Some((_, known)) = nearest {
                hints.push(format!("users has {known}; names are compared byte for byte"));
            }
            if person.groups.is_empty() && !document.groups.is_empty() {
                hints.push("groups that the token would list are given with --group".to_owned());
            }
            let unknown = person
                .groups
                .iter()
                .filter(|group| !document.groups.contains_key(*group));
            hints.extend(unknown.map(|group| format!("groups has no {group}")));
        }
        Decision::Denied(Denial::NotAllowed) => {
            let all = document.hosts.values().chain([&document.defaults]);
            let users: BTreeSet<&Principal> = all.flat_map(|rule| rule.allow.keys()).collect();
            let open = users.into_iter().filter(|user| {
                matches!(
                    rules.evaluate(&Question { user, ..*question }),
                    Decision::Allowed(_)
                )
            });
            let open: Vec<&str> = open.map(Principal::as_str).take(HINTED).collect();
            if !open.is_empty() {
                hints.push(format!("on this host they may be: {}", open.join(", ")));
            }
        }
        _ => {}
    }
    hints
}

fn render(explanation: &Explanation<'_>, login: &str, hints: &[String]) -> Result<String, std::fmt::Error> {
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
    for hint in hints {
        writeln!(page, "  note        {hint}")?;
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
    if explanation.rules.is_empty() {
        writeln!(page, "  none")?;
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
