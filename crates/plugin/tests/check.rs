//! `epithet plugin check`: what it says about good plugins and about each kind of bad one.

mod support;

use epithet_plugin::check::{CheckOptions, Report, Verdict, check};
use epithet_plugin::{PluginCommand, ProgressSink, RunLimits};
use epithet_wire::SecretBytes;
use std::io::Write;
use std::time::Duration;
use support::HOSTILE;

fn options() -> CheckOptions {
    CheckOptions {
        limits: RunLimits {
            deadline: Duration::from_secs(10),
            stream_grace: Duration::from_millis(200),
            kill_after: Duration::from_millis(500),
        },
        settle: Duration::from_millis(300),
        ..CheckOptions::default()
    }
}

async fn checked(script: &str, options: &CheckOptions) -> Report {
    let command = PluginCommand::Shell(script.replace("HOSTILE", HOSTILE));
    check(command, options, ProgressSink::discard(), Default::default()).await
}

fn verdict(report: &Report, rule: &str) -> Verdict {
    let found = report.findings.iter().find(|finding| finding.rule == rule);
    found.unwrap_or_else(|| panic!("no rule {rule}")).verdict
}

#[tokio::test]
async fn good_plugins_conform_without_a_warning() {
    for script in [
        "printf token-of-somebody",
        "cat >/dev/null; printf 'new state' >&3; date +%N | tr -d '\\n'",
        "HOSTILE count",
        r#"printf '\001\002'"#,
    ] {
        let report = checked(script, &options()).await;
        assert!(report.conforms, "{script}\n{report}");
        assert!(
            report
                .findings
                .iter()
                .all(|finding| finding.verdict == Verdict::Pass),
            "{script}\n{report}"
        );
    }
}

#[tokio::test]
async fn every_rule_is_broken_by_somebody() {
    use Verdict::{Fail, Warning};
    for (script, rule, expected) in [
        ("exit 1", "first-run", Fail),
        ("exit 0", "first-run", Fail),
        ("sleep 60", "first-run", Fail),
        ("no-such-plugin", "first-run", Fail),
        ("head -c 65537 /dev/zero", "first-run", Fail),
        ("echo token", "token-form", Warning),
        ("printf 'a token'", "token-form", Warning),
        ("echo", "token-form", Fail),
        ("printf 'Logging in...\\ntoken'", "token-form", Fail),
        (
            "printf 'token\\nOpening in existing browser session.\\n'",
            "token-form",
            Fail,
        ),
        ("head -c 8000 /dev/zero | tr '\\0' a", "token-size", Warning),
        ("head -c 2000000 /dev/zero >&3; printf token", "state", Warning),
        (
            "if [ $(wc -c) = 0 ]; then echo s >&3; printf token; else exit 9; fi",
            "second-run",
            Fail,
        ),
        (
            "if [ $(wc -c) = 0 ]; then echo s >&3; fi; printf token",
            "state-kept",
            Warning,
        ),
        (
            "if grep -q '^mine'; then echo mine >&3; printf token; elif [ $(wc -c) = 0 ] && [ ! -e MARK ]; then : >MARK; echo mine >&3; printf token; else exit 4; fi",
            "foreign-state",
            Warning,
        ),
        ("trap '' TERM; cat >/dev/null; printf token", "sigterm", Warning),
        ("printf token-of-somebody | tee /dev/stderr", "secrets", Fail),
        (
            "echo state-of-somebody >&3; echo state-of-somebody >&4; printf token",
            "secrets",
            Fail,
        ),
        ("sleep 60 & printf token", "streams", Warning),
        ("exit 2", "failures", Warning),
        ("echo oops; exit 2", "failures", Warning),
        ("echo why >&2; echo oops; exit 2", "failures", Warning),
        ("head -c 5000 /dev/zero >&2; printf token", "stderr", Warning),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let script = script.replace("MARK", &folder.path().join("mark").display().to_string());
        let mut options = options();
        if script == "sleep 60" {
            options.limits.deadline = Duration::from_millis(300);
        }
        let report = checked(&script, &options).await;
        assert_eq!(verdict(&report, rule), expected, "{script}\n{report}");
        assert_eq!(
            report.conforms,
            report.findings.iter().all(|finding| finding.verdict != Fail)
        );
    }
}

#[tokio::test]
async fn nothing_is_judged_that_was_not_seen() {
    let report = checked("echo 'no network' >&2; exit 1", &options()).await;
    assert!(!report.conforms);
    assert_eq!(verdict(&report, "second-run"), Verdict::Skipped);
    assert_eq!(verdict(&report, "failures"), Verdict::Pass);
    assert_eq!(report.runs.len(), 1);
    assert_eq!(report.runs[0].stderr_last_line, "no network");
    assert_eq!(report.runs[0].exit_status, Some(1));
}

#[tokio::test]
async fn a_plugin_that_needs_an_earlier_login_can_be_given_one() {
    let script = "grep -q . || exit 5; echo s >&3; printf token";
    assert!(!checked(script, &options()).await.conforms);
    let options = CheckOptions {
        state: SecretBytes::new(b"earlier login\n".to_vec()),
        ..options()
    };
    let report = checked(script, &options).await;
    assert!(report.conforms, "{report}");
}

#[tokio::test]
async fn a_report_holds_no_secret_in_any_form() {
    let mut script = tempfile::NamedTempFile::new().unwrap();
    script
        .write_all(b"printf canary-in-the-state >&3; echo 'got canary-in-the-token!' >&2; printf canary-in-the-token")
        .unwrap();
    let report = checked(&format!("sh {}", script.path().display()), &options()).await;
    let json = serde_json::to_string_pretty(&report).unwrap();
    for form in [json.clone(), report.to_string(), format!("{report:?}")] {
        assert!(!form.contains("canary"), "{form}");
    }
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["conforms"], false);
    assert_eq!(json["runs"][0]["token"]["bytes"], 19);
    assert_eq!(json["runs"][0]["stderr_last_line"], "got [redacted]!");
    assert_eq!(json["findings"][0]["verdict"], "pass");
}
