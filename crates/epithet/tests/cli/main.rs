//! The command line as people and scripts meet it: what each command teaches, what is wrong with a wrong one, which of
//! flag, environment and file wins, the demo from beginning to end, and what the broker's socket puts up with.

#![cfg(test)]

mod broker_socket;
mod configuration;
mod demo;
mod environment;
mod files;
mod help;
mod plugin_kit;
mod the_match_command;
mod usage;
mod with_and_without_a_broker;

use epithet_testkit::{DEADLINE, Finished, Home};
use std::process::Command;

/// The program.
const EPITHET: &str = env!("CARGO_BIN_EXE_epithet");

/// `epithet` with these words, in this home.
fn epithet<'a>(home: &Home, words: impl IntoIterator<Item = &'a str>) -> Command {
    let mut command = home.command(EPITHET);
    command.args(words);
    command
}

/// Runs it to its end.
fn run<'a>(home: &Home, words: impl IntoIterator<Item = &'a str>) -> Finished {
    Finished::of(epithet(home, words), DEADLINE)
}
