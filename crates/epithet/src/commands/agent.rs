//! `epithet agent`: gathers the settings from flags, environment and files, and runs the broker.

use super::{VERSION, background, service};
use crate::cli::{ChainChoice, Global, StartOptions, patterns};
use crate::config::{self, Config, Forwarding};
use crate::logging::say;
use anyhow::{Context, bail};
use epithet_broker::{
    AgentPolicy, Broker, BrokerError, CaHttp, ChainWhen, Clock, Reloader, RunDirError, Settings, harden,
    raise_open_files,
};
use epithet_plugin::PluginCommand;
use epithet_wire::display::sanitize_line;
use epithet_wire::format_duration;
use epithet_wire::limits::{
    AGENTS_MAX, AGENTS_MAX_RANGE, CA_COOLDOWN, CA_DEADLINE, PLUGIN_DEADLINE, PLUGIN_DEADLINE_RANGE,
    TOKEN_REUSE,
};
use rustix::process::Signal;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use tokio::signal::unix::{Signal as Signals, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Threads of the broker: one that answers while another waits for the file system.
const THREADS: usize = 2;

/// Runs the broker until SIGINT or SIGTERM.
pub(crate) fn start(global: &Global, options: StartOptions) -> anyhow::Result<ExitCode> {
    // Taken over before anything else is opened.
    let inherited = epithet_plugin::inherited_listener();
    let config = config::load(global.config.as_deref())?;
    if options.background {
        let profile = settings(global, options, config)?.profile;
        return background::again_without_terminal(&profile);
    }
    let detached = options.detached;
    let log = background::log(global, &options, &config)?;
    let again = (global.clone(), options.clone());
    crate::logging::serving(&log.global, &config.common(), log.least)?;
    harden();
    raise_open_files();
    let settings = Settings {
        inherited,
        ..settings(global, options, config)?
    };
    // Whoever started it with `nohup` wants it to outlive the terminal.
    let outlives_terminal = epithet_plugin::ignores(Signal::HUP);
    crate::runtime::run(THREADS, |ending| async move {
        let hang_up = signal(SignalKind::hangup()).context("cannot listen for SIGHUP")?;
        let closed = ending.clone();
        let (home, profile) = (settings.home.clone(), settings.profile.clone());
        let broker = match Broker::start(settings, ending).await {
            Err(BrokerError::RunDir(RunDirError::Running(_))) if detached => {
                return background::say_already_running(&home, &profile);
            }
            Err(BrokerError::RunDir(RunDirError::Waited(_))) if detached => {
                return Ok(background::say_waited_for(&profile));
            }
            started => started?,
        };
        let may_end = (!outlives_terminal).then_some(closed);
        tokio::spawn(follow_hang_ups(hang_up, again, broker.reloader(), may_end));
        say(&format!("ready: broker socket {}", broker.socket().display()));
        say(&format!("include: {}", broker.ssh_config().display()));
        if detached {
            crate::logging::flush();
            background::leave_terminal(&log)?;
        }
        service::tell_manager("READY=1");
        broker.serve().await;
        service::tell_manager("STOPPING=1");
        Ok(ExitCode::SUCCESS)
    })
}

/// SIGHUP: the configuration is read again, unless it says that the terminal has been closed and the broker is to end
/// with that.
async fn follow_hang_ups(
    mut hang_up: Signals,
    (global, options): (Global, StartOptions),
    reloader: Reloader,
    ending: Option<CancellationToken>,
) {
    let has_terminal = || std::fs::File::open("/dev/tty").is_ok();
    let had_terminal = has_terminal();
    while hang_up.recv().await.is_some() {
        if let Some(ending) = ending.as_ref().filter(|_| had_terminal && !has_terminal()) {
            // The terminal it was started from is closed: end as orderly as on Ctrl-C.
            return ending.cancel();
        }
        let read = || settings(&global, options.clone(), config::load(global.config.as_deref())?);
        let outcome = match read() {
            Ok(settings) => reloader.reload(settings).await,
            Err(error) => Err(format!("{error:#}")),
        };
        match outcome {
            Ok(changed) if changed.is_empty() => say("reloaded: nothing changed"),
            Ok(changed) => say(&format!("reloaded: {}", changed.join(", "))),
            Err(problem) => say(&format!(
                "not reloaded, the old configuration stays: {}",
                sanitize_line(&problem, 1000)
            )),
        }
    }
}

/// Flag, environment, file, default: in this order.
pub(super) fn settings(
    global: &Global,
    options: StartOptions,
    mut config: Config,
) -> anyhow::Result<Settings> {
    let section = config.take_agent(options.name.as_ref());
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
    let roots = crate::tls_roots::read_if_named(tls_ca_cert.as_deref())?;
    let ca_timeout = options
        .ca_timeout
        .or(section.ca_timeout.map(|text| text.0.0))
        .unwrap_or(CA_DEADLINE);
    if ca_timeout.is_zero() {
        bail!("--ca-timeout must be longer than 0s");
    }
    let hosts = match options.match_.is_empty() {
        false => patterns("--match", &options.match_)?,
        true => section.match_.map(|patterns| patterns.0).unwrap_or_default(),
    };
    let auth = options.auth.map(PluginCommand::Shell).or(section.auth);
    if let Some(command) = &auth {
        command.validate().context("--auth")?;
    }
    let auth_timeout = auth_timeout(options.auth_timeout.or(section.auth_timeout.map(|text| text.0.0)))?;
    let agents = AgentPolicy {
        allow_forwarding: match options.allow_forwarding.is_empty() {
            false => patterns("--allow-forwarding", &options.allow_forwarding)?,
            true => (section.allow_forwarding.map(Forwarding::patterns)).unwrap_or_default(),
        },
        chain: match options.chain.or(section.chain).unwrap_or(ChainChoice::Denied) {
            ChainChoice::Denied => Some(ChainWhen::Denied),
            ChainChoice::Always => Some(ChainWhen::Always),
            ChainChoice::Never => None,
        },
        // A certificate may need a new login first; ssh itself would wait for ever.
        wait: auth_timeout + ca_timeout,
        max_agents: max_agents(options.max_agents.or(section.max_agents))?,
        renew: options.renew || section.renew.unwrap_or(false),
    };
    Ok(Settings {
        profile: options.name.or(section.name).unwrap_or_default(),
        home: config::home()?,
        runtime_dir: super::ask_broker::runtime_dir(),
        cas,
        ca_cooldown: options
            .ca_cooldown
            .or(section.ca_cooldown.map(|text| text.0.0))
            .unwrap_or(CA_COOLDOWN),
        ca_timeout,
        http: CaHttp::new(roots.as_deref(), ca_timeout)?,
        tls_ca_cert,
        auth,
        patterns: hosts,
        token_reuse: options
            .token_reuse
            .or(section.token_reuse.map(|text| text.0.0))
            .unwrap_or(TOKEN_REUSE),
        auth_timeout,
        tag: options.tag.or(section.tag.map(|tag| tag.0)),
        agents,
        inherited: None,
        guard: super::GUARD,
        binary: service::stable_path()?,
        ssh: in_path("ssh"),
        clock: Clock::default(),
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

fn max_agents(asked: Option<usize>) -> anyhow::Result<usize> {
    let most = asked.unwrap_or(AGENTS_MAX);
    let (least, limit) = AGENTS_MAX_RANGE;
    if !(least..=limit).contains(&most) {
        bail!("--max-agents must be {least} to {limit}, not {most}");
    }
    Ok(most)
}

/// The first program of this name in `PATH`.
fn in_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let mut candidates = std::env::split_paths(&path).map(|folder| folder.join(name));
    candidates.find(|candidate| candidate.is_file())
}
