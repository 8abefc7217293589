//! `epithet policy replay`

use super::{print, rules_of};
use crate::cli::ReplayOptions;
use anyhow::{Context, bail};
use epithet_policy::{Change, Kind, Replay, Rules, Times};
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
    Ok(match replay.has_another_verdict() {
        true => ExitCode::FAILURE,
        false => ExitCode::SUCCESS,
    })
}

fn render(replay: &Replay, log: &str, file: &str) -> Result<String, std::fmt::Error> {
    let mut page = String::new();
    for (kind, title) in [
        (Kind::Allowed, "would be allowed"),
        (Kind::Denied, "would be denied"),
        (
            Kind::Depends,
            "would depend on how they logged in, which the log does not say",
        ),
        (Kind::OtherPrincipals, "would have other principals"),
        (Kind::OtherRule, "would be allowed on the terms of another rule"),
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
    let changed = replay.decisions - replay.same;
    writeln!(
        page,
        "{log}: {} decisions asked again under {file}: {} the same, {changed} changed",
        replay.decisions, replay.same
    )?;
    for (number, what) in [
        (replay.not_kept, "changes more are not shown"),
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
    Ok(page)
}
