//! A stage for stories with real programs: a CA, a certificate for the user who runs the test, and an agent on a socket.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use epithet_agent::{Activity, AgentSettings, AgentSocket, Credential, Fulfil, Now, Promise};
use epithet_ssh::{CaKey, CertificateSpec, SubjectKey, SubjectPublicKey};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Everything that a story needs; all of it ends with it.
pub(crate) struct Stage {
    pub(crate) folder: TempDir,
    pub(crate) ca: CaKey,
    pub(crate) user: String,
    pub(crate) socket: PathBuf,
    pub(crate) activity: Activity,
    pub(crate) cancel: CancellationToken,
    pub(crate) agent: Option<JoinHandle<()>>,
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

/// A certificate for `user` by `ca`, good for five minutes.
pub(crate) fn credential(ca: &CaKey, user: &str) -> Arc<Credential> {
    credential_with(ca, user, user)
}

/// A certificate that names `principal`, for logins as `user`.
pub(crate) fn credential_with(ca: &CaKey, principal: &str, user: &str) -> Arc<Credential> {
    let key = SubjectKey::generate().expect("random bytes");
    let now = Now::read();
    let flag = |name: &str| (name.to_owned(), String::new());
    let certificate = CertificateSpec {
        subject: SubjectPublicKey::parse(&key.public_line()).expect("our own key"),
        serial: 42,
        key_id: "alice@example.com".parse().expect("a key id"),
        principals: vec![principal.parse().expect("a principal")],
        valid_after: now.unix - 60,
        valid_before: now.unix + 300,
        critical_options: [].into(),
        extensions: [flag("permit-pty"), flag("permit-agent-forwarding")].into(),
    }
    .sign(ca)
    .expect("a certificate");
    let user = user.parse().expect("a user");
    Arc::new(Credential::new(key, certificate, user, now).expect("a live certificate"))
}

impl Stage {
    /// An agent that has its certificate.
    pub(crate) fn ready(settings: AgentSettings) -> Self {
        let (stage, fulfil) = Self::pending(settings);
        assert!(fulfil.ready(credential(&stage.ca, &stage.user)));
        stage
    }

