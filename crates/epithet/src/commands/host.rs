//! `epithet host`: what a target host needs, and whether it has it.

mod account;
mod apply;
mod check;
mod plan;
mod principals;
mod published;
mod report;
mod rules;
mod script;
mod settings;
mod setup;
mod sshd;
mod sshd_config;
pub(super) mod trusted;

use crate::cli::{Global, HostCommand};
use std::process::ExitCode;

/// Runs `epithet host ...`.
pub(crate) fn run(global: &Global, command: &HostCommand) -> anyhow::Result<ExitCode> {
    match command {
        HostCommand::Setup(options) => setup::run(global, options),
        HostCommand::Check(options) => check::run(global, options),
    }
}
