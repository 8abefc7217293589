//! `epithet auth ...` and `epithet plugin ...`.

use super::agent::{duration, number};
use clap::{Args, Subcommand};
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

/// `epithet auth ...`
#[derive(Debug, Subcommand)]
pub(crate) enum AuthCommand {
    /// Log in at any OpenID Connect provider
    Oidc(Box<OidcOptions>),
}

const OIDC_ABOUT: &str = "\
Log in at any OpenID Connect provider: Google Workspace, Okta, Entra and others.

An auth plugin: the broker runs it, with state on stdin, the token on stdout, new state on file descriptor 3 and messages \
on stderr. Run by hand in a terminal it is a check: it logs in and prints who you are and what the token says, but not \
the token itself.";

const OIDC_EXAMPLES: &str = "\
Examples:
  epithet agent --ca-url https://ca.example.com --auth \"epithet auth oidc \\
      --issuer https://accounts.google.com --client-id 123456.apps.googleusercontent.com\"
  epithet auth oidc --issuer https://login.example.com --client-id ssh     (a check, by hand)
  epithet auth oidc probe --issuer https://login.example.com               (what a provider can do)

Configuration: `auth: {oidc: ...}` in a file, keys named as the flags.";

/// `epithet auth oidc`
#[derive(Debug, Clone, Args)]
#[command(long_about = OIDC_ABOUT, after_help = OIDC_EXAMPLES, subcommand_negates_reqs = true)]
pub(crate) struct OidcOptions {
    #[command(subcommand)]
    pub(crate) command: Option<OidcCommand>,
    /// The provider's issuer URL, like `https://accounts.google.com`
    #[arg(long, value_name = "URL", env = "EPITHET_ISSUER", global = true)]
    pub(crate) issuer: Option<String>,
    /// The client id that the provider registered for you
    #[arg(long, value_name = "ID", env = "EPITHET_CLIENT_ID")]
    pub(crate) client_id: Option<String>,
    /// The client's secret, where the provider insists on one; better in a file or in the environment
    #[arg(
        long,
        value_name = "SECRET",
        env = "EPITHET_CLIENT_SECRET",
        hide_env_values = true
    )]
    pub(crate) client_secret: Option<String>,
    /// A file that holds the client's secret
    #[arg(
        long,
        value_name = "FILE",
        env = "EPITHET_CLIENT_SECRET_FILE",
        conflicts_with = "client_secret"
    )]
    pub(crate) client_secret_file: Option<PathBuf>,
    /// What to ask for, joined by commas [default: openid,profile,email]
    #[arg(long, value_name = "SCOPES", env = "EPITHET_SCOPES", value_delimiter = ',')]
    pub(crate) scopes: Vec<String>,
    /// How you log in: auto, browser, paste or device [default: auto]
    #[arg(long, value_name = "FLOW", env = "EPITHET_FLOW")]
    pub(crate) flow: Option<String>,
    /// Ports for the redirect, for providers that compare them [default: any free one]
    #[arg(long, value_name = "PORT", env = "EPITHET_PORTS", value_delimiter = ',', value_parser = |text: &str| number(text, (1, u16::MAX)))]
    pub(crate) port: Vec<u16>,
    /// The host in the redirect address: 127.0.0.1, localhost or `[::1]` [default: 127.0.0.1]
    #[arg(long, value_name = "HOST", env = "EPITHET_REDIRECT_HOST")]
    pub(crate) redirect_host: Option<String>,
    /// The path in the redirect address [default: /callback]
    #[arg(long, value_name = "PATH", env = "EPITHET_REDIRECT_PATH")]
    pub(crate) redirect_path: Option<String>,
    /// A redirect address elsewhere, whose code you paste (--flow paste)
    #[arg(long, value_name = "URL", env = "EPITHET_REDIRECT_URI")]
    pub(crate) redirect_uri: Option<String>,
    /// The program that opens the login page; gets its address as the last argument
    #[arg(
        long,
        value_name = "COMMAND",
        env = "EPITHET_BROWSER",
        conflicts_with = "no_browser"
    )]
    pub(crate) browser: Option<String>,
    /// Never open a browser; the address is shown
    #[arg(long)]
    pub(crate) no_browser: bool,
    /// Which token to give out: id or access [default: id]
    #[arg(long, value_name = "KIND", env = "EPITHET_TOKEN")]
    pub(crate) token: Option<String>,
    /// `audience` of the authorization request (Auth0 and others)
    #[arg(long, value_name = "AUDIENCE")]
    pub(crate) audience: Option<String>,
    /// `resource` of the authorization request (RFC 8707)
    #[arg(long, value_name = "URL")]
    pub(crate) resource: Option<String>,
    /// `prompt` of the authorization request, like `login` or `select_account`
    #[arg(long, value_name = "PROMPT")]
    pub(crate) prompt: Option<String>,
    /// Who is about to log in, as a hint to the provider
    #[arg(long, value_name = "HINT")]
    pub(crate) login_hint: Option<String>,
    /// How long ago, in seconds, you may have typed your password when you log in [default: as the provider decides]
    #[arg(long, value_name = "SECONDS", value_parser = |text: &str| number(text, (0, u64::from(u32::MAX))))]
    pub(crate) max_age: Option<u64>,
    /// `acr_values` of the authorization request
    #[arg(long, value_name = "VALUES")]
    pub(crate) acr_values: Option<String>,
    /// Another parameter of the authorization request; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) extra_param: Vec<String>,
    /// How the client says who it is: auto, none, basic, post or private-key-jwt [default: auto]
    #[arg(long, value_name = "METHOD", env = "EPITHET_CLIENT_AUTH")]
    pub(crate) client_auth: Option<String>,
    /// The key for --client-auth private-key-jwt: a PEM file
    #[arg(long, value_name = "FILE", env = "EPITHET_CLIENT_KEY_FILE")]
    pub(crate) client_key_file: Option<PathBuf>,
    /// What the provider calls that key (`kid`), where it wants to be told
    #[arg(long, value_name = "KID", env = "EPITHET_CLIENT_KEY_ID")]
    pub(crate) client_key_id: Option<String>,
    /// How long the whole login may take [default: 4m50s]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(crate) timeout: Option<Duration>,
}

