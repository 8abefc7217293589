//! `epithet policy` and `epithet server`.

use super::ca::IssuingOptions;
use super::rules::PolicyCommand;
use crate::commands::KeyName;
use clap::Args;
use std::path::PathBuf;

const POLICY_EXAMPLES: &str = "\
A file, for example /etc/epithet/policy.yaml:
  policy:
    oidc: {issuer: https://accounts.google.com, client-id: 123456.apps.googleusercontent.com}
    users: {alice@example.com: [admin]}
    defaults: {allow: {root: [admin]}, expiration: 5m}
    hosts: {'*.example.com': {}}

  epithet policy --ca-pubkey /etc/epithet/ca.key.pub --listen unix:///run/epithet/policy.sock
  epithet policy check /etc/epithet/policy.yaml
  epithet policy explain --user alice@example.com --host web --as root
  epithet policy test /etc/epithet/policy-tests.yaml

Every key of the rules, and how they decide: docs/policy.md. How tokens are verified, `policy: token:` says: `oidc` (ID tokens; `oidc:` may be a list of issuers), `introspection` \
(the provider is asked, RFC 7662) or `command` (a program of yours is asked). See docs/policy-tokens.md.

When the files change, or at SIGHUP, they are read again: what is wrong with them is logged, and the old rules stay. SIGHUP \
reads the TLS files again too.";

/// `epithet policy`
#[derive(Debug, Clone, Args)]
#[command(args_conflicts_with_subcommands = true, after_help = POLICY_EXAMPLES)]
pub(crate) struct PolicyOptions {
    #[command(subcommand)]
    pub(crate) command: Option<PolicyCommand>,
    #[command(flatten)]
    pub(crate) serve: ServePolicyOptions,
}

/// `epithet policy` as a server
#[derive(Debug, Clone, Args)]
pub(crate) struct ServePolicyOptions {
    /// Where to listen: HOST:PORT, :PORT, PORT or unix:///path [default: 127.0.0.1:9999]
    #[arg(short, long, value_name = "ADDRESS", env = "EPITHET_POLICY_LISTEN")]
    pub(crate) listen: Option<String>,
    #[command(flatten)]
    pub(crate) rules: RuleOptions,
    /// The CA that may ask: its public keys as a file, a line (ssh-ed25519 AAAA...) or the CA's URL, which is asked again every 5 minutes
    #[arg(long, value_name = "KEY", env = "EPITHET_CA_PUBKEY")]
    pub(crate) ca_pubkey: Option<String>,
    /// Sign every answer with this key, for CAs that have its public half as --policy-key: a private key file, or agent:... as for a CA
    #[arg(long, value_name = "KEY", env = "EPITHET_REPLY_KEY")]
    pub(crate) reply_key: Option<KeyName>,
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

/// What policy server and combined server have in common, over the `policy:` section of the files.
#[derive(Debug, Clone, Args)]
pub(crate) struct RuleOptions {
    /// The provider whose tokens are accepted
    #[arg(long, value_name = "URL", env = "EPITHET_OIDC_ISSUER")]
    pub(crate) oidc_issuer: Option<String>,
    /// The client id that those tokens are for
    #[arg(long, value_name = "ID", env = "EPITHET_OIDC_CLIENT_ID")]
    pub(crate) oidc_client_id: Option<String>,
    /// The client's secret, told to clients by discovery; only for providers that insist on one
    #[arg(
        long,
        value_name = "SECRET",
        env = "EPITHET_OIDC_CLIENT_SECRET",
        hide_env_values = true
    )]
    pub(crate) oidc_client_secret: Option<String>,
    /// A certificate's life where no rule names one [default: that of `defaults`, else 5m]
    #[arg(long, value_name = "DURATION", env = "EPITHET_DEFAULT_EXPIRATION")]
    pub(crate) default_expiration: Option<String>,
}

const SERVER_EXAMPLES: &str = "\
Examples:
  epithet server --ca-key /etc/epithet/ca.key --oidc-issuer https://accounts.google.com --oidc-client-id 123456

Users, hosts and the way tokens are verified come from `policy:` in a configuration file; see `epithet policy --help`.

When the files change, or at SIGHUP, the rules are read again (what is wrong with them is logged, and the old ones stay). \
SIGHUP opens the audit log again and reads the TLS files again too.";

/// `epithet server`
#[derive(Debug, Clone, Args)]
#[command(after_help = SERVER_EXAMPLES)]
pub(crate) struct ServerOptions {
    /// Where to listen: HOST:PORT, :PORT, PORT or unix:///path [default: 127.0.0.1:8080]
    #[arg(short, long, value_name = "ADDRESS", env = "EPITHET_LISTEN")]
    pub(crate) listen: Option<String>,
    /// The CA's key: an OpenSSH private key file that only you can read, agent:SHA256:..., agent:/SOCKET#COMMENT or agent:/SOCKET#SHA256:...; repeat it to publish further keys (their .pub files will do) [default: /etc/epithet/ca.key]
    #[arg(long, value_name = "KEY", env = "EPITHET_CA_KEY")]
    pub(crate) ca_key: Vec<KeyName>,
    #[command(flatten)]
    pub(crate) rules: RuleOptions,
    #[command(flatten)]
    pub(crate) issuing: IssuingOptions,
}
