//! What `sshd -T` says: the settings in force, defaults too.

use std::collections::BTreeMap;
use std::path::PathBuf;

/// The settings of an sshd for everybody, or for one connection.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Settings(BTreeMap<String, Vec<String>>);

impl Settings {
    /// Reads lines of `keyword value`. A keyword may come several times.
    pub(super) fn parse(text: &str) -> Self {
        let mut settings: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for line in text.lines() {
            let (keyword, value) = line.split_once(' ').unwrap_or((line, ""));
            settings
                .entry(keyword.to_ascii_lowercase())
                .or_default()
                .push(value.trim().to_owned());
        }
        Self(settings)
    }

    /// The value of a keyword that has one; `none` and what this sshd does not know are nothing.
    pub(super) fn get(&self, keyword: &str) -> Option<&str> {
        let value = self.0.get(keyword)?.first()?.as_str();
        (value != "none" && !value.is_empty()).then_some(value)
    }

    /// As [`get`](Self::get), for a keyword that names a file.
    pub(super) fn path(&self, keyword: &str) -> Option<PathBuf> {
        self.get(keyword).map(PathBuf::from)
    }

    /// Whether a keyword's value is this one.
    pub(super) fn is(&self, keyword: &str, value: &str) -> bool {
        self.get(keyword) == Some(value)
    }

    /// The members of a list with commas; `None` when this sshd does not know the keyword.
    pub(super) fn list(&self, keyword: &str) -> Option<Vec<&str>> {
        let value = self.0.get(keyword)?.first()?;
        Some(
            value
                .split(',')
                .map(str::trim)
                .filter(|member| !member.is_empty())
                .collect(),
        )
    }

    /// All values of a keyword that may come several times, each of which may hold several words.
    pub(super) fn words(&self, keyword: &str) -> Vec<&str> {
        let values = self.0.get(keyword).into_iter().flatten();
        values.flat_map(|value| value.split_whitespace()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_sshd_are_understood() {
        let settings = Settings::parse(
            "pubkeyauthentication yes\ntrustedusercakeys none\ncasignaturealgorithms ssh-ed25519,rsa-sha2-512\n\
             allowusers alice\nallowusers bob root\nrevokedkeys /etc/revoked\n",
        );
        assert!(settings.is("pubkeyauthentication", "yes"));
        assert_eq!(settings.get("trustedusercakeys"), None);
        assert_eq!(settings.get("nosuchkeyword"), None);
        assert_eq!(
            settings.list("casignaturealgorithms").unwrap(),
            ["ssh-ed25519", "rsa-sha2-512"]
        );
        assert_eq!(settings.list("nosuchkeyword"), None);
        assert_eq!(settings.words("allowusers"), ["alice", "bob", "root"]);
        assert_eq!(
            settings.path("revokedkeys").unwrap(),
            PathBuf::from("/etc/revoked")
        );
    }
}
