//! One look, and all of them: shown as they come, and summed up in the one reason.

use crate::terminal::{Screen, Tone, wrapped};
use anyhow::Context;
use epithet_wire::display::sanitize_text;
use serde::Serialize;
use std::io::Write;
use std::process::ExitCode;

/// Columns of a check's name; one more stands empty behind it.
const NAME: usize = 13;
/// Exit codes: something is to be looked at; something is broken.
const EXIT_WARNING: u8 = 1;
const EXIT_BROKEN: u8 = 2;

/// What a look found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Check {
    /// What was looked at; stable, for scripts.
    pub(super) name: &'static str,
    pub(super) verdict: Verdict,
    /// What was seen, in a sentence.
    pub(super) said: String,
    /// A command or an edit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) remedy: Option<String>,
}

/// How it is; the later the worse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Verdict {
    Ok,
    Warning,
    Broken,
}

impl Check {
    pub(super) fn ok(name: &'static str, said: impl Into<String>) -> Self {
        Self::with(name, Verdict::Ok, said.into(), None)
    }

    pub(super) fn warning(name: &'static str, said: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::with(name, Verdict::Warning, said.into(), Some(remedy.into()))
    }

    pub(super) fn broken(name: &'static str, said: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::with(name, Verdict::Broken, said.into(), Some(remedy.into()))
    }

    fn with(name: &'static str, verdict: Verdict, said: String, remedy: Option<String>) -> Self {
        let clean = |text: String| sanitize_text(text.as_bytes()).trim_end().to_owned();
        Self {
            name,
            verdict,
            said: clean(said),
            remedy: remedy.map(clean),
        }
    }
}

/// All looks so far.
#[derive(Debug)]
pub(super) struct Report {
    host: Option<String>,
    json: bool,
    screen: Screen,
    checks: Vec<Check>,
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Summary<'a> {
    verdict: Verdict,
    #[serde(skip_serializing_if = "Option::is_none")]
    host: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a Check>,
    checks: &'a [Check],
}

impl Report {
    pub(super) fn begin(host: Option<&str>, json: bool, screen: Screen) -> Self {
        Self {
            host: host.map(str::to_owned),
            json,
            screen,
            checks: Vec::new(),
        }
    }

    /// Takes a check in, and shows it.
    pub(super) fn add(&mut self, check: Check) -> anyhow::Result<()> {
        if !self.json {
            print(&line(&check, self.screen))?;
        }
        self.checks.push(check);
        Ok(())
    }

    /// Whether everything up to here can work.
    pub(super) fn is_sound(&self) -> bool {
        self.verdict() < Verdict::Broken
    }

    /// Whether nothing is wrong with the last look.
    pub(super) fn is_untroubled(&self) -> bool {
        self.checks
            .last()
            .is_none_or(|check| check.verdict == Verdict::Ok)
    }

    /// Whether one of the looks of this name found something broken.
    pub(super) fn is_broken(&self, name: &str) -> bool {
        let broken = |check: &Check| check.name == name && check.verdict == Verdict::Broken;
        self.checks.iter().any(broken)
    }

    fn verdict(&self) -> Verdict {
        let verdicts = self.checks.iter().map(|check| check.verdict);
        verdicts.max().unwrap_or(Verdict::Ok)
    }

    /// The first of the worst: what comes after it may only follow from it.
    fn reason(&self) -> Option<&Check> {
        let worst = self.verdict();
        self.checks
            .iter()
            .find(|check| check.verdict == worst && worst > Verdict::Ok)
    }

    /// Shows the reason, and says the exit code.
    pub(super) fn end(&self) -> anyhow::Result<ExitCode> {
        let verdict = self.verdict();
        if self.json {
            let summary = Summary {
                verdict,
                host: self.host.as_deref(),
                reason: self.reason(),
                checks: &self.checks,
            };
            print(&(serde_json::to_string_pretty(&summary)? + "\n"))?;
        } else {
            print(&self.last_words())?;
        }
        Ok(match verdict {
            Verdict::Ok => ExitCode::SUCCESS,
            Verdict::Warning => ExitCode::from(EXIT_WARNING),
            Verdict::Broken => ExitCode::from(EXIT_BROKEN),
        })
    }

