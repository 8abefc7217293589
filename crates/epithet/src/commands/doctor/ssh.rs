//! The ssh of this machine, asked what it would do and had try it.

use anyhow::{Context, bail};
use epithet_wire::broker::DRY_RUN;
use epithet_wire::limits::{DOCTOR_PRINT, DOCTOR_TRY};
use std::collections::HashMap;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;
use tokio::process::Command;

/// ssh, with the configuration file that is looked at.
#[derive(Debug, Clone)]
pub(super) struct Ssh {
    /// The file, whether ssh would find it by itself or not.
    pub(super) file: PathBuf,
    /// Whether ssh has to be told about it.
    pub(super) named: bool,
}

/// What ssh would do for a host (`ssh -G`), as if the broker said yes.
#[derive(Debug, Clone, Default)]
pub(super) struct Intent(HashMap<String, String>);

/// How a trial went.
#[derive(Debug, Clone, Default)]
pub(super) struct Trial {
    /// ssh's exit code; `None` when it was ended.
    pub(super) code: Option<i32>,
    /// Everything it said.
    pub(super) said: String,
}

impl Ssh {
    fn command(&self) -> Command {
        let mut command = Command::new("ssh");
        if self.named {
            command.arg("-F").arg(&self.file);
        }
        command.stdin(Stdio::null()).kill_on_drop(true);
        command
    }

    /// What `ssh -V` says.
    pub(super) async fn version(&self) -> anyhow::Result<String> {
        let mut command = Command::new("ssh");
        command.arg("-V").stdin(Stdio::null()).kill_on_drop(true);
        let trial = ended(command, DOCTOR_PRINT).await?;
        Ok(trial.said)
    }

    /// What ssh would do for `target`. `epithet match` answers yes without asking anybody, so nothing is started.
    pub(super) async fn intent(&self, target: &str) -> anyhow::Result<Intent> {
        let mut command = self.command();
        command.env(DRY_RUN, "1").arg("-G").arg("--").arg(target);
        let output = tokio::time::timeout(DOCTOR_PRINT, command.output())
            .await
            .context(
                "ssh -G does not come to an end; is there a `Match exec` in your configuration that hangs?",
            )?
            .context("cannot run ssh")?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            bail!("{}", said.trim());
        }
        Ok(Intent::parse(&String::from_utf8_lossy(&output.stdout)))
    }

    /// Logs in and runs `true` there, without asking anybody anything.
    pub(super) async fn trial(&self, target: &str) -> anyhow::Result<Trial> {
        let mut command = self.command();
        command.args(["-v", "-n", "-T", "-a", "-x"]);
        for option in [
            "BatchMode=yes",
            "ConnectTimeout=10",
            "ControlPath=none",
            "ClearAllForwardings=yes",
        ] {
            command.args(["-o", option]);
        }
        command.arg("--").arg(target).arg("true");
        ended(command, DOCTOR_TRY).await
    }
}

impl Intent {
    fn parse(printed: &str) -> Self {
        let lines = printed.lines().filter_map(|line| line.split_once(' '));
        let mut settings = HashMap::new();
        for (keyword, value) in lines {
            settings
                .entry(keyword.to_ascii_lowercase())
                .or_insert_with(|| value.to_owned());
        }
        Self(settings)
    }

    /// A setting, or nothing where ssh has none.
    pub(super) fn get(&self, keyword: &str) -> &str {
        self.0.get(keyword).map_or("", String::as_str)
    }

    pub(super) fn port(&self) -> u16 {
        self.get("port").parse().unwrap_or(22)
    }
}

/// Runs a command to its end, or ends it.
pub(super) async fn ended(mut command: Command, deadline: Duration) -> anyhow::Result<Trial> {
    let program = command.as_std().get_program().to_owned();
    let output = match tokio::time::timeout(deadline, command.output()).await {
        Ok(output) => output.with_context(|| format!("cannot run {}", program.display()))?,
        Err(_) => return Ok(Trial::default()),
    };
    let mut said = String::from_utf8_lossy(&output.stderr).into_owned();
    said.push_str(&String::from_utf8_lossy(&output.stdout));
    Ok(Trial {
        code: output.status.code(),
        said,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_value_of_a_setting_is_the_one() {
        let intent =
            Intent::parse("host web\nhostname 10.0.0.1\nport 2222\nidentityfile a\nidentityfile b\nbare\n");
        assert_eq!(intent.get("hostname"), "10.0.0.1");
        assert_eq!(intent.get("identityfile"), "a");
        assert_eq!(intent.port(), 2222);
        assert_eq!(intent.get("identityagent"), "");
    }
}
