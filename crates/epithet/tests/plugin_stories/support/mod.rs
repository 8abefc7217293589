//! What the stories have in common: a stage to play on, a CA that says what it is told to, and plugins that keep a record.

mod fake_auth;
mod fake_ca;
mod http;
mod plugin;
mod processes;
mod real_server;
mod stage;

pub(crate) use fake_auth::{FakeAuth, refresh_token_number};
pub(crate) use fake_ca::{FakeCa, certificate, certificate_for, refusal};
pub(crate) use plugin::{Gate, Plugin};
pub(crate) use processes::{is_gone, processes};
pub(crate) use real_server::{RealServer, program_on_path};
pub(crate) use stage::{Stage, output, start};
