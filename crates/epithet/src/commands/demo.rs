//! `epithet demo`: a whole login on this machine, with nothing configured, made of the real programs.

mod process;
mod provider;
mod report;
mod show;
mod stage;
mod sweeper;

use crate::cli::{DemoCommand, DemoOptions, Global};
use std::process::ExitCode;

/// Runs the demo, or one of the parts that it starts as processes of their own.
pub(crate) fn run(global: &Global, options: DemoOptions) -> anyhow::Result<ExitCode> {
    match options.command {
        None => show::run(options.stay),
        Some(DemoCommand::Provider { port }) => provider::run(global, port),
        Some(DemoCommand::Sweep { directory }) => sweeper::run(&directory),
        Some(DemoCommand::Browser { user, url }) => provider::sign_in(&user, &url),
    }
}
