//! What the stories of hosts share: a CA's key, a person with a certificate, and hosts with all kinds of configurations.

use epithet_testkit::{DEADLINE, Finished, Home, KeyPair, Sshd, SshdSettings, TestUser};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

pub(crate) const EPITHET: &str = env!("CARGO_BIN_EXE_epithet");

/// A CA's key, and a person whose key it certified for the account that runs the tests.
#[derive(Debug)]
pub(crate) struct Stage {
    pub(crate) home: Home,
    pub(crate) ca: KeyPair,
    pub(crate) key: KeyPair,
    pub(crate) user: TestUser,
}

impl Stage {
    pub(crate) fn new() -> Self {
        Self::with_ca_of_kind("ed25519", None)
    }

    pub(crate) fn with_ca_of_kind(kind: &str, bits: Option<u32>) -> Self {
        let home = Home::new();
        let ca = KeyPair::generate_kind(home.path(), "ca", kind, bits);
        let key = KeyPair::generate(home.path(), "key");
        let user = TestUser::current();
        ca.certify(&key, "alice@example.com", user.name(), 1, "-1m:+10m");
        Self { home, ca, key, user }
    }

    /// A host with this CA in its `TrustedUserCAKeys`, and more settings that win over all others.
    pub(crate) fn host(&self, more: &str) -> Sshd {
        Sshd::start(SshdSettings {
            ca_public_key: Some(self.ca.public_line()),
            more: more.to_owned(),
            ..SshdSettings::default()
        })
    }

    /// Whether the certificate logs in there.
    pub(crate) fn logs_in(&self, sshd: &Sshd) -> bool {
        let finished = self.ssh(sshd, self.user.name());
        match finished.code() {
            Some(0) => {
                assert_eq!(finished.stdout, "logged in\n", "{}", finished.stderr);
                true
            }
            Some(255) => false,
            other => panic!("{other:?}: {}", finished.stderr),
        }
    }

    /// What comes of a login to this account.
    pub(crate) fn ssh(&self, sshd: &Sshd, user: &str) -> Finished {
        // Which host it is has been settled; some have a host key that the fixture does not know.
        self.home.ssh_config(&format!(
            "Host target\n  StrictHostKeyChecking no\n  UserKnownHostsFile /dev/null\n  HostName 127.0.0.1\n  Port {}\n  User {}\n  IdentityFile {}\n  KexAlgorithms curve25519-sha256\n",
            sshd.port(),
            user,
            self.key.path().display()
        ));
        self.home.run_ssh(["target", "echo logged in"])
    }

    /// `epithet host check --json` for this CA and account; whether the exit code says the same.
    pub(crate) fn check(&self, config: &Path) -> Value {
        let public = self.ca.public_path().display().to_string();
        self.check_with(config, &["--ca-pubkey", &public, "--user", self.user.name()])
    }

    pub(crate) fn check_with(&self, config: &Path, arguments: &[&str]) -> Value {
        let mut command = self.epithet(&["host", "check", "--json", "--sshd-config"]);
        command.arg(config).args(arguments);
        self.read_check(command)
    }

    /// What such a check says, and whether its exit code says the same.
    pub(crate) fn read_check(&self, command: Command) -> Value {
        let finished = Finished::of(command, DEADLINE);
        let value: Value = serde_json::from_str(&finished.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}\n{}", finished.stdout, finished.stderr));
        let code = if value["accepts"] == true { 0 } else { 1 };
        assert_eq!(finished.code(), Some(code), "{value}");
        value
    }

    pub(crate) fn epithet(&self, arguments: &[&str]) -> Command {
        let mut command = self.home.command(EPITHET);
        command.env("EPITHET_CONFIG_ONLY", "1").args(arguments);
        command
    }
}

/// A folder as `/etc/ssh` is one, with a host key.
#[derive(Debug)]
pub(crate) struct EtcSsh {
    folder: TempDir,
}

impl EtcSsh {
    /// `{folder}` in the configuration is this folder.
    pub(crate) fn new(sshd_config: &str) -> Self {
        let folder = tempfile::Builder::new()
            .prefix("ep-etc-")
            .tempdir_in("/tmp")
            .expect("/tmp can be written");
        let etc = Self { folder };
        KeyPair::generate(etc.path(), "host");
        let text = sshd_config.replace("{folder}", &etc.path().display().to_string());
        std::fs::write(
            etc.config(),
            format!("{text}HostKey {}/host\nStrictModes no\n", etc.path().display()),
        )
        .expect("a file of ours");
        etc
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.path().join("sshd_config")
    }

    pub(crate) fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    /// Every file with its content and mode, by name.
    pub(crate) fn files(&self) -> Vec<(PathBuf, u32, Vec<u8>)> {
        use std::os::unix::fs::PermissionsExt;
        let mut files = Vec::new();
        let mut folders = vec![self.path().to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).expect("a folder of ours") {
                let path = entry.expect("an entry").path();
                if path.is_dir() {
                    folders.push(path);
                    continue;
                }
                let mode = std::fs::metadata(&path).expect("a file").permissions().mode();
                let content = std::fs::read(&path).expect("a file");
                files.push((path, mode, content));
            }
        }
        files.sort();
        files
    }

    /// An sshd with this configuration.
    pub(crate) fn start(&self) -> Sshd {
        Sshd::start(SshdSettings {
            more: format!("Include {}\n", self.config().display()),
            ..SshdSettings::default()
        })
    }
}
