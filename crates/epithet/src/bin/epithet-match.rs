//! `epithet-match`: `epithet match` as a program of its own, because a small program starts faster and ssh waits for it.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(epithet_match::main(std::env::args_os().skip(1)))
}
