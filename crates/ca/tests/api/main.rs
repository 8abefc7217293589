//! The CA as its clients meet it, through real sockets, with policy in another server, in this process, or hostile.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod certificates;
mod interface;
mod setup;
mod wrong_policies;
