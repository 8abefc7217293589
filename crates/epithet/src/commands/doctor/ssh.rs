//! The ssh of this machine, asked what it would do and had try it.

use super::jump::Jump;
use super::trial::{Log, Trial, Until, ended, tried};
use anyhow::bail;
use epithet_wire::broker::DRY_RUN;
use epithet_wire::limits::{DOCTOR_PRINT, DOCTOR_TRY};
use std::collections::HashMap;
use std::path::PathBuf;
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

/// Where ssh goes, and how it is told.
#[derive(Debug, Clone, Default)]
pub(super) struct Destination {
    /// As a person would type it.
    pub(super) shown: String,
    /// ssh's words: options, `--` and the name.
    words: Vec<String>,
}

impl Destination {
    /// What a person typed.
    pub(super) fn typed(target: &str) -> Self {
        Self {
            shown: target.to_owned(),
            words: vec!["--".to_owned(), target.to_owned()],
        }
    }

    /// A jump host, reached through those before it; without any, as its own configuration says.
    pub(super) fn jump(jump: &Jump, before: &[Jump]) -> Self {
        let mut words = Vec::new();
        if !before.is_empty() {
            let list: Vec<_> = before.iter().map(|jump| jump.written.as_str()).collect();
            words.extend(["-J".to_owned(), list.join(",")]);
        }
        for (flag, value) in [("-l", &jump.user), ("-p", &jump.port)] {
            if let Some(value) = value {
                words.extend([flag.to_owned(), value.clone()]);
            }
        }
        words.extend(["--".to_owned(), jump.host.clone()]);
        Self {
            shown: jump.destination(),
            words,
        }
    }
}

impl Ssh {
    fn command(&self) -> Command {
        let mut command = Command::new("ssh");
        if self.named {
            command.arg("-F").arg(&self.file);
        }
        // The ssh of a jump host is not told `BatchMode`, and must ask nobody either.
        command
            .env("SSH_ASKPASS", "false")
            .env("SSH_ASKPASS_REQUIRE", "force");
        command
    }

    /// What `ssh -V` says.
    pub(super) async fn version(&self) -> anyhow::Result<String> {
        let mut command = Command::new("ssh");
        command.arg("-V");
        let trial = ended(command, DOCTOR_PRINT).await?;
        Ok(trial.err + &trial.out)
    }

    /// What ssh would do for `target`. `epithet match` answers yes without asking anybody, so nothing is started.
    pub(super) async fn intent(&self, target: &Destination) -> anyhow::Result<Intent> {
        let mut command = self.command();
        command.env(DRY_RUN, "1").arg("-G").args(&target.words);
        let trial = ended(command, DOCTOR_PRINT).await?;
        match trial.code {
            Some(0) => Ok(Intent::parse(&trial.out)),
            Some(_) => bail!("{}", trial.err.trim()),
            None => bail!(
                "ssh -G does not come to an end; is there a `Match exec` in your configuration that hangs?"
            ),
        }
    }

    /// Logs in and runs `true` there, without asking anybody anything.
    pub(super) async fn trial(&self, target: &Destination) -> anyhow::Result<Trial> {
        self.attempt(&["-n", "-T"], target, &["true"], Until::Ended).await
    }

    /// Logs in, and connects to `address` from there, as for a host behind it.
    pub(super) async fn forward(&self, jump: &Destination, address: &str) -> anyhow::Result<Trial> {
        self.attempt(&["-W", address], jump, &[], Until::Heard).await
    }

    async fn attempt(
        &self,
        words: &[&str],
        target: &Destination,
        remote: &[&str],
        until: Until,
    ) -> anyhow::Result<Trial> {
        let log = Log::new().await?;
        let mut command = self.command();
        command.args(["-v", "-a", "-x"]).arg("-E").arg(log.path());
        for option in [
            "BatchMode=yes",
            "ConnectTimeout=10",
            "ControlPath=none",
            "ClearAllForwardings=yes",
            "RemoteCommand=none",
            "PermitLocalCommand=no",
        ] {
            command.args(["-o", option]);
        }
        command.args(words).args(&target.words).args(remote);
        tried(command, Some(log), until, DOCTOR_TRY).await
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

    /// The hosts that ssh goes through, in their order.
    pub(super) fn jumps(&self) -> Vec<Jump> {
        match self.get("proxyjump") {
            "" | "none" => Vec::new(),
            list => list.split(',').map(Jump::parse).collect(),
        }
    }

    /// The program that ssh talks to a host through; `None` when it connects itself, or goes through other hosts.
    pub(super) fn proxy_command(&self) -> Option<&str> {
        let command = self.get("proxycommand");
        (!matches!(command, "" | "none") && self.jumps().is_empty()).then_some(command)
    }
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
