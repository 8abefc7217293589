//! Our crates depend on each other only downwards, as docs/architecture.md says.

#![cfg(test)]

use serde_json::Value;
use std::collections::BTreeMap;
use std::process::Command;

/// What each crate may use of ours, apart from tests.
const MAY_USE: [(&str, &[&str]); 13] = [
    ("wire", &[]),
    ("ssh", &["wire"]),
    ("serve", &["wire"]),
    ("plugin", &["wire"]),
    ("oidc", &["wire"]),
    ("agent", &["ssh", "wire"]),
    ("match", &["wire"]),
    ("broker", &["agent", "plugin", "ssh", "wire"]),
    ("policy", &["oidc", "plugin", "serve", "ssh", "wire"]),
    ("ca", &["serve", "ssh", "wire"]),
    ("devidp", &["serve", "wire"]),
    (
        "epithet",
        &[
            "agent", "broker", "ca", "devidp", "match", "oidc", "plugin", "policy", "serve", "ssh", "wire",
        ],
    ),
    ("testkit", &["devidp", "wire"]),
];

fn short(name: &str) -> Option<&str> {
    if name == "epithet" {
        Some(name)
    } else {
        name.strip_prefix("epithet-")
    }
}

#[test]
fn dependencies_between_our_crates_only_go_down() {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .output()
        .expect("cargo describes the workspace");
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let allowed = BTreeMap::from(MAY_USE);
    let mut seen = 0;
    for package in metadata["packages"].as_array().expect("packages") {
        let name = package["name"].as_str().and_then(short).expect("a crate of ours");
        let may_use = allowed
            .get(name)
            .unwrap_or_else(|| panic!("{name} is not in the picture"));
        seen += 1;
        for dependency in package["dependencies"].as_array().expect("dependencies") {
            let used = dependency["name"].as_str().and_then(short);
            let (true, Some(used)) = (dependency["kind"].is_null(), used) else {
                continue;
            };
            assert!(may_use.contains(&used), "{name} may not use {used}");
        }
    }
    assert_eq!(seen, allowed.len());
}
