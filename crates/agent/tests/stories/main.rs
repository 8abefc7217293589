//! Stories about the agent on its socket: with raw bytes, and with the real OpenSSH.

mod real_openssh;
mod socket;
mod stage;
mod the_persons_own_agent;
mod unbound;
