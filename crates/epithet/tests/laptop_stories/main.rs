//! Stories of a person's own machine: a broker that needs no terminal, that the system starts, and that is looked after.

#![cfg(test)]

#[expect(dead_code, reason = "other stories need more of it")]
#[path = "../shared/laptop.rs"]
mod laptop;
#[path = "../shared/site.rs"]
mod site;

mod background;
mod doctor;
mod jump_hosts;
mod lost_sockets;
mod other_agents;
mod planted_faults;
mod service;
mod setup;
mod support;
mod trace;
