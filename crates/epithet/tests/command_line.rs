//! The command line as a newcomer meets it: help that teaches, mistakes that are named, a demo that cleans up.

#![cfg(test)]

use epithet_testkit::{DEADLINE, Daemon, Finished, Home};
use rustix::process::Signal;
use std::os::unix::fs::PermissionsExt;

const EPITHET: &str = env!("CARGO_BIN_EXE_epithet");
const MATCH: &str = env!("CARGO_BIN_EXE_epithet-match");

fn run(home: &Home, arguments: &[&str]) -> Finished {
    home.run(EPITHET, arguments)
}

#[test]
fn every_command_has_help_that_exits_with_0() {
    let home = Home::new();
    let commands: [&[&str]; 18] = [
        &[],
        &["agent"],
        &["agent", "start"],
        &["agent", "inspect"],
        &["match"],
        &["inspect"],
        &["login"],
        &["logout"],
        &["trust"],
        &["auth"],
        &["auth", "oidc"],
        &["plugin", "check"],
        &["plugin", "run"],
        &["ca"],
        &["policy"],
        &["server"],
        &["demo"],
        &["completions"],
    ];
    for command in commands {
        let help = run(&home, &[command, &["--help"]].concat()).success();
        assert!(
            help.stdout.contains("Usage") && help.stdout.len() > 200,
            "{command:?}: {}",
            help.stdout
        );
    }
    assert!(
        run(&home, &["--version"])
            .success()
            .stdout
            .starts_with("epithet ")
    );
    assert!(
        run(&home, &["completions", "bash"])
            .success()
            .stdout
            .contains("complete -F")
    );
    let pages = home.join("man");
    run(&home, &["man", pages.to_str().unwrap()]).success();
    assert!(pages.join("epithet-agent.1").is_file());
}

#[test]
fn a_mistake_is_named_with_what_would_be_right_and_an_exit_code() {
    let home = Home::new();
    let cases: [(&[&str], i32, &str); 19] = [
        (&["agnet"], 80, "agent"),
        (&["agent", "--ca-urll", "x"], 80, "--ca-url"),
        (&["agent"], 1, "--ca-url is required"),
        (&["agent", "--ca-url", "http://ca.example.com"], 80, "https://"),
        (
            &["agent", "--ca-url", "https://ca.example.com", "--insecure"],
            80,
            "--insecure",
        ),
        (
            &["agent", "--ca-url", "https://ca.example.com", "--name", "a/b"],
            80,
            "profile name",
        ),
        (
            &["agent", "--ca-url", "https://ca.example.com", "--match", "a["],
            1,
            "host pattern",
        ),
        (
            &["agent", "--ca-url", "https://ca.example.com", "--auth", " "],
            1,
            "--auth",
        ),
        (
            &[
                "agent",
                "--ca-url",
                "https://ca.example.com",
                "--auth",
                "x",
                "--auth-timeout",
                "1h",
            ],
            1,
            "--auth-timeout",
        ),
        (
            &[
                "agent",
                "--ca-url",
                "https://ca.example.com",
                "--token-reuse",
                "soon",
            ],
            80,
            "90s, 5m or 1h30m",
        ),
        (
            &[
                "agent",
                "--ca-url",
                "https://ca.example.com",
                "--tls-ca-cert",
                "/no/such",
            ],
            1,
            "/no/such",
        ),
        (&["inspect"], 1, "epithet agent"),
        (&["match", "--host", "h"], 80, "--user"),
        (&["auth", "oidc"], 1, "--issuer is required"),
        (
            &[
                "auth",
                "oidc",
                "--issuer",
                "http://i.example.com",
                "--client-id",
                "x",
            ],
            1,
            "https",
        ),
        (
            &["ca", "--key", "/no/such/key", "--policy", "unix:///p"],
            1,
            "/no/such/key",
        ),
        (&["policy"], 1, "ca-pubkey is required"),
        (&["server", "--ca-key", "/no/such/key"], 1, "/no/such/key"),
        (&["plugin", "check", "--", ""], 1, "empty"),
    ];
    for (arguments, code, words) in cases {
        let finished = run(&home, arguments);
        assert_eq!(finished.code(), Some(code), "{arguments:?}: {}", finished.stderr);
        assert!(
            finished.stderr.contains(words),
            "{arguments:?}: {words:?} is not in: {}",
            finished.stderr
        );
        assert!(!finished.stderr.contains("panicked"), "{}", finished.stderr);
    }
}

