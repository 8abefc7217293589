//! A person's own machine in a story: a home with the documented `Include` line, a broker, and ssh.

use crate::site::EPITHET;
use epithet_testkit::{Broker, DEADLINE, Finished, Home, KeyPair, Sshd, TestUser};
use serde_json::Value;
use std::path::PathBuf;
use std::process::Command;

/// A home, the program in it, and a key that has nothing to do with Epithet.
#[derive(Debug)]
pub(crate) struct Laptop {
    pub(crate) home: Home,
    pub(crate) other_key: KeyPair,
    /// The program that this person runs.
    pub(crate) program: PathBuf,
}

impl Laptop {
    /// The machine of whoever runs the tests.
    pub(crate) fn new() -> Self {
        Self::of(&TestUser::current())
    }

    /// The machine of `user`.
    pub(crate) fn of(user: &TestUser) -> Self {
        let home = Home::of(user);
        let other_key = KeyPair::generate(home.path(), "other_key");
        let mut program = PathBuf::from(EPITHET);
        if *user != TestUser::current() {
            std::os::unix::fs::chown(other_key.path(), Some(user.uid()), Some(user.gid()))
                .expect("root gives a file away");
            // Others may not reach the folder in which the program was built. `epithet-match` stays behind, so that
            // ssh asks `epithet match`.
            program = home.install(&program);
        }
        Self {
            home,
            other_key,
            program,
        }
    }

    /// Writes `~/.ssh/config` as the documentation says: the `Include` first, then what the person has.
    pub(crate) fn ssh_config(&self, text: &str) {
        let include = self.home.join(".epithet/run/*/ssh-config.conf");
        self.home
            .ssh_config(&format!("Include {}\n{text}", include.display()));
    }

    /// What a person has in their configuration for the addresses of `sshd`, with `more` lines for the same hosts.
    pub(crate) fn knows(&self, sshd: &Sshd, more: &str) {
        self.home.trust(sshd);
        self.ssh_config(&format!(
            "Host 127.0.0.* localhost\n  Port {}\n  User {}\n  KexAlgorithms curve25519-sha256\n{more}",
            sshd.port(),
            self.home.user().name()
        ));
    }

    /// The line of an ssh configuration that names the other key.
    pub(crate) fn other_identity(&self) -> String {
        format!("  IdentityFile {}\n", self.other_key.path().display())
    }

    /// `epithet` in this home.
    pub(crate) fn epithet(&self) -> Command {
        self.home.command(&self.program)
    }

    /// `epithet agent` with a plugin.
    pub(crate) fn agent(&self, ca_url: &str, auth: &str) -> Command {
        let mut command = self.epithet();
        command.args(["agent", "-v", "--ca-url", ca_url, "--auth", auth]);
        command
    }

    /// `ssh`, out of the session in which the tests run: that may have a terminal.
    pub(crate) fn ssh<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Command {
        let mut command = self.home.command("setsid");
        command
            .args(["--wait", "ssh", "-F"])
            .arg(self.home.join(".ssh/config"));
        command.args(arguments);
        command
    }

    /// Runs `ssh` to its end.
    pub(crate) fn run_ssh<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Finished {
        Finished::of(self.ssh(arguments), DEADLINE)
    }

    /// Logs in, says something there, and returns what was shown on the way.
    #[track_caller]
    pub(crate) fn log_in(&self, host: &str) -> String {
        let finished = self.run_ssh([host, "echo logged in"]).success();
        assert_eq!(finished.stdout, "logged in\n", "{}", finished.stderr);
        finished.stderr
    }

    /// What `epithet inspect --json` says about this broker.
    pub(crate) fn inspect(&self, broker: &Broker) -> Value {
        let mut command = self.epithet();
        command
            .args(["inspect", "--json", "--broker"])
            .arg(broker.socket());
        let finished = Finished::of(command, DEADLINE).success();
        serde_json::from_str(&finished.stdout).expect("inspect --json prints JSON")
    }

    /// The certificates that the broker's agents have, as `ssh-keygen -L` reads them.
    pub(crate) fn certificates(&self, broker: &Broker) -> Vec<String> {
        let inspection = self.inspect(broker);
        let agents = inspection["agents"].as_array().expect("a list of agents");
        agents
            .iter()
            .filter_map(|agent| agent["certificate"].as_str().filter(|line| !line.is_empty()))
            .map(|line| {
                let file = self.home.write("certificate.pub", line);
                let file = file.display().to_string();
                let finished = Finished::of(keygen(["-L", "-f", &file]), DEADLINE);
                finished.success().stdout
            })
            .collect()
    }
}

fn keygen<const N: usize>(arguments: [&str; N]) -> Command {
    let mut command = Command::new("ssh-keygen");
    // As the inspection and the audit log say times.
    command.args(arguments).env("TZ", "UTC");
    command
}

/// Starts a broker.
#[track_caller]
pub(crate) fn start(command: Command) -> Broker {
    Broker::try_start(command).unwrap_or_else(|error| panic!("the broker did not start: {error}"))
}
