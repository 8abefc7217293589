//! `epithet`: the library of the same name, as a program.

use std::process::ExitCode;

fn main() -> ExitCode {
    epithet::main()
}
