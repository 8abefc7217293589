//! Stories of tokens that are not JWTs: what the plugin prints, a program of the site's own understands.

#![cfg(test)]

use epithet_testkit::{Broker, Home, KeyPair, Server, Sshd, plugin_script};
use serde_json::json;
use std::path::Path;

const EPITHET: &str = env!("CARGO_BIN_EXE_epithet");

#[test]
fn opaque_bytes_from_a_plugin_log_in_when_the_sites_program_knows_them() {
    let home = Home::new();
    let user = home.user().name().to_owned();
    let key = KeyPair::generate(home.path(), "ca.key");
    let verify = plugin_script(
        home.path(),
        "verify",
        "#!/bin/sh\n[ \"$(od -An -tx1 | tr -d ' \\n')\" = ff00616c696365 ] || { echo 'unknown bytes' >&2; exit 1; }\n\
         echo '{\"identity\": \"alice\", \"groups\": [\"people\"]}'\n",
    );
    let rules = json!({"policy": {
        "token": "command",
        "command": {"run": [verify]},
        "groups": {"people": ["staff"]},
        "users": {"alice": []},
        "defaults": {"allow": {(user): ["staff"]}},
        "hosts": {"127.0.0.1": {}},
    }});
    let rules = home.write("server.json", rules.to_string());
    let audit = home.join("audit.log");
    let text = |path: &Path| path.display().to_string();
    let server = Server::start(
        Path::new(EPITHET),
        &home,
        [
            "server",
            "--listen",
            "127.0.0.1:0",
            "--config",
            &text(&rules),
            "--ca-key",
            &text(key.path()),
            "--audit-file",
            &text(&audit),
        ],
    );
    let sshd = Sshd::trusting(&key.public_line());
    let good = plugin_script(home.path(), "good", "#!/bin/sh\nprintf '\\377\\000alice'\n");
    let bad = plugin_script(home.path(), "bad", "#!/bin/sh\nprintf 'mallory%s' $$\n");
    home.trust(&sshd);
    let log_in = |plugin: &Path, name: &str| {
        let arguments = [
            "--name",
            name,
            "--ca-url",
            server.url(),
            "--match",
            "127.0.0.1",
            "--auth",
            &text(plugin),
        ];
        let broker = Broker::start(Path::new(EPITHET), &home, arguments);
        let include = text(&broker.run_dir().join("ssh-config.conf"));
        home.ssh_config(&format!(
            "Include \"{include}\"\nHost 127.0.0.1\n  Port {}\n",
            sshd.port()
        ));
        home.run_ssh(["127.0.0.1", "echo in"])
    };

    let refused = log_in(&bad, "bad");
    assert!(!refused.status.success());
    assert!(refused.stderr.contains("unknown bytes"), "{}", refused.stderr);

    assert_eq!(log_in(&good, "good").success().stdout, "in\n");
    let line = std::fs::read_to_string(&audit)
        .unwrap()
        .lines()
        .last()
        .unwrap()
        .to_owned();
    assert!(
        line.contains("\"identity\":\"alice\"") && line.contains("issued"),
        "{line}"
    );
}
