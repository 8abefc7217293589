//! `epithet setup`: from nothing to the first login, in the order in which a person would do it.
//!
//! Nothing is written before everything is known and shown, so that leaving in the middle leaves nothing behind.

mod config_file;
mod include;
mod questions;
mod replace;
mod wishes;

use super::ask_broker::{asker, converse};
use super::doctor::why_ssh_goes_elsewhere;
use super::profile_flag;
use crate::cli::{BrokerChoice, Global, InstallOptions, SetupOptions, Start};
use crate::config;
use crate::ssh_config_file::account_home;
use crate::terminal::{Screen, Tone, short_path, wrapped};
use anyhow::{Context, bail};
use config_file::ConfigFile;
use epithet_broker::RunDir;
use epithet_wire::ProfileName;
use epithet_wire::broker::{Empty, Request};
use include::IncludeFile;
use questions::Questions;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use wishes::Wishes;

/// Asks or takes flags, looks at the CA, shows and writes both files, starts the broker, logs in.
pub(crate) fn run(global: &Global, options: &SetupOptions) -> anyhow::Result<ExitCode> {
    let questions = Questions::new(options)?;
    let existing = config::load(global.config.as_deref())
        .context("the configuration that is there cannot be read; repair it first")?;
    let profile = options.name.clone().unwrap_or_default();
    could_start(&profile).context("nothing was changed, because the broker could not start here")?;
    let wishes = Wishes::gather(global, options, existing, &questions)?;
    let config = ConfigFile::plan(&wishes)?;
    let include = IncludeFile::plan(&ssh_config_path(options)?)?;

    let changes = [config.shown(), include.shown()];
    for change in &changes {
        say(&painted(change))?;
    }
    let nothing_to_write = config.is_there() && include.is_there();
    if options.dry_run {
        say("nothing was written: this was --dry-run")?;
        return Ok(ExitCode::SUCCESS);
    }
    if !nothing_to_write && !questions.confirm("Write this?")? {
        bail!("nothing was changed");
    }
    config.write()?;
    include.write()?;

    start(global, options, &wishes.profile, !config.is_there())?;
    let is_reached = reached(&ssh_config_path(options)?, &wishes, options)?;
    log_in(&wishes, options)?;
    if let Some((said, remedy)) = is_reached {
        bail!("everything is set up, but ssh does not use it yet: {said}\ntry: {remedy}");
    }
    last_words(&wishes, options)?;
    Ok(ExitCode::SUCCESS)
}

/// Whether a broker could start in this home, with this program.
fn could_start(profile: &ProfileName) -> anyhow::Result<()> {
    let runtime_dir = super::ask_broker::runtime_dir();
    let program = super::service::stable_path()?;
    Ok(epithet_broker::can_start(
        &config::home()?,
        runtime_dir.as_deref(),
        profile,
        &program,
    )?)
}

/// The file that ssh reads, unless another one is named.
fn ssh_config_path(options: &SetupOptions) -> anyhow::Result<PathBuf> {
    match &options.ssh_config {
        Some(path) => Ok(std::path::absolute(path)?),
        None => Ok(config::home()?.join(".ssh/config")),
    }
}

/// Has a broker serve with the settings that are in the files now.
fn start(
    global: &Global,
    options: &SetupOptions,
    profile: &ProfileName,
    settings_changed: bool,
) -> anyhow::Result<()> {
    let runs = RunDir::is_claimed(&config::home()?, profile);
    match options.start {
        Start::No => Ok(()),
        Start::Service => {
            let install = InstallOptions {
                name: Some(profile.clone()),
                enable: true,
            };
            super::service::install(global, &install).map(drop)
        }
        Start::Background if runs && !settings_changed => say("the broker is running already"),
        Start::Background => {
            if runs {
                let stop = crate::cli::StopOptions {
                    name: Some(profile.clone()),
                };
                super::background::stop(&stop)?;
            }
            let mut words: Vec<std::ffi::OsString> = vec!["agent".into(), "--detached".into()];
            if *profile != ProfileName::default() {
                words.extend(["--name".into(), profile.as_str().into()]);
            }
            for (flag, file) in [("--config", &global.config), ("--log-file", &global.log_file)] {
                if let Some(file) = file {
                    words.extend([flag.into(), file.into()]);
                }
            }
            match super::background::start(words)? {
                super::background::Started::Serving { process, log } => {
                    say(&format!("the broker serves (process {process}, log {log})"))
                }
                super::background::Started::Ended(status) if status.success() => Ok(()),
                super::background::Started::Ended(_) => {
                    bail!("both files are written, but the broker did not start; the reason stands above")
                }
            }
        }
    }
}

