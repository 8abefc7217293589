//! The broker: whether it runs, is this version, can be reached by its owner only, and has room.

use super::Patient;
use super::check::Check;
use super::here::is_private;
use crate::cli::BrokerChoice;
use crate::commands::ask_broker::converse;
use crate::commands::{VERSION, service};
use crate::terminal::short_path;
use epithet_broker::RunDir;
use epithet_wire::broker::{Empty, Inspection, Request};
use epithet_wire::limits::AGENTS_MAX;
use epithet_wire::{HostPattern, ProfileName};
use std::path::PathBuf;

/// Descriptors that a broker needs beside its agents.
const OTHER_FILES: usize = 256;

/// Whether the profile's broker answers, and what it says.
pub(super) fn running(patient: &Patient) -> (Option<Inspection>, Check) {
    let name = "broker";
    let profile = &patient.profile;
    let flag = flag(profile);
    if !RunDir::is_claimed(&patient.home, profile) {
        let installed = service::is_installed(profile).unwrap_or(false);
        let remedy = match installed {
            true if cfg!(target_os = "linux") => format!("epithet agent install --enable{flag}"),
            _ => format!("epithet agent --background{flag}"),
        };
        return (
            None,
            Check::broken(
                name,
                "the broker is not running, so ssh has nobody to ask",
                remedy,
            ),
        );
    }
    let restart = format!("epithet agent stop{flag} && epithet agent --background{flag}");
    match inspect(profile) {
        Err(error) => (None, Check::broken(name, format!("{error:#}"), restart)),
        Ok(inspection) if inspection.version != VERSION => {
            let said = format!(
                "it is version {}, and this program is {VERSION}",
                inspection.version
            );
            (Some(inspection), Check::warning(name, said, restart))
        }
        Ok(inspection) => {
            let said = format!(
                "process {} serves profile \"{}\", {} agents",
                inspection.pid,
                inspection.profile,
                inspection.agents.len()
            );
            (Some(inspection), Check::ok(name, said))
        }
    }
}

fn inspect(profile: &ProfileName) -> anyhow::Result<Inspection> {
    let choice = BrokerChoice {
        broker: None,
        name: Some(profile.clone()),
    };
    let request = Request {
        inspect: Some(Empty {}),
        ..Request::default()
    };
    let reply = converse(&choice, &request)?;
    Ok(*reply.inspect.unwrap_or_default())
}

fn flag(profile: &ProfileName) -> String {
    match *profile == ProfileName::default() {
        true => String::new(),
        false => format!(" --name {profile}"),
    }
}

/// Whether everything on the way to the sockets is for its owner only.
pub(super) fn run_directory(patient: &Patient) -> Check {
    let name = "run directory";
    let dir = RunDir::path_of(&patient.home, &patient.profile);
    let paths: Vec<PathBuf> = [
        patient.home.join(".epithet/run"),
        dir.clone(),
        dir.join("agent"),
        dir.join("broker.sock"),
        dir.join("ssh-config.conf"),
    ]
    .into_iter()
    .filter(|path| path.symlink_metadata().is_ok())
    .collect();
    for path in &paths {
        match is_private(path) {
            Ok(true) => {}
            Ok(false) => {
                let shown = short_path(path);
                return Check::broken(
                    name,
                    format!("{shown} is open to others, or belongs to somebody else"),
                    format!("chmod go-rwx {shown}    (if it is yours; else remove it)"),
                );
            }
            Err(error) => {
                return Check::broken(name, format!("{error:#}"), format!("ls -ld {}", path.display()));
            }
        }
    }
    match paths.is_empty() {
        true => Check::ok(name, format!("{} will be made by the broker", short_path(&dir))),
        false => Check::ok(name, format!("{} is for you only", short_path(&dir))),
    }
}

/// Whether the broker may open as many files as it may have agents.
pub(super) fn open_files(inspection: &Inspection) -> Check {
    let name = "open files";
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", inspection.pid)).unwrap_or_default();
    let Some(limit) = open_file_limit(&limits) else {
        return Check::ok(name, "the broker raises its limit as far as it may");
    };
    let room = limit.saturating_sub(OTHER_FILES);
    if inspection.agents.len() >= room {
        return Check::broken(
            name,
            format!(
                "the broker may open {limit} files, and has {} agents",
                inspection.agents.len()
            ),
            "ulimit -Hn 8192 in the shell that starts it, or LimitNOFILE=8192 in its unit",
        );
    }
    match room < AGENTS_MAX {
        true => Check::ok(
            name,
            format!("the broker may open {limit}: room for {room} connections at once"),
        ),
        false => Check::ok(name, format!("the broker may open {limit}")),
    }
}

