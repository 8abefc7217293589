//! A plugin that fails is explained to the person, costs nothing that was there before, and never stands in ssh's way.

use crate::support::{FakeCa, Plugin, Stage, certificate, is_gone, output};
use epithet_testkit::{DEADLINE, Finished, wait_until};
use std::time::Duration;

/// The protocol's limit on state.
const STATE_MAX: usize = epithet_wire::limits::PLUGIN_STATE_MAX;

#[test]
fn a_failing_plugin_is_explained_on_the_terminal_and_ssh_goes_on_to_other_keys() {
    let ca = FakeCa::start(|_| certificate());
    let stage = Stage::new(&ca.public_line());
    stage.give_another_key();
    let plugin = Plugin::write(
        &stage.home,
        "echo 'no network' >&2; echo 'is the cable in?' >&2; printf half-a-token; exit 3",
    );
    let _broker = stage.broker(&ca.url(), plugin.command(), []);

    let said = output(stage.log_in_from_terminal("127.0.0.1"));

    for line in [
        "authentication failed: the auth plugin exited with status 3",
        &format!("  command: {}", plugin.command()),
        "    no network",
        "    is the cable in?",
        "  try: epithet plugin run -- ",
    ] {
        assert!(said.contains(line), "{line:?} is not in:\n{said}");
    }
    assert_eq!(
        (plugin.runs(), ca.asked().len()),
        (1, 0),
        "a failed run's output is no token"
    );
}

