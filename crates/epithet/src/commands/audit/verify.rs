//! `epithet audit verify`: is the log still what the CA wrote?

use super::end::{End, Verdict};
use super::line::{Piece, next_line};
use crate::cli::VerifyOptions;
use anyhow::{Context, bail};
use epithet_ca::audit::{ChainCheck, Step};
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// The exit code when nothing is wrong, but whether lines are missing cannot be told: a new chain begins, or a log is empty.
const DOUBTFUL: u8 = 2;

/// Checks files one after the other as one log, and says how many lines it has.
pub(super) fn run(options: &VerifyOptions) -> anyhow::Result<ExitCode> {
    let mut chain = ChainCheck::default();
    let (mut is_included, mut begins) = (false, Vec::new());
    let newest = options.files.last().map_or(Path::new("-"), PathBuf::as_path);
    let mut end = End::of(newest);
    let expected = options.includes.as_deref().map(str::to_ascii_lowercase);
    for file in &options.files {
        let (name, mut log) = open(file)?;
        let mut buffer = Vec::new();
        for number in 1.. {
            buffer.clear();
            match next_line(&mut log, &mut buffer).with_context(|| format!("cannot read {name}"))? {
                Piece::End => break,
                Piece::TooLong => bail!("{name}: line {number} is not a whole line of an audit log"),
                Piece::Line | Piece::Unfinished => {
                    if chain.line(number, &buffer).with_context(|| name.clone())? == Step::Begins {
                        begins.push(format!("line {number} of {name}"));
                    }
                }
            }
            is_included |= chain.last() == expected.as_deref();
            end.see(&chain);
        }
    }
    let names: Vec<String> = options.files.iter().map(|file| name_of(file)).collect();
    let name = names.join(" ");
    if let Some(expected) = expected.filter(|_| !is_included) {
        bail!(
            "{name}: the line with the hash {expected} is not there: the end of the log was taken away, or it is another log"
        );
    }
    let about_its_end = end.judge(&chain, newest)?;
    let lines = chain.lines();
    let s = if lines == 1 { "" } else { "s" };
    let mut text = match begins.len() {
        0 => format!("{name}: {lines} line{s}, the chain holds\n"),
        more => format!(
            "{name}: {lines} line{s} in {} chains, each of which holds\n",
            more + 1
        ),
    };
    for place in &begins {
        text.push_str(&format!(
            "  a new chain begins at {place}: whether lines are missing before it cannot be told\n"
        ));
    }
    if lines > 0 && !chain.is_whole() {
        text.push_str("  the first line follows one of an earlier file\n");
    }
    match &about_its_end {
        Verdict::Well => {}
        Verdict::Note(words) | Verdict::Emptied(words) => text.push_str(&format!("  {words}\n")),
    }
    if let Some(last) = chain.last() {
        text.push_str(&format!(
            "  last line: {last}   (keep it; later, --includes {last})\n"
        ));
    }
    std::io::stdout()
        .write_all(text.as_bytes())
        .context("cannot print")?;
    Ok(match (begins.len(), about_its_end) {
        (0, Verdict::Well | Verdict::Note(_)) => ExitCode::SUCCESS,
        _ => ExitCode::from(DOUBTFUL),
    })
}

fn name_of(file: &Path) -> String {
    if file == Path::new("-") {
        "standard input".to_owned()
    } else {
        file.display().to_string()
    }
}

fn open(file: &Path) -> anyhow::Result<(String, Box<dyn BufRead>)> {
    let name = name_of(file);
    let log: Box<dyn BufRead> = if file == Path::new("-") {
        Box::new(std::io::stdin().lock())
    } else {
        let log = File::open(file).with_context(|| format!("cannot open {name}"))?;
        Box::new(BufReader::new(log))
    };
    Ok((name, log))
}
