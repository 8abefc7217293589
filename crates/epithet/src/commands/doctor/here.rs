//! This machine without its broker: the configuration, ssh, the `Include`, the plugin.

use super::Patient;
use super::check::Check;
use super::ssh::Ssh;
use crate::cli::{DoctorOptions, Global, StartOptions};
use crate::commands::profile_flag;
use crate::config::{self, AgentSection, Config};
use crate::ssh_config_file::{Standing, account_home, standing};
use crate::terminal::short_path;
use anyhow::Context;
use epithet_broker::{RunDir, SshConfig};
use epithet_plugin::check::{CheckOptions, Verdict, check};
use epithet_plugin::{PluginCommand, progress_channel};
use epithet_ssh::openssh_version::OpenSshVersion;
use epithet_wire::ProfileName;
use epithet_wire::broker::Inspection;
use epithet_wire::display::sanitize_line;
use std::io::{IsTerminal, Write};
use tokio_util::sync::CancellationToken;

/// Reads the files; with broken ones it goes on as if there were none.
pub(super) fn configuration(global: &Global, options: &DoctorOptions) -> anyhow::Result<(Patient, Check)> {
    let name = "configuration";
    let home = config::home()?;
    let loaded = config::load(global.config.as_deref());
    let profile = options.name.clone();
    let running = RunDir::is_claimed(&home, &profile.clone().unwrap_or_default());
    let (mut config, section, check) = match loaded {
        Err(error) => {
            let said = format!("{error:#}");
            let remedy = remedy_in(&said).unwrap_or("correct the line that is named");
            let check = Check::broken(name, said.clone(), remedy);
            (Config::default(), AgentSection::default(), check)
        }
        Ok(mut config) => {
            let section = config.take_agent(profile.as_ref());
            let cas = section.ca_url.as_ref().map_or(0, |cas| cas.0.len());
            let check = match (cas, running) {
                (0, false) => Check::broken(
                    name,
                    "no file names a CA, and no broker is running: nothing is set up yet",
                    format!(
                        "epithet setup{}",
                        profile_flag(&profile.clone().unwrap_or_default())
                    ),
                ),
                (0, true) if reads_files(&home, &profile.clone().unwrap_or_default()) => Check::warning(
                    name,
                    "no file names a CA any more: the broker goes on with what it has read, and would not start again",
                    format!(
                        "epithet setup{}",
                        profile_flag(&profile.clone().unwrap_or_default())
                    ),
                ),
                (0, true) => Check::ok(name, "no file names a CA; the broker was told by flags"),
                _ if running && let Some(problem) = would_not_start(global, profile.clone()) => {
                    Check::warning(
                        name,
                        format!(
                            "the broker goes on with what it has read, and would not start again: {problem}"
                        ),
                        "correct the setting that is named",
                    )
                }
                _ if !running && let Some(problem) = would_not_start(global, profile.clone()) => {
                    Check::broken(name, problem, "correct the setting that is named")
                }
                (1, _) => Check::ok(name, "the files can be read, and name a CA"),
                (count, _) => Check::ok(name, format!("the files can be read, and name {count} CAs")),
            };
            (config, section, check)
        }
    };
    let roots = global.tls_ca_cert.clone().or_else(|| config.tls_ca_cert.clone());
    let account = account_home();
    let ssh = match &options.ssh_config {
        Some(file) => Ssh {
            file: std::path::absolute(file)?,
            named: true,
        },
        None => Ssh {
            file: home.join(".ssh/config"),
            named: account.is_some_and(|account| account != home),
        },
    };
    let patient = Patient {
        profile: profile.or_else(|| section.name.clone()).unwrap_or_default(),
        roots: roots
            .map(|path| crate::logging::home_expanded(&path))
            .transpose()?,
        home,
        agent: section,
        issuer: config.auth.oidc.issuer.take(),
        ssh,
    };
    Ok((patient, check))
}

