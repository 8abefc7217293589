//! What each command does: wiring only, the work is in the crates.

mod agent;
mod ask_broker;
mod audit;
mod auth_oidc;
mod background;
mod ca_rotate;
mod demo;
mod doctor;
mod host;
mod inspect;
mod plugin;
mod rules;
mod server;
mod service;
mod setup;
mod shell;
mod trace;
mod trust;

use crate::cli::{AgentCommand, AuthCommand, CaCommand, Cli, Command, PolicyCommand, TraceCommand};
use epithet_wire::ProfileName;
pub(crate) use server::KeyName;
use std::process::ExitCode;

pub(crate) use audit::since;

/// The version that `--version` prints.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What names a profile on a command line; nothing for the default one.
pub(crate) fn profile_flag(profile: &ProfileName) -> String {
    match *profile == ProfileName::default() {
        true => String::new(),
        false => format!(" --name {profile}"),
    }
}

/// The hidden first argument that makes this program the broker's guard; see `epithet_plugin::host`.
pub(crate) const GUARD: &str = "plugin-guard";

/// Runs a parsed command line.
pub(crate) fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    let global = cli.global;
    match cli.command {
        Command::Agent(options) => match options.command {
            None => agent::start(&global, options.start),
            Some(AgentCommand::Start(start)) => agent::start(&global, *start),
            Some(AgentCommand::Inspect(inspect)) => inspect::run(&inspect),
            Some(AgentCommand::Status(status)) => background::status(&status),
            Some(AgentCommand::Stop(stop)) => background::stop(&stop),
            Some(AgentCommand::Install(install)) => service::install(&global, &install),
            Some(AgentCommand::Uninstall(uninstall)) => service::uninstall(&uninstall),
        },
        Command::Match { arguments } => Ok(ExitCode::from(epithet_match::main(arguments))),
        Command::Inspect(options) => inspect::run(&options),
        Command::Doctor(options) => doctor::run(&global, &options),
        Command::Setup(options) => setup::run(&global, &options),
        Command::Trace(TraceCommand::Last(options)) => trace::last(&options),
        Command::Login(options) => ask_broker::login(&options),
        Command::Logout(options) => ask_broker::logout(&options),
        Command::Trust(options) => trust::run(&global, &options),
        Command::Auth(AuthCommand::Oidc(options)) => auth_oidc::run(&global, *options),
        Command::Plugin(command) => plugin::run(&global, command),
        Command::Ca(options) => match options.command {
            None => server::ca(&global, options.serve),
            Some(CaCommand::Rotate(rotate)) => ca_rotate::run(&global, &rotate),
        },
        Command::Policy(options) => match options.command {
            None => server::policy(&global, options.serve),
            Some(PolicyCommand::Check(check)) => rules::check(&check),
            Some(PolicyCommand::Explain(explain)) => rules::explain(&global, &explain),
            Some(PolicyCommand::Test(test)) => rules::test(&test),
            Some(PolicyCommand::Replay(replay)) => rules::replay(&replay),
        },
        Command::Server(options) => server::server(&global, *options),
        Command::Host(command) => host::run(&global, &command),
        Command::Audit(command) => audit::run(&global, &command),
        Command::Demo(options) => demo::run(&global, options),
        Command::Man { directory } => shell::man(&directory),
        Command::Completions { shell } => shell::completions(shell),
    }
}
