//! An account of this host, as sshd sees it before it lets anybody in.

use std::path::PathBuf;
use std::process::{Command, Stdio};

/// The account file, for systems without getent(1).
const PASSWD: &str = "/etc/passwd";

/// An account.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Account {
    pub(super) name: String,
    pub(super) uid: u32,
    pub(super) home: PathBuf,
    /// Empty means `/bin/sh`.
    pub(super) shell: String,
    /// The names and numbers of its groups.
    pub(super) groups: Vec<String>,
    pub(super) gids: Vec<u32>,
    /// What the shadow file says; unknown to all but root.
    pub(super) shadow: Option<Shadow>,
}

/// The parts of a shadow line that decide about logins.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Shadow {
    /// The password begins with `!`.
    pub(super) is_locked: bool,
    /// The day on which the account ends, counted from 1970.
    pub(super) ends: Option<i64>,
}

impl Account {
    /// Looks an account up; `None` when there is none.
    pub(super) fn look_up(name: &str) -> Option<Self> {
        let line = run("getent", &["passwd", name]).or_else(|| from_passwd(name))?;
        let mut account = parse_passwd(line.lines().next()?)?;
        let words = |text: String| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        account.groups = run("id", &["-Gn", name]).map(words).unwrap_or_default();
        let gids = run("id", &["-G", name]).map(words).unwrap_or_default();
        account
            .gids
            .extend(gids.iter().filter_map(|gid| gid.parse::<u32>().ok()));
        account.shadow = run("getent", &["shadow", name]).and_then(|line| parse_shadow(line.trim_end()));
        Some(account)
    }
}

fn from_passwd(name: &str) -> Option<String> {
    let text = std::fs::read_to_string(PASSWD).ok()?;
    let mut lines = text.lines();
    lines
        .find(|line| line.split(':').next() == Some(name))
        .map(str::to_owned)
}

fn parse_passwd(line: &str) -> Option<Account> {
    let fields: Vec<&str> = line.split(':').collect();
    let [name, _, uid, gid, _, home, shell] = fields[..] else {
        return None;
    };
    Some(Account {
        name: name.to_owned(),
        uid: uid.parse().ok()?,
        home: PathBuf::from(home),
        shell: shell.to_owned(),
        gids: vec![gid.parse().ok()?],
        ..Account::default()
    })
}

fn parse_shadow(line: &str) -> Option<Shadow> {
    let fields: Vec<&str> = line.split(':').collect();
    Some(Shadow {
        is_locked: fields.get(1)?.starts_with('!'),
        ends: fields.get(7).and_then(|day| day.parse().ok()),
    })
}

fn run(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    (output.status.success() && !text.trim().is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_passwd_and_shadow_are_read() {
        let account = parse_passwd("bob:x:1000:100:Bob,,,:/home/bob:/bin/bash").unwrap();
        assert_eq!((account.uid, account.gids.as_slice()), (1000, &[100][..]));
        assert_eq!(
            (account.home, account.shell.as_str()),
            (PathBuf::from("/home/bob"), "/bin/bash")
        );
        assert_eq!(parse_passwd("bob:x:1000"), None);
        let shadow = |line| parse_shadow(line).unwrap();
        assert!(shadow("bob:!$6$x:19000:0:99999:7:::").is_locked);
        assert!(!shadow("bob:*:19000:0:99999:7:::").is_locked);
        assert_eq!(shadow("bob:*:19000:0:99999:7::19500:").ends, Some(19500));
    }

    #[test]
    fn root_is_there_and_nobody_has_a_name_like_this() {
        let root = Account::look_up("root").unwrap();
        assert_eq!(root.uid, 0);
        assert_eq!(Account::look_up("no-such-account-here"), None);
    }
}
