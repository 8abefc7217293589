//! The commands that make Epithet at home on a person's own machine.

use super::agent::{BrokerChoice, number};
use clap::{Args, Subcommand, ValueEnum};
use epithet_broker::CaAddress;
use epithet_wire::ProfileName;
use epithet_wire::limits::TRACES_MAX;
use std::path::PathBuf;

/// `epithet agent status`
#[derive(Debug, Clone, Args)]
#[command(after_help = "Exit codes: 0 it is running, 1 it is not.")]
pub(crate) struct StatusOptions {
    /// The broker's profile [default: default]
    #[arg(long, value_name = "PROFILE", env = "EPITHET_NAME")]
    pub(crate) name: Option<ProfileName>,
    /// Print JSON
    #[arg(short, long)]
    pub(crate) json: bool,
}

impl StatusOptions {
    /// The broker that is meant.
    pub(crate) fn broker(&self) -> BrokerChoice {
        BrokerChoice {
            broker: None,
            name: self.name.clone(),
        }
    }
}

/// `epithet agent stop`
#[derive(Debug, Clone, Args)]
pub(crate) struct StopOptions {
    /// The broker's profile [default: default]
    #[arg(long, value_name = "PROFILE", env = "EPITHET_NAME")]
    pub(crate) name: Option<ProfileName>,
}

const INSTALL_HELP: &str = "\
On Linux it writes two units of systemd into ~/.config/systemd/user: a socket, on which ssh's question starts the broker \
when it is not running, and the service. On macOS it writes a property list into ~/Library/LaunchAgents. Running it again \
changes nothing, or brings what it wrote up to date; `epithet agent uninstall` removes exactly that.

The service reads its settings from the configuration files (`epithet setup` writes one): it gets no flags but --name.";

/// `epithet agent install`
#[derive(Debug, Clone, Args)]
#[command(after_help = INSTALL_HELP)]
pub(crate) struct InstallOptions {
    /// The broker's profile [default: default]
    #[arg(long, value_name = "PROFILE", env = "EPITHET_NAME")]
    pub(crate) name: Option<ProfileName>,
    /// Start it now and at each login
    #[arg(long)]
    pub(crate) enable: bool,
}

/// `epithet agent uninstall`
#[derive(Debug, Clone, Args)]
pub(crate) struct UninstallOptions {
    /// The broker's profile [default: default]
    #[arg(long, value_name = "PROFILE", env = "EPITHET_NAME")]
    pub(crate) name: Option<ProfileName>,
}

const SETUP_HELP: &str = "\
Examples:
  epithet setup                                        asks
  epithet setup --ca-url https://ca.example.com        asks only before it writes
  epithet setup --ca-url https://ca.example.com --yes  asks nothing
  epithet setup --name work                            a second CA, beside the first

It looks at the CA, shows what it would write into ~/.epithet/config.yaml and ~/.ssh/config, writes it when you agree, \
starts the broker and logs in. With --name it is about that profile: a broker, a CA and a login of its own. Without a \
terminal it logs in only with an auth plugin of yours, which may need nobody; the provider's own login waits for the \
first ssh. Your ~/.ssh/config is changed by one line, in one step; the file as it was is kept beside it. \
Running it again changes nothing.";

/// `epithet setup`
#[derive(Debug, Clone, Args)]
#[command(after_help = SETUP_HELP)]
pub(crate) struct SetupOptions {
    /// The CA's URL, from whoever runs it; may be repeated
    #[arg(
        short,
        long,
        value_name = "URL",
        env = "EPITHET_CA_URL",
        value_delimiter = ','
    )]
    pub(crate) ca_url: Vec<CaAddress>,
    /// The auth plugin's command, when the CA does not say how to log in
    #[arg(short, long, value_name = "COMMAND", env = "EPITHET_AUTH")]
    pub(crate) auth: Option<String>,
    /// Which hosts (like '*.example.com'), when the CA does not say; may be repeated
    #[arg(long = "match", value_name = "PATTERN", env = "EPITHET_MATCH")]
    pub(crate) match_: Vec<String>,
    /// The profile to set up [default: default]
    #[arg(long, value_name = "PROFILE", env = "EPITHET_NAME")]
    pub(crate) name: Option<ProfileName>,
    /// How the broker is started: background (now, until `epithet agent stop` or the end of the session), service (now and
    /// at each login, by systemd or launchd) or no
    #[arg(
        long,
        value_name = "HOW",
        default_value = "background",
        hide_possible_values = true
    )]
    pub(crate) start: Start,
    /// Do not log in
    #[arg(long)]
    pub(crate) no_login: bool,
    /// The ssh configuration that gets the Include [default: ~/.ssh/config]
    #[arg(long, value_name = "FILE")]
    pub(crate) ssh_config: Option<PathBuf>,
    /// Do not ask
    #[arg(short, long)]
    pub(crate) yes: bool,
    /// Only show what would be written
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// How the broker is started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Start {
    /// Now, until `epithet agent stop` or the end of the session
    Background,
    /// Now and at each login, by systemd or launchd
    Service,
    /// Not at all
    No,
}

/// `epithet trace ...`
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum TraceCommand {
    /// Draw where the time of the last connections went, from ssh's question to the signature
    Last(TraceOptions),
}

/// `epithet trace last`
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "The request id is the one in the CA's audit line, in the broker's log and at the end of the key id that sshd logs."
)]
pub(crate) struct TraceOptions {
    #[command(flatten)]
    pub(crate) broker: BrokerChoice,
    /// How many connections, the newest last; the broker remembers 64
    #[arg(short = 'n', long, value_name = "N", default_value = "1", value_parser = |text: &str| number(text, (1, TRACES_MAX)))]
    pub(crate) number: usize,
    /// Only the connections of this request
    #[arg(long, value_name = "ID")]
    pub(crate) request_id: Option<String>,
    /// Print JSON
    #[arg(short, long)]
    pub(crate) json: bool,
}

const DOCTOR_HELP: &str = "\
Examples:
  epithet doctor               this machine, the broker, the CA, the provider
  epithet doctor root@web      and the way into that host, with a certificate
  epithet doctor --plugin      and the auth plugin, as `epithet plugin check`

The last lines name the one reason, which is the first thing that is broken, and what to do about it.

Exit codes: 0 all is well, 1 something is to be looked at, 2 something is broken.";

/// `epithet doctor`
#[derive(Debug, Clone, Args)]
#[command(after_help = DOCTOR_HELP)]
pub(crate) struct DoctorOptions {
    /// Where you want to log in, as you would give it to ssh: HOST, USER@HOST or an alias of yours
    #[arg(value_name = "HOST")]
    pub(crate) host: Option<String>,
    /// The broker's profile [default: default]
    #[arg(long, value_name = "PROFILE", env = "EPITHET_NAME")]
    pub(crate) name: Option<ProfileName>,
    /// Run the auth plugin through its protocol as well, which may need you to log in
    #[arg(long)]
    pub(crate) plugin: bool,
    /// The ssh configuration to look at [default: ~/.ssh/config]
    #[arg(long, value_name = "FILE")]
    pub(crate) ssh_config: Option<PathBuf>,
    /// Print JSON
    #[arg(short, long)]
    pub(crate) json: bool,
}
