//! What is fuzzed: every parser of bytes that somebody else chooses.
//!
//! `targets` is also a module of a test in the workspace, which replays the corpora (`crates/epithet/tests/fuzz_corpora.rs`).

mod targets;

/// Runs one target by its name; a panic is a finding.
pub fn run(name: &str, bytes: &[u8]) {
    targets::run(name, bytes);
}
