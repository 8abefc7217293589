//! Key pairs made by OpenSSH itself, so that nothing of ours vouches for ours.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A key pair in files, as `ssh-keygen` writes it.
#[derive(Debug, Clone)]
pub struct KeyPair {
    path: PathBuf,
}

impl KeyPair {
    /// Makes an Ed25519 key `folder/name` and `folder/name.pub`, without a passphrase.
    ///
    /// # Panics
    /// When `ssh-keygen` fails.
    pub fn generate(folder: &Path, name: &str) -> Self {
        Self::generate_kind(folder, name, "ed25519", None)
    }

    /// Makes a key of another kind: `rsa`, `ecdsa` or `ed25519`, of so many bits.
    ///
    /// # Panics
    /// When `ssh-keygen` fails.
    pub fn generate_kind(folder: &Path, name: &str, kind: &str, bits: Option<u32>) -> Self {
        let path = folder.join(name);
        let mut command = Command::new("ssh-keygen");
        command
            .args(["-q", "-t", kind, "-N", "", "-C", name, "-f"])
            .arg(&path);
        if let Some(bits) = bits {
            command.args(["-b", &bits.to_string()]);
        }
        run(command);
        Self { path }
    }

    /// The private key's file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The public key's file.
    pub fn public_path(&self) -> PathBuf {
        let mut path = self.path.clone().into_os_string();
        path.push(".pub");
        PathBuf::from(path)
    }

    /// The public key as one line, with its comment.
    ///
    /// # Panics
    /// When the file is gone.
    pub fn public_line(&self) -> String {
        fs::read_to_string(self.public_path())
            .expect("ssh-keygen wrote the public key")
            .trim()
            .to_owned()
    }

    /// `SHA256:...`, as `ssh-keygen -l` says it and sshd logs it.
    ///
    /// # Panics
    /// When `ssh-keygen` fails.
    pub fn fingerprint(&self) -> String {
        Self::fingerprint_of(&self.public_path())
    }

    /// The same of any public key in a file.
    ///
    /// # Panics
    /// When `ssh-keygen` fails.
    pub fn fingerprint_of(public: &Path) -> String {
        let mut command = Command::new("ssh-keygen");
        command.arg("-lf").arg(public);
        run(command).split(' ').nth(1).unwrap_or_default().to_owned()
    }

    /// Signs a user certificate for `subject`, beside its key as `NAME-cert.pub`, and returns the file's path.
    /// `validity` is `ssh-keygen -V`'s, `+5m` for instance.
    ///
    /// # Panics
    /// When `ssh-keygen` fails.
    pub fn certify(
        &self,
        subject: &Self,
        key_id: &str,
        principals: &str,
        serial: u64,
        validity: &str,
    ) -> PathBuf {
        let mut command = Command::new("ssh-keygen");
        command
            .arg("-q")
            .arg("-s")
            .arg(&self.path)
            .args(["-I", key_id, "-n", principals, "-V", validity]);
        command
            .args(["-z", &serial.to_string()])
            .arg(subject.public_path());
        run(command);
        let mut path = subject.path.clone().into_os_string();
        path.push("-cert.pub");
        PathBuf::from(path)
    }
}

/// Runs a command to its end and returns what it printed.
pub(crate) fn run(mut command: Command) -> String {
    match command.output() {
        Ok(output) if output.status.success() => String::from_utf8_lossy(&output.stdout).into_owned(),
        Ok(output) => panic!(
            "{command:?}: {}\n{}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        ),
        Err(error) => panic!("cannot run {command:?}: {error}"),
    }
}
