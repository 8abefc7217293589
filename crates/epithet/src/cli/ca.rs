//! `epithet ca`, and what it has in common with `epithet server`.

use super::agent::{duration, number};
use crate::commands::KeyName;
use clap::{Args, Subcommand};
use epithet_ca::PrincipalPattern;
use epithet_serve::TrustedProxy;
use std::path::PathBuf;
use std::time::Duration;

const CA_EXAMPLES: &str = "\
Examples:
  ssh-keygen -t ed25519 -N '' -f /etc/epithet/ca.key
  epithet ca --key /etc/epithet/ca.key --policy https://policy.example.com \\
      --listen 0.0.0.0:8443 --tls-cert /etc/epithet/tls.pem --tls-key /etc/epithet/tls.key
  curl https://ca.example.com > /etc/ssh/epithet-ca.pub
      (on every host, for TrustedUserCAKeys)

The key may be in an ssh-agent, and through it in a security module, a YubiKey or a cloud's key service:
  epithet ca --key agent:SHA256:lbmsoA0yIEc... --policy ...          (see ssh-add -l)
  epithet ca --key 'agent:/run/epithet/agent.sock#ca' --policy ...   (and a comment)

Several keys: the first signs, all are published for hosts to trust. See `epithet ca rotate --help`.

Configuration: `ca:` in a file. SIGHUP opens the audit log again and reads the TLS files again.";

/// `epithet ca`
#[derive(Debug, Clone, Args)]
#[command(args_conflicts_with_subcommands = true, after_help = CA_EXAMPLES)]
pub(crate) struct CaOptions {
    #[command(subcommand)]
    pub(crate) command: Option<CaCommand>,
    #[command(flatten)]
    pub(crate) serve: ServeCaOptions,
}

/// `epithet ca ...`
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum CaCommand {
    /// Exchange the CA's key: say which steps are done and which one is next
    Rotate(RotateOptions),
}

/// `epithet ca` as a server
#[derive(Debug, Clone, Args)]
pub(crate) struct ServeCaOptions {
    /// The CA's key: an OpenSSH private key file that only you can read, agent:SHA256:..., agent:/SOCKET#COMMENT or agent:/SOCKET#SHA256:...; repeat it to publish further keys (their .pub files will do) [default: /etc/epithet/ca.key]
    #[arg(short, long, value_name = "KEY", env = "EPITHET_CA_KEY")]
    pub(crate) key: Vec<KeyName>,
    /// The policy server: https://..., unix:///path, or http:// to this machine (with --policy-key, else any of its users could answer there)
    #[arg(short, long, value_name = "URL", env = "POLICY_URL")]
    pub(crate) policy: Option<String>,
    /// How long to wait for the policy server's decision, from 1s to 10s; then it is 503 [default: 5s]
    #[arg(long, value_name = "DURATION", env = "EPITHET_POLICY_TIMEOUT", value_parser = duration)]
    pub(crate) policy_timeout: Option<Duration>,
    /// Believe only answers of the policy server that are signed with this key (its --reply-key), given as a .pub file or a line (ssh-ed25519 AAAA...); may be repeated
    #[arg(long, value_name = "KEY", env = "EPITHET_POLICY_KEY")]
    pub(crate) policy_key: Vec<String>,
    /// Where to listen: HOST:PORT, :PORT, PORT or unix:///path [default: 127.0.0.1:8080; without TLS only this machine should reach it]
    #[arg(short, long, value_name = "ADDRESS", env = "PORT")]
    pub(crate) listen: Option<String>,
    #[command(flatten)]
    pub(crate) issuing: IssuingOptions,
}

