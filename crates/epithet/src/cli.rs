//! The command line: one source for parsing, help, man pages and completions.

mod agent;
mod audit;
mod auth;
mod ca;
mod demo;
mod environment;
mod host;
mod laptop;
mod rules;
mod server;

pub(crate) use agent::{
    AgentCommand, AgentOptions, BrokerChoice, ChainChoice, InspectOptions, LoginOptions, StartOptions,
    TrustOptions, patterns,
};
pub(crate) use audit::{AuditCommand, Decided, FilterOptions, ListOptions, VerifyOptions};
pub(crate) use auth::{AuthCommand, OidcCommand, OidcOptions, PluginCommand};
pub(crate) use ca::{CaCommand, CaOptions, IssuingOptions, RotateOptions, ServeCaOptions};
pub(crate) use demo::{DemoCommand, DemoOptions};
pub(crate) use environment::{FromVariable, parse};
pub(crate) use host::{CaKeyOptions, HostCheckOptions, HostCommand, HostSetupOptions};
pub(crate) use laptop::{
    DoctorOptions, InstallOptions, SetupOptions, Start, StatusOptions, StopOptions, TraceCommand,
    TraceOptions, UninstallOptions,
};
pub(crate) use rules::{CheckOptions, ExplainOptions, PolicyCommand, ReplayOptions, TestOptions};
pub(crate) use server::{PolicyOptions, RuleOptions, ServePolicyOptions, ServerOptions};

use clap::{Args, Parser, Subcommand, ValueEnum};
use serde::Deserialize;
use std::ffi::OsString;
use std::path::PathBuf;

const ABOUT: &str = "SSH certificates that live for minutes, paid for by the login you already have";

const LONG_ABOUT: &str = "\
SSH certificates that live for minutes, paid for by the login you already have.

You type `ssh server`. A broker on your machine (`epithet agent`) gets an identity token through an auth plugin, asks a \
CA (`epithet ca`) for a certificate for exactly this user at exactly this host, and gives it to ssh through an agent \
socket made for this one connection. The CA asks a policy server (`epithet policy`) whether it may. Hosts run stock sshd \
with one more line of configuration.

See it work on this machine, with nothing configured:  epithet demo";

const AFTER_HELP: &str = "\
Files: /etc/epithet/*.{yaml,yml,json}, then ~/.epithet/*.{yaml,yml,json}, then --config; keys are named as the flags. \
A flag beats an environment variable, which beats a file, which beats the default. An empty variable is as if it were not set.

Exit codes: 0 success, 1 failure, 80 wrong command line.";

/// The whole command line.
#[derive(Debug, Parser)]
#[command(name = "epithet", version = crate::commands::VERSION, about = ABOUT, long_about = LONG_ABOUT, after_help = AFTER_HELP, propagate_version = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What every command understands.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Global {
    /// Say more: -v for what happens, -vv for how, -vvv for everything
    #[arg(short, long, action = clap::ArgAction::Count, global = true)]
    pub(crate) verbose: u8,
    /// Append logs to this file instead of stderr
    #[arg(long, value_name = "FILE", env = "EPITHET_LOG_FILE", global = true)]
    pub(crate) log_file: Option<PathBuf>,
    /// How a log line looks: text, or json (one object a line) [default: text]
    #[arg(
        long,
        value_name = "FORMAT",
        env = "EPITHET_LOG_FORMAT",
        global = true,
        hide_possible_values = true
    )]
    pub(crate) log_format: Option<LogFormat>,
    /// One more configuration file, over all others
    #[arg(long, value_name = "FILE", env = "EPITHET_CONFIG", global = true)]
    pub(crate) config: Option<PathBuf>,
    /// Trust the certificates in this PEM file too (there is no switch that turns TLS verification off)
    #[arg(long, value_name = "FILE", env = "EPITHET_TLS_CA_CERT", global = true)]
    pub(crate) tls_ca_cert: Option<PathBuf>,
}

/// How a log line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum LogFormat {
    /// For people
    Text,
    /// One JSON object a line
    Json,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Set up this machine: configuration, the Include for ssh, the broker, the first login
    Setup(Box<SetupOptions>),
    /// Run the broker that ssh asks for certificates (on your own machine)
    Agent(Box<AgentOptions>),
    /// Ask the broker whether this connection can use a certificate (ssh runs this)
    #[command(disable_help_flag = true, override_usage = "epithet match --host <HOST> --port <PORT> --user <USER> --hash <HASH> --broker <SOCKET> [--jump <HOSTS>]", long_about = epithet_match::HELP)]
    Match {
        /// See `epithet match --help`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
        arguments: Vec<OsString>,
    },
    /// Show what the broker is doing: agents, certificates, login, CAs
    Inspect(InspectOptions),
    /// Look for the one reason why something does not work, and say what to do about it
    Doctor(DoctorOptions),
    /// Show where the time of the last connections went
    #[command(subcommand)]
    Trace(TraceCommand),
    /// Log in now, before the first ssh
    Login(LoginOptions),
    /// Forget the login: state, token and every certificate
    Logout(BrokerChoice),
    /// Accept that a CA names another provider or client id than when it was first used
    Trust(TrustOptions),
    /// Auth plugins that come with Epithet
    #[command(subcommand)]
    Auth(AuthCommand),
    /// Try, check and develop auth plugins of your own
    #[command(subcommand)]
    Plugin(PluginCommand),
    /// Run the certificate authority; exchange its key
    Ca(Box<CaOptions>),
    /// Run the policy server that the CA asks; check, explain and test its rules
    Policy(Box<PolicyOptions>),
    /// Run CA and policy server in one process
    Server(Box<ServerOptions>),
    /// Set up a host that people log in to, and check it
    #[command(subcommand)]
    Host(HostCommand),
    /// Read, follow and check the CA's audit log
    #[command(subcommand)]
    Audit(AuditCommand),
    /// See a whole login on this machine, with nothing configured
    Demo(DemoOptions),
    /// Write man pages into a directory
    #[command(hide = true)]
    Man {
        /// Where to
        directory: PathBuf,
    },
    /// Print a shell's completion script
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
}
