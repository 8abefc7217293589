//! How a check is told: to a person, and to a program.

use super::check::Question;
use super::rules::Reason;
use anyhow::Context;
use epithet_wire::display::sanitize_text;
use serde_json::json;
use std::io::Write;

/// What a check found.
#[derive(Debug, Default)]
pub(super) struct Report {
    /// Why not; none means yes.
    pub(super) reason: Option<Reason>,
    /// What is worth a word all the same.
    pub(super) notes: Vec<String>,
    /// The fingerprints of the keys that sshd trusts.
    pub(super) trusted: Vec<String>,
}

impl Report {
    /// Prints it on stdout.
    pub(super) fn print(&self, question: Question<'_>, as_json: bool) -> anyhow::Result<()> {
        let text = if as_json {
            self.json(question)
        } else {
            self.text(question)
        };
        std::io::stdout()
            .write_all(text.as_bytes())
            .context("cannot print")
    }

    /// Some lines for a person: the verdict, the reason with its remedy, and the notes.
    pub(super) fn text(&self, question: Question<'_>) -> String {
        let whose = question.ca.map_or("of the keys it trusts".to_owned(), |ca| {
            format!("of {}", ca.source)
        });
        let user = question.user.map_or(String::new(), |user| format!(" for {user}"));
        let mut text = match &self.reason {
            None => format!("this host accepts certificates {whose}{user}\n"),
            Some(reason) => format!(
                "this host does not accept certificates {whose}{user}\n  because: {}\n  try: {}\n",
                reason.message, reason.remedy
            ),
        };
        if self.reason.is_none() {
            for fingerprint in &self.trusted {
                text.push_str(&format!("  trusted: {fingerprint}\n"));
            }
        }
        for note in &self.notes {
            text.push_str(&format!("  note: {note}\n"));
        }
        sanitize_text(text.as_bytes())
    }

    fn json(&self, question: Question<'_>) -> String {
        let reason = self
            .reason
            .as_ref()
            .map(|reason| json!({"rule": reason.rule, "message": reason.message, "remedy": reason.remedy}));
        let keys = question.ca.map(|ca| {
            ca.keys
                .iter()
                .map(epithet_ssh::CaPublicKey::fingerprint)
                .collect::<Vec<_>>()
        });
        let value = json!({
            "accepts": self.reason.is_none(),
            "reason": reason,
            "notes": self.notes,
            "ca": question.ca.map(|ca| &ca.source),
            "ca_keys": keys,
            "trusted_keys": self.trusted,
            "clock_ahead_seconds": question.ca.and_then(|ca| ca.ahead),
            "user": question.user,
        });
        format!("{value:#}\n")
    }
}