/// `epithet auth oidc ...`
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum OidcCommand {
    /// Print what a provider can do, and which flags to use for it
    Probe,
}

/// `epithet plugin ...`
#[derive(Debug, Subcommand)]
pub(crate) enum PluginCommand {
    /// Run a plugin through the protocol and report what is right and wrong with it
    Check {
        /// Begin with the state in this file instead of none
        #[arg(long, value_name = "FILE")]
        state: Option<PathBuf>,
        /// Tell the plugin that somebody is at a terminal
        #[arg(long)]
        interactive: bool,
        /// Print JSON
        #[arg(short, long)]
        json: bool,
        /// How long one run may take
        #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "60s")]
        timeout: Duration,
        /// The plugin and its arguments; one word is a command for /bin/sh, as in --auth
        #[arg(last = true, required = true, value_name = "COMMAND")]
        command: Vec<OsString>,
    },
    /// Run a plugin once, as the broker would, and show what went over each stream (not the secrets)
    Run {
        /// Begin with the state in this file instead of none
        #[arg(long, value_name = "FILE")]
        state: Option<PathBuf>,
        /// Write the new state to this file (it holds secrets: for developing only)
        #[arg(long, value_name = "FILE")]
        save_state: Option<PathBuf>,
        /// Tell the plugin that somebody is at a terminal, also when stderr is none
        #[arg(long)]
        interactive: bool,
        /// How long the run may take
        #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "5m")]
        timeout: Duration,
        /// The plugin and its arguments; one word is a command for /bin/sh, as in --auth
        #[arg(last = true, required = true, value_name = "COMMAND")]
        command: Vec<OsString>,
    },
}
