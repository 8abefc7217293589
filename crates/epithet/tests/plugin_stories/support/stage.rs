//! Where a story is played: a home with the documented `Include` line, a host that trusts the CA, and the commands of a
//! person with and without a terminal.

use epithet_testkit::{
    Broker, DEADLINE, Daemon, Finished, Home, KeyPair, Sshd, SshdSettings, TestUser, wait_until,
};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// The program of these stories.
const EPITHET: &str = env!("CARGO_BIN_EXE_epithet");
/// The small program that ssh asks, which lies beside it.
const EPITHET_MATCH: &str = env!("CARGO_BIN_EXE_epithet-match");
/// The host has the addresses 127.0.0.1 to this one; to ssh each is another host.
const LAST_ADDRESS: u8 = 10;
/// Before its end a certificate counts as ended.
const EXPIRY_BUFFER: Duration = epithet_wire::limits::CERTIFICATE_EXPIRY_BUFFER;

/// A home, and a host to log in to.
#[derive(Debug)]
pub(crate) struct Stage {
    pub(crate) home: Home,
    pub(crate) sshd: Sshd,
    program: PathBuf,
}

impl Stage {
    /// A stage for whoever runs the tests. The host trusts this CA.
    pub(crate) fn new(ca_public_line: &str) -> Self {
        Self::of(&TestUser::current(), ca_public_line)
    }

    /// A stage for this account, who logs in to their own account.
    pub(crate) fn of(user: &TestUser, ca_public_line: &str) -> Self {
        let home = Home::of(user);
        // Another user may not reach the folder in which the programs were built.
        let program = if *user == TestUser::current() {
            PathBuf::from(EPITHET)
        } else {
            home.install(Path::new(EPITHET_MATCH));
            home.install(Path::new(EPITHET))
        };
        let other_key = KeyPair::generate(home.path(), "other_key");
        if *user != TestUser::current() {
            std::os::unix::fs::chown(other_key.path(), Some(user.uid()), Some(user.gid()))
                .expect("root gives a file away");
        }
        let more: String = (2..=LAST_ADDRESS)
            .map(|last| format!("ListenAddress 127.0.0.{last}\n"))
            .collect();
        let sshd = Sshd::start(SshdSettings {
            ca_public_key: Some(ca_public_line.to_owned()),
            authorized_keys: Some(other_key.public_line()),
            more,
            ..SshdSettings::default()
        });
        for last in 2..=LAST_ADDRESS {
            sshd.wait_for_log(&format!("Server listening on 127.0.0.{last} port"));
        }
        home.trust(&sshd);
        let stage = Self { home, sshd, program };
        stage.write_ssh_config("");
        stage
    }

    fn write_ssh_config(&self, more: &str) {
        self.home.ssh_config(&format!(
            "Include {}/.epithet/run/*/ssh-config.conf\nHost 127.0.0.*\n  Port {}\n  User {}\n  \
             KexAlgorithms curve25519-sha256\n{more}",
            self.home.path().display(),
            self.sshd.port(),
            self.home.user().name(),
        ));
    }

    /// Gives the person another key, which the host takes as well: what ssh goes on to when Epithet says no.
    pub(crate) fn give_another_key(&self) {
        self.write_ssh_config(&format!(
            "  IdentityFile {}\n",
            self.home.join("other_key").display()
        ));
    }

    /// The program, for the person in this home.
    pub(crate) fn epithet<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Command {
        let mut command = self.home.command(&self.program);
        command.args(arguments).env("EPITHET_CONFIG_ONLY", "1");
        command
    }

