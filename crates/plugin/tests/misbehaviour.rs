//! Plugins that do everything wrong: none can hang, flood or outlive its run, and each failure says what it was.

mod support;

use epithet_plugin::{
    Exit, ProgressSink, RunError, RunLimits, STATE_MAX, Stream, TOKEN_MAX, progress_channel,
};
use epithet_wire::SecretBytes;
use std::time::{Duration, Instant};
use support::{Hostile, SHORT, hostile, shell, until};
use tokio_util::sync::CancellationToken;

/// How a failure is recognised in the tables below.
fn kind(error: &RunError) -> String {
    match error {
        RunError::NotFound { .. } => "not found".to_owned(),
        RunError::NotExecutable { .. } => "not executable".to_owned(),
        RunError::BadInterpreter { .. } => "bad interpreter".to_owned(),
        RunError::Spawn { .. } => "spawn".to_owned(),
        RunError::Exited { status, .. } => format!("exited {status}"),
        RunError::Killed { signal, .. } => format!("killed {signal}"),
        RunError::EmptyToken { .. } => "empty token".to_owned(),
        RunError::TokenTooLarge { .. } => "token too large".to_owned(),
        RunError::StateTooLarge { .. } => "state too large".to_owned(),
        RunError::Timeout { forced, .. } => format!("timeout, forced {forced}"),
        RunError::Cancelled { forced, .. } => format!("cancelled, forced {forced}"),
        RunError::Io { .. } => "io".to_owned(),
    }
}

/// Runs in the background until told to stop; ready when the plugin has said `word` on its progress.
async fn started(
    plugin: &Hostile,
    word: &str,
) -> (
    CancellationToken,
    tokio::task::JoinHandle<Result<epithet_plugin::Reply, RunError>>,
) {
    let (sink, mut feed) = progress_channel();
    let cancel = CancellationToken::new();
    let run = tokio::spawn({
        let (runner, cancel) = (plugin.runner.clone(), cancel.clone());
        async move {
            runner
                .run(&SecretBytes::default(), &Default::default(), sink, cancel)
                .await
        }
    });
    while let Some(progress) = feed.next().await {
        if progress.text.contains(word) {
            break;
        }
    }
    (cancel, run)
}

#[tokio::test]
async fn each_stream_is_accepted_at_its_limit_and_refused_one_byte_past_it() {
    let (token, state) = (TOKEN_MAX, STATE_MAX);
    for (stream, bytes, expected) in [
        ("1", token, Ok((token, 0))),
        ("1", token + 1, Err("token too large")),
        ("3", state, Ok((5, state))),
        ("3", state + 1, Err("state too large")),
        ("3", 2 * state, Err("state too large")),
        ("2", 10_000_000, Ok((5, 0))),
        ("4", 10_000_000, Ok((5, 0))),
    ] {
        let plugin = hostile(&["write", stream, &bytes.to_string()]);
        let outcome = plugin.run(b"").await;
        match (outcome, expected) {
            (Ok(reply), Ok(sizes)) => assert_eq!((reply.token.size(), reply.state.len()), sizes),
            (Err(error), Err(expected)) => assert_eq!(kind(&error), expected),
            (outcome, _) => panic!("{bytes} bytes on {stream}: {outcome:?}"),
        }
        plugin.assert_nothing_is_left();
    }
}

#[tokio::test]
async fn one_byte_too_many_is_refused_at_once_even_from_a_plugin_that_stays() {
    for (stream, bytes, error, name) in [
        ("1", TOKEN_MAX + 1, "token too large", "65536 bytes on stdout"),
        ("3", STATE_MAX + 1, "state too large", "10485760 bytes on fd 3"),
    ] {
        // With the default deadline of minutes: only the limit can end this.
        let plugin = hostile(&["write", stream, &bytes.to_string(), "hang"]);
        let outcome = plugin.run(b"").await.unwrap_err();
        assert_eq!(kind(&outcome), error);
        assert!(outcome.to_string().ends_with(name), "{outcome}");
        plugin.assert_nothing_is_left();
    }
}

