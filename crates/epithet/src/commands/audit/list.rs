//! `epithet audit list`: the decisions that were asked for, as a table or as they stand in the log.

use super::filter::wants;
use super::follow::Followed;
use super::line::{Entry, Piece, next_line};
use super::table::Table;
use crate::cli::{Global, ListOptions};
use crate::config;
use anyhow::{Context, bail};
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Lists files one after the other, and then follows the last if that is wanted.
pub(super) fn run(global: &Global, options: &ListOptions) -> anyhow::Result<ExitCode> {
    let files = if options.files.is_empty() {
        vec![configured(global)?]
    } else {
        options.files.clone()
    };
    let (mut listing, is_followed) = (Listing::new(options), options.follow);
    let result = listing.begin().and_then(|()| match files.split_last() {
        Some((last, before)) if is_followed => {
            if last == Path::new("-") {
                bail!("--follow needs a file's name, not standard input");
            }
            before.iter().try_for_each(|file| listing.file(file))?;
            listing.follow(last)
        }
        _ => files.iter().try_for_each(|file| listing.file(file)),
    });
    let result = result.and_then(|()| listing.flush());
    match result {
        // Whoever reads has seen enough.
        Err(error) if is_closed_pipe(&error) => Ok(ExitCode::SUCCESS),
        Err(error) => Err(error),
        Ok(()) => {
            listing.say_what_was_not_read()?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// The log of the CA that is configured on this machine.
fn configured(global: &Global) -> anyhow::Result<PathBuf> {
    let config = config::load(global.config.as_deref())?;
    let file = config.server.audit_file.or(config.ca.audit_file);
    file.context("name the audit log: epithet audit list /var/log/epithet/audit.jsonl (no configuration here has an audit-file)")
}

fn is_closed_pipe(error: &anyhow::Error) -> bool {
    let mut causes = error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<io::Error>());
    causes.any(|cause| cause.kind() == ErrorKind::BrokenPipe)
}

/// What is being printed.
struct Listing<'a> {
    options: &'a ListOptions,
    table: Table,
    out: BufWriter<io::Stdout>,
    unread: u64,
    first_unread: Option<String>,
}

impl<'a> Listing<'a> {
    fn new(options: &'a ListOptions) -> Self {
        Self {
            options,
            table: Table::for_stdout(),
            out: BufWriter::new(io::stdout()),
            unread: 0,
            first_unread: None,
        }
    }

    fn begin(&mut self) -> anyhow::Result<()> {
        if !self.options.json {
            self.out
                .write_all(self.table.heading().as_bytes())
                .context("cannot print")?;
        }
        Ok(())
    }

    fn flush(&mut self) -> anyhow::Result<()> {
        self.out.flush().context("cannot print")
    }

    /// One file from its beginning to its end.
    fn file(&mut self, file: &Path) -> anyhow::Result<()> {
        let name = file.display().to_string();
        let mut log: Box<dyn BufRead> = if file == Path::new("-") {
            Box::new(io::stdin().lock())
        } else {
            Box::new(BufReader::new(
                File::open(file).with_context(|| format!("cannot open {name}"))?,
            ))
        };
        let mut buffer = Vec::new();
        for number in 1.. {
            buffer.clear();
            match next_line(&mut log, &mut buffer).with_context(|| format!("cannot read {name}"))? {
                Piece::End => break,
                Piece::TooLong => self.not_read(&name, number),
                Piece::Line | Piece::Unfinished => self.line(&name, number, &buffer)?,
            }
        }
        Ok(())
    }

    /// One file from its beginning, and then whatever is written to a file of its name, until somebody ends it.
    fn follow(&mut self, file: &Path) -> anyhow::Result<()> {
        let name = file.display().to_string();
        let mut followed = Followed::open(file).with_context(|| format!("cannot open {name}"))?;
        loop {
            while let Some((number, line)) = followed.next().with_context(|| format!("cannot read {name}"))? {
                self.line(&name, number, &line)?;
            }
            self.flush()?;
            followed.wait();
        }
    }

    fn line(&mut self, name: &str, number: u64, line: &[u8]) -> anyhow::Result<()> {
        let Some(entry) = Entry::parse(line) else {
            if !line.is_empty() {
                self.not_read(name, number);
            }
            return Ok(());
        };
        if !wants(&self.options.filter, &entry) {
            return Ok(());
        }
        let written = if self.options.json {
            self.out.write_all(line).and_then(|()| self.out.write_all(b"\n"))
        } else {
            self.out.write_all(self.table.row(&entry).as_bytes())
        };
        written.context("cannot print")
    }

    fn not_read(&mut self, name: &str, number: u64) {
        self.unread += 1;
        self.first_unread
            .get_or_insert_with(|| format!("line {number} of {name}"));
    }

    fn say_what_was_not_read(&self) -> anyhow::Result<()> {
        let Some(first) = &self.first_unread else {
            return Ok(());
        };
        let lines = if self.unread == 1 {
            "1 line is".to_owned()
        } else {
            format!("{} lines are", self.unread)
        };
        writeln!(
            io::stderr(),
            "{lines} no line of an audit log and left out, the first is {first}; `epithet audit verify` says whether the log is whole"
        )
        .context("cannot print")
    }
}
