//! The host's `sshd`: what it says about its configuration, and how it is told to read it again.

use super::settings::Settings;
use anyhow::{Context, bail};
use epithet_wire::display::sanitize_text;
use std::ffi::OsStr;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// Where distributions put it.
const PROGRAMS: [&str; 3] = ["/usr/sbin/sshd", "/usr/local/sbin/sshd", "/usr/bin/sshd"];
/// The configuration that an sshd of the system reads.
const SYSTEM_CONFIG: &str = "/etc/ssh/sshd_config";
/// Where units are, and where systemd shows that it runs this machine.
const UNIT_FOLDERS: [&str; 3] = [
    "/etc/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
];
const SYSTEMD: &str = "/run/systemd/system";

/// An sshd program, to be asked about one configuration.
#[derive(Debug)]
pub(super) struct Sshd {
    program: PathBuf,
    config: PathBuf,
}

/// A login that settings may depend on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Login<'a> {
    pub(super) user: &'a str,
    pub(super) from: IpAddr,
}

/// What became of telling sshd.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Told {
    /// It read its configuration again.
    Reloaded,
    /// It does not run, or only while somebody logs in (socket activation): it reads its configuration when it starts.
    NotRunning,
}

/// How sshd is told to read its configuration again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Reload {
    /// `systemctl reload UNIT`.
    Systemd(&'static str),
    /// SIGHUP to the process of this file.
    Pid(PathBuf),
}

impl Sshd {
    /// The named program, or the system's.
    pub(super) fn find(program: Option<&Path>, config: &Path) -> anyhow::Result<Self> {
        let program = match program {
            Some(program) => program.to_owned(),
            None => PROGRAMS
                .iter()
                .map(PathBuf::from)
                .find(|path| path.exists())
                .with_context(|| {
                    format!("there is no sshd at {}; name it with --sshd", PROGRAMS.join(", "))
                })?,
        };
        Ok(Self {
            program,
            config: config.to_owned(),
        })
    }

    /// The configuration that it is asked about.
    pub(super) fn config(&self) -> &Path {
        &self.config
    }

    /// Whether it can be started with its configuration (`sshd -t`); what it says when not.
    pub(super) fn test(&self) -> anyhow::Result<Result<(), String>> {
        self.test_file(&self.config)
    }

    /// The same for another file.
    pub(super) fn test_file(&self, file: &Path) -> anyhow::Result<Result<(), String>> {
        let output = self.run(&["-t".as_ref(), "-f".as_ref(), file.as_os_str()])?;
        Ok(if output.status.success() {
            Ok(())
        } else {
            Err(said(&output))
        })
    }

    /// The settings in force (`sshd -T`): those for everybody, or those for one login.
    pub(super) fn settings(&self, login: Option<Login<'_>>) -> anyhow::Result<Result<Settings, String>> {
        let connection = login.map(|Login { user, from }| {
            format!("user={user},host={from},addr={from},laddr={from},lport=22,rdomain=")
        });
        let mut arguments: Vec<&OsStr> = vec!["-T".as_ref(), "-f".as_ref(), self.config.as_os_str()];
        if let Some(connection) = &connection {
            arguments.push("-C".as_ref());
            arguments.push(connection.as_ref());
        }
        let output = self.run(&arguments)?;
        Ok(if output.status.success() {
            Ok(Settings::parse(&String::from_utf8_lossy(&output.stdout)))
        } else {
            Err(said(&output))
        })
    }

    fn run(&self, arguments: &[&OsStr]) -> anyhow::Result<Output> {
        Command::new(&self.program)
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("cannot run {}", self.program.display()))
    }

    /// How this sshd is reloaded.
    pub(super) fn reload_by(&self, settings: &Settings) -> Option<Reload> {
        if self.config == Path::new(SYSTEM_CONFIG) && Path::new(SYSTEMD).exists() {
            // Debian and Ubuntu call it ssh, everybody else sshd.
            let is_there = |unit: &&str| {
                UNIT_FOLDERS
                    .iter()
                    .any(|folder| Path::new(folder).join(format!("{unit}.service")).exists())
            };
            return ["ssh", "sshd"].into_iter().find(is_there).map(Reload::Systemd);
        }
        settings.path("pidfile").map(Reload::Pid)
    }
}

/// What helps when sshd does not take its configuration: all but root meet host keys that they may not read.
pub(super) fn remedy(config: &Path, said: &str) -> String {
    if said.contains("no hostkeys available") || said.contains("Permission denied") {
        "run this as root".to_owned()
    } else {
        format!(
            "sshd -t -f {} says the same, until it is mended",
            config.display()
        )
    }
}

fn said(output: &Output) -> String {
    let text = sanitize_text(&output.stderr);
    match text.trim() {
        "" => format!("it ended with {}", output.status),
        text => text.to_owned(),
    }
}

impl Reload {
    /// The command that a person would give.
    pub(super) fn command(&self) -> String {
        match self {
            Self::Systemd(unit) => format!("systemctl reload {unit}"),
            Self::Pid(file) => format!("kill -HUP \"$(cat {})\"", file.display()),
        }
    }

    /// Does it.
    pub(super) fn perform(&self) -> anyhow::Result<Told> {
        match self {
            Self::Systemd(unit) => {
                let output = systemctl("reload", unit)?;
                if output.status.success() {
                    return Ok(Told::Reloaded);
                }
                // It also fails for what does not run; whatever else it was, the unit's state is then another.
                let state = systemctl("is-active", unit)?;
                if String::from_utf8_lossy(&state.stdout).trim() == "inactive" {
                    return Ok(Told::NotRunning);
                }
                bail!("`{}` failed: {}", self.command(), said(&output));
            }
            Self::Pid(file) => hang_up(file).map(|()| Told::Reloaded),
        }
    }
}

fn systemctl(verb: &str, unit: &str) -> anyhow::Result<Output> {
    Command::new("systemctl")
        .args([verb, unit])
        .stdin(Stdio::null())
        .output()
        .context("cannot run systemctl")
}

/// Sends SIGHUP to the process that a pid file names, if it is an sshd.
fn hang_up(file: &Path) -> anyhow::Result<()> {
    let text = std::fs::read_to_string(file)
        .with_context(|| format!("sshd does not seem to run: {}", file.display()))?;
    let pid: i32 = text
        .trim()
        .parse()
        .ok()
        .with_context(|| format!("{} has no process id in it", file.display()))?;
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    if Path::new("/proc/self/comm").exists() && name.trim() != "sshd" {
        bail!(
            "sshd does not seem to run: {} names process {pid}, which is no sshd",
            file.display()
        );
    }
    let pid = rustix::process::Pid::from_raw(pid).context("no process has the id 0")?;
    rustix::process::kill_process(pid, rustix::process::Signal::HUP)
        .with_context(|| format!("cannot send SIGHUP to sshd, process {}", pid.as_raw_nonzero()))
}
