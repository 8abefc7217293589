//! `epithet host`.

use clap::{Args, Subcommand};
use epithet_wire::Principal;
use std::net::IpAddr;
use std::path::PathBuf;

/// `epithet host ...`
#[derive(Debug, Subcommand)]
pub(crate) enum HostCommand {
    /// Show, or do, what this host needs to accept the CA's certificates
    Setup(Box<HostSetupOptions>),
    /// Say whether this host would accept a certificate of the CA, and if not, why
    Check(Box<HostCheckOptions>),
}

/// Whose certificates.
#[derive(Debug, Clone, Args)]
pub(crate) struct CaKeyOptions {
    /// The CA, which publishes its keys there: https://..., or http:// to this machine
    #[arg(long, value_name = "URL")]
    pub(crate) ca_url: Option<String>,
    /// The CA's public keys in a file, one a line; - for standard input
    #[arg(long, value_name = "FILE", conflicts_with = "ca_url")]
    pub(crate) ca_pubkey: Option<PathBuf>,
    /// Accept only a key with this fingerprint, as `ssh-keygen -l` shows it; may be repeated
    #[arg(long, value_name = "SHA256:...")]
    pub(crate) fingerprint: Vec<String>,
}

const SETUP_EXAMPLES: &str = "\
Examples:
  epithet host setup --ca-url https://ca.example.com
      (shows what would be written, as a shell script)
  epithet host setup --ca-url https://ca.example.com --apply --reload \\
      --fingerprint SHA256:AbC...
  epithet host setup --undo --apply --reload

What is written: the CA's keys into the file of TrustedUserCAKeys, and that line into sshd_config.d/10-epithet.conf where \
sshd_config includes that folder before any Match, else into a marked block at the top of sshd_config. Where the host trusts other CAs already, the keys are \
added to their file. `sshd -t` has to agree before anything goes live, and again afterwards; otherwise everything is put back. What was there \
before the first change is kept beside it as FILE.before-epithet. A second run changes nothing. When the CA's keys change, run it again.

Exit code: 0 when done or nothing is to do, 1 when not; then nothing was changed (but for a failed --reload).";

/// `epithet host setup`
#[derive(Debug, Clone, Args)]
#[command(after_help = SETUP_EXAMPLES)]
pub(crate) struct HostSetupOptions {
    #[command(flatten)]
    pub(crate) ca: CaKeyOptions,
    /// Write it, instead of showing it
    #[arg(long)]
    pub(crate) apply: bool,
    /// Take back what this command wrote, and leave everything else
    #[arg(long, conflicts_with_all = ["ca_url", "ca_pubkey", "fingerprint", "principals_dir", "principals_user"])]
    pub(crate) undo: bool,
    /// Tell sshd to read its configuration again; open sessions stay open
    #[arg(long, requires = "apply")]
    pub(crate) reload: bool,
    /// Let files in this folder say who may be whom: AuthorizedPrincipalsFile DIR/%u. A user without a file there accepts no certificate
    #[arg(long, value_name = "DIR")]
    pub(crate) principals_dir: Option<PathBuf>,
    /// Make the file in --principals-dir that lets certificates for this user in; may be repeated
    #[arg(long, value_name = "USER", requires = "principals_dir")]
    pub(crate) principals_user: Vec<Principal>,
    /// The folder of sshd_config
    #[arg(long, value_name = "DIR", default_value = "/etc/ssh")]
    pub(crate) sshd_config_dir: PathBuf,
    /// The sshd to ask [default: the system's]
    #[arg(long, value_name = "PROGRAM")]
    pub(crate) sshd: Option<PathBuf>,
}

const CHECK_EXAMPLES: &str = "\
Examples:
  epithet host check --ca-url https://ca.example.com --user root
  epithet host check
      (are there any trusted keys, and would they be believed?)

Run it as root: sshd's configuration and the accounts' states are root's to read. It asks `sshd -T`, reads the files that sshd \
would read, and compares the clocks. Nothing is changed. sshd is not asked whether it was reloaded since its configuration changed: it cannot say.

Exit code: 0 when a certificate would be accepted, 1 when not.";

/// `epithet host check`
#[derive(Debug, Clone, Args)]
#[command(after_help = CHECK_EXAMPLES)]
pub(crate) struct HostCheckOptions {
    #[command(flatten)]
    pub(crate) ca: CaKeyOptions,
    /// The account to log in to: looks at it too, and at what sshd_config says for it alone
    #[arg(long, value_name = "NAME")]
    pub(crate) user: Option<Principal>,
    /// The address to log in from, for `Match Address` and `AllowUsers user@address`
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    pub(crate) from: IpAddr,
    /// sshd's configuration
    #[arg(long, value_name = "FILE", default_value = "/etc/ssh/sshd_config")]
    pub(crate) sshd_config: PathBuf,
    /// The sshd to ask [default: the system's]
    #[arg(long, value_name = "PROGRAM")]
    pub(crate) sshd: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}