#[test]
fn a_configuration_file_with_a_mistake_is_named_by_file_key_and_remedy() {
    let home = Home::new();
    let file = home.write(
        ".epithet/config.yaml",
        "agent:\n  ca-urls: https://ca.example.com\n",
    );
    let unknown = run(&home, &["agent"]);
    for words in ["config.yaml", "ca-urls", "did you mean `ca-url`"] {
        assert!(
            unknown.stderr.contains(words),
            "{words:?} is not in: {}",
            unknown.stderr
        );
    }
    home.write(
        ".epithet/config.yaml",
        "agent: {ca-url: 'https://ca.example.com'\n",
    );
    assert_eq!(run(&home, &["agent"]).code(), Some(1));
    home.write(".epithet/config.yaml", "{}");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o666)).unwrap();
    assert!(run(&home, &["agent"]).stderr.contains("chmod go-w"));
    // match reads no configuration, so it is not bothered.
    let silent = home.run(
        MATCH,
        [
            "-H",
            "h",
            "-p",
            "22",
            "-r",
            "u",
            "-C",
            &"a".repeat(40),
            "-b",
            "/no/socket",
        ],
    );
    assert_eq!((silent.code(), silent.stderr.as_str()), (Some(1), ""));
}

#[test]
fn a_flag_beats_the_environment_which_beats_the_file() {
    let home = Home::new();
    home.write(
        ".epithet/config.yaml",
        "agent: {ca-url: 'https://file.example.com', auth-timeout: 20m}\n",
    );
    let refused = |environment: Option<&str>, flag: &[&str]| {
        let mut command = home.command(EPITHET);
        command.arg("agent").args(flag);
        if let Some(value) = environment {
            command.env("EPITHET_AUTH_TIMEOUT", value);
        }
        Finished::of(command, DEADLINE).stderr
    };
    assert!(refused(None, &[]).contains("not 20m"));
    assert!(refused(Some("21m"), &[]).contains("not 21m"));
    assert!(refused(Some("21m"), &["--auth-timeout", "22m"]).contains("not 22m"));
}

#[test]
fn the_demo_logs_in_and_leaves_nothing_behind() {
    let home = Home::new();
    let mut command = home.command(EPITHET);
    command.arg("demo").env("TMPDIR", home.path());
    let shown = Finished::of(command, 4 * DEADLINE).success().stdout;
    for words in [
        "identity provider",
        "the host says        hello",
        "Signing CA: ED25519",
        "\"decision\":\"issued\"",
        "Accepted publickey",
        "it works",
    ] {
        assert!(shown.contains(words), "{words:?} is not in:\n{shown}");
    }
    assert!(!shown.contains('\x1b'), "no colours where there is no terminal");
    assert_eq!(demo_folders(&home), 0);
}

#[test]
fn an_interrupted_demo_leaves_nothing_behind() {
    let home = Home::new();
    for step in ["identity provider", "CA and policy", "broker", "ssh  "] {
        let mut command = home.command(EPITHET);
        command.arg("demo").env("TMPDIR", home.path());
        let mut demo = Daemon::start("the demo", command, None);
        demo.stdout()
            .wait_for_line(step, DEADLINE)
            .unwrap_or_else(|| panic!("the demo comes to {step:?}"));
        demo.signal(Signal::INT);
        demo.wait(DEADLINE).expect("an interrupted demo ends");
        let said = demo.stdout().wait_for_end(DEADLINE);
        let said = said.expect("its output ends with it");
        assert!(said.contains("interrupted"), "{step}: {said}");
        assert_eq!(demo_folders(&home), 0, "{step}");
    }
}

fn demo_folders(home: &Home) -> usize {
    let entries = std::fs::read_dir(home.path()).unwrap().flatten();
    entries
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("epithet-demo-"))
        .count()
}
