//! Which `ssh` the tests use: the system's, or the one that `EPITHET_TEST_SSH` names (see `scripts/other-ssh`).

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What `PATH` is in a test: as it is for the tests, with the other ssh first if there is one.
///
/// # Panics
/// When `EPITHET_TEST_SSH` is not the absolute path of a program that is called `ssh`.
pub fn search_path() -> OsString {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let Some(ssh) = std::env::var_os("EPITHET_TEST_SSH").map(PathBuf::from) else {
        return path;
    };
    assert!(
        ssh.is_absolute() && ssh.file_name() == Some("ssh".as_ref()) && ssh.is_file(),
        "EPITHET_TEST_SSH={} is not the absolute path of a program called ssh",
        ssh.display()
    );
    let folder = ssh.parent().map(Path::to_owned);
    std::env::join_paths(folder.into_iter().chain(std::env::split_paths(&path)))
        .expect("a path of a program has no colon")
}

/// The version of the `ssh` that the tests use: `(9, 2)` for OpenSSH 9.2.
///
/// # Panics
/// When there is none.
pub fn ssh_version() -> (u32, u32) {
    let output = Command::new("ssh").arg("-V").env("PATH", search_path()).output();
    let text = output
        .map(|output| String::from_utf8_lossy(&output.stderr).into_owned())
        .unwrap_or_default();
    parse_version(&text).unwrap_or_else(|| panic!("ssh does not say its version: {text}"))
}

/// The numbers after `OpenSSH_`.
pub(crate) fn parse_version(text: &str) -> Option<(u32, u32)> {
    let (_, after) = text.split_once("OpenSSH_")?;
    let mut numbers = after.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_found_in_what_ssh_and_sshd_say() {
        assert_eq!(
            parse_version("OpenSSH_9.2p1 Debian-2+deb12u10, OpenSSL 3.0.22"),
            Some((9, 2))
        );
        assert_eq!(
            parse_version("unknown option -- V\nOpenSSH_10.0p1, OpenSSL"),
            Some((10, 0))
        );
        assert_eq!(parse_version("dropbear"), None);
    }
}
