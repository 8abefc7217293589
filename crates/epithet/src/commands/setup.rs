//! `epithet setup`: from nothing to the first login, in the order in which a person would do it.
//!
//! Nothing is written before everything is known and shown, so that leaving in the middle leaves nothing behind.

mod config_file;
mod include;
mod questions;
mod replace;
mod wishes;

use super::ask_broker::{asker, converse};
use crate::cli::{BrokerChoice, Global, InstallOptions, SetupOptions, Start};
use crate::config;
use crate::terminal::{Screen, Tone, short_path};
use anyhow::{Context, bail};
use config_file::ConfigFile;
use epithet_broker::RunDir;
use epithet_wire::ProfileName;
use epithet_wire::broker::{Empty, Request};
use include::IncludeFile;
use questions::Questions;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use wishes::Wishes;

/// Asks or takes flags, looks at the CA, shows and writes both files, starts the broker, logs in.
pub(crate) fn run(global: &Global, options: &SetupOptions) -> anyhow::Result<ExitCode> {
    let questions = Questions::new(options)?;
    let existing = config::load(global.config.as_deref())
        .context("the configuration that is there cannot be read; repair it first")?;
    let wishes = Wishes::gather(global, options, existing, &questions)?;
    let config = ConfigFile::plan(&wishes)?;
    let include = IncludeFile::plan(&ssh_config_path(options)?)?;

    let changes = [config.shown(), include.shown()];
    for change in &changes {
        say(change)?;
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

    start(global, options, !config.is_there())?;
    log_in(options)?;
    last_words(&wishes, options)?;
    Ok(ExitCode::SUCCESS)
}

/// The file that ssh reads, unless another one is named.
fn ssh_config_path(options: &SetupOptions) -> anyhow::Result<PathBuf> {
    match &options.ssh_config {
        Some(path) => Ok(std::path::absolute(path)?),
        None => Ok(config::home()?.join(".ssh/config")),
    }
}

/// Has a broker serve with the settings that are in the files now.
fn start(global: &Global, options: &SetupOptions, settings_changed: bool) -> anyhow::Result<()> {
    let profile = ProfileName::default();
    let runs = RunDir::is_claimed(&config::home()?, &profile);
    match options.start {
        Start::No => Ok(()),
        Start::Service => {
            let install = InstallOptions {
                name: None,
                enable: true,
            };
            super::service::install(global, &install).map(drop)
        }
        Start::Background if runs && !settings_changed => say("the broker is running already"),
        Start::Background => {
            if runs {
                let stop = crate::cli::StopOptions { name: None };
                super::background::stop(&stop)?;
            }
            let mut words: Vec<std::ffi::OsString> = vec!["agent".into(), "--detached".into()];
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

/// Logs in, unless somebody has: the point of the exercise, and the best test of it.
fn log_in(options: &SetupOptions) -> anyhow::Result<()> {
    if options.no_login || options.start == Start::No {
        return Ok(());
    }
    let broker = BrokerChoice {
        broker: None,
        name: Some(ProfileName::default()),
    };
    let inspect = Request {
        inspect: Some(Empty {}),
        ..Request::default()
    };
    let inspection = converse(&broker, &inspect)?.inspect;
    if inspection.is_some_and(|inspection| inspection.login.token) {
        return say("you are logged in already");
    }
    let asker = asker("epithet setup");
    if !asker.terminal {
        return say(
            "not logged in yet, because there is no terminal here; the first ssh will, or: epithet login",
        );
    }
    let login = Request {
        login: Some(asker),
        ..Request::default()
    };
    converse(&broker, &login).context(
        "everything is set up, but the login failed (`epithet login` tries again, `epithet doctor` looks for the reason)",
    )?;
    say("you are logged in")
}

/// What to type next.
fn last_words(wishes: &Wishes, options: &SetupOptions) -> anyhow::Result<()> {
    let screen = Screen::of_stdout();
    if options.start == Start::No {
        return say("\nthe broker was not started; to start it: epithet agent --background");
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
        say(&format!(
            "HOST is any of {}; hosts must trust the CA: docs/hosts.md",
            hosts.join(", ")
        ))?;
    }
    say("if it does not work:  epithet doctor HOST")
}

/// A path in a sentence.
fn named(path: &std::path::Path) -> String {
    short_path(path)
}

fn say(text: &str) -> anyhow::Result<()> {
    writeln!(std::io::stdout(), "{text}").context("cannot print")
}
