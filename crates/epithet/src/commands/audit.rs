//! `epithet audit`: what the CA decided, and whether its log is still what it wrote.

mod end;
mod filter;
mod follow;
mod line;
mod list;
mod table;
mod verify;

use crate::cli::{AuditCommand, Global};
pub(crate) use filter::since;
use std::process::ExitCode;

/// Runs `epithet audit ...`.
pub(crate) fn run(global: &Global, command: &AuditCommand) -> anyhow::Result<ExitCode> {
    match command {
        AuditCommand::List(options) => list::run(global, options),
        AuditCommand::Verify(options) => verify::run(options),
    }
}
