//! The CA's and the policy server's HTTP, byte for byte, from the real processes: `epithet server`, and `epithet ca`
//! with `epithet policy` over a Unix socket and over loopback TCP. Clients and CAs of epithet 0.17 to 0.19 go by these
//! bytes, so a site can replace one part at a time.

#![cfg(test)]

#[path = "../shared/http.rs"]
mod http;

mod certificates;
mod limits;
mod policy_server;
mod reading;
mod service_tokens;
mod setups;
