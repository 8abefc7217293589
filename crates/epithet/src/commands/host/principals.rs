//! `AuthorizedPrincipalsFile`: which principals a user's file lists, and whether sshd would read it at all.
//!
//! As `auth_openprincipals`, `safe_path` and `match_principals_file` of OpenSSH do it.

use super::account::Account;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Why a file does not let a user in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Problem {
    /// Not there.
    Missing,
    /// It, or a folder above it, belongs to somebody else or can be written by others: `StrictModes`.
    Unsafe(PathBuf, &'static str),
    /// The user may not read it; sshd reads it as the user.
    Unreadable(PathBuf),
    /// It does not list the user.
    NotListed(Vec<String>),
}

/// The path of a user's file: `%u`, `%U`, `%h` and `%%` replaced, and below the home unless absolute.
pub(super) fn path_for(pattern: &str, account: &Account) -> PathBuf {
    let mut path = String::new();
    let mut characters = pattern.chars();
    while let Some(c) = characters.next() {
        match (c, c == '%') {
            (_, true) => match characters.next() {
                Some('u') => path.push_str(&account.name),
                Some('U') => path.push_str(&account.uid.to_string()),
                Some('h') => path.push_str(&account.home.display().to_string()),
                Some(other) => path.push(other),
                None => {}
            },
            (c, false) => path.push(c),
        }
    }
    account.home.join(path)
}

/// Whether the file at `path` lets a certificate for this account in.
pub(super) fn lets_in(path: &Path, account: &Account, is_strict: bool) -> Result<(), Problem> {
    let metadata = std::fs::metadata(path).map_err(|_| Problem::Missing)?;
    if !metadata.is_file() {
        return Err(Problem::Unsafe(path.to_owned(), "is not a regular file"));
    }
    if is_strict {
        is_safe(path, account)?;
    }
    is_readable(path, &metadata, account)?;
    let text = std::fs::read(path).map_err(|_| Problem::Unreadable(path.to_owned()))?;
    let principals = listed(&String::from_utf8_lossy(&text));
    if principals.contains(&account.name) {
        Ok(())
    } else {
        Err(Problem::NotListed(principals))
    }
}

/// The principals of a file: one a line, perhaps with options in front, and comments at the end.
fn listed(text: &str) -> Vec<String> {
    text.lines()
        .map(|line| line.split('#').next().unwrap_or_default().trim())
        .filter_map(|line| line.rsplit([' ', '\t']).next())
        .filter(|principal| !principal.is_empty())
        .map(str::to_owned)
        .collect()
}

/// The file and every folder above it, up to the home or the root, belong to root or the user, and nobody else writes.
fn is_safe(path: &Path, account: &Account) -> Result<(), Problem> {
    let path = path.canonicalize().map_err(|_| Problem::Missing)?;
    let home = account.home.canonicalize().ok();
    for part in path.ancestors() {
        let metadata = std::fs::metadata(part).map_err(|_| Problem::Missing)?;
        if metadata.uid() != 0 && metadata.uid() != account.uid {
            return Err(Problem::Unsafe(
                part.to_owned(),
                "belongs neither to root nor to the user",
            ));
        }
        if metadata.mode() & 0o022 != 0 {
            return Err(Problem::Unsafe(
                part.to_owned(),
                "can be written by its group or by everybody",
            ));
        }
        if home.as_deref() == Some(part) {
            break;
        }
    }
    Ok(())
}

fn is_readable(path: &Path, metadata: &Metadata, account: &Account) -> Result<(), Problem> {
    if account.uid == 0 {
        return Ok(());
    }
    if !may(metadata, account, 0o4) {
        return Err(Problem::Unreadable(path.to_owned()));
    }
    for folder in path.ancestors().skip(1) {
        match std::fs::metadata(folder) {
            Ok(metadata) if !may(&metadata, account, 0o1) => {
                return Err(Problem::Unreadable(folder.to_owned()));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Whether the account has this right, as the mode says: read 4, search 1.
fn may(metadata: &Metadata, account: &Account, right: u32) -> bool {
    let shift = if metadata.uid() == account.uid {
        6
    } else if account.gids.contains(&metadata.gid()) {
        3
    } else {
        0
    };
    metadata.mode() >> shift & right != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account() -> Account {
        Account {
            name: "bob".into(),
            uid: 1000,
            home: PathBuf::from("/home/bob"),
            ..Account::default()
        }
    }

    #[test]
    fn tokens_of_the_path_are_replaced() {
        for (pattern, path) in [
            ("/etc/ssh/principals/%u", "/etc/ssh/principals/bob"),
            ("%h/.ssh/principals", "/home/bob/.ssh/principals"),
            (".ssh/principals", "/home/bob/.ssh/principals"),
            ("/p/%U/100%%", "/p/1000/100%"),
        ] {
            assert_eq!(path_for(pattern, &account()), PathBuf::from(path));
        }
    }

    #[test]
    fn a_file_lists_one_principal_a_line_with_options_before_and_comments_after() {
        let text = "# group of admins\nroot\n  command=\"echo hi\" bob # her\n\n\tcarol\t\n";
        assert_eq!(listed(text), ["root", "bob", "carol"]);
    }

    #[test]
    fn a_file_that_others_can_write_is_not_read() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("bob");
        std::fs::write(&file, "bob\n").unwrap();
        let mut account = account();
        account.uid = rustix::process::geteuid().as_raw();
        account.home = folder.path().to_owned();
        let mode = |mode| std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
        mode(0o644);
        assert_eq!(lets_in(&file, &account, true), Ok(()));
        mode(0o664);
        assert!(matches!(lets_in(&file, &account, true), Err(Problem::Unsafe(..))));
        assert_eq!(lets_in(&file, &account, false), Ok(()));
        std::fs::write(&file, "root\n").unwrap();
        assert_eq!(
            lets_in(&file, &account, false),
            Err(Problem::NotListed(vec!["root".into()]))
        );
        assert_eq!(
            lets_in(&folder.path().join("none"), &account, true),
            Err(Problem::Missing)
        );
    }
}
