//! The example of a plugin in Rust conforms to the protocol.

#![cfg(test)]

use epithet_plugin::check::{CheckOptions, check};
use epithet_plugin::{PluginCommand, ProgressSink};
use std::path::PathBuf;
use tokio_util::sync::CancellationToken;

/// Where cargo puts examples: beside the folder of the tests.
fn example() -> PathBuf {
    let test = std::env::current_exe().expect("a running test has a file");
    test.ancestors()
        .nth(2)
        .expect("a target folder")
        .join("examples/token_file")
}

#[tokio::test]
async fn the_rust_example_conforms() {
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    std::fs::write(&token, "e30.e30.c2ln\n").unwrap();
    let line = format!("TOKEN_FILE='{}' exec '{}'", token.display(), example().display());
    let options = CheckOptions::default();
    let report = check(
        PluginCommand::Shell(line),
        &options,
        ProgressSink::discard(),
        CancellationToken::new(),
    )
    .await;
    assert!(report.conforms, "{report}");
}
