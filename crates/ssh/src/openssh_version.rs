//! Which OpenSSH is here, as `ssh -V` and an SSH banner say it.
//!
//! Needed because an unknown token or keyword in its configuration makes ssh refuse every connection: `%j` exists
//! since 9.6, `Tag` since 9.4, and `session-bind@openssh.com` is sent since 8.9.

use std::fmt;

/// `major.minor`, with its natural order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OpenSshVersion {
    /// 9 in 9.2.
    pub major: u16,
    /// 2 in 9.2.
    pub minor: u16,
}

impl OpenSshVersion {
    /// The first version whose ssh sends `session-bind@openssh.com` to agents.
    pub const SESSION_BIND: Self = Self::new(8, 9);

    /// `major.minor`.
    pub const fn new(major: u16, minor: u16) -> Self {
        Self { major, minor }
    }

    /// Finds the version in what `ssh -V` prints or a server's banner says, such as
    /// `OpenSSH_9.2p1 Debian-2+deb12u10, OpenSSL 3.0.19` or `OpenSSH_for_Windows_9.5p2`.
    ///
    /// `None` when the text is not OpenSSH's.
    pub fn parse(text: &str) -> Option<Self> {
        let (_, after) = text.split_once("OpenSSH_")?;
        let after = after.strip_prefix("for_Windows_").unwrap_or(after);
        let (major, rest) = number(after)?;
        let (minor, _) = number(rest.strip_prefix('.')?)?;
        Some(Self { major, minor })
    }
}

impl fmt::Display for OpenSshVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// The digits in front, and what follows them.
fn number(text: &str) -> Option<(u16, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, rest) = text.split_at(end);
    Some((digits.parse().ok()?, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_real_systems_are_understood() {
        for (text, version) in [
            (
                "OpenSSH_9.2p1 Debian-2+deb12u10, OpenSSL 3.0.19 27 Jan 2026",
                (9, 2),
            ),
            ("OpenSSH_10.0p2 Debian-7, OpenSSL 3.5.0 8 Apr 2025", (10, 0)),
            (
                "OpenSSH_8.0p1, OpenSSL 1.1.1k  FIPS 25 Mar 2021\nwarning: x",
                (8, 0),
            ),
            ("OpenSSH_for_Windows_9.5p2, LibreSSL 3.8.2", (9, 5)),
            (
                "command-line line 0: noise\nOpenSSH_9.9p2, LibreSSL 3.3.6",
                (9, 9),
            ),
            ("SSH-2.0-OpenSSH_7.4", (7, 4)),
            ("OpenSSH_10.10", (10, 10)),
        ] {
            let expected = OpenSshVersion::new(version.0, version.1);
            assert_eq!(OpenSshVersion::parse(text), Some(expected), "{text}");
        }
        for text in [
            "",
            "dropbear_2022.83",
            "OpenSSH_",
            "OpenSSH_9",
            "OpenSSH_9.",
            "OpenSSH_99999999.1",
        ] {
            assert_eq!(OpenSshVersion::parse(text), None, "{text}");
        }
        assert!(OpenSshVersion::new(9, 10) > OpenSshVersion::new(9, 9));
        assert!(OpenSshVersion::new(10, 0) > OpenSshVersion::new(9, 9));
    }
}
