//! A laptop with everything around it, and a broker that is started as a person starts it.

use crate::laptop::Laptop;
use crate::site::{EPITHET, Site};
use epithet_testkit::devidp::{DevProvider, Settings};
use epithet_testkit::{DEADLINE, Finished, Sshd, plugin_script};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// See the module. Its broker, if it has one in the background, ends with it.
#[derive(Debug)]
pub(crate) struct Story {
    pub(crate) laptop: Laptop,
    pub(crate) site: Site,
    pub(crate) sshd: Sshd,
    pub(crate) provider: DevProvider,
    pub(crate) plugin: PathBuf,
}

impl Story {
    /// A laptop whose configuration file names the CA, a plugin and the hosts. Nothing runs on it yet.
    pub(crate) fn begin() -> Self {
        let provider = DevProvider::start(Settings::default()).expect("a loopback port is free");
        let site = Site::start(provider.issuer(), "5m");
        let laptop = Laptop::new();
        let token = laptop
            .home
            .write("token", provider.mint_id_token("alice", &json!({})));
        let script = format!("#!/bin/sh\nexec cat '{}'\n", token.display());
        let plugin = plugin_script(laptop.home.path(), "plugin", &script);
        let sshd = site.host(&laptop.other_key);
        laptop.knows(&sshd, "");
        let story = Self {
            laptop,
            site,
            sshd,
            provider,
            plugin,
        };
        story.configure(story.site.url(), &story.plugin.display().to_string());
        story
    }

    /// Writes `~/.epithet/config.yaml`.
    pub(crate) fn configure(&self, ca_url: &str, auth: &str) {
        let config = json!({"agent": {"ca-url": ca_url, "auth": auth, "match": ["127.0.0.*", "localhost"]}});
        self.laptop.home.write(".epithet/config.yaml", config.to_string());
    }

    /// Runs `epithet` with these words to its end.
    pub(crate) fn epithet<'a>(&self, words: impl IntoIterator<Item = &'a str>) -> Finished {
        let mut command = self.laptop.epithet();
        command.args(words);
        Finished::of(command, DEADLINE)
    }

    /// Starts the broker in the background.
    #[track_caller]
    pub(crate) fn in_background(&self) -> Finished {
        self.epithet(["agent", "--background"]).success()
    }

    /// What `epithet agent status --json` says, whether the broker is running or not.
    pub(crate) fn status(&self) -> Value {
        let said = self.epithet(["agent", "status", "--json"]).stdout;
        serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}"))
    }

    /// A file in the run directory of the only profile.
    pub(crate) fn run_dir(&self, file: &str) -> PathBuf {
        self.laptop.home.join(".epithet/run/default").join(file)
    }
}

impl Drop for Story {
    fn drop(&mut self) {
        // Whatever the test came to, its background broker must not outlive it.
        let mut command = self.laptop.epithet();
        command.args(["agent", "stop"]);
        Finished::of(command, DEADLINE);
    }
}

/// The program.
pub(crate) fn program() -> &'static Path {
    Path::new(EPITHET)
}
