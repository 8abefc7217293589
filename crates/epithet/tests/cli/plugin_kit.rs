//! `epithet plugin run` and `epithet plugin check`, as whoever writes a plugin reads them.

use crate::epithet;
use epithet_testkit::{DEADLINE, Finished, Home, plugin_script};

/// Runs `epithet plugin` with these words on a plugin with this text.
fn plugin(words: &[&str], text: &str) -> Finished {
    let home = Home::new();
    let script = plugin_script(home.path(), "plugin.sh", &format!("#!/bin/sh\n{text}\n"));
    let mut command = epithet(&home, ["plugin"]);
    command.args(words).arg("--").arg(script);
    Finished::of(command, DEADLINE)
}

#[track_caller]
fn says(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in:\n{text}");
    }
}

#[test]
fn one_run_is_shown_stream_by_stream_without_its_secrets() {
    let text = "echo opening >&4; echo done >&2; printf canary-token; printf canary-state >&3";
    let finished = plugin(&["run", "--interactive"], text).success();
    says(
        &finished.stdout,
        &[
            "env   EPITHET_PROTOCOL=1 ",
            "EPITHET_INTERACTIVE=1",
            "fd 0  0 bytes of state: a first login\n",
            "fd 4  opening\n",
            "fd 2  done\n",
            "fd 1  a token of 12 bytes (SHA-256 ",
            "sent as it is\n",
            "fd 3  12 bytes (SHA-256 ",
            "exit  status 0\nsuccess after ",
        ],
    );
    assert!(
        !finished.stdout.contains("canary") && !finished.stderr.contains("canary"),
        "{finished:?}"
    );
}

#[test]
fn a_run_that_fails_shows_what_there_was_and_what_to_do_but_not_itself() {
    let cases = [
        (
            "echo 'no network' >&2; printf half; exit 3",
            "fd 2  no network\nfd 1  4 bytes (SHA-256 ",
            "exited with status 3\n",
        ),
        (
            "exit 0",
            "fd 1  nothing\nfd 3  nothing of new state\nexit  status 0\n",
            "without printing a token",
        ),
        (
            "sh -c 'kill -9 $$'",
            "exit  status 137\n",
            "means that signal 9 (SIGKILL",
        ),
    ];
    for (text, shown, error) in cases {
        let finished = plugin(&["run"], text);
        assert_eq!(finished.code(), Some(1), "{finished:?}");
        says(
            &finished.stdout,
            &[shown, "failed: the broker would keep its old state and token"],
        );
        says(&finished.stderr, &[error, "try: "]);
        assert!(!finished.stderr.contains("plugin run"), "{}", finished.stderr);
    }
}

#[test]
fn a_token_that_is_probably_not_meant_so_is_remarked_upon() {
    for (text, remark) in [
        (
            "echo token",
            "because there is white space around it (printf %s instead of echo?)",
        ),
        ("printf 'a token'", "because there are blanks in it"),
        ("printf '\\001\\377'", "because it is not visible ASCII"),
        (
            "sleep 30 & printf token",
            "note  something that it started still holds stdout",
        ),
    ] {
        says(&plugin(&["run"], text).success().stdout, &[remark]);
    }
}

#[test]
fn a_check_says_which_run_is_under_way_and_what_the_plugin_said_of_its_failure() {
    let good = plugin(&["check"], "cat >/dev/null; printf token; printf state >&3").success();
    for run in 1..=4 {
        says(
            &good.stderr,
            &[&format!("epithet plugin check: run {run} of 4, ")],
        );
    }
    says(&good.stdout, &["\nconforms: 0 failed, 0 warnings\n"]);

    let bad = plugin(&["check"], "echo 'no network' >&2; exit 3");
    assert_eq!(bad.code(), Some(1));
    says(
        &bad.stdout,
        &[
            "FAIL     first-run",
            " it said: no network\n",
            "skipped  token-form, token-size, state, ",
        ],
    );
    assert_eq!(bad.stdout.matches("not tried").count(), 1, "{}", bad.stdout);

    let json = plugin(&["check", "--json"], "printf token");
    let report: serde_json::Value = serde_json::from_str(&json.success().stdout).expect("JSON on stdout");
    assert_eq!(report["conforms"], true);
}
