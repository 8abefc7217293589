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
    /// The day of the password's last change; 0 asks for a new one at the next login.
    pub(super) changed: Option<i64>,
    /// For how many days the password is good.
    pub(super) good_for: Option<i64>,
    /// How many days after the password's end the account ends too.
    pub(super) inactive_after: Option<i64>,
}

/// What the dates of a shadow line say today.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dates {
    /// Nothing stands against a login.
    Good,
    /// The account has ended.
    Ended,
    /// PAM lets nobody in until the password was changed.
    PasswordEnded,
    /// PAM lets nobody in, because the password was not changed in time.
    Inactive,
}

impl Shadow {
    /// The dates as sshd reads them (`auth_shadow_acctexpired`), or PAM in its place (`check_shadow_expiry` of `pam_unix`),
    /// for which the account's last day is over already and the password counts as well, though nobody asks for it.
    pub(super) fn dates(&self, today: i64, is_pam: bool) -> Dates {
        let is_over = |day: i64| if is_pam { day <= today } else { day < today };
        if self.ends.is_some_and(is_over) {
            return Dates::Ended;
        }
        let (true, Some(changed)) = (is_pam, self.changed) else {
            return Dates::Good;
        };
        if changed == 0 {
            return Dates::PasswordEnded;
        }
        let Some(good_for) = self.good_for.filter(|good_for| today - changed > *good_for) else {
            return Dates::Good;
        };
        match self.inactive_after {
            Some(after) if today - changed > good_for + after => Dates::Inactive,
            _ => Dates::PasswordEnded,
        }
    }
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
    // -1 is how programs write that there is none.
    let number = |at: usize| fields.get(at)?.parse().ok().filter(|number: &i64| *number >= 0);
    Some(Shadow {
        is_locked: fields.get(1)?.starts_with('!'),
        changed: number(2),
        good_for: number(4),
        inactive_after: number(6),
        ends: number(7),
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
    fn the_dates_of_a_shadow_line_are_read_as_sshd_and_as_pam_read_them() {
        for (line, without_pam, with_pam) in [
            ("bob:*:19000:0:99999:7:::", Dates::Good, Dates::Good),
            ("bob:*::::::", Dates::Good, Dates::Good),
            ("bob:*:19000:0:99999:7::-1:", Dates::Good, Dates::Good),
            ("bob:*:19000:0:99999:7::20000:", Dates::Good, Dates::Good),
            // The last day.
            ("bob:*:19000:0:99999:7::19999:", Dates::Good, Dates::Ended),
            ("bob:*:19000:0:99999:7::19998:", Dates::Ended, Dates::Ended),
            ("bob:*:19000:0:99999:7::0:", Dates::Ended, Dates::Ended),
            // The password.
            ("bob:*:0:0:99999:7:::", Dates::Good, Dates::PasswordEnded),
            ("bob:*:19909:0:90:7:::", Dates::Good, Dates::Good),
            ("bob:*:19908:0:90:7:::", Dates::Good, Dates::PasswordEnded),
            ("bob:*:19908:0:90:7:1::", Dates::Good, Dates::PasswordEnded),
            ("bob:*:19908:0:90:7:0::", Dates::Good, Dates::Inactive),
            ("bob:*:19800:0:90:7:7::", Dates::Good, Dates::Inactive),
        ] {
            let shadow = parse_shadow(line).unwrap();
            assert_eq!(shadow.dates(19999, false), without_pam, "{line}");
            assert_eq!(shadow.dates(19999, true), with_pam, "{line}");
        }
    }

    #[test]
    fn root_is_there_and_nobody_has_a_name_like_this() {
        let root = Account::look_up("root").unwrap();
        assert_eq!(root.uid, 0);
        assert_eq!(Account::look_up("no-such-account-here"), None);
    }
}
