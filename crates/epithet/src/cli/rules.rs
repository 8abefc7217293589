//! `epithet policy check`, `explain`, `test` and `replay`: what rules say, without a server.

use super::agent::duration;
use clap::builder::NonEmptyStringValueParser;
use clap::{Args, Subcommand};
use epithet_ca::PrincipalPattern;
use epithet_wire::{HostName, Principal};
use std::path::PathBuf;
use std::time::Duration;

/// `epithet policy ...`
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum PolicyCommand {
    /// Read a file of rules and say what is wrong with it, or looks so
    Check(CheckOptions),
    /// Say what the rules decide about one login, and why
    Explain(ExplainOptions),
    /// Compare what the rules decide with what a file says that they should
    Test(TestOptions),
    /// Say which past decisions of an audit log a file of rules would change
    Replay(ReplayOptions),
}

const CHECK_HELP: &str = "\
Every error is told, not only the first, and every warning: about rules that never decide (one rule before them, or several \
together, take all that they allow), users and groups without tags, tags that nobody has or no rule uses, lives, extensions \
and principals that the CA does not grant, hosts named twice, and the like; each with its line.

Exit code: 0 when the rules can be used, 1 when they cannot, or when there are warnings and --strict.";

/// `epithet policy check`
#[derive(Debug, Clone, Args)]
#[command(after_help = CHECK_HELP)]
pub(crate) struct CheckOptions {
    /// The file, with the rules at its top or under `policy:`
    pub(crate) file: PathBuf,
    /// The CA's own limit on a certificate's life, for the warning about longer ones [default: 10m]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(crate) max_ttl: Option<Duration>,
    /// An extension that the CA was told to sign beyond those it signs anyway; may be repeated
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub(crate) allow_extension: Vec<String>,
    /// A principal that the CA was told to sign beside the user, or a pattern of them; may be repeated
    #[arg(long, value_name = "PATTERN", value_delimiter = ',')]
    pub(crate) allow_principal: Vec<PrincipalPattern>,
    /// Fail on warnings too
    #[arg(long)]
    pub(crate) strict: bool,
}

const EXPLAIN_HELP: &str = "\
Example:
  epithet policy explain --user alice@example.com --group sre \\
      --host web.example.com --as root policy.yaml

Exit code: 0 when the login is allowed, 1 when it is denied.";

/// `epithet policy explain`
#[derive(Debug, Clone, Args)]
#[command(after_help = EXPLAIN_HELP)]
pub(crate) struct ExplainOptions {
    /// The person, as `users` has them
    #[arg(long, value_name = "IDENTITY", value_parser = NonEmptyStringValueParser::new())]
    pub(crate) user: String,
    /// A group of theirs at the provider; may be repeated
    #[arg(long, value_name = "GROUP")]
    pub(crate) group: Vec<String>,
    /// The host, as they would give it to ssh
    #[arg(long)]
    pub(crate) host: HostName,
    /// The user on that host
    #[arg(long = "as", value_name = "USER")]
    pub(crate) login: Principal,
    /// How strongly they logged in (the token's acr), for rules that `require` it
    #[arg(long, value_name = "ACR")]
    pub(crate) acr: Option<String>,
    /// By what means they logged in (the token's amr); may be repeated
    #[arg(long, value_name = "AMR")]
    pub(crate) amr: Vec<String>,
    /// How long ago they logged in
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(crate) logged_in: Option<Duration>,
    /// The file, with the rules at its top or under `policy:` [default: the configuration that a server would read]
    pub(crate) file: Option<PathBuf>,
}

const TEST_HELP: &str = "\
A file of expected decisions, kept beside the rules:
  rules: policy.yaml
  decisions:
    - {user: alice@example.com, as: root, host: web.prod.example.com, expect: allow, ttl: 2m}
    - {user: [bob@example.com, eve@example.com], as: root, host: [db, web.prod.example.com], expect: deny}

Of lists every combination is asked. More keys: groups, acr, amr, logged-in; rule, principals, extensions, options (of a \
yes); because (words of a no). See docs/policy.md.

Exit code: 0 when every decision is as expected, 1 when one is not.";

/// `epithet policy test`
#[derive(Debug, Clone, Args)]
#[command(after_help = TEST_HELP)]
pub(crate) struct TestOptions {
    /// The file with the expected decisions
    pub(crate) file: PathBuf,
    /// The rules to ask, instead of those that the file names; may be repeated, later ones over earlier ones
    #[arg(long, value_name = "FILE")]
    pub(crate) rules: Vec<PathBuf>,
}

const REPLAY_HELP: &str = "\
Every decision in the log is asked about again, under the new rules, for the same person (with those of their groups that \
the old rules knew, and how they had logged in), user and host; what they would be granted is compared too. Run it before a \
change goes live:
  epithet policy replay --audit /var/log/epithet/audit.jsonl new-policy.yaml

What a line does not say is not guessed: such decisions cannot be judged, and are counted.

Exit code: 0 when nobody gets in who did not and nobody is kept out who was not, 1 when somebody would be; with --strict, 1 \
also when a decision would be by another rule or on other terms, or cannot be judged.";

/// `epithet policy replay`
#[derive(Debug, Clone, Args)]
#[command(after_help = REPLAY_HELP)]
pub(crate) struct ReplayOptions {
    /// The CA's audit log, or `-` for standard input
    #[arg(long, value_name = "LOG")]
    pub(crate) audit: PathBuf,
    /// Fail on other rules and terms too, and on what cannot be judged
    #[arg(long)]
    pub(crate) strict: bool,
    /// The file, with the rules at its top or under `policy:`
    pub(crate) file: PathBuf,
}
