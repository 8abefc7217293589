//! The demo's temporary directory and the files in it: keys, the server's rules, and configurations of sshd and ssh.

use super::process::{installed, output};
use anyhow::Context;
use epithet_ssh::CaKey;
use epithet_wire::limits::SOCKET_PATH_MAX;
use std::fs::{DirBuilder, OpenOptions};
use std::io::Write;
use std::net::TcpListener;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// What the demo's directory is called, followed by six characters of chance.
const PREFIX: &str = "epithet-demo-";

/// Whether a path is one of a demo's directory: by its name, for whoever is about to remove it.
pub(super) fn is_a_demo_directory(path: &Path) -> bool {
    let name = path.file_name().and_then(std::ffi::OsStr::to_str);
    let chance = name.and_then(|name| name.strip_prefix(PREFIX));
    path.is_absolute() && chance.is_some_and(|chance| chance.len() == 6)
}

/// Where the demo's directory is made: the system's place for such, or `/tmp` when the agents' sockets would not fit
/// below that (as on macOS).
fn folder() -> PathBuf {
    let system = std::env::temp_dir();
    let below = format!("/{PREFIX}123456/home/.epithet/run/default/agent/").len() + 40;
    match system.as_os_str().len() + below <= SOCKET_PATH_MAX {
        true => system,
        false => PathBuf::from("/tmp"),
    }
}

/// Everything the demo has on disk; removed when dropped.
pub(super) struct Stage {
    dir: tempfile::TempDir,
    pub(super) user: String,
    pub(super) ssh_port: u16,
    pub(super) sshd: String,
    pub(super) ssh: String,
}

impl Stage {
    /// Makes the directory, a CA key and sshd's files.
    pub(super) async fn set() -> anyhow::Result<Self> {
        let remedy = "on Debian and Ubuntu: apt-get install openssh-server (nothing has to run as a service)";
        let sshd = installed(
            &["/usr/sbin/sshd", "/usr/bin/sshd", "/usr/local/sbin/sshd", "sshd"],
            remedy,
        )?;
        let ssh = installed(&["ssh"], "on Debian and Ubuntu: apt-get install openssh-client")?;
        let dir = tempfile::Builder::new()
            .prefix(PREFIX)
            .tempdir_in(folder())
            .context("cannot make a temporary directory")?;
        let user = output("id", &["-un"]).await?.trim().to_owned();
        let ssh_port = TcpListener::bind(("127.0.0.1", 0))
            .context("no free port")?
            .local_addr()?
            .port();
        let stage = Self {
            dir,
            user,
            ssh_port,
            sshd,
            ssh,
        };
        DirBuilder::new().mode(0o700).create(stage.home())?;

        let ca = CaKey::generate_ed25519().context("the CA's key")?;
        stage.write(
            "ca.key",
            ca.to_openssh_private().context("the CA's key")?.expose(),
        )?;
        stage.write("ca.pub", format!("{}\n", ca.public_line()).as_bytes())?;
        let host_key = stage.path("host.key").display().to_string();
        output(
            "ssh-keygen",
            &["-q", "-t", "ed25519", "-N", "", "-C", "demo", "-f", &host_key],
        )
        .await?;
        let host_line = std::fs::read_to_string(stage.path("host.key.pub"))?;
        stage.write(
            "known_hosts",
            format!("[127.0.0.1]:{ssh_port} {host_line}").as_bytes(),
        )?;
        stage.write("sshd.conf", stage.sshd_config().as_bytes())?;
        Ok(stage)
    }

    /// Writes the server's rules: alice may log in as this very user, on this machine.
    pub(super) fn write_rules(&self, issuer: &str) -> anyhow::Result<PathBuf> {
        let rules = serde_json::json!({
            "policy": {
                "oidc": {"issuer": issuer, "client-id": super::provider::CLIENT_ID},
                "users": {"alice@example.com": ["admin"]},
                "defaults": {"allow": {(self.user.clone()): ["admin"]}, "expiration": "5m"},
                "hosts": {"127.0.0.1": {}},
            }
        });
        self.write("server.json", serde_json::to_string_pretty(&rules)?.as_bytes())
    }

    /// Writes the broker's configuration: the plugin as a list, so that no path needs quoting.
    pub(super) fn write_agent_config(
        &self,
        ca_url: &str,
        issuer: &str,
        binary: &Path,
    ) -> anyhow::Result<PathBuf> {
        let binary = binary.display().to_string();
        let client_id = super::provider::CLIENT_ID;
        let config = serde_json::json!({
            "agent": {
                "ca-url": [ca_url],
                "match": ["127.0.0.1"],
                "auth": [binary, "auth", "oidc", "--issuer", issuer, "--client-id", client_id,
                         "--flow", "browser", "--browser", format!("'{binary}' demo browser --user alice")],
            }
        });
        self.write("agent.json", serde_json::to_string_pretty(&config)?.as_bytes())
    }

    /// Writes ssh's configuration: what a person would put at the top of theirs, and nothing of theirs.
    pub(super) fn write_ssh_config(&self, include: &str) -> anyhow::Result<PathBuf> {
        let text = format!(
            "Include \"{include}\"\nHost 127.0.0.1\n    Port {}\n    User {}\n    UserKnownHostsFile \"{}\"\n    \
             GlobalKnownHostsFile /dev/null\n    StrictHostKeyChecking yes\n    IdentityFile none\n    PasswordAuthentication no\n    \
             KbdInteractiveAuthentication no\n",
            self.ssh_port,
            self.user,
            self.path("known_hosts").display(),
        );
        self.write("ssh_config", text.as_bytes())
    }

    fn sshd_config(&self) -> String {
        format!(
            "Port {}\nListenAddress 127.0.0.1\nHostKey {}\nPidFile none\nUsePAM no\nStrictModes no\nAuthorizedKeysFile none\n\
             PasswordAuthentication no\nKbdInteractiveAuthentication no\nPrintMotd no\nLogLevel VERBOSE\n\
             # The one line a host needs:\nTrustedUserCAKeys {}\n",
            self.ssh_port,
            self.path("host.key").display(),
            self.path("ca.pub").display(),
        )
    }

    /// The home directory that the demo's processes see.
    pub(super) fn home(&self) -> PathBuf {
        self.path("home")
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(super) fn write(&self, name: &str, bytes: &[u8]) -> anyhow::Result<PathBuf> {
        let path = self.path(name);
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&path)?;
        file.write_all(bytes)?;
        Ok(path)
    }
}
