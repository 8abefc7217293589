//! Everything a broker is told at its start.

use crate::ca_address::CaAddress;
use crate::ca_client::CaHttp;
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
    /// How they are spoken to.
    pub http: CaHttp,
    /// The plugin; `None` asks the CA how to log in.
    pub auth: Option<PluginCommand>,
    /// Which hosts; empty asks the CA.
    pub patterns: Vec<HostPattern>,
    /// How long a token may be used again.
    pub token_reuse: Duration,
    /// How long a login may take.
    pub auth_timeout: Duration,
    /// Whether an agent signs for connections that come through a forwarded agent.
    pub allow_forwarding: bool,
    /// The broker's socket as a service manager opened it; `None` opens one.
    pub inherited: Option<std::os::unix::net::UnixListener>,
    /// The running binary, for the plugin that comes with it.
    pub binary: PathBuf,
    /// The argument that makes `binary` the guard of plugins: it must then call `epithet_plugin::guard_main`.
    pub guard: &'static str,
    /// What ssh runs: a program and the words before `--host`.
    pub match_program: Vec<PathBuf>,
    /// The version that `inspect` shows.
    pub version: String,
}
