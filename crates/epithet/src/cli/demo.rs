//! `epithet demo`.

use clap::{Args, Subcommand};
use std::path::PathBuf;

const AFTER_HELP: &str = "\
Everything runs on this machine, on loopback, in a temporary directory that is removed at the end: a development \
identity provider, CA and policy server, the broker, and an sshd of your own user. Your files and your ssh \
configuration are not touched.";

/// `epithet demo`
#[derive(Debug, Clone, Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct DemoOptions {
    /// Leave it running, with a line to type and a login page to open, until Ctrl-C
    #[arg(long)]
    pub(crate) stay: bool,
    #[command(subcommand)]
    pub(crate) command: Option<DemoCommand>,
}

/// Parts of the demo that run as processes of their own.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum DemoCommand {
    /// The development identity provider
    #[command(hide = true)]
    Provider {
        /// The port on 127.0.0.1; 0 for any
        #[arg(long, default_value_t = 0)]
        port: u16,
    },
    /// Cleans up after a demo that is killed
    #[command(hide = true)]
    Sweep {
        /// The demo's directory
        directory: PathBuf,
    },
    /// A stand-in for a browser: opens the address, types a name, presses the button
    #[command(hide = true)]
    Browser {
        /// Who logs in
        #[arg(long, default_value = "alice")]
        user: String,
        /// The address
        url: String,
    },
}
