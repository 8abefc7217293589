//! `epithet policy replay`

use super::{print, rules_of};
use crate::cli::ReplayOptions;
use anyhow::{Context, bail};
use epithet_policy::{Change, Kind, Replay, Rules, Times, Unknown};
use epithet_wire::display::sanitize_line;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{BufReader, stdin};
use std::path::Path;
use std::process::ExitCode;

/// Says which past decisions a file of rules would change.
pub(crate) fn replay(options: &ReplayOptions) -> anyhow::Result<ExitCode> {
    let (document, _) = rules_of(&options.file)?;
    let rules = Rules::new(&document);
    let is_piped = options.audit == Path::new("-");
    let log = match is_piped {
        true => "standard input".to_owned(),
        false => options.audit.display().to_string(),
    };
    let replay = match is_piped {
        true => Replay::of(&rules, stdin().lock()),
        false => File::open(&options.audit).and_then(|file| Replay::of(&rules, BufReader::new(file))),
    };
    let replay = replay.with_context(|| format!("cannot read {log}"))?;
    if replay.decisions + replay.without_rules == 0 && replay.unreadable > 0 {
        bail!("{log} is no audit log of a CA: none of its lines is one");
    }
    print(&render(&replay, &log, &options.file.display().to_string())?)?;
    let fails = replay.has_another_verdict() || options.strict && !replay.is_surely_the_same();
    Ok(match fails {
        true => ExitCode::FAILURE,
        false => ExitCode::SUCCESS,
    })
}

fn render(replay: &Replay, log: &str, file: &str) -> Result<String, std::fmt::Error> {
    let mut page = String::new();
    for (kind, title) in [
        (Kind::Allowed, "would be allowed"),
        (Kind::Denied, "would be denied"),
        (Kind::OtherTerms, "would be granted something else"),
        (
            Kind::OtherRule,
            "would be allowed by another rule, on the same terms",
        ),
        (Kind::OtherDenial, "would be denied by another rule"),
    ] {
        let mut changes: Vec<(&Change, &Times)> = replay
            .changes
            .iter()
            .filter(|(change, _)| change.kind == kind)
            .collect();
        if changes.is_empty() {
            continue;
        }
        // What happens most often first.
        changes.sort_by_key(|(_, times)| std::cmp::Reverse(times.count));
        writeln!(page, "{title}:")?;
        for (change, times) in changes {
            let groups = match change.groups.is_empty() {
                true => String::new(),
                false => format!(" ({})", change.groups.join(", ")),
            };
            let Change {
                identity, user, host, ..
            } = change;
            writeln!(page, "  {identity}{groups} as {user}@{host}")?;
            writeln!(page, "      was {}; {}", change.was, change.becomes)?;
            writeln!(page, "      {} times, last {}", times.count, times.last)?;
        }
    }
    let unknown: u64 = replay.unknown.values().sum();
    let changed = replay.decisions - replay.same - unknown;
    writeln!(
        page,
        "{log}: {} decisions asked again under {file}: {} the same, {changed} changed, {unknown} cannot be judged",
        replay.decisions, replay.same
    )?;
    let of = |what: Unknown| replay.unknown.get(&what).copied().unwrap_or_default();
    for (number, what) in [
        (replay.count(Kind::Allowed), "would be allowed"),
        (replay.count(Kind::Denied), "would be denied"),
        (replay.count(Kind::OtherTerms), "would be granted something else"),
        (
            replay.count(Kind::OtherRule),
            "would be allowed by another rule, on the same terms",
        ),
        (replay.count(Kind::OtherDenial), "would be denied by another rule"),
        (replay.not_kept, "changes more are not shown"),
        (
            of(Unknown::Login),
            "cannot be judged: a rule asks how they logged in, which these lines do not say",
        ),
        (
            of(Unknown::Groups),
            "cannot be judged: these lines do not have all groups",
        ),
        (
            replay.without_ttl,
            "are the same but for their ttl, which these lines do not say",
        ),
        (
            replay.without_rules,
            "lines are not about rules (tokens that were no good, outages, the CA's own refusals)",
        ),
        (replay.unreadable, "lines are no audit lines"),
    ] {
        if number > 0 {
            writeln!(page, "  {number} {what}")?;
        }
    }
    if !replay.unseen_groups.is_empty() {
        let groups: Vec<&str> = replay.unseen_groups.iter().map(String::as_str).collect();
        writeln!(
            page,
            "  groups of which no line tells, so that whoever is in them may be decided about otherwise: {}",
            sanitize_line(&groups.join(", "), 300)
        )?;
    }
    Ok(page)
}
