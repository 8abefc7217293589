//! Real counterparts for the tests of Epithet: a real `sshd`, accounts, homes, the processes of the one binary, and
//! a certified identity provider.
//!
//! Everything listens on loopback, lives in its own temporary folder, and ends when its value is dropped, by its own
//! process id. Waiting is for an event wherever there is one: a line in a log, the end of a process.
//!
//! A fixture that cannot do its work panics, and the message has what the process said: a test has nothing better to
//! do with such an error. What a test wants to see fail has a `try_` form or is run with [`Finished::of`].

mod broker;
mod browser;
mod certified_provider;
mod daemon;
mod fido_agent;
mod finished;
mod home;
mod key_pair;
mod log;
mod node_package;
mod openssh;
mod plugin;
mod python_package;
mod real_browser;
mod server;
mod ssh_agent;
mod sshd;
mod user;
mod wait;

pub use broker::Broker;
pub use browser::FakeBrowser;
pub use certified_provider::CertifiedProvider;
pub use daemon::{Daemon, NotReady};
pub use fido_agent::{FIDO_TOUCHED, FIDO_VERIFIED, FidoAgent, FidoKind};
pub use finished::Finished;
pub use home::Home;
pub use key_pair::KeyPair;
pub use log::Log;
pub use openssh::{search_path, ssh_version};
pub use plugin::plugin_script;
pub use python_package::PythonPackage;
pub use real_browser::{RealBrowser, Visitor};
pub use server::Server;
pub use ssh_agent::SshAgent;
pub use sshd::{Sshd, SshdSettings};
pub use user::TestUser;
pub use wait::{DEADLINE, free_port, wait_until};

/// The development identity provider, for tests that use it beside these fixtures.
pub use epithet_devidp as devidp;
