//! A certified OpenID Provider (npm `oidc-provider`), so that our client is not only tested against our own provider.

use crate::daemon::Daemon;
use crate::node_package;
use crate::wait::DEADLINE;
use serde_json::Value;
use std::io::Write as _;
use std::process::{ChildStdin, Command, Stdio};
use std::sync::{Mutex, PoisonError};

/// A running provider on 127.0.0.1. It ends when dropped, and with the tests' own process.
///
/// It knows one client, `epithet`: public, native (any loopback port), with PKCE required, refresh tokens that rotate,
/// and the device flow. Whoever signs in gives a name and any password; there is no account `nobody`.
#[derive(Debug)]
pub struct CertifiedProvider {
    daemon: Daemon,
    stdin: Mutex<ChildStdin>,
    issuer: String,
}

impl CertifiedProvider {
    /// Starts it, with `npm ci` before when it is not installed yet. `settings` is an object with any of the settings
    /// that `tests/oidc-provider/provider.mjs` lists at its beginning; an empty one takes the defaults.
    ///
    /// # Panics
    /// When `node` or `npm` is missing, when it cannot be installed, or when it does not start.
    pub fn start(settings: &Value) -> Self {
        let folder = node_package::installed("oidc-provider");
        let mut command = Command::new("node");
        command
            .arg(folder.join("provider.mjs"))
            .arg(settings.to_string())
            .stdin(Stdio::piped());
        let mut daemon = Daemon::start("the certified provider", command, None);
        let stdin = Mutex::new(daemon.take_stdin().expect("stdin is a pipe"));
        let stdout = daemon.stdout().clone();
        let issuer = daemon
            .wait_ready(&stdout, "ready: issuer ", DEADLINE)
            .unwrap_or_else(|error| panic!("the certified provider did not start: {error}"));
        Self {
            daemon,
            stdin,
            issuer,
        }
    }

    /// The issuer, without a closing slash.
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// While down, it answers every request with 503 and forgets nothing.
    ///
    /// # Panics
    /// When the provider has ended.
    pub fn set_down(&self, is_down: bool) {
        self.command(if is_down { "down" } else { "up" });
    }

    /// Forgets every login, token and code.
    ///
    /// # Panics
    /// When the provider has ended.
    pub fn revoke_all(&self) {
        self.command("revoke");
    }

    /// Signs with a new key from now on; the old ones stay published.
    ///
    /// # Panics
    /// When the provider has ended.
    pub fn rotate_keys(&self) {
        self.command("rotate");
    }

    /// Publishes nothing but the key that signs.
    ///
    /// # Panics
    /// When the provider has ended.
    pub fn retire_old_keys(&self) {
        self.command("retire");
    }

    /// Puts its clock ahead of this machine's, or behind it when negative.
    ///
    /// # Panics
    /// When the provider has ended.
    pub fn set_clock_offset(&self, seconds: i64) {
        self.command(&format!("clock {seconds}"));
    }

    /// How often an event was reported, by the beginning of its line: `grant refresh_token`, `refusal refresh_token`,
    /// `login revoked`, `authorization success`.
    pub fn events(&self, event: &str) -> usize {
        let start = format!("event: {event}");
        self.daemon
            .stdout()
            .text()
            .lines()
            .filter(|line| line.starts_with(&start))
            .count()
    }

    /// Waits for an event, see [`events`](Self::events), and returns its line.
    ///
    /// # Panics
    /// When it does not come.
    pub fn wait_for_event(&self, event: &str) -> String {
        self.daemon
            .stdout()
            .wait_for_line(&format!("event: {event}"), DEADLINE)
            .unwrap_or_else(|| {
                panic!(
                    "the provider did not report {event:?}:\n{}{}",
                    self.daemon.stdout(),
                    self.daemon.stderr()
                )
            })
    }

    /// The process.
    pub fn daemon(&mut self) -> &mut Daemon {
        &mut self.daemon
    }

    fn command(&self, command: &str) {
        let mut stdin = self.stdin.lock().unwrap_or_else(PoisonError::into_inner);
        let position = self.daemon.stdout().position();
        writeln!(stdin, "{command}").expect("the provider reads its commands");
        let done = self
            .daemon
            .stdout()
            .wait_for_line_after(position, &format!("done: {command}"), DEADLINE);
        assert!(
            done.is_some(),
            "the provider did not do {command:?}:\n{}",
            self.daemon.stdout()
        );
    }
}
