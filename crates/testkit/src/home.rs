//! A person's home: a temporary folder with `.ssh/config` and `.ssh/known_hosts`, and commands that live in it.

use crate::finished::Finished;
use crate::openssh::search_path;
use crate::sshd::Sshd;
use crate::user::TestUser;
use crate::wait::DEADLINE;
use std::ffi::OsStr;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// A home of its own for one test. Its path is short, for the sockets in it.
#[derive(Debug)]
pub struct Home {
    folder: TempDir,
    user: TestUser,
}

impl Home {
    /// A home for whoever runs the tests.
    ///
    /// # Panics
    /// When `/tmp` cannot be written.
    #[expect(clippy::new_without_default, reason = "making one touches the disk")]
    pub fn new() -> Self {
        Self::of(&TestUser::current())
    }

    /// A home that belongs to `user`, and whose commands run as `user`.
    ///
    /// # Panics
    /// When `/tmp` cannot be written.
    pub fn of(user: &TestUser) -> Self {
        // Not the system's temporary folder: on some machines its path leaves no room for a socket's.
        let folder = tempfile::Builder::new()
            .prefix("ep-")
            .tempdir_in("/tmp")
            .expect("/tmp can be written");
        user.own(folder.path());
        let home = Self {
            folder,
            user: user.clone(),
        };
        home.ssh_config("");
        home.write(".ssh/known_hosts", "");
        home
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Whose it is.
    pub fn user(&self) -> &TestUser {
        &self.user
    }

    /// A path in this home, whether there is something or not.
    pub fn join(&self, relative: impl AsRef<Path>) -> PathBuf {
        self.path().join(relative)
    }

    /// Writes a file (0600) with its folders (0700), all owned by the home's user. Returns its path.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn write(&self, relative: impl AsRef<Path>, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.join(relative);
        let mut folder = self.path().to_owned();
        let parent = path
            .parent()
            .and_then(|parent| parent.strip_prefix(self.path()).ok());
        for part in parent.into_iter().flat_map(Path::components) {
            folder.push(part);
            if !folder.exists() {
                fs::create_dir(&folder).expect("a folder in a folder of ours");
                fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).expect("a folder of ours");
                self.user.own(&folder);
            }
        }
        fs::write(&path, text).unwrap_or_else(|error| panic!("cannot write {}: {error}", path.display()));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("a file of ours");
        self.user.own(&path);
        path
    }

    /// Writes `.ssh/config`: `text` as a person wrote it, then what keeps a test apart from the machine it runs on.
    /// As ssh takes the first value of each setting, `text` has the last word.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn ssh_config(&self, text: &str) -> PathBuf {
        let known_hosts = self.join(".ssh/known_hosts");
        let isolation = format!(
            "\nMatch all\n  UserKnownHostsFile {}\n  GlobalKnownHostsFile /dev/null\n  IdentityFile none\n  BatchMode yes\n",
            known_hosts.display()
        );
        self.write(".ssh/config", format!("{text}{isolation}"))
    }

    /// Trusts the host key of `sshd`, under every name.
    ///
    /// # Panics
    /// When `.ssh/known_hosts` cannot be written.
    pub fn trust(&self, sshd: &Sshd) {
        let path = self.join(".ssh/known_hosts");
        let mut file = fs::OpenOptions::new()
            .append(true)
            .open(&path)
            .expect("known_hosts is there from the start");
        writeln!(file, "* {}", sshd.host_key()).expect("a file of ours");
    }

    /// A command that runs as this home's user, with `HOME` here and nothing of the tests' own environment but
    /// where programs are found: see [`search_path`].
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = self.user.command(program);
        command.env_clear();
        command.current_dir(self.path());
        command.env("PATH", search_path());
        for kept in ["LLVM_PROFILE_FILE", "RUST_BACKTRACE"] {
            if let Some(value) = std::env::var_os(kept) {
                command.env(kept, value);
            }
        }
        command
            .env("HOME", self.path())
            .env("SHELL", "/bin/sh")
            .env("LANG", "C.UTF-8")
            .env("TMPDIR", "/tmp");
        command
            .env("USER", self.user.name())
            .env("LOGNAME", self.user.name());
        command
    }

    /// The real `ssh` with this home's configuration. ssh finds its own by the account and not by `HOME`, so `-F`
    /// says where it is; commands that ssh runs for `-J` are told the same by ssh.
    pub fn ssh(&self) -> Command {
        let mut command = self.command("ssh");
        command.arg("-F").arg(self.join(".ssh/config"));
        command
    }

    /// Runs `ssh` with these arguments to its end.
    ///
    /// # Panics
    /// When it hangs.
    pub fn run_ssh<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Finished {
        let mut command = self.ssh();
        command.args(arguments);
        Finished::of(command, DEADLINE)
    }

    /// Runs a program with these arguments to its end.
    ///
    /// # Panics
    /// When it cannot be started, or hangs.
    pub fn run<A: AsRef<OsStr>>(
        &self,
        program: impl AsRef<OsStr>,
        arguments: impl IntoIterator<Item = A>,
    ) -> Finished {
        let mut command = self.command(program);
        command.args(arguments);
        Finished::of(command, DEADLINE)
    }

    /// Copies a program here, for a user who cannot reach it where it was built. Returns the copy's path.
    ///
    /// # Panics
    /// When it cannot be copied.
    pub fn install(&self, program: &Path) -> PathBuf {
        let name = program.file_name().expect("a program has a name");
        let copy = self.join(name);
        // By another process, so that no descriptor of ours is open for writing while a test starts the copy.
        let copied = Command::new("install")
            .args(["-m", "0755"])
            .arg(program)
            .arg(&copy)
            .status();
        assert!(
            copied.is_ok_and(|status| status.success()),
            "cannot copy {} to {}",
            program.display(),
            copy.display()
        );
        self.user.own(&copy);
        copy
    }
}
