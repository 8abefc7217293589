//! `epithet audit`.

use clap::{Args, Subcommand, ValueEnum};
use epithet_wire::HostPattern;
use jiff::Timestamp;
use std::path::PathBuf;

/// `epithet audit ...`
#[derive(Debug, Subcommand)]
pub(crate) enum AuditCommand {
    /// Show decisions: who got a certificate for what, who did not, and why
    List(Box<ListOptions>),
    /// Check that no line of an audit log was taken out, put in, changed or cut off
    Verify(VerifyOptions),
}

const LIST_EXAMPLES: &str = "\
Examples:
  epithet audit list /var/log/epithet/audit.jsonl --since 2h --decision refused
  epithet audit list --follow --host '*.example.com'
      (the log of the CA that is configured here, as it is written)
  epithet audit list audit.jsonl.1 audit.jsonl --serial 11105178801558032809 --json

A table has one row a decision, as wide as the terminal. With --json the lines are printed as they stand in the log. All conditions \
have to hold. --follow goes on when the log is rotated; end it with Ctrl-C. Lines that are none are left out, and said to be.";

/// `epithet audit list`
#[derive(Debug, Args)]
#[command(after_help = LIST_EXAMPLES)]
pub(crate) struct ListOptions {
    /// The logs, the oldest first; - for standard input [default: the audit-file of the CA that is configured here]
    #[arg(value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) filter: FilterOptions,
    /// Go on with what is written from now on to the last file
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Print the lines as they stand in the log
    #[arg(long)]
    pub(crate) json: bool,
}

/// Which decisions are wanted.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct FilterOptions {
    /// Not older than this: 2h, 2026-11-26T09:00:00Z or 2026-11-26 (UTC)
    #[arg(long, value_name = "TIME", value_parser = crate::commands::since)]
    pub(crate) since: Option<Timestamp>,
    /// For this user on the host
    #[arg(long, value_name = "NAME")]
    pub(crate) user: Option<String>,
    /// For hosts that this pattern covers
    #[arg(long, value_name = "PATTERN")]
    pub(crate) host: Option<HostPattern>,
    /// By this person, as policy names them; * and ? are wildcards
    #[arg(long, value_name = "IDENTITY")]
    pub(crate) identity: Option<String>,
    /// With this outcome
    #[arg(long, value_name = "DECISION")]
    pub(crate) decision: Option<Decided>,
    /// The certificate with this serial number, as sshd logs it
    #[arg(long, value_name = "NUMBER")]
    pub(crate) serial: Option<String>,
    /// The request with this id, as the broker and the CA log it
    #[arg(long, value_name = "ID")]
    pub(crate) request_id: Option<String>,
}

/// The outcome of a decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Decided {
    /// There is a certificate
    Issued,
    /// The certificate of an earlier request, which came again because its answer was lost
    Repeated,
    /// There is none
    Refused,
}

const VERIFY_EXAMPLES: &str = "\
Examples:
  epithet audit verify /var/log/epithet/audit.jsonl
  epithet audit verify audit.jsonl.2 audit.jsonl.1 audit.jsonl
      (rotated files are one log, the oldest first)
  epithet audit verify --includes 5f2c... audit.jsonl
      (nothing was taken from the end since that was the last line)

Every line carries the hash of the line before it. The last line has none after it: its hash stands in FILE.last beside the newest \
file, and that line has to be there. Without FILE.last the end cannot be checked, which is said. Who can write both can change both: keep \
the hash of the last line, which is printed, elsewhere, and --includes finds that it is still there. A rotated log stays one chain, also \
when the CA was started in between, by the same file. A chain that begins anew within the log is named: a CA that had no such file wrote on, or somebody put \
another log in place of what was there. Exit code: 0 when the chain holds, 1 when it does not, 2 when a new one begins.";

/// `epithet audit verify`
#[derive(Debug, Args)]
#[command(after_help = VERIFY_EXAMPLES)]
pub(crate) struct VerifyOptions {
    /// The log's files, the oldest first; - for standard input
    #[arg(value_name = "FILE", required = true)]
    pub(crate) files: Vec<PathBuf>,
    /// The hash of a line, printed when it was the last: that line has to be there
    #[arg(long, value_name = "HASH")]
    pub(crate) includes: Option<String>,
}
