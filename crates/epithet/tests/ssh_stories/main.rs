//! Stories of people who use `ssh` every day: real `ssh`, real `sshd`, `epithet agent` between them and `epithet
//! server` behind it. The login itself is a plugin that prints an ID token (`support::Story`): how people log in is
//! told in `oidc_stories` and `plugin_stories`.
//!
//! Every story has its own home, provider, server, broker and hosts, so they run side by side.

#![cfg(test)]

#[path = "../shared/laptop.rs"]
mod laptop;
#[path = "../shared/site.rs"]
mod site;

mod a_broker_s_life;
mod by_systemd;
mod chained_agents;
mod fake_ca;
mod forwarded_agents;
mod jumps_and_masters;
mod logging_in;
mod long_homes;
mod lost_answers;
mod names_with_quotes;
mod one_handshake;
mod other_hosts;
mod peoples_configurations;
mod reloads;
mod scarcity;
mod several_cas;
mod ssh_on_this_machine;
mod ssh_that_does_not_log_in;
mod support;
mod where_the_time_went;
mod whichever_ssh;
mod without_a_broker;