    fn last_words(&self) -> String {
        let Some(reason) = self.reason() else {
            let tried = match &self.host {
                Some(host) => format!("All is well; so is the way to {host}."),
                None => "All is well. For the whole way into a host: epithet doctor HOST".to_owned(),
            };
            return format!("\n{}\n", self.screen.paint(Tone::Good, &tried));
        };
        let (tone, begin) = match reason.verdict {
            Verdict::Broken => (Tone::Bad, "It does not work because"),
            _ => (Tone::Warning, "It may work, but"),
        };
        let width = self.screen.width;
        let sentence = wrapped(&format!("{begin}: {}", reason.said), width, 2);
        let mut words = format!("\n{}\n", self.screen.paint(tone, &sentence));
        if let Some(remedy) = &reason.remedy {
            let remedy = remedy_lines(remedy, width);
            words.push_str(&format!(
                "  {} {remedy}\n",
                self.screen.paint(Tone::Strong, "try:")
            ));
        }
        words
    }
}

/// A command is to be copied, so it stays on its line; a remark behind it gets one of its own where there is no room.
fn remedy_lines(remedy: &str, width: usize) -> String {
    let lines = remedy.lines().map(|line| match line.split_once("    ") {
        Some((command, remark)) if "  try: ".len() + line.chars().count() > width => {
            format!("{command}\n      {}", wrapped(remark.trim_start(), width, 6))
        }
        _ => line.to_owned(),
    });
    lines.collect::<Vec<_>>().join("\n  ")
}

fn line(check: &Check, screen: Screen) -> String {
    let (tone, mark) = match check.verdict {
        Verdict::Ok => (Tone::Good, screen.either("\u{2713}", "ok")),
        Verdict::Warning => (Tone::Warning, screen.either("!", "! ")),
        Verdict::Broken => (Tone::Bad, screen.either("\u{2717}", "X ")),
    };
    let indent = mark.chars().count() + 1 + NAME + 1;
    let said = wrapped(&check.said, screen.width, indent);
    format!("{} {:<NAME$} {said}\n", screen.paint(tone, mark), check.name)
}

fn print(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .context("cannot print")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(checks: Vec<Check>) -> Report {
        Report {
            checks,
            ..Report::begin(Some("web"), true, Screen::plain(60))
        }
    }

    #[test]
    fn the_reason_is_the_first_of_the_worst_and_the_remedy_comes_last() {
        let broken = |said: &str| Check::broken("CA", said, "do\nthis");
        let report = report(vec![
            Check::ok("ssh", "fine"),
            Check::warning("clock", "late", "set it"),
            broken("first"),
            broken("second"),
        ]);
        assert_eq!(report.reason().map(|check| check.said.as_str()), Some("first"));
        assert!(!report.is_sound());
        assert!(
            report
                .last_words()
                .ends_with("because: first\n  try: do\n  this\n"),
            "{}",
            report.last_words()
        );
    }

    #[test]
    fn a_remark_behind_a_command_gets_a_line_where_there_is_no_room() {
        let remedy = "curl https://ca.example.com    (check the URL and the network)";
        assert_eq!(remedy_lines(remedy, 80), remedy);
        assert_eq!(
            remedy_lines(remedy, 40),
            "curl https://ca.example.com\n      (check the URL and the network)"
        );
        assert_eq!(remedy_lines("do\nthis", 10), "do\n  this");
    }

    #[test]
    fn warnings_are_a_reason_only_when_nothing_is_broken() {
        let warned = report(vec![
            Check::ok("ssh", "fine"),
            Check::warning("clock", "late", "set it"),
        ]);
        assert!(warned.is_sound());
        assert!(warned.last_words().contains("It may work, but: late"));
        let well = report(vec![Check::ok("ssh", "fine")]);
        assert_eq!(well.reason(), None);
        assert!(well.last_words().contains("the way to web"));
    }

    #[test]
    fn a_name_as_wide_as_its_column_is_apart_from_what_is_said() {
        for name in ["configuration", "run directory", "CA"] {
            let line = line(&Check::ok(name, "fine"), Screen::plain(60));
            assert!(line.contains(&format!("{name} ")), "{line}");
        }
    }

    #[test]
    fn nothing_that_moves_a_cursor_is_shown() {
        let check = Check::broken("CA", "says \x1b[2J this", "run \x07 that");
        assert!(!line(&check, Screen::plain(60)).contains('\x1b'));
        assert!(!check.remedy.is_some_and(|remedy| remedy.contains('\x07')));
    }
}