#[test]
fn a_failed_run_changes_neither_state_nor_what_is_already_there() {
    let ca = FakeCa::start(|_| certificate());
    let stage = Stage::new(&ca.public_line());
    let plugin = Plugin::write(
        &stage.home,
        r#"printf 'token-%s' "$run"; printf 'state-%s' "$run" >&3; [ "$run" != 2 ]"#,
    );
    let broker = stage.broker(&ca.url(), plugin.command(), ["--token-reuse", "0s"]);
    output(stage.log_in_from_terminal("127.0.0.1"));

    let failed = stage.log_in_from_terminal("127.0.0.2");

    assert_eq!(failed.code(), Some(255), "{failed:?}");
    assert!(failed.stdout.contains("exited with status 1"), "{failed:?}");
    let login = &stage.inspect(&broker)["login"];
    assert_eq!((&login["logins"], &login["failures"]), (&1.into(), &1.into()));
    assert!(
        login["lastError"].as_str().unwrap().contains("status 1"),
        "{login}"
    );
    output(stage.log_in_from_terminal("127.0.0.1"));
    assert_eq!(
        plugin.runs(),
        2,
        "the first connection's certificate is still good"
    );
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
fn ten_mebibytes_of_state_are_kept_and_one_byte_more_is_refused_with_the_old_state_kept() {
    let ca = FakeCa::start(|_| certificate());
    let stage = Stage::new(&ca.public_line());
    let plugin = Plugin::write(
        &stage.home,
        &format!(
            "case $run in 1) size={STATE_MAX} ;; 2) size={} ;; *) size=1 ;; esac\n\
             printf 'token-%s' \"$run\"; head -c \"$size\" /dev/zero | tr '\\0' s >&3",
            STATE_MAX + 1
        ),
    );
    let broker = stage.broker(&ca.url(), plugin.command(), ["--token-reuse", "0s"]);
    output(stage.log_in_from_terminal("127.0.0.1"));
    assert_eq!(stage.inspect(&broker)["login"]["stateBytes"], STATE_MAX);

    let refused = stage.log_in_from_terminal("127.0.0.2");

    assert_eq!(refused.code(), Some(255), "{refused:?}");
    let limit = format!("a state larger than {STATE_MAX} bytes on fd 3");
    assert!(refused.stdout.contains(&limit), "{refused:?}");
    output(stage.log_in_from_terminal("127.0.0.3"));
    for run in [2, 3] {
        let state = plugin.stdin_of(run);
        assert!(
            state.len() == STATE_MAX && state.iter().all(|byte| *byte == b's'),
            "run {run} was given {} bytes",
            state.len()
        );
    }
    assert_eq!(stage.inspect(&broker)["login"]["stateBytes"], 1);
}

#[test]
fn a_plugin_that_floods_its_state_is_ended_and_named() {
    let ca = FakeCa::start(|_| certificate());
    let stage = Stage::new(&ca.public_line());
    let plugin = Plugin::write(&stage.home, "printf token; cat /dev/zero >&3");
    let _broker = stage.broker(&ca.url(), plugin.command(), []);
    let refused = stage.log_in("127.0.0.1");
    assert!(refused.stderr.contains("on fd 3"), "{refused:?}");
    assert!(is_gone(plugin.group_of(1)));
}

#[test]
fn an_empty_token_a_token_that_is_too_long_and_a_killed_plugin_are_each_named() {
    for (body, sentence) in [
        ("printf state >&3", "succeeded without printing a token"),
        (
            "head -c 65537 /dev/zero | tr '\\0' t",
            "a token larger than 65536 bytes on stdout",
        ),
        ("kill -9 0", "ended by signal 9 (SIGKILL"),
    ] {
        let ca = FakeCa::start(|_| certificate());
        let stage = Stage::new(&ca.public_line());
        let plugin = Plugin::write(&stage.home, body);
        let _broker = stage.broker(&ca.url(), plugin.command(), []);
        let refused = stage.log_in("127.0.0.1");
        assert!(refused.stderr.contains(sentence), "{body}: {refused:?}");
        assert_eq!(ca.asked().len(), 0);
    }
}

#[test]
fn a_command_that_cannot_be_started_is_named_with_what_to_do() {
    for (command, sentence, remedy) in [
        (
            "no-such-login --now",
            "the auth plugin was not found: no-such-login",
            "install it",
        ),
        (
            "./no-such-login",
            "the auth plugin was not found: ./no-such-login",
            "check the path",
        ),
        ("./not-executable", "cannot be executed: ", "chmod +x "),
        (
            "./wrong-interpreter",
            "asks for an interpreter that is not there: /no/such/python",
            "install",
        ),
    ] {
        let ca = FakeCa::start(|_| certificate());
        let stage = Stage::new(&ca.public_line());
        stage.home.write("not-executable", "#!/bin/sh\n");
        epithet_testkit::plugin_script(stage.home.path(), "wrong-interpreter", "#!/no/such/python\n");
        let _broker = stage.broker(&ca.url(), command, []);
        let refused = stage.log_in("127.0.0.1");
        for part in [sentence, remedy] {
            assert!(
                refused.stderr.contains(part),
                "{part:?} is not in {}",
                refused.stderr
            );
        }
    }
}

#[test]
fn a_plugin_that_does_not_finish_is_ended_at_the_deadline_with_everything_it_started() {
    let ca = FakeCa::start(|_| certificate());
    let stage = Stage::new(&ca.public_line());
    // Ignores what it is told, and has started somebody who does so too.
    let plugin = Plugin::write(&stage.home, "trap '' TERM; (trap '' TERM; sleep 120) & sleep 120");
    let _broker = stage.broker(&ca.url(), plugin.command(), ["--auth-timeout", "1s"]);

    let refused = stage.log_in("127.0.0.1");

    for part in [
        "did not finish within 1s and was ended",
        "ignored SIGTERM and was killed",
        "--auth-timeout",
    ] {
        assert!(
            refused.stderr.contains(part),
            "{part:?} is not in {}",
            refused.stderr
        );
    }
    assert!(is_gone(plugin.group_of(1)));
}

#[test]
fn a_helper_that_a_plugin_leaves_behind_holds_up_nobody() {
    let ca = FakeCa::start(|_| certificate());
    let stage = Stage::new(&ca.public_line());
    // As a browser would, it keeps all streams of the plugin open.
    let plugin = Plugin::write(
        &stage.home,
        r#"sleep 120 & echo $! > "$folder/helper"; printf token; printf state >&3"#,
    );
    let broker = stage.broker(&ca.url(), plugin.command(), []);

    let finished = stage.log_in("127.0.0.1");

    let elapsed = finished.elapsed;
    output(finished);
    assert!(elapsed < Duration::from_secs(20), "{elapsed:?}");
    assert_eq!(stage.inspect(&broker)["login"]["stateBytes"], "state".len());
    let helper = std::fs::read_to_string(plugin.folder().join("helper")).unwrap();
    assert!(
        !is_gone(plugin.group_of(1)),
        "what it left running is meant to run"
    );
    Finished::of(
        {
            let mut kill = stage.home.command("kill");
            kill.arg(helper.trim());
            kill
        },
        DEADLINE,
    )
    .success();
    wait_until(DEADLINE, || is_gone(plugin.group_of(1)).then_some(())).expect("the helper ends");
}
