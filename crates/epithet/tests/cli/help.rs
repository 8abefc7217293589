//! Help: every command has it, and it teaches.

use crate::run;
use epithet_testkit::Home;

/// The names in the `Commands:` part of a help text.
fn commands(help: &str) -> Vec<String> {
    let mut lines = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let mut names = Vec::new();
    for line in lines.by_ref().take_while(|line| line.starts_with("  ")) {
        let name = line.split_whitespace().next().unwrap_or_default();
        if !line.starts_with("   ") && name != "help" {
            names.push(name.to_owned());
        }
    }
    names
}

#[test]
fn every_command_that_help_lists_has_help_of_its_own() {
    let home = Home::new();
    let mut seen = Vec::new();
    let mut paths = vec![Vec::<String>::new()];
    while let Some(path) = paths.pop() {
        for flag in ["--help", "-h"] {
            let words = path.iter().map(String::as_str).chain([flag]);
            let finished = run(&home, words).success();
            let what = format!("epithet {} {flag}", path.join(" "));
            assert_eq!(finished.stderr, "", "{what}");
            let usage = format!(
                "Usage: {}",
                ["epithet"]
                    .iter()
                    .copied()
                    .chain(path.iter().map(String::as_str))
                    .collect::<Vec<_>>()
                    .join(" ")
            );
            assert!(finished.stdout.contains(&usage), "{what}: {}", finished.stdout);
            let about = finished.stdout.lines().next().unwrap_or_default();
            assert!(
                about.len() > 15 && !about.starts_with("Usage"),
                "{what} begins with what the command is for: {about:?}"
            );
            let longest = finished.stdout.lines().map(|line| line.chars().count()).max();
            assert!(
                longest <= Some(120),
                "{what} has a line of {longest:?} characters"
            );
            if flag == "--help" {
                paths.extend(commands(&finished.stdout).into_iter().map(|name| {
                    let mut path = path.clone();
                    path.push(name);
                    path
                }));
            }
        }
        seen.push(path.join(" "));
    }
    for expected in [
        "agent",
        "agent inspect",
        "agent start",
        "match",
        "inspect",
        "login",
        "logout",
        "trust",
        "auth oidc",
        "plugin check",
        "ca",
        "policy",
        "server",
        "demo",
        "completions",
    ] {
        assert!(
            seen.iter().any(|path| path == expected),
            "{expected} is not among {seen:?}"
        );
    }
}

#[test]
fn help_shows_how_it_is_done() {
    let home = Home::new();
    let cases: [(&[&str], &[&str]); 8] = [
        (&[], &["epithet demo", "Exit", "80", "~/.epithet", "environment"]),
        (
            &["agent"],
            &[
                "Examples:",
                "Include ~/.epithet/run/*/ssh-config.conf",
                "EPITHET_CA_URL",
                "default: 5m",
            ],
        ),
        (&["auth", "oidc"], &["Examples:", "accounts.google.com", "probe"]),
        (
            &["ca"],
            &[
                "Examples:",
                "ssh-keygen",
                "TrustedUserCAKeys",
                "default: /etc/epithet/ca.key",
            ],
        ),
        (&["policy"], &["users:", "hosts:", "--ca-pubkey"]),
        (&["server"], &["Examples:", "epithet policy --help"]),
        (&["match"], &["--hash", "%C", "Exit codes"]),
        (&["demo"], &["--stay", "temporary directory"]),
    ];
    for (path, words) in cases {
        let help = run(&home, path.iter().copied().chain(["--help"]))
            .success()
            .stdout;
        // Lines are broken where the reader's terminal ends.
        let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
        for word in words {
            assert!(
                help.contains(word),
                "epithet {path:?} --help does not say {word:?}:\n{help}"
            );
        }
    }
}

#[test]
fn the_version_is_one_line_and_the_same_everywhere() {
    let home = Home::new();
    let version = env!("CARGO_PKG_VERSION");
    for words in [&["--version"][..], &["-V"]] {
        let finished = run(&home, words.iter().copied()).success();
        assert_eq!(
            (finished.stdout, finished.stderr),
            (format!("epithet {version}\n"), String::new())
        );
    }
    for command in ["agent", "ca", "policy", "server", "demo"] {
        let finished = run(&home, [command, "--version"]).success();
        assert!(
            finished.stdout.trim_end().ends_with(version),
            "{}",
            finished.stdout
        );
        assert_eq!(finished.stdout.lines().count(), 1);
    }
}
