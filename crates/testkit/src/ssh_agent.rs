//! OpenSSH's own `ssh-agent`, with keys from files or from a software security module (SoftHSM).

use crate::daemon::Daemon;
use crate::key_pair::{KeyPair, run};
use crate::wait::DEADLINE;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Where Debian and others put SoftHSM's library.
const SOFT_HSM: [&str; 4] = [
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib/aarch64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/local/lib/softhsm/libsofthsm2.so",
];
/// The PIN of every token here.
const PIN: &str = "1234";

/// A running agent at a socket of our choice. Ends when dropped.
#[derive(Debug)]
pub struct SshAgent {
    socket: PathBuf,
    daemon: Daemon,
}

impl SshAgent {
    /// Starts one at `socket`.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start(socket: &Path) -> Self {
        Self::start_with(socket, Command::new("ssh-agent"))
    }

    fn start_with(socket: &Path, mut command: Command) -> Self {
        let _ = fs::remove_file(socket);
        command.arg("-D").arg("-a").arg(socket).stdin(Stdio::null());
        let mut daemon = Daemon::start("ssh-agent", command, None);
        // It says where it listens once it does.
        let stdout = daemon.stdout().clone();
        daemon
            .wait_ready(&stdout, "SSH_AUTH_SOCK=", DEADLINE)
            .unwrap_or_else(|error| panic!("ssh-agent: {error}"));
        Self {
            socket: socket.to_owned(),
            daemon,
        }
    }

    /// Its socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Gives it a key; its comment there is the file's name.
    ///
    /// # Panics
    /// When it does not take the key.
    pub fn add(&self, key: &KeyPair) {
        let mut command = self.ssh_add();
        command.arg("-q").arg(key.path());
        run(command);
    }

    /// Takes all keys away.
    ///
    /// # Panics
    /// When `ssh-add` fails.
    pub fn remove_all(&self) {
        let mut command = self.ssh_add();
        command.args(["-q", "-D"]);
        run(command);
    }

    /// The public keys that it holds, a line each.
    ///
    /// # Panics
    /// When `ssh-add` fails.
    pub fn list(&self) -> Vec<String> {
        let mut command = self.ssh_add();
        command.arg("-L");
        run(command).lines().map(str::to_owned).collect()
    }

    /// Ends it, as a crash does.
    pub fn kill(&mut self) {
        self.daemon.kill();
    }

    fn ssh_add(&self) -> Command {
        let mut command = Command::new("ssh-add");
        command.env("SSH_AUTH_SOCK", &self.socket).stdin(Stdio::null());
        command
    }

    /// Starts one whose only key is on P-256 inside a SoftHSM token in `folder`: it never leaves that.
    ///
    /// # Panics
    /// When SoftHSM or OpenSC are not installed, or do not work.
    pub fn with_security_module(folder: &Path, socket: &Path) -> Self {
        let library = SOFT_HSM
            .iter()
            .find_map(|path| fs::canonicalize(path).ok())
            .expect("SoftHSM is installed (scripts/test does that)");
        let tokens = folder.join("tokens");
        fs::create_dir(&tokens).expect("a folder for tokens");
        let settings = folder.join("softhsm2.conf");
        fs::write(
            &settings,
            format!("directories.tokendir = {}\n", tokens.display()),
        )
        .expect("a file");
        let tool = |name: &str, arguments: &[&str]| {
            let mut command = Command::new(name);
            command.args(arguments).env("SOFTHSM2_CONF", &settings);
            run(command)
        };
        tool(
            "softhsm2-util",
            &[
                "--init-token",
                "--free",
                "--label",
                "epithet",
                "--so-pin",
                PIN,
                "--pin",
                PIN,
            ],
        );
        let module = library.display().to_string();
        tool(
            "pkcs11-tool",
            &[
                "--module",
                &module,
                "--login",
                "--pin",
                PIN,
                "--keypairgen",
                "--key-type",
                "EC:prime256v1",
                "--id",
                "01",
                "--label",
                "ca",
            ],
        );
        let mut command = Command::new("ssh-agent");
        command.env("SOFTHSM2_CONF", &settings).arg("-P").arg(&library);
        let agent = Self::start_with(socket, command);
        // The agent asks for the PIN through the program that asks for passphrases.
        let asker = folder.join("pin");
        fs::write(&asker, format!("#!/bin/sh\necho {PIN}\n")).expect("a file");
        fs::set_permissions(&asker, fs::Permissions::from_mode(0o700)).expect("a mode");
        let mut add = agent.ssh_add();
        add.arg("-s")
            .arg(&library)
            .env("SSH_ASKPASS", &asker)
            .env("SSH_ASKPASS_REQUIRE", "force");
        run(add);
        agent
    }
}
