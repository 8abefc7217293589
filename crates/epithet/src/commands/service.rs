//! `epithet agent install` and `uninstall`: the system starts the broker, by systemd's user manager or by launchd.
//!
//! Texts are made by pure functions (`systemd`, `launchd`); `written` writes and removes only what carries our mark;
//! `manager` speaks to `systemctl --user`, where such a manager answers.

mod launchd;
mod manager;
mod notify;
mod program;
pub(crate) use program::stable_path;
mod systemd;
mod written;

pub(crate) use notify::tell_manager;

use crate::cli::{Global, InstallOptions, StartOptions, UninstallOptions};
use crate::config;
use crate::terminal::short_path;
use anyhow::{Context, bail};
use epithet_broker::RunDir;
use epithet_wire::ProfileName;
use manager::Manager;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use written::{Change, Written};

/// What the texts are made of.
#[derive(Debug, Clone)]
struct Service {
    profile: ProfileName,
    program: PathBuf,
    /// Words between `agent start` and the end.
    arguments: Vec<String>,
    socket: PathBuf,
    home: PathBuf,
    /// The `PATH` of whoever installs: a manager's own does not lead to programs in the home directory.
    path: String,
    log: PathBuf,
}

impl Service {
    fn of(profile: &ProfileName) -> anyhow::Result<Self> {
        let home = config::home()?;
        let runtime_dir = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
        Ok(Self {
            profile: profile.clone(),
            program: stable_path()?,
            arguments: Vec::new(),
            // Of a broker that lives, as it says: this shell may have no runtime directory.
            socket: match RunDir::holder(&home, profile) {
                Some(holder) => holder.socket,
                None => RunDir::broker_socket_of(&home, runtime_dir.as_deref(), profile)?,
            },
            path: std::env::var("PATH").unwrap_or_default(),
            log: super::background::log_path(profile)?,
            home,
        })
    }

    /// The name that units begin with.
    fn unit(&self) -> String {
        match self.profile == ProfileName::default() {
            true => "epithet-agent".to_owned(),
            false => format!("epithet-agent-{}", self.profile),
        }
    }

    /// The files of this system's manager, in the order to write them.
    fn files(&self) -> anyhow::Result<Vec<Written>> {
        if cfg!(target_os = "macos") {
            return Ok(vec![launchd::property_list(self)?]);
        }
        let config = std::env::var_os("XDG_CONFIG_HOME").map(PathBuf::from);
        let config = config.filter(|path| path.is_absolute());
        let folder = config
            .unwrap_or_else(|| self.home.join(".config"))
            .join("systemd/user");
        Ok(vec![
            systemd::socket(self, &folder)?,
            systemd::service(self, &folder)?,
        ])
    }

    fn unit_names(&self) -> [String; 2] {
        [
            format!("{}.socket", self.unit()),
            format!("{}.service", self.unit()),
        ]
    }
}

/// Writes the files, and has them read and, with `--enable`, started where a manager is there.
pub(crate) fn install(global: &Global, options: &InstallOptions) -> anyhow::Result<ExitCode> {
    let profile = options.name.clone().unwrap_or_default();
    let mut service = Service::of(&profile)?;
    would_start(global, &profile).context("the broker would not start like this")?;
    service.arguments = global_arguments(global)?;
    let mut changed = false;
    for file in service.files()? {
        let change = file.write()?;
        changed |= change != Change::None;
        say(&format!("{} {}", change.word(), short_path(&file.path)))?;
    }
    if cfg!(target_os = "macos") {
        return launchd::load(&service, options.enable);
    }
    let manager = Manager::find();
    let [socket, unit] = service.unit_names();
    let enable = format!("systemctl --user enable --now {socket} {unit}");
    match (manager, options.enable) {
        (Some(manager), enable_now) => {
            if changed {
                manager.run(&["daemon-reload"])?;
            }
            if enable_now {
                give_way(&profile)?;
                manager.run(&["enable", "--now", &socket, &unit])?;
                say(&format!(
                    "enabled {socket} and {unit}: the broker serves, now and after each login"
                ))?;
            } else {
                say(&format!("to start it, now and at each login:\n  {enable}"))?;
            }
            Ok(ExitCode::SUCCESS)
        }
        (None, false) => {
            say(&format!(
                "to start it, now and at each login:\n  systemctl --user daemon-reload\n  {enable}"
            ))?;
            Ok(ExitCode::SUCCESS)
        }
        (None, true) => bail!(
            "the units are written, but no systemd user manager answers here, so nothing was started\ntry, in a session that has one: systemctl --user daemon-reload && {enable}\nwithout systemd: epithet agent --background"
        ),
    }
}

