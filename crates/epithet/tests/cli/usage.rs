//! Wrong command lines and wrong values: the flag is named, what was wrong with it, and what would be right.

use crate::run;
use epithet_testkit::{Home, KeyPair};

#[test]
fn a_wrong_command_line_exits_80_and_names_the_flag_on_stderr() {
    let home = Home::new();
    let cases: [(&[&str], &[&str]); 18] = [
        (&["nonsense"], &["nonsense", "--help"]),
        (&["agnet"], &["agnet", "agent"]),
        (&[], &["Usage"]),
        (&["--nonsense"], &["--nonsense"]),
        (&["agent", "--ca-urls", "https://ca"], &["--ca-urls", "--ca-url"]),
        (&["agent", "--ca-url"], &["--ca-url"]),
        (
            &["agent", "--ca-url", ""],
            &["--ca-url", "https://ca.example.com"],
        ),
        (
            &["agent", "--ca-url", "http://ca.example.com"],
            &["--ca-url", "in the clear", "https://"],
        ),
        (
            &["agent", "--ca-url", "ftp://ca.example.com"],
            &["--ca-url", "https://"],
        ),
        (
            &["agent", "--ca-url", "unix:///ca.sock"],
            &["--ca-url", "begins with https://"],
        ),
        (
            &["agent", "--ca-url", "https://me:secret@ca.example.com"],
            &["--ca-url", "password"],
        ),
        (
            &["agent", "--ca-url", "priority=high:https://ca.example.com"],
            &["--ca-url", "priority=50:"],
        ),
        (
            &["agent", "--ca-timeout", "soon"],
            &["--ca-timeout", "soon", "5m"],
        ),
        (&["agent", "--name", "a/b"], &["--name", "profile name"]),
        (&["ca", "--tls-cert", "x"], &["--tls-key"]),
        (&["completions", "cmd"], &["cmd", "bash"]),
        (&["plugin", "check"], &["<COMMAND>"]),
        (
            &["--log-format", "xml", "inspect"],
            &["--log-format", "xml", "json"],
        ),
    ];
    for (words, parts) in cases {
        let finished = run(&home, words.iter().copied());
        assert_eq!(finished.code(), Some(80), "{words:?}: {}", finished.stderr);
        assert_eq!(finished.stdout, "", "{words:?}");
        for part in parts {
            assert!(
                finished.stderr.contains(part),
                "{words:?} does not say {part:?}: {}",
                finished.stderr
            );
        }
        assert!(
            !finished.stderr.contains("secret@"),
            "{words:?}: {}",
            finished.stderr
        );
    }
}

