//! `epithet`: the library of the same name, as a program.

<<<<<<< HEAD
=======
mod cli;
mod commands;
mod config;
mod failure;
mod logging;
mod runtime;
mod terminal;
mod wildcard;

use clap::Parser;
>>>>>>> 839135a (List, follow and verify the audit log; describe both HTTP interfaces and hold the servers to them)
use std::process::ExitCode;

fn main() -> ExitCode {
    epithet::main()
}