/// A broker that was started by hand holds the profile; the manager's takes its place.
fn give_way(profile: &ProfileName) -> anyhow::Result<()> {
    if !RunDir::is_claimed(&config::home()?, profile) {
        return Ok(());
    }
    let options = crate::cli::StopOptions {
        name: Some(profile.clone()),
    };
    super::background::stop(&options).map(drop)
}

/// Stops and removes what `install` wrote, and nothing else.
pub(crate) fn uninstall(options: &UninstallOptions) -> anyhow::Result<ExitCode> {
    let profile = options.name.clone().unwrap_or_default();
    let service = Service::of(&profile)?;
    let files = service.files()?;
    let there: Vec<&Written> = files.iter().filter(|file| file.is_ours()).collect();
    if there.is_empty() {
        say(&format!("nothing of profile \"{profile}\" is installed"))?;
        return Ok(ExitCode::SUCCESS);
    }
    let manager = Manager::find();
    if cfg!(target_os = "macos") {
        launchd::unload(&service)?;
    } else if let Some(manager) = &manager {
        let [socket, unit] = service.unit_names();
        manager.run(&["disable", "--now", &socket, &unit])?;
        say(&format!("stopped and disabled {socket} and {unit}"))?;
    }
    for file in there {
        file.remove()?;
        say(&format!("removed {}", short_path(&file.path)))?;
    }
    if let Some(manager) = manager {
        manager.run(&["daemon-reload"])?;
    }
    remove_what_waited(&service)?;
    Ok(ExitCode::SUCCESS)
}

/// With a socket that starts the broker, the generated ssh configuration outlives the broker; without one it must not.
fn remove_what_waited(service: &Service) -> anyhow::Result<()> {
    if RunDir::is_claimed(&service.home, &service.profile) {
        return Ok(());
    }
    let run_dir = RunDir::path_of(&service.home, &service.profile);
    for left in [run_dir.join("ssh-config.conf"), service.socket.clone()] {
        match std::fs::remove_file(&left) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("cannot remove {}", left.display()));
            }
            _ => {}
        }
    }
    // Whatever else is in it stays, and the directory with it.
    let _ = std::fs::remove_dir(run_dir);
    Ok(())
}

/// Stops the units of a profile, where there are some and a manager runs them. True when something was stopped.
pub(crate) fn stop_units(profile: &ProfileName) -> anyhow::Result<bool> {
    if cfg!(target_os = "macos") {
        return Ok(false);
    }
    // Without a place for its socket there is no unit of it either.
    let Ok(service) = Service::of(profile) else {
        return Ok(false);
    };
    if !service.files()?.iter().any(Written::is_ours) {
        return Ok(false);
    }
    let [socket, unit] = service.unit_names();
    let Some(manager) = Manager::find().filter(|manager| manager.is_active(&[&socket, &unit])) else {
        return Ok(false);
    };
    manager.run(&["stop", &socket, &unit])?;
    Ok(true)
}

/// Whether the units of a profile are there.
pub(crate) fn is_installed(profile: &ProfileName) -> anyhow::Result<bool> {
    let service = Service::of(profile)?;
    Ok(service.files()?.iter().any(Written::is_ours))
}

/// Reads the configuration as the service will, without flags.
fn would_start(global: &Global, profile: &ProfileName) -> anyhow::Result<()> {
    let config = config::load(global.config.as_deref())?;
    let options = StartOptions {
        name: Some(profile.clone()),
        ..StartOptions::default()
    };
    match super::agent::settings(global, options, config) {
        Ok(_) => Ok(()),
        Err(error) if error.to_string().contains("--ca-url") => {
            bail!("no configuration file names a CA\ntry: epithet setup")
        }
        Err(error) => Err(error),
    }
}

/// The global options that the service keeps: files, by their whole paths.
fn global_arguments(global: &Global) -> anyhow::Result<Vec<String>> {
    let mut arguments = Vec::new();
    for (flag, path) in [
        ("--config", &global.config),
        ("--tls-ca-cert", &global.tls_ca_cert),
    ] {
        if let Some(path) = path {
            let whole = std::path::absolute(crate::logging::home_expanded(path)?)
                .with_context(|| format!("{flag} {}", path.display()))?;
            let text = whole
                .to_str()
                .with_context(|| format!("{flag} {} is not UTF-8", path.display()))?;
            arguments.push(format!("{flag}={text}"));
        }
    }
    Ok(arguments)
}

fn say(text: &str) -> anyhow::Result<()> {
    writeln!(std::io::stdout(), "{text}").context("cannot print")
}