#[test]
fn a_wrong_value_exits_1_and_names_the_flag_on_stderr() {
    let home = Home::new();
    let key = KeyPair::generate(home.path(), "ca.key");
    let key = key.path().display().to_string();
    let readable = home.write("readable.key", std::fs::read(&key).unwrap());
    std::fs::set_permissions(&readable, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    let readable = readable.display().to_string();
    let ca = "https://ca.example.com";
    let cases: [(&[&str], &[&str]); 20] = [
        (
            &["agent"],
            &["--ca-url", "required", "https://ca.example.com", "config.yaml"],
        ),
        (&["agent", "--ca-url", ca, "--auth", ""], &["--auth", "empty"]),
        (&["agent", "--ca-url", ca, "--match", "a["], &["--match", "`[`"]),
        (
            &["agent", "--ca-url", ca, "--auth-timeout", "1h"],
            &["--auth-timeout", "15m", "1h"],
        ),
        (
            &["agent", "--ca-url", ca, "--allow-forwarding=a["],
            &["--allow-forwarding", "`[`"],
        ),
        (
            &["agent", "--ca-url", ca, "--ca-timeout", "0s"],
            &["--ca-timeout", "longer than 0s"],
        ),
        (
            &[
                "--tls-ca-cert",
                "/no/such.pem",
                "agent",
                "--ca-url",
                ca,
                "--auth",
                "true",
                "--match",
                "x",
            ],
            &["--tls-ca-cert", "/no/such.pem"],
        ),
        (&["--config", "/no/such.yaml", "agent"], &["/no/such.yaml"]),
        (
            &["--log-file", "/proc/x/y", "agent", "--ca-url", ca],
            &["--log-file", "/proc/x/y"],
        ),
        (
            &["ca", "--key", "/no/such.key", "--policy", "https://p"],
            &["--key", "/no/such.key"],
        ),
        (
            &["ca", "--key", &readable, "--policy", "https://p"],
            &["--key", "0644", "chmod 600"],
        ),
        (&["ca", "--key", &key], &["--policy", "required", "unix:///"]),
        (
            &["ca", "--key", &key, "--policy", "http://policy.example.com"],
            &["--policy", "over plain http"],
        ),
        (
            &[
                "ca",
                "--key",
                &key,
                "--policy",
                "unix:///p.sock",
                "--listen",
                "nowhere",
            ],
            &["--listen", "nowhere", "127.0.0.1:8080"],
        ),
        (
            &[
                "ca",
                "--key",
                &key,
                "--policy",
                "unix:///p.sock",
                "--max-ttl",
                "0s",
            ],
            &["--max-ttl", "1s"],
        ),
        (&["server", "--ca-key", &readable], &["--ca-key", "0644"]),
        (&["server", "--ca-key", &key], &["oidc.issuer", "required"]),
        (
            &[
                "server",
                "--ca-key",
                &key,
                "--oidc-issuer",
                "http://idp.example.com",
                "--oidc-client-id",
                "x",
            ],
            &["issuer", "https://"],
        ),
        (
            &[
                "policy",
                "--oidc-issuer",
                "https://idp.example.com",
                "--oidc-client-id",
                "x",
            ],
            &["ca-pubkey is required (via --ca-pubkey flag or policy.ca-pubkey in config)"],
        ),
        (
            &[
                "auth",
                "oidc",
                "--issuer",
                "http://idp.example.com",
                "--client-id",
                "x",
            ],
            &["--issuer", "https://"],
        ),
    ];
    for (words, parts) in cases {
        let finished = run(&home, words.iter().copied());
        assert_eq!(finished.code(), Some(1), "{words:?}: {}", finished.stderr);
        assert_eq!(finished.stdout, "", "{words:?}");
        let errors: Vec<_> = finished
            .stderr
            .lines()
            .filter(|line| line.starts_with("epithet: error: "))
            .collect();
        assert_eq!(errors.len(), 1, "{words:?}: {}", finished.stderr);
        for part in parts {
            assert!(
                finished.stderr.contains(part),
                "{words:?} does not say {part:?}: {}",
                finished.stderr
            );
        }
    }
}

#[test]
fn a_number_has_to_be_one_within_the_range_that_is_said() {
    let home = Home::new();
    let cases: [(&[&str], &str, &[&str], &str); 5] = [
        (
            &["agent"],
            "--max-agents",
            &["x", "0", "65537", "-1", "1.5", ""],
            "from 1 to 65536",
        ),
        (&["trace", "last"], "--number", &["x", "0", "65"], "from 1 to 64"),
        (
            &["auth", "oidc"],
            "--port",
            &["x", "0", "65536", "8000,y"],
            "from 1 to 65535",
        ),
        (
            &["auth", "oidc"],
            "--max-age",
            &["x", "-1", "4294967296"],
            "from 0 to 4294967295",
        ),
        (
            &["ca"],
            "--key-passphrase-fd",
            &["x", "-1", "65536"],
            "from 0 to 65535",
        ),
    ];
    for (command, flag, values, range) in cases {
        for value in values {
            let joined = format!("{flag}={value}");
            let finished = run(&home, command.iter().copied().chain([joined.as_str()]));
            assert_eq!(finished.code(), Some(80), "{joined}: {}", finished.stderr);
            for part in [flag, "it has to be a whole number", range] {
                assert!(
                    finished.stderr.contains(part),
                    "{joined} {part}: {}",
                    finished.stderr
                );
            }
        }
    }
    // In a file the same limits hold.
    home.write(".epithet/config.yaml", "agent: {max-agents: 65537}\n");
    let finished = run(&home, ["agent", "--ca-url", "https://ca.example.com"]);
    assert_eq!(finished.code(), Some(1));
    assert!(
        finished.stderr.contains("must be 1 to 65536, not 65537"),
        "{}",
        finished.stderr
    );
}

#[test]
fn of_commands_that_one_may_have_meant_the_nearest_is_named() {
    let home = Home::new();
    let finished = run(&home, ["agnt"]);
    assert!(finished.stderr.contains("'agent'"), "{}", finished.stderr);
    assert!(!finished.stderr.contains("'man'"), "{}", finished.stderr);
}

#[test]
fn nothing_turns_the_verification_of_tls_off() {
    let home = Home::new();
    for words in [
        &["--insecure", "agent"][..],
        &["agent", "--insecure"],
        &["-k", "inspect"],
    ] {
        assert_eq!(run(&home, words.iter().copied()).code(), Some(80), "{words:?}");
    }
    home.write(".epithet/config.yaml", "insecure: true\n");
    let finished = run(&home, ["agent", "--ca-url", "https://ca.example.com"]);
    assert_eq!(finished.code(), Some(1));
    assert!(finished.stderr.contains("tls-ca-cert"), "{}", finished.stderr);
}
