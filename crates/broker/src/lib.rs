//! The broker behind `epithet agent`: it knows how a person logs in, asks a CA for certificates, and serves each ssh
//! connection an agent of its own.
//!
//! The way of one connection: `listener` takes ssh's question, `match_` answers it in five steps, `login` gets a
//! token from the auth plugin, `mint` a certificate from a CA, `agents` holds what came of it.
//!
//! It never looks into a token, never writes a secret to disk, and never lets anything that came over the network
//! become part of a shell command.

mod agent_policy;
mod agents;
mod asking_ssh;
mod auth_source;
mod broker;
mod by_name;
mod ca_address;
mod ca_answer;
mod ca_client;
mod ca_look;
mod ca_pool;
mod ca_problem;
mod descriptors;
mod dial;
mod discovery;
mod discovery_link;
mod file_id;
mod gate;
mod hang_up;
mod hardening;
mod health;
mod hosts;
mod key_stock;
mod listener;
mod live_agent;
mod lock;
mod log_out;
mod login;
mod match_;
mod mint;
mod outfit;
mod own_agent;
mod pace;
mod pins;
mod presence;
mod promising;
mod readiness;
mod remembered;
mod renew;
mod run_dir;
mod settings;
mod ssh_config;
mod ssh_glue;
mod storm;
mod tag;
mod traces;
mod transcript;
mod voice;

pub use agent_policy::AgentPolicy;
pub use auth_source::fetch_pin;
pub use broker::{Broker, BrokerError, Reloader, can_start};
pub use ca_address::{CaAddress, CaAddressError};
pub use ca_client::{CaHttp, CaHttpError};
pub use ca_look::{CaView, clock_ahead, look_at_ca};
pub use descriptors::agents_at_once;
pub use epithet_agent::{ChainWhen, Clock};
pub use hardening::{harden, raise_open_files};
pub use hosts::{GateSource, HostGate};
#[doc(hidden)]
pub use listener::parse as parse_request;
pub use lock::Holder;
pub use pins::{Pin, PinError, Pins};
pub use run_dir::{RunDir, RunDirError, SocketOwner};
pub use settings::Settings;
pub use ssh_config::{PathError, SshConfig, Unsayable};
pub use tag::{TagError, TagName};
