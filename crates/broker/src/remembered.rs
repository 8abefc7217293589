//! Which hosts the CA said are its own, kept on disk so that a laptop without a network still decides right.
//!
//! `~/.epithet/cache/PROFILE.json`: nothing secret, but it decides for which hosts a login may be started, so it is read
//! only if nobody else could have written it.

use crate::run_dir::make_private;
use epithet_wire::ProfileName;
use epithet_wire::limits::{HTTP_BODY_MAX, PATTERNS_REMEMBERED};
use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The file of one profile.
#[derive(Debug, Clone)]
pub(crate) struct RememberedHosts {
    path: PathBuf,
}

/// What stands in it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Remembered {
    /// The CAs that said so; what others said counts for nothing.
    cas: Vec<String>,
    /// Their patterns; none means every host.
    patterns: Vec<String>,
    /// Seconds since 1970.
    valid_until: u64,
}

impl RememberedHosts {
    /// The file of `profile` below `home`, which need not exist yet.
    pub(crate) fn of(home: &Path, profile: &ProfileName) -> Self {
        Self {
            path: home.join(".epithet/cache").join(format!("{profile}.json")),
        }
    }

    /// The patterns that these CAs named, unless that was too long ago. What cannot be used is no error: the CA is asked.
    pub(crate) fn recall(&self, cas: &[String], now: u64) -> Option<Vec<String>> {
        let text = match self.read() {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => {
                tracing::warn!(path = %self.path.display(), %error, "what the CA said about its hosts before is not used");
                return None;
            }
        };
        let remembered: Remembered = serde_json::from_str(&text).ok()?;
        let longest = now + PATTERNS_REMEMBERED.as_secs();
        let is_valid = (now..=longest).contains(&remembered.valid_until);
        (is_valid && remembered.cas == cas).then_some(remembered.patterns)
    }

    /// Writes down what the CAs named just now.
    pub(crate) fn remember(&self, cas: &[String], patterns: &[String], now: u64) {
        let remembered = Remembered {
            cas: cas.to_vec(),
            patterns: patterns.to_vec(),
            valid_until: now + PATTERNS_REMEMBERED.as_secs(),
        };
        if let Err(error) = self.write(&remembered) {
            // A disk that is full or read-only costs the next start without a network, nothing more.
            tracing::warn!(path = %self.path.display(), %error, "what the CA says about its hosts is not remembered");
        }
    }

    fn read(&self) -> io::Result<String> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = File::from(rustix::fs::open(&self.path, flags, Mode::empty())?);
        let metadata = file.metadata()?;
        let is_ours = metadata.uid() == rustix::process::geteuid().as_raw() && metadata.mode() & 0o022 == 0;
        if !is_ours || !metadata.is_file() {
            return Err(io::Error::other("others could have written it; remove it"));
        }
        let most = u64::try_from(2 * HTTP_BODY_MAX).unwrap_or(u64::MAX);
        let mut text = String::new();
        file.take(most).read_to_string(&mut text)?;
        Ok(text)
    }

    /// In one step, so that nobody ever reads half of it.
    fn write(&self, remembered: &Remembered) -> io::Result<()> {
        let text = serde_json::to_string_pretty(remembered)?;
        let dir = self.path.parent().unwrap_or(Path::new("/"));
        make_private(dir, 0o022).map_err(io::Error::other)?;
        let draft = self.path.with_extension("new");
        let _ = std::fs::remove_file(&draft);
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut file = File::from(rustix::fs::open(&draft, flags, Mode::RUSR | Mode::WUSR)?);
        file.write_all(text.as_bytes())?;
        file.write_all(b"\n")?;
        std::fs::rename(&draft, &self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    const NOW: u64 = 1_800_000_000;

    fn strings(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    fn file() -> (tempfile::TempDir, RememberedHosts) {
        let home = tempfile::tempdir().unwrap();
        let epithet = home.path().join(".epithet");
        std::fs::create_dir(&epithet).unwrap();
        std::fs::set_permissions(&epithet, std::fs::Permissions::from_mode(0o755)).unwrap();
        let hosts = RememberedHosts::of(home.path(), &ProfileName::default());
        (home, hosts)
    }

    #[test]
    fn what_a_ca_said_is_remembered_for_a_while_and_for_that_ca_only() {
        let (_home, hosts) = file();
        let (cas, patterns) = (strings(&["https://ca/"]), strings(&["*.example.com"]));
        assert_eq!(hosts.recall(&cas, NOW), None);
        hosts.remember(&cas, &strings(&["old"]), NOW);
        hosts.remember(&cas, &patterns, NOW);
        let life = PATTERNS_REMEMBERED.as_secs();
        assert_eq!(hosts.recall(&cas, NOW), Some(patterns.clone()));
        assert_eq!(hosts.recall(&cas, NOW + life), Some(patterns));
        assert_eq!(hosts.recall(&cas, NOW + life + 1), None);
        assert_eq!(hosts.recall(&cas, NOW - 1), None, "a calendar that was set back");
        assert_eq!(hosts.recall(&strings(&["https://other/"]), NOW), None);
    }

    #[test]
    fn a_file_that_others_could_have_written_or_that_is_none_counts_for_nothing() {
        let (home, hosts) = file();
        let cas = strings(&["https://ca/"]);
        hosts.remember(&cas, &strings(&["*"]), NOW);
        std::fs::set_permissions(&hosts.path, std::fs::Permissions::from_mode(0o666)).unwrap();
        assert_eq!(hosts.recall(&cas, NOW), None);
        hosts.remember(&cas, &strings(&["*"]), NOW);
        assert!(
            hosts.recall(&cas, NOW).is_some(),
            "written anew, for its owner only"
        );
        let elsewhere = home.path().join("elsewhere");
        std::fs::rename(&hosts.path, &elsewhere).unwrap();
        std::os::unix::fs::symlink(&elsewhere, &hosts.path).unwrap();
        assert_eq!(hosts.recall(&cas, NOW), None);
        hosts.remember(&cas, &strings(&["*"]), NOW);
        assert!(
            hosts.recall(&cas, NOW).is_some(),
            "the link was replaced, not followed"
        );
        std::fs::write(&hosts.path, "half of").unwrap();
        assert_eq!(hosts.recall(&cas, NOW), None);
    }
}
