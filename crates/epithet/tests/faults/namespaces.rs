//! Tests that need a network or mounts of their own, so that what they break is nobody else's: they run themselves once more,
//! inside. That takes root, or a kernel that lets everybody make namespaces of users, as most do.

use epithet_testkit::{DEADLINE, Finished, TestUser};
use std::process::Command;

/// Says to the test inside that it is there.
const INSIDE: &str = "EPITHET_TEST_INSIDE";

/// Where a story plays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ground {
    /// In namespaces of its own: it may mount, and change the network.
    Own,
    /// Where everybody is, because this system gives no namespaces. The story plays what can be played without.
    Shared,
}

/// Plays `story` in new namespaces (`--net`, `--mount`) with loopback up. `test` is the test's full name, by which it is
/// run again.
pub(crate) fn inside(test: &str, kinds: &[&str], story: impl FnOnce(Ground)) {
    if std::env::var_os(INSIDE).is_some() {
        if kinds.contains(&"--net") {
            run(["ip", "link", "set", "lo", "up"]);
        }
        return story(Ground::Own);
    }
    let mut probe = unshare(kinds);
    probe.arg("true");
    let probe = Finished::of(probe, DEADLINE);
    if !probe.status.success() {
        eprintln!(
            "{test}: this system gives no namespaces ({}); run the tests as root, or allow unprivileged user namespaces. What \
             can be played without them is.",
            probe.stderr.trim()
        );
        return story(Ground::Shared);
    }
    let mut again = unshare(kinds);
    again
        .arg(std::env::current_exe().expect("a test knows its own program"))
        .args(["--exact", test, "--nocapture", "--test-threads", "1"])
        .env(INSIDE, "1");
    // It has deadlines of its own, and the test runner has one for all.
    let output = again
        .output()
        .expect("unshare is installed (scripts/test does that)");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && said.contains("test result: ok. 1 passed"),
        "inside, with {}:\n{said}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
}

fn unshare(kinds: &[&str]) -> Command {
    let mut command = Command::new("unshare");
    if !TestUser::is_root() {
        command.args(["--user", "--map-current-user", "--keep-caps"]);
    }
    command.args(kinds).arg("--");
    command
}

/// Runs a command that has to succeed.
#[track_caller]
pub(crate) fn run<'a>(words: impl IntoIterator<Item = &'a str>) {
    let mut words = words.into_iter();
    let mut command = Command::new(words.next().expect("a program"));
    command.args(words);
    Finished::of(command, DEADLINE).success();
}
