//! The commands that make Epithet at home on a person's own machine.

use super::agent::BrokerChoice;
use clap::Args;
use epithet_wire::ProfileName;

/// `epithet agent status`
#[derive(Debug, Clone, Args)]
#[command(after_help = "Exit codes: 0 it is running, 1 it is not.")]
pub(crate) struct StatusOptions {
    /// The broker's profile
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
    /// The broker's profile
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
    /// The broker's profile
    #[arg(long, value_name = "PROFILE", env = "EPITHET_NAME")]
    pub(crate) name: Option<ProfileName>,
    /// Start it now and at each login
    #[arg(long)]
    pub(crate) enable: bool,
}

/// `epithet agent uninstall`
#[derive(Debug, Clone, Args)]
pub(crate) struct UninstallOptions {
    /// The broker's profile
    #[arg(long, value_name = "PROFILE", env = "EPITHET_NAME")]
    pub(crate) name: Option<ProfileName>,
}
