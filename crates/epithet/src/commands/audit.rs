//! `epithet audit`: is the CA's log still what the CA wrote?

use crate::cli::AuditCommand;
use anyhow::Context;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::ExitCode;

/// Checks a log and says how many lines it has.
pub(crate) fn run(command: &AuditCommand) -> anyhow::Result<ExitCode> {
    let AuditCommand::Verify(options) = command;
    let file = &options.file;
    let (name, log): (_, Box<dyn BufRead>) = if file == Path::new("-") {
        ("standard input".to_owned(), Box::new(std::io::stdin().lock()))
    } else {
        let name = file.display().to_string();
        let log = File::open(file).with_context(|| format!("cannot open {name}"))?;
        (name, Box::new(BufReader::new(log)))
    };
    let lines = epithet_ca::audit::verify(log).with_context(|| name.clone())?;
    let s = if lines == 1 { "" } else { "s" };
    writeln!(std::io::stdout(), "{name}: {lines} line{s}, the chain holds").context("cannot print")?;
    Ok(ExitCode::SUCCESS)
}
