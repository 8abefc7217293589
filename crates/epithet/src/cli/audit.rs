//! `epithet audit`.

use clap::{Args, Subcommand};
use std::path::PathBuf;

/// `epithet audit ...`
#[derive(Debug, Subcommand)]
pub(crate) enum AuditCommand {
    /// Check that no line of an audit log was taken out, put in or changed
    Verify(VerifyOptions),
}

const VERIFY_EXAMPLES: &str = "\
Examples:
  epithet audit verify /var/log/epithet/audit.jsonl
  cat audit.jsonl.2 audit.jsonl.1 audit.jsonl | epithet audit verify -      (rotated files, the oldest first)

Every line carries the hash of the line before it. The last line has none after it: keep its hash elsewhere to protect it \
too. Exit code: 0 when the chain holds, 1 when it does not.";

/// `epithet audit verify`
#[derive(Debug, Args)]
#[command(after_help = VERIFY_EXAMPLES)]
pub(crate) struct VerifyOptions {
    /// The log, or - for standard input
    pub(crate) file: PathBuf,
}
