//! Everything a broker is told at its start, and again at a reload.

use crate::agent_policy::AgentPolicy;
use crate::ca_address::CaAddress;
use crate::ca_client::CaHttp;
use crate::tag::TagName;
use epithet_agent::Clock;
use epithet_plugin::PluginCommand;
use epithet_wire::{HostPattern, ProfileName};
use std::path::PathBuf;
use std::time::Duration;

/// See the module.
#[derive(Debug)]
pub struct Settings {
    /// Which profile this is.
    pub profile: ProfileName,
    /// The person's home directory.
    pub home: PathBuf,
    /// `$XDG_RUNTIME_DIR`, for when the home directory's path is too long for sockets.
    pub runtime_dir: Option<PathBuf>,
    /// The CAs, at least one.
    pub cas: Vec<CaAddress>,
    /// The longest time that a failing one is left alone.
    pub ca_cooldown: Duration,
    /// How long one may take to answer.
    pub ca_timeout: Duration,
    /// The file with the roots that are trusted, too.
    pub tls_ca_cert: Option<PathBuf>,
    /// How they are spoken to.
    pub http: CaHttp,
    /// The plugin; `None` asks the CA how to log in.
    pub auth: Option<PluginCommand>,
    /// Which hosts; empty asks the CA.
    pub patterns: Vec<HostPattern>,
    /// The tag by which hosts are chosen, instead of what the CA says.
    pub tag: Option<TagName>,
    /// How long a token may be used again.
    pub token_reuse: Duration,
    /// How long a login may take.
    pub auth_timeout: Duration,
    /// What agents do.
    pub agents: AgentPolicy,
    /// The broker's socket as a service manager opened it; `None` opens one.
    pub inherited: Option<std::os::unix::net::UnixListener>,
    /// This program by a path that stays the same over upgrades: for ssh, and for the plugin that comes with it.
    pub binary: PathBuf,
    /// The argument that makes this program the guard of plugins: it must then call `epithet_plugin::guard_main`.
    pub guard: &'static str,
    /// The `ssh` that the person runs, if there is one.
    pub ssh: Option<PathBuf>,
    /// The version that `inspect` shows.
    pub version: String,
    /// Where the time comes from.
    pub clock: Clock,
}

impl Settings {
    /// The configuration keys whose values differ, as they are written in a file.
    pub(crate) fn differences(&self, other: &Self) -> Vec<&'static str> {
        let (agents, others) = (&self.agents, &other.agents);
        [
            ("ca-url", self.cas != other.cas),
            ("ca-cooldown", self.ca_cooldown != other.ca_cooldown),
            ("ca-timeout", self.ca_timeout != other.ca_timeout),
            ("tls-ca-cert", self.tls_ca_cert != other.tls_ca_cert),
            ("auth", self.auth != other.auth),
            ("match", self.patterns != other.patterns),
            ("tag", self.tag != other.tag),
            ("token-reuse", self.token_reuse != other.token_reuse),
            ("auth-timeout", self.auth_timeout != other.auth_timeout),
            (
                "allow-forwarding",
                agents.allow_forwarding != others.allow_forwarding,
            ),
            ("chain", agents.chain != others.chain),
            ("max-agents", agents.max_agents != others.max_agents),
            ("renew", agents.renew != others.renew),
        ]
        .into_iter()
        .filter_map(|(key, differs)| differs.then_some(key))
        .collect()
    }

    /// Whether the same CAs are spoken to in the same way, so that their connections and health can be kept.
    pub(crate) fn has_same_cas(&self, other: &Self) -> bool {
        let keys = ["ca-url", "ca-cooldown", "ca-timeout", "tls-ca-cert"];
        !self.differences(other).iter().any(|key| keys.contains(key))
    }

    /// Whether the CA has to say which hosts are its own.
    pub(crate) fn follows_ca(&self) -> bool {
        self.patterns.is_empty() && self.tag.is_none()
    }
}
