//! The broker: whether it runs, is this version, can be reached by its owner only, and has room.

use super::Patient;
use super::check::Check;
use super::here::is_private;
use crate::cli::BrokerChoice;
use crate::commands::ask_broker::{converse, runtime_dir};
use crate::commands::{VERSION, profile_flag, service};
use crate::terminal::short_path;
use epithet_broker::{RunDir, agents_at_once, can_start};
use epithet_wire::broker::{Empty, Inspection, Request};
use epithet_wire::limits::AGENTS_MAX;
use epithet_wire::{HostPattern, ProfileName};
use std::path::PathBuf;

/// How the broker says that it does not know yet which hosts are handled.
pub(super) const UNKNOWN: &str = "unknown";

/// Whether the profile's broker answers, and what it says.
pub(super) fn running(patient: &Patient) -> (Option<Inspection>, Check) {
    let name = "broker";
    let profile = &patient.profile;
    let flag = profile_flag(profile);
    // Where a service manager listens, being asked starts it, as it does when ssh asks.
    let is_waited_for = || RunDir::is_waited_for(&patient.home, runtime_dir().as_deref(), profile);
    if !RunDir::is_claimed(&patient.home, profile) && !is_waited_for() {
        if let Some(check) = cannot_start(patient) {
            return (None, check);
        }
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
    let restart = restart(profile);
    match inspect(profile) {
        Err(error) => {
            let process = match RunDir::holder(&patient.home, profile) {
                Some(holder) => format!(" (process {})", holder.process),
                None => String::new(),
            };
            let said = format!("the broker is there{process} and cannot be used: {error:#}");
            (None, Check::broken(name, said, restart))
        }
        Ok(inspection) if inspection.version != VERSION => {
            let said = format!(
                "it is version {}, and this program is {VERSION}",
                inspection.version
            );
            (Some(inspection), Check::warning(name, said, restart))
        }
        Ok(inspection) => {
            let said = format!(
                "process {} serves profile \"{}\", {}",
                inspection.pid,
                inspection.profile,
                agents(inspection.agents.len())
            );
            (Some(inspection), Check::ok(name, said))
        }
    }
}

/// Why a broker could not start here, if that is so.
fn cannot_start(patient: &Patient) -> Option<Check> {
    let program = service::stable_path().ok()?;
    let can = can_start(
        &patient.home,
        runtime_dir().as_deref(),
        &patient.profile,
        &program,
    );
    let problem = can.err()?.to_string();
    let (said, remedy) = problem
        .rsplit_once("; ")
        .unwrap_or((&problem, "use another home directory"));
    Some(Check::broken(
        "broker",
        format!("the broker cannot start here: {said}"),
        remedy,
    ))
}

pub(super) fn inspect(profile: &ProfileName) -> anyhow::Result<Inspection> {
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

/// So many agents, in words.
fn agents(count: usize) -> String {
    match count {
        0 => "no agents yet".to_owned(),
        1 => "1 agent".to_owned(),
        count => format!("{count} agents"),
    }
}

/// The commands that put another broker in the place of this one.
pub(super) fn restart(profile: &ProfileName) -> String {
    let flag = profile_flag(profile);
    format!("epithet agent stop{flag} && epithet agent --background{flag}")
}

/// Whether everything on the way to the sockets is for its owner only.
pub(super) fn run_directory(patient: &Patient, inspection: Option<&Inspection>) -> Check {
    let name = "run directory";
    let dir = RunDir::path_of(&patient.home, &patient.profile);
    // Where the broker says that its sockets are: they are elsewhere when the home's path is long.
    let (socket, agents) = match inspection {
        Some(inspection) => (
            PathBuf::from(&inspection.socket_path),
            PathBuf::from(&inspection.agent_socket_dir),
        ),
        None => (dir.join("broker.sock"), dir.join("agent")),
    };
    if inspection.is_some() && !agents.is_dir() {
        return Check::broken(
            name,
            format!("{} is not there, so no ssh finds an agent", short_path(&agents)),
            restart(&patient.profile),
        );
    }
    let paths: Vec<PathBuf> = [
        patient.home.join(".epithet/run"),
        dir.clone(),
        agents,
        socket,
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
    let room = agents_at_once(limit);
    let agents = inspection.agents.len();
    if agents >= room {
        return Check::broken(
            name,
            format!(
                "the broker may open {limit} files only, which is enough for {room} connections at once, and it has {agents}"
            ),
            "allow it more: LimitNOFILE=8192 in its unit, or `ulimit -n 8192` in the shell that starts it; then restart it",
        );
    }
    match room < AGENTS_MAX {
        true => Check::ok(
            name,
            format!("the broker may open {limit}: room for {room} connections at once, and it has {agents}"),
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
        UNKNOWN => {
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
        let Some(crossing) = crossing(&inspection.hosts.patterns, &theirs.hosts.patterns) else {
            continue;
        };
        let ours = &patient.profile;
        let first = if ours.as_str() < other.as_str() {
            ours
        } else {
            &other
        };
        return Check::warning(
            name,
            format!(
                "{} of profile \"{ours}\" and {} of profile \"{other}\" both cover {}; ssh asks \"{first}\", the first by name",
                crossing.ours, crossing.theirs, crossing.host
            ),
            "give each profile hosts of its own: `match:` in ~/.epithet/config.yaml, or --match",
        );
    }
    let said = match inspection.hosts.source.as_str() {
        tag if tag.starts_with("tag ") => format!("those with the {tag}"),
        from => format!("{} (from the {from})", inspection.hosts.patterns.join(", ")),
    };
    Check::ok(name, said)
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

/// Two patterns that cover the same host.
#[derive(Debug, PartialEq, Eq)]
struct Crossing<'a> {
    ours: &'a str,
    theirs: &'a str,
    host: String,
}

/// The first pattern of ours that crosses one of theirs.
fn crossing<'a>(ours: &'a [String], theirs: &'a [String]) -> Option<Crossing<'a>> {
    let parse = |texts: &'a [String]| -> Vec<(&'a str, HostPattern)> {
        let parsed = texts
            .iter()
            .map(|text| Some((text.as_str(), HostPattern::parse(text).ok()?)));
        parsed.flatten().collect()
    };
    let theirs = parse(theirs);
    parse(ours).into_iter().find_map(|(ours, pattern)| {
        theirs.iter().find_map(|(theirs, other)| {
            pattern
                .common_host(other)
                .map(|host| Crossing { ours, theirs, host })
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_that_cross_are_found_with_the_two_patterns_and_a_host() {
        let list = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        let cases = [
            (
                &["*.example.com"][..],
                &["db.example.com"][..],
                Some("db.example.com"),
            ),
            (&["db.example.com"], &["*.example.com"], Some("db.example.com")),
            (&["*.a.com", "db.*"], &["*.c.com"], Some("db.c.com")),
            (&["*.a.com", "b"], &["*.c.com", "b"], Some("b")),
            (&["web-[0-4]"], &["{db,web}-[4-9]"], Some("web-4")),
            (&["*.a.com"], &["*.c.com"], None),
            (&[], &["*"], None),
        ];
        for (ours, theirs, host) in cases {
            let (ours, theirs) = (list(ours), list(theirs));
            let found = crossing(&ours, &theirs);
            assert_eq!(
                found.map(|found| found.host).as_deref(),
                host,
                "{ours:?} {theirs:?}"
            );
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
