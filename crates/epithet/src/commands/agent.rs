//! `epithet agent`: gathers the settings from flags, environment and files, and runs the broker.

use super::{VERSION, background, service};
use crate::cli::{Global, StartOptions, patterns};
use crate::config::{self, Config};
use anyhow::{Context, bail};
use epithet_broker::{Broker, BrokerError, CaHttp, RunDirError, Settings, harden, raise_open_files};
use epithet_plugin::PluginCommand;
use epithet_wire::format_duration;
use epithet_wire::limits::{CA_COOLDOWN, CA_DEADLINE, PLUGIN_DEADLINE, PLUGIN_DEADLINE_RANGE, TOKEN_REUSE};
use rustix::process::Signal;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

/// Threads of the broker: one that answers while another waits for the file system.
const THREADS: usize = 2;

/// Runs the broker until SIGINT or SIGTERM.
pub(crate) fn start(global: &Global, options: StartOptions) -> anyhow::Result<ExitCode> {
    // Taken over before anything else is opened.
    let inherited = epithet_plugin::inherited_listener();
    let config = config::load(global.config.as_deref())?;
    if options.background {
        settings(global, options, config)?;
        return background::again_without_terminal();
    }
    let detached = options.detached;
    let log = background::log(global, &options, &config)?;
    crate::logging::start(&log.global, &config.common(), log.least)?;
    harden();
    raise_open_files();
    let settings = Settings {
        inherited,
        ..settings(global, options, config)?
    };
    // Whoever started it with `nohup` wants it to outlive the terminal.
    let outlives_terminal = epithet_plugin::ignores(Signal::HUP);
    crate::runtime::run(THREADS, |ending| async move {
        if !outlives_terminal {
            let mut hang_up = signal(SignalKind::hangup()).context("cannot listen for SIGHUP")?;
            let closed = ending.clone();
            tokio::spawn(async move {
                // The terminal it was started from is closed: end as orderly as on Ctrl-C.
                hang_up.recv().await;
                closed.cancel();
            });
        }
        let profile = settings.profile.clone();
        let broker = match Broker::start(settings, ending).await {
            Err(BrokerError::RunDir(RunDirError::Running(_))) if detached => {
                return background::say_already_running(&profile);
            }
            started => started?,
        };
        let mut stderr = std::io::stderr();
        // Nobody listening on stderr is no reason not to serve.
        let _ = writeln!(stderr, "ready: broker socket {}", broker.socket().display());
        let _ = writeln!(stderr, "include: {}", broker.ssh_config().display());
        if detached {
            background::leave_terminal(&log)?;
        }
        service::tell_manager("READY=1");
        broker.serve().await;
        service::tell_manager("STOPPING=1");
        Ok(ExitCode::SUCCESS)
    })
}

/// Flag, environment, file, default: in this order.
pub(super) fn settings(global: &Global, options: StartOptions, config: Config) -> anyhow::Result<Settings> {
    let section = config.agent;
    let cas = match (options.ca_url.is_empty(), section.ca_url) {
        (false, _) => options.ca_url,
        (true, Some(cas)) if !cas.0.is_empty() => cas.0,
        _ => bail!(
            "--ca-url is required (at least one)\ntry: epithet agent --ca-url https://ca.example.com, or `agent: {{ca-url: ...}}` in ~/.epithet/config.yaml"
        ),
    };
    let tls_ca_cert = global.tls_ca_cert.clone().or(config.tls_ca_cert);
    let tls_ca_cert = tls_ca_cert
        .map(|path| crate::logging::home_expanded(&path))
        .transpose()?;
    let ca_timeout = options
        .ca_timeout
        .or(section.ca_timeout.map(|text| text.0.0))
        .unwrap_or(CA_DEADLINE);
    if ca_timeout.is_zero() {
        bail!("--ca-timeout must be longer than 0s");
    }
    let patterns = match options.match_.is_empty() {
        false => patterns(&options.match_)?,
        true => section.match_.map(|patterns| patterns.0).unwrap_or_default(),
    };
    let auth = options.auth.map(PluginCommand::Shell).or(section.auth);
    if let Some(command) = &auth {
        command.validate().context("--auth")?;
    }
    let binary = std::env::current_exe().context("cannot find the running program")?;
    let runtime_dir = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    Ok(Settings {
        profile: options.name.or(section.name).unwrap_or_default(),
        home: config::home()?,
        runtime_dir,
        cas,
        ca_cooldown: options
            .ca_cooldown
            .or(section.ca_cooldown.map(|text| text.0.0))
            .unwrap_or(CA_COOLDOWN),
        http: CaHttp::new(tls_ca_cert.as_deref(), ca_timeout)?,
        auth,
        patterns,
        token_reuse: options
            .token_reuse
            .or(section.token_reuse.map(|text| text.0.0))
            .unwrap_or(TOKEN_REUSE),
        auth_timeout: auth_timeout(options.auth_timeout.or(section.auth_timeout.map(|text| text.0.0)))?,
        inherited: None,
        allow_forwarding: options.allow_forwarding || section.allow_forwarding.unwrap_or(false),
        guard: super::GUARD,
        match_program: match_program(&binary),
        binary,
        version: VERSION.to_owned(),
    })
}

fn auth_timeout(asked: Option<Duration>) -> anyhow::Result<Duration> {
    let timeout = asked.unwrap_or(PLUGIN_DEADLINE);
    let (least, most) = PLUGIN_DEADLINE_RANGE;
    if !(least..=most).contains(&timeout) {
        bail!(
            "--auth-timeout must be {} to {}, not {}",
            format_duration(least),
            format_duration(most),
            format_duration(timeout)
        );
    }
    Ok(timeout)
}

/// What ssh runs: the small program beside this one where it is installed, else this one's `match`.
fn match_program(binary: &std::path::Path) -> Vec<PathBuf> {
    let small = binary.with_file_name("epithet-match");
    if small.is_file() {
        vec![small]
    } else {
        vec![binary.to_owned(), PathBuf::from("match")]
    }
}