/// What CA and combined server have in common.
#[derive(Debug, Clone, Args)]
pub(crate) struct IssuingOptions {
    /// Read the passphrases of encrypted keys from this descriptor, one a line in the order of the keys (otherwise: the terminal, or the file that EPITHET_CA_PASSPHRASE_FILE names)
    #[arg(long, value_name = "NUMBER", value_parser = |text: &str| number(text, (0_u32, 65_535)))]
    pub(crate) key_passphrase_fd: Option<u32>,
    /// No certificate lives longer, whatever policy says [default: 10m]
    #[arg(long, value_name = "DURATION", env = "EPITHET_MAX_TTL", value_parser = duration)]
    pub(crate) max_ttl: Option<Duration>,
    /// What policy may add to the user who was asked for (`principals:` of a rule), such as prod-*; may be repeated
    /// [default: nothing]
    #[arg(
        long,
        value_name = "PATTERN",
        env = "EPITHET_ALLOW_PRINCIPAL",
        value_delimiter = ','
    )]
    pub(crate) allow_principal: Vec<PrincipalPattern>,
    /// An extension that certificates may have; repeat it, or use commas: naming any replaces the default list [default: permit-pty, permit-agent-forwarding, permit-user-rc, permit-port-forwarding, permit-X11-forwarding, no-touch-required]
    #[arg(
        long,
        value_name = "NAME",
        value_delimiter = ',',
        env = "EPITHET_ALLOW_EXTENSION"
    )]
    pub(crate) allow_extension: Vec<String>,
    /// Append the audit log to this file instead of stdout: one JSON line a decision, written before a certificate leaves
    #[arg(long, value_name = "FILE", env = "EPITHET_AUDIT_FILE")]
    pub(crate) audit_file: Option<PathBuf>,
    /// Send the audit log to the system's log instead, through its socket: /dev/log
    #[arg(
        long,
        value_name = "SOCKET",
        env = "EPITHET_AUDIT_SYSLOG",
        conflicts_with = "audit_file"
    )]
    pub(crate) audit_syslog: Option<PathBuf>,
    /// A proxy in front whose X-Forwarded-For says who asks: an address, a network such as 10.0.0.0/8, or `unix`; may be repeated
    #[arg(
        long,
        value_name = "NETWORK",
        env = "EPITHET_TRUSTED_PROXY",
        value_delimiter = ','
    )]
    pub(crate) trusted_proxy: Vec<TrustedProxy>,
    /// Serve numbers for Prometheus at http://ADDRESS/metrics, on a listener of their own; OpenMetrics where Accept asks for it
    #[arg(long, value_name = "ADDRESS", env = "EPITHET_METRICS_LISTEN")]
    pub(crate) metrics_listen: Option<String>,
    /// Serve TLS with this certificate chain (PEM)
    #[arg(long, value_name = "FILE", env = "EPITHET_TLS_CERT", requires = "tls_key")]
    pub(crate) tls_cert: Option<PathBuf>,
    /// The key of --tls-cert (PEM)
    #[arg(long, value_name = "FILE", env = "EPITHET_TLS_KEY", requires = "tls_cert")]
    pub(crate) tls_key: Option<PathBuf>,
}

const ROTATE_HELP: &str = "\
How a CA's key is exchanged without a login that fails, in six steps:
  1. make a new key:      ssh-keygen -t ed25519 -N '' -f /etc/epithet/ca-2.key
  2. publish it:          epithet ca --key OLD --key NEW    (restart; OLD still signs)
  3. hosts trust both:    epithet host setup --ca-url https://ca.example.com --apply
                          on every host; a policy server that has the CA's URL as
                          --ca-pubkey learns the key by itself; where that is a file,
                          write both keys into it and send SIGHUP
  4. NEW signs:           epithet ca --key NEW --key OLD    (restart)
  5. wait for --max-ttl:  certificates by OLD end
  6. forget OLD:          epithet ca --key NEW    (restart), then step 3 again

This command asks the running CA where it stands and says what comes next.

Examples:
  epithet ca rotate https://ca.example.com
  epithet ca rotate https://ca.example.com --next /etc/epithet/ca-2.key
  ssh web cat /etc/ssh/epithet-ca.pub | \\
      epithet ca rotate https://ca.example.com --next ca-2.pub --trusted -

Exit code: 0 when nothing is left to do, 1 when a step is.";

/// `epithet ca rotate`
#[derive(Debug, Clone, Args)]
#[command(after_help = ROTATE_HELP)]
pub(crate) struct RotateOptions {
    /// The running CA: https://..., http:// to this machine, or unix:///path
    #[arg(value_name = "URL")]
    pub(crate) ca: String,
    /// The key to come: its .pub file, the private key beside it, or agent:...
    #[arg(long, value_name = "KEY")]
    pub(crate) next: Option<KeyName>,
    /// What a host trusts: a copy of its TrustedUserCAKeys file, or - for standard input; may be repeated
    #[arg(long, value_name = "FILE")]
    pub(crate) trusted: Vec<PathBuf>,
}