    /// `epithet agent` for these hosts.
    pub(crate) fn agent<'a>(
        &self,
        ca_url: &str,
        plugin: &str,
        more: impl IntoIterator<Item = &'a str>,
    ) -> Command {
        let mut command = self.epithet(["agent", "-v", "--match", "127.0.0.*"]);
        command.args(["--ca-url", ca_url, "--auth", plugin]).args(more);
        command
    }

    /// Starts it.
    pub(crate) fn broker<'a>(
        &self,
        ca_url: &str,
        plugin: &str,
        more: impl IntoIterator<Item = &'a str>,
    ) -> Broker {
        start(self.agent(ca_url, plugin, more))
    }

    /// `ssh` to an address of the host, as an editor or a timer runs it: without a terminal.
    pub(crate) fn ssh(&self, host: &str) -> Command {
        // Out of the session in which the tests run: that may have a terminal.
        let mut command = self.home.command("setsid");
        command.arg("ssh").arg("-F").arg(self.home.join(".ssh/config"));
        command.args([host, "echo logged in"]);
        command
    }

    /// `ssh` as a person runs it: in a terminal of its own, whose keyboard is stdin and whose screen is stdout.
    pub(crate) fn ssh_in_terminal(&self, host: &str) -> Command {
        let line = format!(
            "exec ssh -n -F '{}' {host} 'echo logged in'",
            self.home.join(".ssh/config").display()
        );
        let mut command = self.home.command("script");
        command.args(["-qefc", &line, "/dev/null"]);
        command
    }

    /// Runs `ssh` without a terminal to its end.
    pub(crate) fn log_in(&self, host: &str) -> Finished {
        Finished::of(self.ssh(host), DEADLINE)
    }

    /// Runs `ssh` in a terminal to its end.
    pub(crate) fn log_in_from_terminal(&self, host: &str) -> Finished {
        Finished::of(self.ssh_in_terminal(host), DEADLINE)
    }

    /// Starts `ssh` without a terminal, to be looked at while it runs.
    pub(crate) fn begin(&self, host: &str) -> Daemon {
        Daemon::start("ssh", self.ssh(host), None)
    }

    /// The question that ssh asks about a host, without an ssh around it.
    pub(crate) fn question(&self, broker: &Broker, host: &str) -> Vec<String> {
        let digits = host.bytes().map(|byte| format!("{byte:02x}")).collect::<String>();
        [
            self.program.with_file_name("epithet-match").display().to_string(),
            format!("--host={host}"),
            format!("--port={}", self.sshd.port()),
            format!("--user={}", self.home.user().name()),
            format!("--hash={digits:0<40}"),
            format!("--broker={}", broker.socket().display()),
        ]
        .into()
    }

    /// Asks it without a terminal.
    pub(crate) fn ask(&self, broker: &Broker, host: &str) -> Finished {
        let mut command = self.home.command("setsid");
        command.args(self.question(broker, host));
        Finished::of(command, DEADLINE)
    }

    /// Asks it in a terminal, which is stdout.
    pub(crate) fn ask_from_terminal(&self, broker: &Broker, host: &str) -> Finished {
        let mut command = self.home.command("script");
        command.args(["-qefc", &self.question(broker, host).join(" "), "/dev/null"]);
        Finished::of(command, DEADLINE)
    }

    /// Runs `epithet login` in a terminal, which is stdout.
    pub(crate) fn epithet_login_from_terminal(&self, broker: &Broker) -> Finished {
        let line = format!(
            "{} login --broker {}",
            self.program.display(),
            broker.socket().display()
        );
        let mut command = self.home.command("script");
        command.args(["-qefc", &line, "/dev/null"]);
        Finished::of(command, DEADLINE)
    }

    /// What `epithet inspect --json` says.
    pub(crate) fn inspect(&self, broker: &Broker) -> Value {
        let socket = broker.socket().display().to_string();
        let finished = Finished::of(self.epithet(["inspect", "--json", "--broker", &socket]), DEADLINE);
        serde_json::from_str(&finished.success().stdout).expect("inspect --json prints JSON")
    }

    /// Waits until every certificate that the broker has is too old to log in with.
    pub(crate) fn wait_for_expiry(&self, broker: &Broker) {
        let inspection = self.inspect(broker);
        let ends = inspection["agents"].as_array().expect("a list of agents").iter();
        let last = ends
            .filter_map(|agent| agent["expiresAt"].as_str()?.parse::<jiff::Timestamp>().ok())
            .max()
            .expect("there is a certificate");
        let end = last - EXPIRY_BUFFER;
        wait_until(DEADLINE, || (jiff::Timestamp::now() >= end).then_some(()))
            .expect("a certificate for seconds");
        let is_over = || {
            let inspection = self.inspect(broker);
            let mut agents = inspection["agents"].as_array().expect("a list of agents").iter();
            (!agents.any(|agent| agent["state"] == "ready")).then_some(())
        };
        wait_until(DEADLINE, is_over).expect("the certificates end");
    }
}

/// Starts a broker that a story has given more to.
pub(crate) fn start(command: Command) -> Broker {
    Broker::try_start(command).unwrap_or_else(|error| panic!("the broker did not start: {error}"))
}

/// Asserts that `ssh` logged in, and returns what it and Epithet said meanwhile.
#[track_caller]
pub(crate) fn output(finished: Finished) -> String {
    let finished = finished.success();
    // A terminal shows everything on one screen.
    assert!(
        finished.stdout.trim_end().ends_with("logged in"),
        "--- stdout\n{}\n--- stderr\n{}",
        finished.stdout,
        finished.stderr
    );
    finished.stderr + &finished.stdout
}
