//! `systemctl --user`, where a user manager answers it.

use anyhow::{Context, bail};
use epithet_wire::display::sanitize_text;
use std::process::{Command, Output, Stdio};

/// A user manager that answers.
#[derive(Debug)]
pub(super) struct Manager(());

impl Manager {
    /// Looks for one: systemd may not be there, or not be running, or not for this session.
    pub(super) fn find() -> Option<Self> {
        let answer = systemctl(&["show-environment"]).ok()?;
        answer.status.success().then_some(Self(()))
    }

    /// Has it do something, and says what it said when it did not.
    pub(super) fn run(&self, words: &[&str]) -> anyhow::Result<()> {
        let line = format!("systemctl --user {}", words.join(" "));
        let output = systemctl(words).with_context(|| format!("cannot run {line}"))?;
        if !output.status.success() {
            let said = sanitize_text(&output.stderr);
            bail!("{line} failed\n{}", said.trim_end());
        }
        Ok(())
    }

    /// Whether one of these units is running or listening.
    pub(super) fn is_active(&self, units: &[&str]) -> bool {
        let words = [&["is-active", "--quiet"][..], units].concat();
        systemctl(&words).is_ok_and(|output| output.status.success())
    }
}

fn systemctl(words: &[&str]) -> std::io::Result<Output> {
    Command::new("systemctl")
        .arg("--user")
        .args(words)
        .stdin(Stdio::null())
        .output()
}
