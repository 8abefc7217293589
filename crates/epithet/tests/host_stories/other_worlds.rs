//! Processes for which some files of this machine are others: in a mount namespace of their own, so that a story can have
//! its own `/etc/ssh`, its own accounts and its own systemd, and the machine keeps what it has.

use crate::stage::{EPITHET, Stage};
use epithet_testkit::{DEADLINE, Finished, Home, Sshd, SshdSettings};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A world: whatever is started in it sees its mounts.
#[derive(Debug)]
pub(crate) struct World {
    /// A program that runs its arguments in there.
    enter: PathBuf,
    /// A program that is `sshd` in there.
    sshd: PathBuf,
}

impl World {
    /// A world in which these lines of shell were run as root. `None` where the tests may not make one.
    pub(crate) fn new(home: &Home, lines: &str) -> Option<Self> {
        let program = |name: &str, text: String| {
            let path = home.write(name, text);
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("a file of ours");
            path
        };
        let enter = program(
            "enter",
            format!(
                "#!/bin/sh\nexec unshare --mount --propagation private /bin/sh -eu -c '{lines}\nexec \"$@\"' sh \"$@\"\n"
            ),
        );
        let sshd = program(
            "sshd-in-there",
            format!("#!/bin/sh\nexec '{}' /usr/sbin/sshd \"$@\"\n", enter.display()),
        );
        let tried = home.command(&enter).arg("true").output();
        tried
            .is_ok_and(|output| output.status.success())
            .then_some(Self { enter, sshd })
    }

    /// An sshd in there. These settings win over all others.
    pub(crate) fn start(&self, settings: SshdSettings) -> Sshd {
        Sshd::start(SshdSettings {
            program: Some(self.sshd.clone()),
            ..settings
        })
    }

    /// `epithet ARGUMENTS`, to be run in there.
    pub(crate) fn epithet(&self, stage: &Stage, arguments: &[&str]) -> Command {
        let mut command = stage.home.command(&self.enter);
        command
            .env("EPITHET_CONFIG_ONLY", "1")
            .arg(EPITHET)
            .args(arguments);
        command
    }

    /// The same, run with programs of this folder before those of the system.
    pub(crate) fn run_with(&self, stage: &Stage, programs: &Path, arguments: &[&str]) -> Finished {
        let mut command = self.epithet(stage, arguments);
        let path = std::env::var("PATH").unwrap_or_default();
        command.env("PATH", format!("{}:{path}", programs.display()));
        Finished::of(command, DEADLINE)
    }
}