/// The soft limit in Linux's `/proc/PID/limits`; the broker has raised it to the hard one.
fn open_file_limit(limits: &str) -> Option<usize> {
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))?;
    match line.split_whitespace().next()? {
        "unlimited" => Some(usize::MAX),
        number => number.parse().ok(),
    }
}

/// Which hosts are handled, and whether another profile handles them as well.
pub(super) fn hosts(patient: &Patient, inspection: &Inspection) -> Check {
    let name = "hosts";
    match inspection.hosts.source.as_str() {
        "unknown" => {
            return Check::broken(
                name,
                "the CA has not said yet which hosts are its own, so none are handled",
                "epithet inspect    (shows what the CA answers), or name them with --match",
            );
        }
        "everything" => {
            return Check::warning(
                name,
                "nobody says which hosts are handled, so the CA is asked about every host you connect to",
                "name yours: `match: [\"*.example.com\"]` under `agent:` in ~/.epithet/config.yaml",
            );
        }
        _ => {}
    }
    for other in other_profiles(patient) {
        let Ok(theirs) = inspect(&other) else { continue };
        if let Some((pattern, host)) = overlap(&inspection.hosts.patterns, &theirs.hosts.patterns) {
            return Check::warning(
                name,
                format!(
                    "{host} is handled by profile \"{}\" and by \"{other}\" ({pattern}); ssh uses the first by name",
                    patient.profile
                ),
                "give each profile hosts of its own with --match",
            );
        }
    }
    let from = &inspection.hosts.source;
    Check::ok(
        name,
        format!("{} (from the {from})", inspection.hosts.patterns.join(", ")),
    )
}

/// The other profiles whose brokers live.
fn other_profiles(patient: &Patient) -> Vec<ProfileName> {
    let entries = std::fs::read_dir(patient.home.join(".epithet/run"));
    let names = entries.into_iter().flatten().flatten();
    let profiles = names.filter_map(|entry| ProfileName::parse(entry.file_name().to_str()?).ok());
    let mut others: Vec<_> = profiles
        .filter(|profile| *profile != patient.profile && RunDir::is_claimed(&patient.home, profile))
        .collect();
    others.sort_by(|a, b| a.as_str().cmp(b.as_str()));
    others
}

/// A host that a pattern of each list covers: the other's pattern, and the host. It tries a host of each pattern, so that
/// it finds one list within the other, and not every way in which two patterns can cross.
fn overlap(ours: &[String], theirs: &[String]) -> Option<(String, String)> {
    let covers = |patterns: &[String], host: &str| {
        let parsed = patterns.iter().filter_map(|text| HostPattern::parse(text).ok());
        parsed.into_iter().any(|pattern| pattern.matches(host))
    };
    for pattern in theirs {
        for host in [example(pattern), pattern.clone()] {
            if covers(ours, &host) && covers(theirs, &host) {
                return Some((pattern.clone(), host));
            }
        }
    }
    ours.iter()
        .map(|pattern| example(pattern))
        .find(|host| covers(theirs, host))
        .map(|host| (host.clone(), host))
}

/// A host that a pattern covers, where that is plain to see.
pub(super) fn example(pattern: &str) -> String {
    pattern.replace('*', "host").replace('?', "x")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_within_another_is_found_from_both_sides() {
        let list = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        let cases = [
            (&["*.example.com"][..], &["db.example.com"][..], true),
            (&["db.example.com"], &["*.example.com"], true),
            (&["*.example.com"], &["*.example.com"], true),
            (&["*.a.com", "b"], &["*.c.com", "b"], true),
            (&["*.a.com"], &["*.c.com"], false),
            (&[], &["*"], false),
        ];
        for (ours, theirs, overlaps) in cases {
            let found = overlap(&list(ours), &list(theirs));
            assert_eq!(found.is_some(), overlaps, "{ours:?} {theirs:?} {found:?}");
        }
    }

    #[test]
    fn the_limit_of_open_files_is_read_as_linux_writes_it() {
        let text = "Limit                     Soft Limit           Hard Limit           Units     \n\
                    Max open files            1024                 524288               files     \n";
        assert_eq!(open_file_limit(text), Some(1024));
        assert_eq!(
            open_file_limit("Max open files            unlimited            unlimited            files"),
            Some(usize::MAX)
        );
        assert_eq!(open_file_limit(""), None);
    }
}
