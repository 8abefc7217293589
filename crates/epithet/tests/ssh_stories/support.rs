//! A story's beginning: a site, a laptop, a host, and a plugin that prints an ID token of Alice's and counts its runs.

use crate::laptop::{Laptop, start};
use crate::site::{EPITHET, Site};
use epithet_testkit::devidp::{DevProvider, Settings};
use epithet_testkit::{Broker, DEADLINE, Sshd, TestUser, plugin_script, wait_until};
use serde_json::{Value, json};
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The plugin prints the same token for as long as a story lasts, and some repeat something for a long time.
const TOKEN_LIFE: Duration = Duration::from_secs(12 * 3600);

/// See the module.
#[derive(Debug)]
pub(crate) struct Story {
    pub(crate) laptop: Laptop,
    pub(crate) site: Site,
    pub(crate) sshd: Sshd,
    pub(crate) plugin: String,
    // Its keys are fetched when the first token comes.
    _provider: DevProvider,
}

impl Story {
    /// A story of whoever runs the tests.
    pub(crate) fn begin() -> Self {
        Self::of(&TestUser::current())
    }

    /// A story of `user`.
    pub(crate) fn of(user: &TestUser) -> Self {
        Self::with_life(user, "5m")
    }

    /// A story of `user` whose certificates live for `life`.
    pub(crate) fn with_life(user: &TestUser, life: &str) -> Self {
        let settings = Settings {
            id_token_life: TOKEN_LIFE,
            ..Settings::default()
        };
        let provider = DevProvider::start(settings).expect("a loopback port is free");
        let site = Site::start(provider.issuer(), life);
        let laptop = Laptop::of(user);
        let token = laptop
            .home
            .write("token", provider.mint_id_token("alice", &json!({})));
        let runs = laptop.home.join("runs");
        let script = format!(
            "#!/bin/sh\necho run >> '{}'\nexec cat '{}'\n",
            runs.display(),
            token.display()
        );
        let plugin = plugin_script(laptop.home.path(), "plugin", &script);
        let sshd = site.host(&laptop.other_key);
        laptop.knows(&sshd, "");
        Self {
            plugin: plugin.display().to_string(),
            laptop,
            site,
            sshd,
            _provider: provider,
        }
    }

    /// Starts the broker, for every host of the story.
    pub(crate) fn broker(&self) -> Broker {
        self.broker_with(["--match", "127.0.0.*,localhost"])
    }

    /// Starts the broker with more arguments.
    pub(crate) fn broker_with<'a>(&self, more: impl IntoIterator<Item = &'a str>) -> Broker {
        let mut command = self.laptop.agent(self.site.url(), &self.plugin);
        command.args(more);
        start(command)
    }

    /// Gives the person copies of the programs, the small one watched: each time ssh asks by it, its arguments become a
    /// line of the returned file. The broker's own `ssh -G` asks nothing.
    pub(crate) fn watch_matches(&mut self) -> PathBuf {
        self.laptop.program = self.laptop.home.install(Path::new(EPITHET));
        let seen = self.laptop.home.join("matches");
        let script = format!(
            "#!/bin/sh\n[ -n \"$EPITHET_MATCH_DRY_RUN\" ] || echo \"$*\" >> '{}'\nexec '{}' \"$@\"\n",
            seen.display(),
            env!("CARGO_BIN_EXE_epithet-match")
        );
        plugin_script(self.laptop.home.path(), "epithet-match", &script);
        seen
    }

    /// Waits until no agent of the broker has a certificate that has not ended.
    pub(crate) fn wait_for_expiry(&self, broker: &Broker) {
        let ended = wait_until(DEADLINE, || {
            let agents = self.laptop.inspect(broker)["agents"].clone();
            let agents = agents.as_array().expect("a list of agents");
            agents.iter().all(|agent| agent["state"] != "ready").then_some(())
        });
        ended.expect("certificates end");
    }

    /// How often the plugin was run.
    pub(crate) fn plugin_runs(&self) -> usize {
        lines(&self.laptop.home.join("runs")).len()
    }

    /// The line of sshd's log, after `position`, that says who was let in.
    pub(crate) fn accepted(&self, position: usize) -> String {
        self.sshd.wait_for_log_after(position, "Accepted publickey")
    }
}

/// Asks the broker as `match` does, but for the terminal: the answer comes when the certificate has.
pub(crate) fn ask(socket: &Path, host: &str, user: &str, hash: &str) -> Value {
    let mut stream = UnixStream::connect(socket).expect("the broker listens");
    stream.set_read_timeout(Some(DEADLINE)).expect("a socket");
    let question =
        json!({"match": {"remoteHost": host, "remoteUser": user, "port": 22, "proxyJump": "", "hash": hash}});
    // A broker that has no descriptor left for it hangs up.
    let _ = stream.write_all(format!("{question}\n").as_bytes());
    for line in BufReader::new(stream).lines().map_while(Result::ok) {
        let reply: Value = serde_json::from_str(&line).expect("the broker speaks JSON");
        if reply.get("result").is_some() {
            return reply;
        }
    }
    json!({"result": {"allow": false, "error": "no answer: open files"}})
}

/// The lines of a file that may not be there yet.
pub(crate) fn lines(path: &Path) -> Vec<String> {
    std::fs::read_to_string(path)
        .map(|text| text.lines().map(str::to_owned).collect())
        .unwrap_or_default()
}

/// Waits until a path is there.
#[track_caller]
pub(crate) fn wait_for_path(path: &Path) {
    let there = wait_until(DEADLINE, || path.exists().then_some(()));
    assert!(there.is_some(), "{} did not appear", path.display());
}
