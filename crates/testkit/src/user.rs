//! Accounts to log in to, and to run things as.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The account that tests make when they run as root. It stays, for the next run.
const NAME: &str = "epithet-test";

/// An account of this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TestUser {
    name: String,
    uid: u32,
    gid: u32,
    home: PathBuf,
}

impl TestUser {
    /// Whoever runs the tests.
    ///
    /// # Panics
    /// When this user id has no account.
    pub fn current() -> Self {
        let uid = rustix::process::getuid().as_raw();
        Self::lookup(&uid.to_string()).unwrap_or_else(|| panic!("user id {uid} has no account"))
    }

    /// Whether the tests run as root, and so can use other accounts.
    pub fn is_root() -> bool {
        rustix::process::geteuid().is_root()
    }

    /// An ordinary account: `epithet-test`, made when it is missing and reused by later runs, unlocked and without a
    /// password. `None` when the tests do not run as root; they then have [`current`](Self::current), which is
    /// ordinary too.
    ///
    /// # Panics
    /// When the account cannot be made.
    pub fn ordinary() -> Option<Self> {
        if !Self::is_root() {
            return None;
        }
        // Tests run in several processes at once; one of them makes the account.
        let lock_path = std::env::temp_dir().join("epithet-test-user.lock");
        let lock = File::create(&lock_path).expect("the temporary folder can be written");
        lock.lock().expect("a lock on a file of ours");
        if Self::lookup(NAME).is_none() {
            run("useradd", &["--create-home", "--shell", "/bin/sh", NAME]);
        }
        // A new account is locked (`!` as its password), and sshd without PAM refuses locked accounts.
        run("usermod", &["--password", "*", NAME]);
        Self::lookup(NAME)
    }

    /// The account with this name or user id.
    pub fn lookup(name: &str) -> Option<Self> {
        let output = Command::new("getent").args(["passwd", name]).output().ok()?;
        let line = String::from_utf8(output.stdout).ok()?;
        let fields: Vec<&str> = line.trim_end().split(':').collect();
        let [name, _, uid, gid, _, home, _] = fields[..] else {
            return None;
        };
        Some(Self {
            name: name.to_owned(),
            uid: uid.parse().ok()?,
            gid: gid.parse().ok()?,
            home: PathBuf::from(home),
        })
    }

    /// The account's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its user id.
    pub fn uid(&self) -> u32 {
        self.uid
    }

    /// Its group id.
    pub fn gid(&self) -> u32 {
        self.gid
    }

    /// Its home as the system knows it, which is where ssh and sshd look; see [`Home`](crate::Home) for another.
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// A command that runs as this user, with the process id that it is started with and with nothing on its stdin.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = if self.uid == rustix::process::geteuid().as_raw() {
            Command::new(program)
        } else {
            self.change_to(program)
        };
        command.stdin(Stdio::null());
        command
    }

    fn change_to(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("setpriv");
        command
            .arg(format!("--reuid={}", self.uid))
            .arg(format!("--regid={}", self.gid));
        command.args(["--clear-groups", "--"]).arg(program);
        command
    }

    /// Gives a file or folder to this user.
    pub(crate) fn own(&self, path: &Path) {
        if Self::is_root() {
            std::os::unix::fs::chown(path, Some(self.uid), Some(self.gid))
                .unwrap_or_else(|error| panic!("cannot give {} to {}: {error}", path.display(), self.name));
        }
    }
}

fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output();
    match output {
        Ok(output) if output.status.success() => {}
        Ok(output) => panic!(
            "{program} {arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        ),
        Err(error) => panic!("cannot run {program}: {error}"),
    }
}
