//! `epithet agent` and the commands that speak to a running broker.

use super::{InstallOptions, StatusOptions, StopOptions, UninstallOptions};
use clap::{Args, Subcommand, ValueEnum};
use epithet_broker::{CaAddress, TagName};
use epithet_wire::limits::AGENTS_MAX_RANGE;
use epithet_wire::{HostPattern, ProfileName};
use serde::Deserialize;
use std::path::PathBuf;
use std::time::Duration;

const AFTER_HELP: &str = "\
Examples:
  epithet agent --ca-url https://ca.example.com
  epithet agent --ca-url https://ca.example.com --auth ./my-login.sh \\
      --match '*.example.com'
  epithet agent --ca-url https://ca.example.com --auth 'epithet auth oidc \\
      --issuer https://accounts.google.com --client-id 123456'
  epithet agent --background
  epithet agent status

Put this line at the top of ~/.ssh/config, once:
  Include ~/.epithet/run/*/ssh-config.conf

It runs in the foreground until Ctrl-C or SIGTERM and then removes what it made; with --background, until \
`epithet agent stop`. `epithet agent install` has the system start it. Configuration: `agent:` in a file.";

/// `epithet agent`
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, after_help = AFTER_HELP)]
pub(crate) struct AgentOptions {
    #[command(subcommand)]
    pub(crate) command: Option<AgentCommand>,
    #[command(flatten)]
    pub(crate) start: StartOptions,
}

/// `epithet agent ...`
#[derive(Debug, Subcommand)]
pub(crate) enum AgentCommand {
    /// Run the broker (the same as `epithet agent` alone)
    Start(Box<StartOptions>),
    /// Show what the broker is doing: agents, certificates, login, CAs
    Inspect(InspectOptions),
    /// Say whether the broker is running, and how it is
    Status(StatusOptions),
    /// End the broker, and wait until it has
    Stop(StopOptions),
    /// Have the system start the broker: systemd user units, or launchd
    Install(InstallOptions),
    /// Remove what `epithet agent install` wrote
    Uninstall(UninstallOptions),
}

/// `epithet agent start`
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct StartOptions {
    /// A CA's URL; may be repeated, and ranked like `priority=50:https://backup.example.com` (100 unless named)
    #[arg(
        short,
        long,
        value_name = "URL",
        env = "EPITHET_CA_URL",
        value_delimiter = ','
    )]
    pub(crate) ca_url: Vec<CaAddress>,
    /// The auth plugin: a command that /bin/sh runs; without it, the CA is asked which OpenID provider to use
    #[arg(short, long, value_name = "COMMAND", env = "EPITHET_AUTH")]
    pub(crate) auth: Option<String>,
    /// The profile: a second broker beside the first one has another name [default: default]
    #[arg(long, value_name = "PROFILE", env = "EPITHET_NAME")]
    pub(crate) name: Option<ProfileName>,
    /// Which hosts are handled (like '*.example.com'); may be repeated; without it, those the CA names
    #[arg(long = "match", value_name = "PATTERN", env = "EPITHET_MATCH")]
    pub(crate) match_: Vec<String>,
    /// How long a CA may take to answer [default: 15s]
    #[arg(long, value_name = "DURATION", env = "EPITHET_CA_TIMEOUT", value_parser = duration)]
    pub(crate) ca_timeout: Option<Duration>,
    /// The longest time a failing CA is left alone; the first time it is a second [default: 1m]
    #[arg(long, value_name = "DURATION", env = "EPITHET_CA_COOLDOWN", value_parser = duration)]
    pub(crate) ca_cooldown: Option<Duration>,
    /// How long a login may take [1s to 15m, default: 5m]
    #[arg(long, value_name = "DURATION", env = "EPITHET_AUTH_TIMEOUT", value_parser = duration)]
    pub(crate) auth_timeout: Option<Duration>,
    /// How long one login's token serves further connections [default: 1m]
    #[arg(long, value_name = "DURATION", env = "EPITHET_TOKEN_REUSE", value_parser = duration)]
    pub(crate) token_reuse: Option<Duration>,
    /// Hosts by their tag (`Tag NAME` in ~/.ssh/config, `ssh -P NAME`) instead of patterns; needs OpenSSH 9.4
    #[arg(long, value_name = "TAG", env = "EPITHET_TAG")]
    pub(crate) tag: Option<TagName>,
    /// Hosts to which the agent may be forwarded (ssh -A) and that may then log in further as you; may be repeated, and
    /// alone it means every host. Off, because the remote host could use it
    #[arg(
        long,
        value_name = "PATTERN",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "*"
    )]
    pub(crate) allow_forwarding: Vec<String>,
    /// When the keys of your own agent (SSH_AUTH_SOCK) are offered too: denied (there is no certificate, because it was
    /// denied or did not come in time), always (after the certificate) or never [default: denied]
    #[arg(long, value_name = "WHEN", env = "EPITHET_CHAIN", hide_possible_values = true)]
    pub(crate) chain: Option<ChainChoice>,
    /// Renew certificates that are in use a moment before they end
    #[arg(long)]
    pub(crate) renew: bool,
    /// How many connections may have an agent at once [1 to 65536, default: 4096]
    #[arg(long, value_name = "NUMBER", value_parser = |text: &str| number(text, AGENTS_MAX_RANGE))]
    pub(crate) max_agents: Option<usize>,
    /// Return once the broker serves, and leave it running without a terminal; it logs to a file
    #[arg(long)]
    pub(crate) background: bool,
    /// The broker that --background started: no terminal, and stderr is for its parent until it serves
    #[arg(long, hide = true, conflicts_with = "background")]
    pub(crate) detached: bool,
}

/// When the person's own agent is offered, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum ChainChoice {
    /// When there is no certificate, because it was denied or did not come in time
    Denied,
    /// Always, after the certificate
    Always,
    /// Never
    Never,
}

/// Which broker is spoken to.
#[derive(Debug, Clone, Args)]
pub(crate) struct BrokerChoice {
    /// The broker's socket [default: that of the profile]
    #[arg(short, long, value_name = "SOCKET", env = "EPITHET_BROKER")]
    pub(crate) broker: Option<PathBuf>,
    /// The broker's profile [default: default]
    #[arg(long, value_name = "PROFILE", env = "EPITHET_NAME")]
    pub(crate) name: Option<ProfileName>,
}

/// `epithet inspect`
#[derive(Debug, Clone, Args)]
pub(crate) struct InspectOptions {
    #[command(flatten)]
    pub(crate) broker: BrokerChoice,
    /// Print JSON
    #[arg(short, long)]
    pub(crate) json: bool,
}

/// `epithet login`
#[derive(Debug, Clone, Args)]
pub(crate) struct LoginOptions {
    #[command(flatten)]
    pub(crate) broker: BrokerChoice,
    /// Log in with a browser anywhere, and paste here the address on which it ends; the same as --flow paste
    #[arg(long, conflicts_with = "flow")]
    pub(crate) paste: bool,
    /// Log in this way, once, whatever is configured; a login that waits elsewhere begins again in this way
    #[arg(long, value_name = "FLOW", value_parser = ["browser", "device", "paste"])]
    pub(crate) flow: Option<String>,
}

/// `epithet trust`
#[derive(Debug, Clone, Args)]
pub(crate) struct TrustOptions {
    /// The CA's URL, as given to `epithet agent`
    pub(crate) ca_url: CaAddress,
    /// Do not ask
    #[arg(short, long)]
    pub(crate) yes: bool,
}

/// Reads a number flag, of which only those from the first to the second are sensible.
pub(crate) fn number<N>(text: &str, (least, most): (N, N)) -> Result<N, String>
where
    N: std::str::FromStr + PartialOrd + std::fmt::Display,
{
    let number = text
        .parse()
        .ok()
        .filter(|number| (&least..=&most).contains(&number));
    number.ok_or_else(|| format!("it has to be a whole number from {least} to {most}"))
}

/// Reads a duration flag.
pub(crate) fn duration(text: &str) -> Result<Duration, epithet_wire::DurationError> {
    epithet_wire::parse_duration(text)
}

/// Reads the values of `--match` and the like: each may name several patterns, joined by commas.
pub(crate) fn patterns(flag: &str, values: &[String]) -> anyhow::Result<Vec<HostPattern>> {
    let words = values
        .iter()
        .flat_map(|value| crate::config::split_outside_braces(value));
    words
        .map(|word| HostPattern::parse(&word).map_err(|error| anyhow::anyhow!("{flag}: {error}")))
        .collect()
}