#[tokio::test]
async fn an_endless_token_or_state_is_refused_within_two_seconds() {
    for (stream, error) in [("1", "token too large"), ("3", "state too large")] {
        let plugin = hostile(&["flood", stream]);
        let begun = Instant::now();
        assert_eq!(kind(&plugin.run(b"").await.unwrap_err()), error);
        assert!(
            begun.elapsed() < Duration::from_secs(2),
            "took {:?}",
            begun.elapsed()
        );
        plugin.assert_nothing_is_left();
    }
}

#[tokio::test]
async fn endless_messages_and_progress_end_at_the_deadline_with_their_last_words() {
    for stream in ["2", "4"] {
        let plugin = hostile(&["flood", stream]).with_limits(SHORT);
        let error = plugin.run(b"").await.unwrap_err();
        assert_eq!(kind(&error), "timeout, forced false");
        assert!(error.stderr().len() <= 65_536);
        assert_eq!(error.evidence().stderr_skipped > 0, stream == "2");
        plugin.assert_nothing_is_left();
    }
}

#[tokio::test]
async fn a_plugin_that_never_exits_is_ended_at_the_deadline() {
    for (mode, expected) in [
        ("hang", "timeout, forced false"),
        ("hang-deaf", "timeout, forced true"),
        ("stop", "timeout, forced false"),
    ] {
        let plugin = hostile(&[mode]).with_limits(SHORT);
        let begun = Instant::now();
        assert_eq!(kind(&plugin.run(b"").await.unwrap_err()), expected, "{mode}");
        assert!(begun.elapsed() >= SHORT.deadline);
        plugin.assert_nothing_is_left();
    }
}

#[tokio::test]
async fn what_is_being_started_while_the_group_ends_is_ended_too() {
    for _ in 0..20 {
        let plugin = hostile(&["forks", "5"]).with_limits(RunLimits {
            deadline: Duration::from_secs(300),
            ..SHORT
        });
        let (cancel, run) = started(&plugin, "leaf").await;
        cancel.cancel();
        assert!(run.await.unwrap().is_err());
        plugin.assert_nothing_is_left();
    }
}

#[tokio::test]
async fn cancelling_ends_the_whole_group() {
    for (mode, word, expected) in [
        (&["hang"][..], "hanging", "cancelled, forced false"),
        (&["hang-deaf"], "hanging", "cancelled, forced true"),
        (&["forks", "4"], "leaf", "cancelled, forced false"),
    ] {
        let plugin = hostile(mode).with_limits(RunLimits {
            deadline: Duration::from_secs(300),
            ..SHORT
        });
        let (cancel, run) = started(&plugin, word).await;
        cancel.cancel();
        assert_eq!(kind(&run.await.unwrap().unwrap_err()), expected, "{mode:?}");
        plugin.assert_nothing_is_left();
    }
}

#[tokio::test]
async fn a_run_that_is_cancelled_before_it_starts_starts_nothing() {
    let cancel = CancellationToken::new();
    cancel.cancel();
    let plugin = hostile(&["hang"]);
    let outcome = plugin
        .runner
        .run(
            &SecretBytes::default(),
            &Default::default(),
            ProgressSink::discard(),
            cancel,
        )
        .await;
    assert_eq!(kind(&outcome.unwrap_err()), "cancelled, forced false");
    plugin.assert_nothing_is_left();
}

#[tokio::test]
async fn dropping_the_run_ends_the_group_and_collects_it() {
    let plugin = hostile(&["forks", "2"]).with_limits(RunLimits {
        deadline: Duration::from_secs(300),
        ..SHORT
    });
    let (_cancel, run) = started(&plugin, "leaf").await;
    run.abort();
    assert!(run.await.unwrap_err().is_cancelled());
    until("the group is gone", || plugin.left().is_empty()).await;
    until("nothing is uncollected", || support::zombies().is_empty()).await;
}

