//! Which ssh is here, and which program it shall ask: found out once, and again only when one of the two has changed.

use crate::ssh_config::{SshConfig, Unsayable};
use epithet_ssh::OpenSshVersion;
use epithet_wire::limits::SSH_VERSION_DEADLINE;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// How often, at most, the programs' files are looked at.
const LOOK: Duration = Duration::from_secs(1);

/// The programs that the generated file depends on.
#[derive(Debug)]
pub(crate) struct SshGlue {
    ssh: Option<PathBuf>,
    /// This program, by a path that stays the same over upgrades.
    binary: PathBuf,
    seen: Mutex<Seen>,
    changed: Notify,
}

#[derive(Debug)]
struct Seen {
    looked: Instant,
    stamps: Vec<Option<Stamp>>,
    version: Option<OpenSshVersion>,
}

/// What tells a file from the one that was there before.
#[derive(Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    changed: (i64, i64),
}

impl SshGlue {
    pub(crate) fn new(ssh: Option<PathBuf>, binary: PathBuf) -> Self {
        let glue = Self {
            ssh,
            binary,
            seen: Mutex::new(Seen {
                looked: Instant::now(),
                stamps: Vec::new(),
                version: None,
            }),
            changed: Notify::new(),
        };
        glue.note();
        glue
    }

    /// Looks at the programs, unless somebody did a moment ago; who waits for [`Self::changed`] is told.
    pub(crate) fn look(&self) {
        let mut seen = self.seen();
        if seen.looked.elapsed() < LOOK {
            return;
        }
        seen.looked = Instant::now();
        let stamps = self.stamps();
        if stamps != seen.stamps {
            seen.stamps = stamps;
            self.changed.notify_one();
        }
    }

    /// Ends when one of the programs has become another one.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// What ssh runs: the small program beside this one where it is installed, else this one's `match`.
    pub(crate) fn match_program(&self) -> Vec<PathBuf> {
        let small = self.small();
        if small.is_file() {
            vec![small]
        } else {
            vec![self.binary.clone(), PathBuf::from("match")]
        }
    }

    /// Which OpenSSH is here, as it said last; `None` when there is none, or it does not say.
    pub(crate) fn version(&self) -> Option<OpenSshVersion> {
        self.seen().version
    }

    /// Asks the ssh that is here which one it is.
    pub(crate) async fn ask_version(&self) {
        self.note();
        let version = self.asked().await;
        self.seen().version = version;
    }

    async fn asked(&self) -> Option<OpenSshVersion> {
        let mut command = std::process::Command::new(self.ssh.as_ref()?);
        command.arg("-V").stdin(Stdio::null());
        epithet_plugin::start_cleanly(&mut command);
        let asking = tokio::process::Command::from(command).kill_on_drop(true).output();
        let output = tokio::time::timeout(SSH_VERSION_DEADLINE, asking)
            .await
            .ok()?
            .ok()?;
        let version = OpenSshVersion::parse(&String::from_utf8_lossy(&output.stderr));
        match version {
            Some(version) => tracing::info!(%version, "OpenSSH"),
            None => tracing::warn!("ssh -V does not say which OpenSSH it is"),
        }
        version
    }

    fn small(&self) -> PathBuf {
        self.binary.with_file_name("epithet-match")
    }

    fn note(&self) {
        let stamps = self.stamps();
        self.seen().stamps = stamps;
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stamps(&self) -> Vec<Option<Stamp>> {
        let paths = [self.ssh.clone(), Some(self.binary.clone()), Some(self.small())];
        paths.iter().map(|path| stamp(path.as_deref()?)).collect()
    }
}

/// What a file is now; links are followed, so that a link to another version is seen.
fn stamp(path: &Path) -> Option<Stamp> {
    let metadata = path.metadata().ok()?;
    Some(Stamp {
        device: metadata.dev(),
        inode: metadata.ino(),
        size: metadata.size(),
        changed: (metadata.mtime(), metadata.mtime_nsec()),
    })
}

/// Renders the file for the ssh that is here; when it cannot be said to that one, a file that says nothing, and why.
pub(crate) fn render_or_nothing(config: &SshConfig) -> (String, Option<Unsayable>) {
    match config.render() {
        Ok(text) => (text, None),
        Err(problem) => (SshConfig::nothing(&problem), Some(problem)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn script(path: &Path, text: &str) {
        std::fs::write(path, text).unwrap();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700)).unwrap();
    }

    #[tokio::test]
    async fn a_new_ssh_is_noticed_and_asked() {
        let dir = tempfile::tempdir().unwrap();
        let (ssh, binary) = (dir.path().join("ssh"), dir.path().join("epithet"));
        script(&ssh, "#!/bin/sh\necho 'OpenSSH_9.2p1 Debian' >&2\n");
        script(&binary, "");
        let glue = SshGlue::new(Some(ssh.clone()), binary.clone());
        glue.ask_version().await;
        assert_eq!(glue.version(), Some(OpenSshVersion::new(9, 2)));
        assert_eq!(glue.match_program(), [binary, "match".into()]);

        script(&dir.path().join("new"), "#!/bin/sh\necho 'OpenSSH_10.0p2' >&2\n");
        std::fs::rename(dir.path().join("new"), &ssh).unwrap();
        let small = dir.path().join("epithet-match");
        script(&small, "");
        // A look is not taken twice within a second, so the last one is made older.
        glue.seen.lock().unwrap().looked = Instant::now().checked_sub(2 * LOOK).unwrap();
        glue.look();
        tokio::time::timeout(Duration::from_secs(10), glue.changed())
            .await
            .unwrap();
        glue.ask_version().await;
        assert_eq!(glue.version(), Some(OpenSshVersion::new(10, 0)));
        assert_eq!(glue.match_program(), [small]);
        glue.look();
        let again = tokio::time::timeout(Duration::from_millis(50), glue.changed()).await;
        assert!(again.is_err(), "nothing has changed since");
    }

    #[tokio::test]
    async fn an_ssh_that_is_not_there_or_none_at_all_has_no_version() {
        for ssh in [
            None,
            Some(PathBuf::from("/nothing/there")),
            Some(PathBuf::from("/bin/true")),
        ] {
            let glue = SshGlue::new(ssh, "/e".into());
            glue.ask_version().await;
            assert_eq!(glue.version(), None);
        }
    }
}
