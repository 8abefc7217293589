//! `epithet`: every part of Epithet in one program.
//!
//! `match` comes first and alone: ssh waits for it, so it starts no runtime and reads no configuration.

mod cli;
mod commands;
mod config;
mod failure;
mod logging;
mod published_text;
mod runtime;
mod ssh_config_file;
mod terminal;
mod tls_roots;
mod wildcard;

#[doc(hidden)]
pub use config::understand;

use std::process::ExitCode;

/// The whole program: what to do is in its arguments.
pub fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    match arguments.next() {
        Some(command) if command == "match" => ExitCode::from(epithet_match::main(arguments)),
        Some(command) if command == "auth" => {
            // Descriptors 3 and 4 are adopted before anything else can be given these numbers.
            epithet_plugin::is_plugin();
            run()
        }
        Some(command) if command == commands::GUARD => epithet_plugin::guard_main(),
        _ => run(),
    }
}

/// Everything but `match`: parse, read the configuration, do it, and say what went wrong.
fn run() -> ExitCode {
    let (cli, from_environment) = match cli::parse() {
        Ok(parsed) => parsed,
        Err(error) => return failure::usage(error),
    };
    let result = commands::run(cli);
    // What was logged stands before what is said about it.
    logging::flush();
    match result {
        Ok(code) => code,
        Err(error) => failure::report(&error, &from_environment),
    }
}
