//! A plugin that fails: what the person reads, and that nothing is lost by it.

use crate::support::{FakeCa, Plugin, Stage, certificate, output};
use epithet_testkit::DEADLINE;
use std::time::{Duration, Instant};

#[test]
fn a_failure_is_told_with_command_words_and_remedy_and_ssh_goes_on() {
    let ca = FakeCa::start(|_| certificate());
    let stage = Stage::new(&ca.public_line());
    stage.give_another_key();
    let plugin = Plugin::write(&stage.home, "echo 'no network, says the plugin' >&2; exit 3");
    let broker = stage.broker(&ca.url(), plugin.command(), []);

    let said = output(stage.log_in("127.0.0.1"));

    for words in [
        "authentication failed",
        "exited with status 3",
        "plugin.sh",
        "no network, says the plugin",
        "try: ",
    ] {
        assert!(said.contains(words), "{words:?} is not in:\n{said}");
    }
    assert!(ca.asked().is_empty());
    assert_eq!(
        stage.inspect(&broker)["caEndpoints"][0]["state"],
        "closed",
        "a plugin is never a reason to distrust a CA"
    );
}

#[test]
fn a_failed_run_changes_neither_state_nor_token() {
    let ca = FakeCa::start(|_| certificate());
    let stage = Stage::new(&ca.public_line());
    stage.give_another_key();
    let plugin = Plugin::write(
        &stage.home,
        r#"printf 'state-%s' "$run" >&3; printf 'token-%s' "$run"; [ "$run" != 2 ]"#,
    );
    let _broker = stage.broker(&ca.url(), plugin.command(), ["--token-reuse", "0s"]);
    output(stage.log_in("127.0.0.1"));
    output(stage.log_in("127.0.0.2"));
    output(stage.log_in_from_terminal("127.0.0.3"));
    assert_eq!(plugin.stdin_of(2), b"state-1");
    assert_eq!(
        plugin.stdin_of(3),
        b"state-1",
        "the failed run's state is not kept"
    );
    assert_eq!(ca.tokens(), ["token-1", "token-3"]);
}

#[test]
fn too_much_state_is_refused_at_once_and_the_old_one_kept() {
    let ca = FakeCa::start(|_| certificate());
    let stage = Stage::new(&ca.public_line());
    stage.give_another_key();
    let plugin = Plugin::write(
        &stage.home,
        r#"printf 'token-%s' "$run"; if [ "$run" = 2 ]; then cat /dev/zero >&3; else printf 'kept' >&3; fi"#,
    );
    let _broker = stage.broker(&ca.url(), plugin.command(), ["--token-reuse", "0s"]);
    output(stage.log_in("127.0.0.1"));
    let begun = Instant::now();
    let said = output(stage.log_in("127.0.0.2"));
    assert!(
        begun.elapsed() < DEADLINE / 2,
        "an endless state does not hold ssh"
    );
    assert!(said.contains("fd 3") && said.contains("10485760"), "{said}");
    output(stage.log_in_from_terminal("127.0.0.3"));
    assert_eq!(plugin.stdin_of(3), b"kept");
}

#[test]
fn a_plugin_that_takes_too_long_is_ended_with_a_sentence_about_it() {
    let ca = FakeCa::start(|_| certificate());
    let stage = Stage::new(&ca.public_line());
    stage.give_another_key();
    let plugin = Plugin::write(&stage.home, "trap '' TERM; sleep 1000");
    let _broker = stage.broker(&ca.url(), plugin.command(), ["--auth-timeout", "1s"]);
    let begun = Instant::now();
    let said = output(stage.log_in("127.0.0.1"));
    assert!(begun.elapsed() >= Duration::from_secs(1));
    assert!(said.contains("--auth-timeout"), "{said}");
}

#[test]
fn a_plugin_that_is_not_there_is_named() {
    let ca = FakeCa::start(|_| certificate());
    let stage = Stage::new(&ca.public_line());
    stage.give_another_key();
    let _broker = stage.broker(&ca.url(), "/no/such/plugin --at all", []);
    let said = output(stage.log_in("127.0.0.1"));
    assert!(
        said.contains("/no/such/plugin") && said.contains("not found"),
        "{said}"
    );
}