    /// An agent whose certificate is still on its way.
    pub(crate) fn pending(settings: AgentSettings) -> (Self, Fulfil) {
        let folder = private_folder();
        let user = run("id", &["-un"]).trim().to_owned();
        let ca = CaKey::generate_ed25519().expect("random bytes");
        let path = folder.path().join("agent");
        let (fulfil, promise) = Promise::pending();
        let socket = AgentSocket::bind(&path).expect("a socket");
        let activity = socket.activity();
        let cancel = CancellationToken::new();
        let agent = tokio::spawn(socket.serve(promise, settings, cancel.clone()));
        let stage = Self {
            folder,
            ca,
            user,
            socket: path,
            activity,
            cancel,
            agent: Some(agent),
        };
        (stage, fulfil)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A program that finds our agent, and no terminal, as its own.
    pub(crate) fn program(&self, name: &str) -> Command {
        let mut command = Command::new(name);
        command
            .env("SSH_AUTH_SOCK", &self.socket)
            .env_remove("DISPLAY")
            .stdin(Stdio::null());
        command
    }

    /// Writes an sshd's configuration and returns the command that serves one connection with it on stdin and stdout.
    pub(crate) fn sshd(&self, name: &str) -> String {
        if run("id", &["-u"]).trim() == "0" {
            fs::create_dir_all("/run/sshd").expect("root can make /run/sshd");
        }
        let host_key = self.path(&format!("{name}-host-key"));
        run(
            "ssh-keygen",
            &["-q", "-t", "ed25519", "-N", "", "-f", text(&host_key)],
        );
        let trusted = self.path("trusted-ca");
        fs::write(&trusted, self.ca.public_line() + "\n").expect("written");
        let authorized = self.path("authorized-keys");
        if !authorized.exists() {
            fs::write(&authorized, "").expect("written");
        }
        let configuration = self.path(&format!("{name}-config"));
        let lines = [
            format!("HostKey {}", host_key.display()),
            format!("TrustedUserCAKeys {}", trusted.display()),
            format!("AuthorizedKeysFile {}", authorized.display()),
            "StrictModes no".into(),
            "UsePAM no".into(),
            "PidFile none".into(),
            "PasswordAuthentication no".into(),
            "KbdInteractiveAuthentication no".into(),
            "PermitRootLogin prohibit-password".into(),
            "AllowAgentForwarding yes".into(),
            "LogLevel VERBOSE".into(),
        ];
        fs::write(&configuration, lines.join("\n") + "\n").expect("written");
        format!(
            "/usr/sbin/sshd -i -f {} -E {}",
            configuration.display(),
            self.path(&format!("{name}-log")).display()
        )
    }

    /// Adds a line to the configuration of the sshd of that name.
    pub(crate) fn configure(&self, name: &str, line: &str) {
        let path = self.path(&format!("{name}-config"));
        let before = fs::read_to_string(&path).expect("the sshd was made");
        fs::write(&path, format!("{before}{line}\n")).expect("written");
    }

    /// The options that make an ssh meet `sshd` and use nothing of the person who runs the test.
    pub(crate) fn ssh_options(sshd: &str) -> Vec<String> {
        [
            "-F",
            "none",
            "-o",
            &format!("ProxyCommand={sshd}"),
            "-o",
            "StrictHostKeyChecking=no",
            "-o",
            "UserKnownHostsFile=/dev/null",
            "-o",
            "BatchMode=yes",
            "-o",
            "IdentityFile=none",
            "-o",
            "PreferredAuthentications=publickey",
        ]
        .map(String::from)
        .to_vec()
    }

    /// Logs in with our agent and runs `command` there.
    pub(crate) fn ssh(&self, sshd: &str, more: &[&str], command: &str) -> Output {
        self.program("ssh")
            .args(Self::ssh_options(sshd))
            .arg("-o")
            .arg(format!("IdentityAgent={}", self.socket.display()))
            .args(more)
            .arg(format!("{}@host", self.user))
            .arg(command)
            .output()
            .expect("ssh is installed")
    }

    /// What the sshd of that name wrote.
    pub(crate) fn sshd_log(&self, name: &str) -> String {
        fs::read_to_string(self.path(&format!("{name}-log"))).unwrap_or_default()
    }
}

/// A folder that nobody else can enter, as an agent wants it.
pub(crate) fn private_folder() -> TempDir {
    tempfile::Builder::new()
        .permissions(fs::Permissions::from_mode(0o700))
        .tempdir()
        .expect("a folder")
}

/// Settings with a short wait, so that a story about waiting stays short.
pub(crate) fn settings() -> AgentSettings {
    AgentSettings {
        wait: Duration::from_secs(10),
        ..AgentSettings::default()
    }
}

pub(crate) fn text(path: &Path) -> &str {
    path.to_str().expect("a temporary path is text")
}

pub(crate) fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub(crate) fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Runs a program that must succeed.
pub(crate) fn run(name: &str, arguments: &[&str]) -> String {
    let output = Command::new(name)
        .args(arguments)
        .output()
        .expect("the program is installed");
    assert!(output.status.success(), "{name} {arguments:?}: {output:?}");
    out(&output)
}

/// A log that a story can read.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<std::sync::Mutex<Vec<u8>>>);

impl Log {
    pub(crate) fn text(&self) -> String {
        let bytes = self.0.lock().expect("nobody panicked while writing");
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0
            .lock()
            .expect("nobody panicked while writing")
            .extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Keeps what this thread logs, from `info` on, until the guard goes.
pub(crate) fn log_to_memory() -> (Log, tracing::subscriber::DefaultGuard) {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    (log, tracing::subscriber::set_default(subscriber))
}
