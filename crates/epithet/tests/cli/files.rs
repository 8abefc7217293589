//! What the program writes for shells and manuals, and its log file.

use crate::{epithet, run};
use epithet_testkit::{Broker, DEADLINE, Finished, Home};
use std::os::unix::fs::MetadataExt as _;

#[test]
fn completion_scripts_are_printed_and_bash_reads_its_own() {
    let home = Home::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let finished = run(&home, ["completions", shell]).success();
        assert_eq!(finished.stderr, "");
        for word in ["epithet", "inspect", "--ca-url"] {
            let found =
                finished.stdout.contains(word) || finished.stdout.contains(word.trim_start_matches('-'));
            assert!(found, "{shell} does not know {word}");
        }
    }
    let script = run(&home, ["completions", "bash"]).success().stdout;
    let file = home.write("completions.bash", script);
    let asking = format!(
        "source '{}'; COMP_WORDS=(epithet agent --ca-u); COMP_CWORD=2; _epithet epithet --ca-u agent; echo \"${{COMPREPLY[*]}}\"",
        file.display()
    );
    let finished = home
        .run("bash", ["--noprofile", "--norc", "-c", &asking])
        .success();
    assert_eq!(finished.stdout.trim(), "--ca-url", "{}", finished.stderr);
}

#[test]
fn man_pages_are_written_for_every_command_into_a_new_directory() {
    let home = Home::new();
    let folder = home.join("share/man/man1");
    let finished = run(&home, ["man", folder.to_str().unwrap()]).success();
    assert_eq!((finished.stdout.as_str(), finished.stderr.as_str()), ("", ""));
    for page in [
        "epithet.1",
        "epithet-agent.1",
        "epithet-auth-oidc.1",
        "epithet-ca.1",
        "epithet-match.1",
    ] {
        let text =
            std::fs::read_to_string(folder.join(page)).unwrap_or_else(|error| panic!("{page}: {error}"));
        assert!(text.contains(".TH "), "{page} is not a manual page");
        assert!(text.contains(".SH SYNOPSIS"), "{page}");
    }
    let refused = run(&home, ["man", "/proc/nowhere"]);
    assert_eq!(refused.code(), Some(1));
    assert!(refused.stderr.contains("/proc/nowhere"), "{}", refused.stderr);
}

#[test]
fn a_log_file_is_its_owners_alone_and_takes_what_stderr_would_have() {
    let home = Home::new();
    let file = home.join("logs/of/epithet.log");
    let mut command = epithet(
        &home,
        [
            "-vv",
            "--log-file",
            "~/logs/of/epithet.log",
            "--log-format",
            "json",
        ],
    );
    command.args([
        "agent",
        "--ca-url",
        "http://127.0.0.1:1",
        "--auth",
        "printf token",
        "--match",
        "x",
    ]);
    let broker = Broker::try_start(command).unwrap_or_else(|error| panic!("{error}"));
    let mut login = epithet(&home, ["login", "--broker"]);
    login.arg(broker.socket());
    Finished::of(login, DEADLINE).success();
    assert!(!broker.log().text().contains("auth plugin"), "{}", broker.log());
    broker.stop(DEADLINE);
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().mode() & 0o777;
    assert_eq!((mode(&file), mode(file.parent().unwrap())), (0o600, 0o700));
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(text.contains("auth plugin succeeded"), "{text}");
    for line in text.lines() {
        let event: serde_json::Value =
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert!(event["level"].is_string(), "{line}");
    }
}
