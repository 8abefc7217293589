//! What a check found, for a person and as JSON. Secrets are lengths and fingerprints here.

use crate::host::{Exit, Observation};
use aws_lc_rs::digest::{SHA256, digest};
use epithet_wire::display::sanitize_line;
use serde::Serialize;
use std::fmt;

/// Everything a check found.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// The command as it was given.
    pub command: String,
    /// Whether no rule was broken. Warnings do not count.
    pub conforms: bool,
    /// One per rule, in a fixed order.
    pub findings: Vec<Finding>,
    /// The runs these come from.
    pub runs: Vec<RunFigures>,
}

/// What one rule says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The rule's name; stable, for use in scripts.
    pub rule: &'static str,
    /// What came of it.
    pub verdict: Verdict,
    /// What was seen, in one line.
    pub seen: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<&'static str>,
}

/// What came of a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Kept.
    Pass,
    /// Kept, but somebody will be unhappy with it.
    Warning,
    /// Broken.
    Fail,
    /// Could not be tried, because of what was found before.
    Skipped,
}

/// One run in figures.
#[derive(Debug, Clone, Serialize)]
pub struct RunFigures {
    /// Which run of the check it was.
    pub run: &'static str,
    /// What it amounts to: `ok`, or the error in one line.
    pub outcome: String,
    /// The exit status, if there was one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit_status: Option<i32>,
    /// From start to the last stream's end.
    pub milliseconds: u128,
    /// What came on stdout.
    pub token: SecretFigures,
    /// What came on fd 3.
    pub state: SecretFigures,
    /// How much came on stderr.
    pub stderr_bytes: u64,
    /// The last line on stderr, secrets taken out.
    pub stderr_last_line: String,
    /// How much came on fd 4.
    pub progress_bytes: u64,
}

/// A secret, for those who may not see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SecretFigures {
    /// Its length.
    pub bytes: usize,
    /// The first 16 hexadecimal digits of its SHA-256; empty when there are no bytes.
    pub sha256_prefix: String,
}

impl SecretFigures {
    /// The figures of some bytes.
    pub fn of(secret: &[u8]) -> Self {
        let hash = digest(&SHA256, secret);
        let prefix = if secret.is_empty() { 0 } else { 8 };
        Self {
            bytes: secret.len(),
            sha256_prefix: hash.as_ref()[..prefix]
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect(),
        }
    }
}

impl RunFigures {
    /// The figures of a run; `name` says which.
    pub fn of(name: &'static str, observation: &Observation) -> Self {
        let seen = &observation.transcript;
        let exit_status = match seen.exit() {
            Some(Exit::Status(status)) => Some(status),
            _ => None,
        };
        Self {
            run: name,
            outcome: match &observation.outcome {
                Ok(_) => "ok".to_owned(),
                Err(error) => error.to_string(),
            },
            exit_status,
            milliseconds: seen.elapsed().as_millis(),
            token: SecretFigures::of(seen.token_bytes()),
            state: SecretFigures::of(seen.state_bytes()),
            stderr_bytes: seen.stderr_bytes(),
            stderr_last_line: last_line(&seen.stderr(), &[seen.token_bytes(), seen.state_bytes()]),
            progress_bytes: seen.progress_bytes(),
        }
    }
}

/// The last line that says something, without the secrets.
fn last_line(text: &str, secrets: &[&[u8]]) -> String {
    let line = text.lines().rev().find(|line| !line.trim().is_empty());
    let mut line = sanitize_line(line.unwrap_or_default(), 500);
    for secret in secrets {
        for part in String::from_utf8_lossy(secret).lines().map(str::trim) {
            if part.len() >= super::rules::SECRET_MIN {
                line = line.replace(part, "[redacted]");
            }
        }
    }
    line
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Pass => "pass",
            Self::Warning => "warning",
            Self::Fail => "FAIL",
            Self::Skipped => "skipped",
        })
    }
}

impl Report {
    /// The last line on stderr of the run that a broken rule is about.
    fn said(&self, finding: &Finding) -> Option<&str> {
        let run = match finding.rule {
            "first-run" => "first",
            "second-run" => "second",
            _ => return None,
        };
        let run = self.runs.iter().find(|figures| figures.run == run)?;
        let said = run.stderr_last_line.as_str();
        (finding.verdict == Verdict::Fail && !said.is_empty()).then_some(said)
    }
}

impl fmt::Display for Report {
    /// One line a rule, a remedy below each that needs one, and the verdict.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (skipped, tried): (Vec<_>, Vec<_>) =
            (self.findings.iter()).partition(|finding| finding.verdict == Verdict::Skipped);
        for finding in tried {
            writeln!(f, "{:<8} {:<14} {}", finding.verdict, finding.rule, finding.seen)?;
            if let Some(said) = self.said(finding) {
                writeln!(f, "{:<23} it said: {said}", "")?;
            }
            if let Some(remedy) = finding.remedy {
                writeln!(f, "{:<23} try: {remedy}", "")?;
            }
        }
        if let Some(first) = skipped.first() {
            let rules: Vec<&str> = skipped.iter().map(|finding| finding.rule).collect();
            writeln!(f, "{:<8} {}: {}", first.verdict, rules.join(", "), first.seen)?;
        }
        let count = |verdict| {
            self.findings
                .iter()
                .filter(|finding| finding.verdict == verdict)
                .count()
        };
        let (failed, warnings) = (count(Verdict::Fail), count(Verdict::Warning));
        let plural = if warnings == 1 { "" } else { "s" };
        let verdict = if self.conforms {
            "conforms"
        } else {
            "does not conform"
        };
        write!(f, "{verdict}: {failed} failed, {warnings} warning{plural}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_a_length_and_a_fingerprint() {
        let figures = SecretFigures::of(b"abc");
        assert_eq!(
            (figures.bytes, figures.sha256_prefix.as_str()),
            (3, "ba7816bf8f01cfea")
        );
        assert_eq!(SecretFigures::of(b"").sha256_prefix, "");
    }

    #[test]
    fn secrets_are_taken_out_of_the_last_line() {
        let text = "first\ngot eyJhbGciOiJIUzI1NiJ9 ok\n\n";
        assert_eq!(
            last_line(text, &[b"eyJhbGciOiJIUzI1NiJ9\n", b""]),
            "got [redacted] ok"
        );
    }
}
