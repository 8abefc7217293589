//! A real `sshd` on a port of its own, configured as a target host of Epithet is.

use crate::daemon::Daemon;
use crate::key_pair::KeyPair;
use crate::openssh::parse_version;
use crate::user::TestUser;
use crate::wait::{DEADLINE, free_port};
use std::fs;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// Where distributions put it; it has to be started by an absolute path.
const PROGRAMS: [&str; 3] = ["/usr/sbin/sshd", "/usr/local/sbin/sshd", "/usr/bin/sshd"];
/// Ports that are tried: another process may take a free one before sshd does.
const ATTEMPTS: usize = 5;

/// What a [`Sshd`] is told.
#[derive(Debug, Clone, Default)]
pub struct SshdSettings {
    /// The CA whose user certificates it takes: the line for `TrustedUserCAKeys`.
    pub ca_public_key: Option<String>,
    /// Plain public keys that it takes, one per line, for every account.
    pub authorized_keys: Option<String>,
    /// More lines of `sshd_config`. They come first, so they win.
    pub more: String,
    /// Runs it as this user, who can then log in only as themselves. Otherwise it runs as the tests do: as root, for
    /// every account.
    pub user: Option<TestUser>,
    /// Another `sshd` than the system's. The environment variable `EPITHET_TEST_SSHD` does the same for all tests.
    pub program: Option<PathBuf>,
}

/// A running `sshd` on 127.0.0.1. It ends when dropped; connections end with their clients.
#[derive(Debug)]
pub struct Sshd {
    daemon: Daemon,
    folder: TempDir,
    port: u16,
    host_key: String,
    version: (u32, u32),
}

impl Sshd {
    /// A server that takes certificates of this CA, for every account.
    ///
    /// # Panics
    /// As [`start`](Self::start).
    pub fn trusting(ca_public_key: &str) -> Self {
        Self::start(SshdSettings {
            ca_public_key: Some(ca_public_key.to_owned()),
            ..SshdSettings::default()
        })
    }

    /// Starts a server and returns once it listens.
    ///
    /// # Panics
    /// When there is no `sshd` or it does not start; the message has its log.
    pub fn start(settings: SshdSettings) -> Self {
        let program = settings
            .program
            .clone()
            .or_else(|| std::env::var_os("EPITHET_TEST_SSHD").map(PathBuf::from))
            .or_else(|| PROGRAMS.iter().map(PathBuf::from).find(|path| path.exists()))
            .expect("sshd is installed: apt-get install openssh-server");
        let user = settings.user.clone().unwrap_or_else(TestUser::current);
        if user.uid() == 0 && !Path::new("/run/sshd").exists() {
            // Packages make it when the service starts, which it does not on a test machine.
            let made = fs::DirBuilder::new()
                .recursive(true)
                .mode(0o755)
                .create("/run/sshd");
            made.expect("root can make sshd's privilege separation directory");
        }
        let folder = tempfile::Builder::new()
            .prefix("ep-sshd-")
            .tempdir_in("/tmp")
            .expect("/tmp can be written");
        // sshd reads authorized keys as the account that logs in.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("a folder of ours");
        let host_key = KeyPair::generate(folder.path(), "host");
        user.own(host_key.path());
        let version = version_of(&program);
        let log = folder.path().join("log");
        for attempt in 1.. {
            let port = free_port();
            let config = folder.path().join("sshd_config");
            let text = config_text(&settings, folder.path(), port, version);
            fs::write(&config, text).expect("a file in a folder of ours");
            let mut command = user.command(&program);
            command
                .arg("-D")
                .arg("-e")
                .arg("-f")
                .arg(&config)
                .env_remove("SSH_AUTH_SOCK");
            let mut daemon = Daemon::start("sshd", command, Some(&log));
            let stderr = daemon.stderr().clone();
            match daemon.wait_ready(
                &stderr,
                &format!("Server listening on 127.0.0.1 port {port}"),
                DEADLINE,
            ) {
                Ok(_) => {
                    let line = host_key.public_line();
                    let host_key = line.split(' ').take(2).collect::<Vec<_>>().join(" ");
                    return Self {
                        daemon,
                        folder,
                        port,
                        host_key,
                        version,
                    };
                }
                Err(error) if error.stderr.contains("Address already in use") && attempt < ATTEMPTS => {}
                Err(error) => panic!("sshd did not start: {error}"),
            }
        }
        unreachable!("the last attempt returns or panics")
    }

    /// The port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its host key: algorithm and base64.
    pub fn host_key(&self) -> &str {
        &self.host_key
    }

    /// Its folder, with `sshd_config`, `log` and its keys.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The file that its log is copied to.
    pub fn log_path(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    /// Its version: `(9, 2)` for OpenSSH 9.2.
    pub fn version(&self) -> (u32, u32) {
        self.version
    }

    /// What it logged so far.
    pub fn log(&self) -> String {
        self.daemon.stderr().text()
    }

    /// How much it logged so far: a place to wait from, see [`wait_for_log_after`](Self::wait_for_log_after).
    pub fn log_position(&self) -> usize {
        self.daemon.stderr().position()
    }

    /// Waits for a line of its log that contains `text`, and returns it.
    ///
    /// # Panics
    /// When no such line comes; the message has the whole log.
    pub fn wait_for_log(&self, text: &str) -> String {
        self.daemon.expect_line(text, DEADLINE)
    }

    /// As [`wait_for_log`](Self::wait_for_log), for what is logged after `position`.
    ///
    /// # Panics
    /// When no such line comes; the message has the whole log.
    pub fn wait_for_log_after(&self, position: usize, text: &str) -> String {
        self.daemon.expect_line_after(position, text, DEADLINE)
    }

    /// The process.
    pub fn daemon(&mut self) -> &mut Daemon {
        &mut self.daemon
    }
}

fn config_text(settings: &SshdSettings, folder: &Path, port: u16, version: (u32, u32)) -> String {
    let mut text = format!(
        "{more}\n\
         Port {port}\nListenAddress 127.0.0.1\nHostKey {folder}/host\nPidFile none\n\
         LogLevel VERBOSE\nUsePAM no\nStrictModes no\nUseDNS no\nMaxStartups 200\nMaxSessions 200\n\
         PermitRootLogin yes\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n\
         PrintMotd no\nPrintLastLog no\nSubsystem sftp internal-sftp\n",
        more = settings.more,
        folder = folder.display(),
    );
    let mut file = |keyword: &str, name: &str, content: &Option<String>| match content {
        Some(content) => {
            let path = folder.join(name);
            fs::write(&path, format!("{}\n", content.trim_end())).expect("a file in a folder of ours");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("a file of ours");
            text.push_str(&format!("{keyword} {}\n", path.display()));
        }
        None => text.push_str(&format!("{keyword} none\n")),
    };
    file("TrustedUserCAKeys", "ca.pub", &settings.ca_public_key);
    file("AuthorizedKeysFile", "authorized_keys", &settings.authorized_keys);
    // From 9.8 on, an address that fails often is made to wait; tests fail often.
    if version >= (9, 8) {
        text.push_str("PerSourcePenalties no\n");
    }
    text
}

/// The version that a `sshd` says it has. Before 9.2 `-V` is an unknown option, whose help text says it as well.
fn version_of(program: &Path) -> (u32, u32) {
    let output = Command::new(program).arg("-V").output();
    let text = output
        .map(|output| String::from_utf8_lossy(&output.stderr).into_owned())
        .unwrap_or_default();
    parse_version(&text).unwrap_or_else(|| panic!("{} does not say its version: {text}", program.display()))
}
