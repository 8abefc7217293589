//! Stories of a CA and its policy server as strangers and operators meet them: the documents of their interfaces, held
//! against the running servers; a policy server that somebody else wrote; certificates before a real sshd; audit logs;
//! overload and faults.

#![cfg(test)]

#[path = "../shared/http.rs"]
mod http;

mod audit_logs;
mod black_holes;
mod certificates_at_sshd;
mod described;
mod document;
mod named;
mod overload_and_faults;
mod schema;
mod service_token;
mod stopped_readers;
mod strangers_policy;
mod turned_away;