/// Whether the broker that lives was told its CA by a file, as far as this system says how a process was started.
fn reads_files(home: &std::path::Path, profile: &ProfileName) -> bool {
    let Some(holder) = RunDir::holder(home, profile) else {
        return false;
    };
    let has = |file: &str, told: fn(&[u8]) -> bool| {
        let words = std::fs::read(format!("/proc/{}/{file}", holder.process)).ok()?;
        Some(words.split(|byte| *byte == 0).any(told))
    };
    let is_flag =
        |word: &[u8]| word.starts_with(b"--ca-url") || (word.starts_with(b"-c") && !word.starts_with(b"--"));
    has("cmdline", is_flag) == Some(false)
        && has("environ", |word| word.starts_with(b"EPITHET_CA_URL=")) == Some(false)
}

/// Why a broker would not start with the files as they are.
fn would_not_start(global: &Global, profile: Option<ProfileName>) -> Option<String> {
    let options = StartOptions {
        name: profile,
        ..StartOptions::default()
    };
    let loaded = config::load(global.config.as_deref()).ok()?;
    let error = crate::commands::agent::settings(global, options, loaded).err()?;
    Some(sanitize_line(&format!("{error:#}"), 300))
}

/// The command that an error of the configuration names itself.
fn remedy_in(said: &str) -> Option<&str> {
    let (_, remedy) = said.rsplit_once("run: ")?;
    remedy.lines().next()
}

/// Whether ssh is there, and new enough.
pub(super) async fn ssh_version(patient: &Patient) -> Check {
    let name = "ssh";
    let said = match patient.ssh.version().await {
        Ok(said) => said,
        Err(error) => return Check::broken(name, format!("{error:#}"), "install OpenSSH's client"),
    };
    let shown = sanitize_line(said.lines().next().unwrap_or_default(), 60);
    match OpenSshVersion::parse(&said) {
        None => Check::warning(
            name,
            format!("ssh is not OpenSSH: {shown}"),
            "put OpenSSH's ssh before it in your PATH",
        ),
        Some(version) if version < SshConfig::OLDEST => Check::broken(
            name,
            format!("OpenSSH {version} does not understand the generated configuration"),
            format!("install OpenSSH {} or later", SshConfig::OLDEST),
        ),
        Some(version) if version < OpenSshVersion::SESSION_BIND => Check::warning(
            name,
            format!(
                "OpenSSH {version} does not tell agents which host it talks to, so a host you forward your agent to could use it"
            ),
            format!(
                "install OpenSSH {} or later, and do not use ssh -A until then",
                OpenSshVersion::SESSION_BIND
            ),
        ),
        Some(version) => Check::ok(name, format!("OpenSSH {version}")),
    }
}

/// Whether the `Include` is there and stands where it counts, in a file that ssh reads.
pub(super) fn include(patient: &Patient) -> Check {
    let name = "include";
    let file = short_path(&patient.ssh.file);
    if let Some((said, remedy)) = refused_by_ssh(&patient.ssh.file) {
        return Check::broken(name, format!("{file} {said}"), format!("{remedy} {file}"));
    }
    let text = match std::fs::read_to_string(&patient.ssh.file) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) => return Check::broken(name, format!("{file}: {error}"), format!("ls -ld {file}")),
    };
    match standing(&text) {
        Standing::Counts => Check::ok(
            name,
            format!("{file} includes what the broker writes, at its top"),
        ),
        Standing::Missing => Check::broken(
            name,
            format!("{file} does not include what the broker writes, so ssh never asks it"),
            "epithet setup",
        ),
        Standing::Below { line, other, keyword } => Check::broken(
            name,
            format!(
                "the Include in line {line} of {file} stands below `{}` (line {other}), {}",
                sanitize_line(&keyword, 60),
                Standing::effect(&keyword)
            ),
            "epithet setup    (moves it to the top)",
        ),
    }
}

