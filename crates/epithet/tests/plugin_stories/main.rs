//! Stories about plugins and tokens, told by real processes: `ssh` asks through the generated configuration, `epithet
//! agent` runs a plugin as a person would write it, a CA answers, and `sshd` lets in whom it certified.
//!
//! The CA is `epithet server` where tokens are real, and a scripted one (`support::fake_ca`) where its answers have to
//! be odd. Every story has its own home, sshd and broker; nothing is shared, so they run side by side.

#![cfg(test)]

mod answers_of_the_ca;
mod background_callers;
mod expired_certificates;
mod failing_plugins;
mod held_logins;
mod how_a_plugin_is_run;
mod limits_of_the_system;
mod many_at_once;
mod secrets;
mod support;
mod the_broker_ends;
mod the_plugin_page;
mod tokens_on_the_wire;