/// Whether ssh would ask the broker: the person's own configuration may take the effect of the new line. What is so and what
/// to do, if it does.
fn reached(
    ssh_config: &Path,
    wishes: &Wishes,
    options: &SetupOptions,
) -> anyhow::Result<Option<(String, String)>> {
    if options.start == Start::No {
        return Ok(None);
    }
    let broker = BrokerChoice {
        broker: None,
        name: Some(wishes.profile.clone()),
    };
    let inspect = Request {
        inspect: Some(Empty {}),
        ..Request::default()
    };
    let Some(inspection) = converse(&broker, &inspect)?.inspect else {
        return Ok(None);
    };
    let is_named = options.ssh_config.is_some()
        || account_home().is_some_and(|account| config::home().is_ok_and(|home| home != account));
    crate::runtime::briefly(why_ssh_goes_elsewhere(
        ssh_config.to_owned(),
        is_named,
        &inspection,
    ))
}

/// Logs in, unless somebody has: the point of the exercise, and the best test of it.
///
/// Without a terminal nobody can act on what the provider asks, so only a plugin of the person's own is tried.
fn log_in(wishes: &Wishes, options: &SetupOptions) -> anyhow::Result<()> {
    if options.no_login || options.start == Start::No {
        return Ok(());
    }
    let broker = BrokerChoice {
        broker: None,
        name: Some(wishes.profile.clone()),
    };
    let again = format!("epithet login{}", profile_flag(&wishes.profile));
    let inspect = Request {
        inspect: Some(Empty {}),
        ..Request::default()
    };
    let inspection = converse(&broker, &inspect)?.inspect;
    if inspection.is_some_and(|inspection| inspection.login.token) {
        return say("you are logged in already");
    }
    let asker = asker("epithet setup");
    let is_attended = asker.terminal;
    if !is_attended && wishes.own_plugin().is_none() {
        return explain(&format!(
            "not logged in yet, because there is no terminal here; the first ssh will, or: {again}"
        ));
    }
    let login = Request {
        login: Some(asker),
        ..Request::default()
    };
    match converse(&broker, &login) {
        Ok(_) => say("you are logged in"),
        // The plugin may need somebody after all.
        Err(error) if !is_attended => say(&format!(
            "not logged in yet: {error:#}\nthe first ssh in a terminal will, or: {again}"
        )),
        Err(error) => Err(error.context(format!(
            "everything is set up, but the login failed (`{again}` tries again, `epithet doctor{}` looks for the reason)",
            profile_flag(&wishes.profile)
        ))),
    }
}

/// What to type next.
fn last_words(wishes: &Wishes, options: &SetupOptions) -> anyhow::Result<()> {
    let screen = Screen::of_stdout();
    let flag = profile_flag(&wishes.profile);
    if options.start == Start::No {
        return say(&format!(
            "\nthe broker was not started; to start it: epithet agent --background{flag}"
        ));
    }
    let line = match wishes.example_host() {
        Some(host) => format!("ssh {host}"),
        None => "ssh HOST".to_owned(),
    };
    say(&format!(
        "\nSet up. Now type:  {}",
        screen.paint(Tone::Strong, &line)
    ))?;
    let hosts = wishes.patterns();
    if !hosts.is_empty() && wishes.example_host().is_none() {
        explain(&format!(
            "HOST is any of {}; hosts must trust the CA: docs/hosts.md",
            hosts.join(", ")
        ))?;
    }
    say(&format!("if it does not work:  epithet doctor HOST{flag}"))
}

/// A change with its new lines painted.
fn painted(change: &str) -> String {
    let screen = Screen::of_stdout();
    let lines = change.lines().map(|line| match line.starts_with("  + ") {
        true => screen.paint(Tone::Good, line),
        false => line.to_owned(),
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// Says something that is longer than a line may be.
fn explain(text: &str) -> anyhow::Result<()> {
    say(&wrapped(text, Screen::of_stdout().width, 2))
}

/// A path in a sentence.
fn named(path: &Path) -> String {
    short_path(path)
}

fn say(text: &str) -> anyhow::Result<()> {
    writeln!(std::io::stdout(), "{text}").context("cannot print")
}