/// Why ssh would not read a configuration file of a person's (OpenSSH's readconf.c), and the command that mends it.
fn refused_by_ssh(file: &std::path::Path) -> Option<(String, &'static str)> {
    use std::os::unix::fs::MetadataExt;
    let metadata = file.metadata().ok()?;
    let me = rustix::process::geteuid().as_raw();
    if metadata.is_dir() {
        return Some(("is a directory, and has to be a file".to_owned(), "ls -ld"));
    }
    if metadata.uid() != 0 && metadata.uid() != me {
        let said = format!(
            "belongs to user id {}, so ssh refuses every connection",
            metadata.uid()
        );
        return Some((said, "sudo chown \"$(id -u)\""));
    }
    let mode = metadata.mode() & 0o777;
    if mode & 0o022 != 0 {
        let said = format!("can be written by others (mode {mode:04o}), so ssh refuses every connection");
        return Some((said, "chmod go-w"));
    }
    let unreadable =
        std::fs::File::open(file).is_err_and(|error| error.kind() == std::io::ErrorKind::PermissionDenied);
    unreadable.then(|| (format!("cannot be read by you (mode {mode:04o})"), "chmod u+r"))
}

/// The plugin that is configured, or that the broker says it has; `None` when the CA says how to log in.
fn plugin_command(patient: &Patient, inspection: Option<&Inspection>) -> Option<PluginCommand> {
    if let Some(command) = &patient.agent.auth {
        return Some(command.clone());
    }
    let command = &inspection?.login.command;
    let is_discovered = command.starts_with("auth oidc as ");
    (!is_discovered && !command.is_empty()).then(|| PluginCommand::Shell(command.clone()))
}

/// What the last login failed with, if it did.
pub(super) fn last_login(inspection: &Inspection) -> Option<Check> {
    let error = inspection.login.last_error.as_deref()?;
    Some(Check::warning(
        "plugin",
        format!("the last login failed: {}", sanitize_line(error, 300)),
        "epithet login",
    ))
}

/// Whether the plugin's program is there.
pub(super) fn plugin(patient: &Patient, inspection: Option<&Inspection>) -> Check {
    let name = "plugin";
    let Some(command) = plugin_command(patient, inspection) else {
        return Check::ok(name, "none is configured: the CA says how to log in");
    };
    match command.problem() {
        Some(problem) => Check::broken(
            name,
            problem,
            "name the plugin by its whole path, as `auth:` in ~/.epithet/config.yaml or with --auth",
        ),
        None => Check::ok(name, sanitize_line(&command.to_string(), 100)),
    }
}

/// Runs the plugin through its protocol.
pub(super) async fn plugin_check(patient: &Patient, inspection: Option<&Inspection>) -> Check {
    let name = "plugin check";
    let Some(command) = plugin_command(patient, inspection) else {
        return Check::ok(name, "nothing to check: the CA says how to log in");
    };
    let shown = command.as_arguments();
    let options = CheckOptions {
        interactive: std::io::stderr().is_terminal(),
        ..CheckOptions::default()
    };
    let (sink, mut progress) = progress_channel();
    let telling = async {
        while let Some(piece) = progress.next().await {
            let _ = std::io::stderr().write_all(piece.text.as_bytes());
        }
    };
    let checking = check(command, &options, sink, CancellationToken::new());
    let (report, ()) = tokio::join!(checking, telling);
    let again = format!("epithet plugin check -- {shown}");
    let failed = report
        .findings
        .iter()
        .find(|finding| finding.verdict == Verdict::Fail);
    let warned = report
        .findings
        .iter()
        .find(|finding| finding.verdict == Verdict::Warning);
    match (failed, warned) {
        (Some(finding), _) => Check::broken(name, format!("{}: {}", finding.rule, finding.seen), again),
        (None, Some(finding)) => Check::warning(name, format!("{}: {}", finding.rule, finding.seen), again),
        (None, None) => Check::ok(name, "it keeps to the protocol"),
    }
}

/// Whether a path is for its owner only.
pub(super) fn is_private(path: &std::path::Path) -> anyhow::Result<bool> {
    use std::os::unix::fs::MetadataExt;
    let metadata = std::fs::symlink_metadata(path).with_context(|| path.display().to_string())?;
    Ok(metadata.mode() & 0o077 == 0 && metadata.uid() == rustix::process::geteuid().as_raw())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_that_names_its_remedy_is_listened_to() {
        let said = "configuration file /x can be written by others (mode 0666); run: chmod go-w /x";
        assert_eq!(remedy_in(said), Some("chmod go-w /x"));
        assert_eq!(remedy_in("unknown field"), None);
    }
}
