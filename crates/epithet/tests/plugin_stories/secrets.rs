//! What is secret shows nowhere: not in a file, a log, an argument, an environment, nor in what the broker tells.

use crate::support::{FakeCa, Plugin, Stage, certificate, output, processes, start};
use std::path::Path;

const TOKEN: &str = "canary-in-the-token-5f1d";
const STATE: &str = "canary-in-the-state-77c2";

/// Every file below a folder that contains one of the canaries.
fn files_with_canaries(folder: &Path, found: &mut Vec<String>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let (path, kind) = (entry.path(), entry.file_type().unwrap());
        if kind.is_dir() {
            files_with_canaries(&path, found);
        } else if kind.is_file() {
            let content = std::fs::read(&path).unwrap_or_default();
            if has_canary(&content) {
                found.push(path.display().to_string());
            }
        }
    }
}

fn has_canary(bytes: &[u8]) -> bool {
    [TOKEN, STATE].iter().any(|canary| {
        bytes
            .windows(canary.len())
            .any(|window| window == canary.as_bytes())
    })
}

#[test]
fn canaries_in_token_and_state_are_found_nowhere() {
    let ca = FakeCa::start(|_| certificate());
    let stage = Stage::new(&ca.public_line());
    // The script itself holds them encoded: it is a file too.
    let encode = |text: &str| {
        text.bytes()
            .map(|byte| format!("\\{byte:03o}"))
            .collect::<String>()
    };
    let body = format!(
        "printf '{}'; printf '{}' >&3; rm -f \"$folder\"/stdin.*",
        encode(TOKEN),
        encode(STATE)
    );
    let plugin = Plugin::write(&stage.home, &body);
    let log = stage.home.join("broker.log").display().to_string();
    let mut command = stage.agent(
        &ca.url(),
        plugin.command(),
        ["-vvv", "--log-file", &log, "--token-reuse", "0s"],
    );
    command.env("RUST_BACKTRACE", "1");
    let mut broker = start(command);
    output(stage.log_in("127.0.0.1"));
    output(stage.log_in("127.0.0.2"));
    assert_eq!(ca.tokens(), [TOKEN, TOKEN], "the canary did travel");

    let mut found = Vec::new();
    files_with_canaries(stage.home.path(), &mut found);
    assert!(found.is_empty(), "{found:?}");
    assert!(!has_canary(broker.log().text().as_bytes()));
    assert!(!has_canary(stage.inspect(&broker).to_string().as_bytes()));
    for process in processes() {
        assert!(!has_canary(&process.command_line), "process {}", process.pid);
        if let Ok(environment) = &process.environment {
            assert!(!has_canary(environment), "process {}", process.pid);
        }
    }
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", broker.daemon().pid())).unwrap();
    let core = limits
        .lines()
        .find(|line| line.starts_with("Max core file size"))
        .unwrap();
    assert_eq!(
        core.split_whitespace().filter(|word| *word == "0").count(),
        2,
        "{core}"
    );
}
