//! What is asked at the terminal.

use crate::cli::SetupOptions;
use anyhow::{Context, bail};
use std::io::{BufRead, IsTerminal, Write};

/// Somebody who answers, or flags that answer for them.
#[derive(Debug)]
pub(super) struct Questions {
    /// Whether anything may be asked.
    asks: bool,
}

impl Questions {
    /// Refuses when there is nobody to ask and nothing that answers.
    pub(super) fn new(options: &SetupOptions) -> anyhow::Result<Self> {
        let terminal = std::io::stdin().is_terminal();
        if !terminal && !options.yes && !options.dry_run {
            bail!(
                "nobody is at a terminal to answer\ntry: epithet setup --ca-url https://ca.example.com --yes, or --dry-run to see what it would do"
            );
        }
        Ok(Self {
            asks: terminal && !options.yes,
        })
    }

    /// Whether there is somebody who answers.
    pub(super) fn asks(&self) -> bool {
        self.asks
    }

    /// Asks for a line; an empty one is `None`.
    pub(super) fn ask(&self, question: &str) -> anyhow::Result<Option<String>> {
        let mut out = std::io::stdout();
        write!(out, "{question} ")
            .and_then(|()| out.flush())
            .context("cannot ask")?;
        let mut answer = String::new();
        let count = std::io::stdin()
            .lock()
            .read_line(&mut answer)
            .context("cannot read your answer")?;
        if count == 0 {
            let _ = writeln!(out);
            bail!("nothing was changed");
        }
        let answer = answer.trim();
        Ok((!answer.is_empty()).then(|| answer.to_owned()))
    }

    /// Asks for a yes, which Enter is too; without anybody to ask, it is given.
    pub(super) fn confirm(&self, question: &str) -> anyhow::Result<bool> {
        if !self.asks {
            return Ok(true);
        }
        loop {
            let answer = self.ask(&format!("{question} [Y/n]"))?.unwrap_or_default();
            match answer.to_ascii_lowercase().as_str() {
                "" | "y" | "yes" => return Ok(true),
                "n" | "no" => return Ok(false),
                _ => writeln!(std::io::stdout(), "please answer yes or no").context("cannot ask")?,
            }
        }
    }
}
