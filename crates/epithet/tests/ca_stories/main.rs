//! Stories of whoever runs a CA for a company: where its key is, how it is exchanged, and what the CA tells about itself.

#![cfg(test)]

#[expect(dead_code, reason = "other stories need more of it")]
#[path = "../shared/http.rs"]
mod http;

mod agents;
mod fido_keys;
mod key_files;
mod numbers;
mod office;
mod operations;
mod replies;
mod rotation;
mod tls_roots;