#[test]
fn a_runtime_that_is_shut_down_takes_its_plugins_with_it() {
    let plugin = hostile(&["forks", "1"]);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (_cancel, _run) = runtime.block_on(started(&plugin, "leaf"));
    drop(runtime);
    let begun = Instant::now();
    while !plugin.left().is_empty() {
        assert!(begun.elapsed() < support::PATIENCE);
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[tokio::test]
async fn what_a_plugin_says_while_it_is_ended_is_heard() {
    let plugin = hostile(&["farewell"]).with_limits(RunLimits {
        deadline: Duration::from_secs(300),
        kill_after: support::PATIENCE,
        ..SHORT
    });
    for _ in 0..5 {
        let (cancel, run) = started(&plugin, "hanging").await;
        cancel.cancel();
        let error = run.await.unwrap().unwrap_err();
        assert_eq!(kind(&error), "cancelled, forced false");
        let said = error.stderr();
        assert!(said.ends_with("interrupted, nothing was changed\n"), "{said}");
    }
}

#[tokio::test]
async fn a_process_that_holds_the_streams_does_not_hold_the_login() {
    for left in [
        &["leave", "hang"][..],
        &["leave", "hang-deaf"],
        &["leave", "hang-alone", "60"],
    ] {
        // The deadline has to be far: the login succeeds because of the grace.
        let plugin = hostile(left).with_limits(RunLimits {
            deadline: Duration::from_secs(300),
            ..SHORT
        });
        let seen = plugin.observe(b"").await;
        let reply = seen.outcome.unwrap();
        assert_eq!(
            (reply.token.expose(), reply.state.expose()),
            (&b"token"[..], &b"state"[..])
        );
        assert_eq!(
            seen.transcript.left_open(),
            [Stream::Token, Stream::Messages, Stream::State, Stream::Progress]
        );
        assert!(reply.elapsed < Duration::from_secs(10), "{:?}", reply.elapsed);
        assert_eq!(plugin.left().len(), 1, "the browser lives on");
        plugin.end_what_is_left();
        until("the browser is gone", || plugin.left().is_empty()).await;
    }
}

#[tokio::test]
async fn what_arrives_within_the_grace_counts() {
    let plugin = hostile(&["leave-late-writer"]);
    assert_eq!(plugin.run(b"").await.unwrap().state.expose(), b"late state");
}

#[tokio::test]
async fn the_helpers_of_a_plugin_that_fails_are_ended_with_it() {
    let plugin = shell(r#""$HOSTILE" hang & echo 'no network' >&2; exit 3"#).with_limits(RunLimits {
        deadline: Duration::from_secs(300),
        ..SHORT
    });
    let error = plugin.run(b"").await.unwrap_err();
    assert_eq!(
        (kind(&error).as_str(), error.stderr()),
        ("exited 3", "no network\n")
    );
    plugin.assert_nothing_is_left();
}

#[tokio::test]
async fn the_streams_may_come_in_any_order_and_any_pieces() {
    for (mode, token, state) in [
        ("dribble", "dribbled", "dribbled"),
        ("state-after-token", "token", "state"),
    ] {
        let reply = hostile(&[mode]).run(b"").await.unwrap();
        assert_eq!(reply.token.expose(), token.as_bytes());
        assert_eq!(reply.state.expose(), state.as_bytes());
    }
}

#[tokio::test]
async fn a_plugin_that_closes_its_streams_early_is_judged_by_its_exit() {
    for (script, expected) in [
        (
            "printf token; exec >&- 2>&- 3>&- 4>&- <&-; sleep 0.1",
            Ok("token"),
        ),
        ("exec >&- 2>&- 3>&- 4>&- <&-; sleep 0.1", Err("empty token")),
        (
            "printf token; exec >&- 2>&- 3>&- 4>&- <&-; exit 5",
            Err("exited 5"),
        ),
    ] {
        let outcome = shell(script).run(&[1; 100_000]).await;
        match (outcome, expected) {
            (Ok(reply), Ok(token)) => assert_eq!(reply.token.expose(), token.as_bytes()),
            (Err(error), Err(expected)) => assert_eq!(kind(&error), expected),
            (outcome, _) => panic!("{script}: {outcome:?}"),
        }
    }
    let closed = shell("exec >&- 2>&- 3>&- 4>&- <&-; sleep 60").with_limits(SHORT);
    assert_eq!(kind(&closed.run(b"").await.unwrap_err()), "timeout, forced false");
    closed.assert_nothing_is_left();
}

#[tokio::test]
async fn every_way_to_fail_has_its_own_error() {
    for (plugin, expected, says) in [
        (shell("exit 0"), "empty token", "without printing a token"),
        (shell("exit 3"), "exited 3", "status 3"),
        (hostile(&["fail", "1", "why"]), "exited 1", "why"),
        (hostile(&["die", "KILL"]), "killed 9", "SIGKILL"),
        (hostile(&["die", "TERM"]), "killed 15", "SIGTERM"),
        (shell("kill -SEGV $$"), "killed 11", "SIGSEGV"),
        (hostile(&["terminal"]), "exited 74", "terminal:"),
        (shell("no-such-login --now"), "not found", "no-such-login"),
        (shell("/no/such/login"), "not found", "/no/such/login"),
        (
            shell("true && no-such-helper"),
            "not found",
            "a program that the plugin needs",
        ),
        (shell("/etc/passwd"), "not executable", "chmod +x /etc/passwd"),
        (shell("exit 126"), "not executable", "chmod +x the file"),
    ] {
        let error = plugin.run(b"").await.unwrap_err();
        let explained = error.explain();
        assert_eq!(kind(&error), expected, "{explained}");
        assert!(explained.contains(says), "{says:?} is not in {explained}");
        assert!(explained.contains(&error.command().to_string()), "{explained}");
        plugin.assert_nothing_is_left();
    }
}

#[tokio::test]
async fn programs_that_cannot_be_started_say_why_without_a_shell_too() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let script = |name: &str, content: &str, mode: u32| {
        let file = folder.path().join(name);
        std::fs::write(&file, content).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
        file.display().to_string()
    };
    for (program, expected, says) in [
        ("no-such-login".to_owned(), "not found", "no-such-login"),
        (script("plain", "#!/bin/sh\n", 0o644), "not executable", "plain"),
        (
            script("python", "#!/no/such/python\n", 0o755),
            "bad interpreter",
            "/no/such/python",
        ),
        (
            script("dos", "#!/bin/sh\r\necho\r\n", 0o755),
            "bad interpreter",
            "Windows line ends",
        ),
        (
            script("env", "#!/usr/bin/env no-such-node\n", 0o755),
            "bad interpreter",
            "no-such-node",
        ),
        ("a\0b".to_owned(), "spawn", "nul byte"),
    ] {
        for command in [
            epithet_plugin::PluginCommand::Argv(vec![program.clone()]),
            epithet_plugin::PluginCommand::Shell(program.clone()),
        ] {
            let run = epithet_plugin::Runner::new(command);
            let (state, none) = (SecretBytes::default(), CancellationToken::new());
            let outcome = run
                .run(&state, &Default::default(), ProgressSink::discard(), none)
                .await;
            let error = outcome.unwrap_err();
            assert_eq!(kind(&error), expected, "{}", error.explain());
            assert!(error.explain().contains(says), "{}", error.explain());
        }
    }
}

#[tokio::test]
async fn a_failed_run_tells_what_it_left_on_its_streams_and_counts_none_of_it() {
    let seen = hostile(&["fail", "2"]).observe(b"").await;
    assert_eq!(seen.transcript.exit(), Some(Exit::Status(2)));
    assert_eq!(seen.transcript.state_bytes(), b"state of a failure");
    let shown = format!("{seen:?}");
    assert!(!shown.contains("of a failure"), "{shown}");
}

#[tokio::test]
async fn random_behaviour_ends_in_a_reply_or_an_error_and_leaves_nothing() {
    for seed in 0..60_u64 {
        let seed = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_string();
        let plugin = hostile(&["random", &seed]);
        match plugin.run(b"state").await {
            Ok(reply) => assert!(reply.token.size() <= TOKEN_MAX && reply.state.len() <= STATE_MAX),
            Err(error) => assert!(
                ["exited 1", "exited 2", "empty token", "token too large"].contains(&kind(&error).as_str()),
                "{}",
                error.explain()
            ),
        }
        plugin.assert_nothing_is_left();
    }
}
