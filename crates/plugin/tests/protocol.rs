//! Plugins that keep to the protocol, and what they find when they are run.
#![expect(clippy::unwrap_used, reason = "only tests call these functions")]

mod support;

use epithet_plugin::{Invocation, PluginCommand, ProgressSink, Runner, STATE_MAX, progress_channel};
use epithet_wire::SecretBytes;
use std::time::Duration;
use support::{hostile, shell, until};
use tokio_util::sync::CancellationToken;

fn every_byte(length: usize) -> Vec<u8> {
    (0..length)
        .map(|index| u8::try_from(index % 251 + index / 65_536 % 5).unwrap())
        .collect()
}

#[tokio::test]
async fn token_and_state_arrive_byte_for_byte() {
    let plugin = shell(r#"cat >&3; printf 'tok\000\n\377 '"#);
    let state: Vec<u8> = (0..=255).collect();
    let reply = plugin.run(&state).await.unwrap();
    assert_eq!(reply.token.expose(), b"tok\0\n\xff ");
    assert_eq!(reply.state.expose(), state);
    assert_eq!(reply.stderr, "");
    plugin.assert_nothing_is_left();
}

#[tokio::test]
async fn state_of_any_size_up_to_the_limit_makes_the_round_trip() {
    let plugin = hostile(&["round-trip"]);
    for size in [0, 1, 65_536, 65_537, 1_048_577, STATE_MAX] {
        let state = every_byte(size);
        let reply = plugin.run(&state).await.unwrap();
        assert!(reply.state.expose() == state, "{size} bytes came back as others");
    }
}

#[tokio::test]
async fn state_is_replaced_also_when_the_plugin_writes_none() {
    let reply = hostile(&["unread"]).run(b"old state").await.unwrap();
    assert!(reply.state.is_empty());
}

#[tokio::test]
async fn a_plugin_may_leave_ten_mebibytes_of_state_unread() {
    let state = vec![7; STATE_MAX];
    let plugin = hostile(&["unread"]);
    let seen = plugin.observe(&state).await;
    assert_eq!(seen.outcome.unwrap().token.expose(), b"token");
    assert!(seen.transcript.state_accepted() < STATE_MAX);
    plugin.assert_nothing_is_left();
}

#[tokio::test]
async fn a_plugin_starts_as_if_from_nothing() {
    // A descriptor that somebody left open for children.
    let (_reader, writer) = std::io::pipe().unwrap();
    rustix::io::fcntl_setfd(&writer, rustix::io::FdFlags::empty()).unwrap();
    let plugin = hostile(&["describe"]);
    let reply = plugin.run(b"").await.unwrap();
    let text = String::from_utf8(reply.token.expose().to_vec()).unwrap();
    let own_folder = std::env::current_exe().unwrap().parent().unwrap().to_owned();
    for line in [
        "fds [0, 1, 2, 3, 4]",
        "leads true",
        "SigBlk:\t0000000000000000",
        &format!("path {}:", own_folder.display()),
    ] {
        assert!(
            text.lines().any(|found| found.starts_with(line)),
            "{line:?} is not in {text}"
        );
    }
    // Rust's own runtime, in the plugin, ignores SIGPIPE and nothing else.
    assert!(text.contains("SigIgn:\t0000000000001000"), "{text}");
}

#[tokio::test]
async fn a_signal_that_the_broker_ignores_is_not_ignored_in_the_plugin() {
    // `nohup epithet agent` ignores SIGHUP. Here a shell between the two ignores nearly everything.
    let words = [
        "-c",
        r#"trap "" HUP INT QUIT TERM USR1; exec "$0" broker describe"#,
        support::HOSTILE,
    ];
    let output = std::process::Command::new("/bin/sh")
        .args(words)
        .output()
        .unwrap();
    assert!(
        String::from_utf8_lossy(&output.stdout).contains("SigIgn:\t0000000000001000"),
        "{output:?}"
    );
}

#[tokio::test]
async fn the_environment_tells_what_the_login_is_for() {
    let invocation = Invocation {
        host: "'; touch /tmp/epithet-canary; '".to_owned(),
        user: "$(touch /tmp/epithet-canary)".to_owned(),
        port: 2222,
        interactive: true,
        remote_session: true,
    };
    let plugin = shell(
        r#"printf %s "$EPITHET_PROTOCOL|$EPITHET_HOST|$EPITHET_USER|$EPITHET_PORT|$EPITHET_INTERACTIVE|$EPITHET_REMOTE_SESSION""#,
    );
    let outcome = plugin
        .runner
        .run(
            &SecretBytes::default(),
            &invocation,
            ProgressSink::discard(),
            CancellationToken::new(),
        )
        .await;
    assert_eq!(
        outcome.unwrap().token.expose(),
        b"1|'; touch /tmp/epithet-canary; '|$(touch /tmp/epithet-canary)|2222|1|1"
    );
    assert!(!std::path::Path::new("/tmp/epithet-canary").exists());
}

#[tokio::test]
async fn a_list_runs_without_a_shell() {
    let words = ["printf", "%s", "$HOME `id` ; exit 3"];
    let runner = Runner::new(PluginCommand::Argv(words.map(str::to_owned).to_vec()));
    let outcome = runner
        .run(
            &SecretBytes::default(),
            &Invocation::default(),
            ProgressSink::discard(),
            CancellationToken::new(),
        )
        .await;
    assert_eq!(outcome.unwrap().token.expose(), b"$HOME `id` ; exit 3");
}

#[tokio::test]
async fn a_program_beside_the_running_one_is_found() {
    let folder = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(support::HOSTILE, folder.path().join("beside")).unwrap();
    let plugin = shell("./beside honest token state");
    let runner = plugin.runner.clone().in_directory(folder.path());
    let outcome = runner
        .run(
            &SecretBytes::default(),
            &Invocation::default(),
            ProgressSink::discard(),
            CancellationToken::new(),
        )
        .await;
    assert_eq!(outcome.unwrap().token.expose(), b"token");
}

#[tokio::test]
async fn a_plugin_in_rust_needs_four_functions() {
    let plugin = hostile(&["guest"]);
    let first = plugin.observe(b"").await;
    let reply = first.outcome.unwrap();
    assert!(String::from_utf8_lossy(reply.token.expose()).starts_with("Some(Invocation"));
    assert_eq!(reply.state.expose(), b"+");
    assert!(
        first.transcript.left_open().is_empty(),
        "{:?}",
        first.transcript.left_open()
    );
    assert_eq!(first.transcript.progress_bytes(), 8);
    assert_eq!(plugin.run(b"+").await.unwrap().state.expose(), b"++");
    assert_eq!(plugin.left().len(), 2, "the browsers live on");
    plugin.end_what_is_left();
}

#[tokio::test]
async fn progress_is_seen_while_the_plugin_runs() {
    let (sink, mut feed) = progress_channel();
    let plugin = hostile(&["talk", "open \u{1b}[31mhttps://example.com", "waiting"]);
    let cancel = CancellationToken::new();
    let run = tokio::spawn({
        let (runner, cancel) = (plugin.runner.clone(), cancel.clone());
        async move {
            runner
                .run(&SecretBytes::default(), &Invocation::default(), sink, cancel)
                .await
        }
    });
    let mut text = String::new();
    while !text.contains("waiting\n") {
        text.push_str(&feed.next().await.unwrap().text);
    }
    assert_eq!(text, "open [31mhttps://example.com\nwaiting\n");
    cancel.cancel();
    run.await.unwrap().unwrap_err();
    assert_eq!(feed.next().await, None);
    plugin.assert_nothing_is_left();
}

#[tokio::test]
async fn stderr_is_kept_on_success_and_made_harmless() {
    let reply = shell(r"printf 'one\r\n\033[2Jtwo\n' >&2; printf token")
        .run(b"")
        .await
        .unwrap();
    assert_eq!(reply.stderr, "one\n[2Jtwo\n");
}

#[tokio::test]
async fn many_runs_at_once_do_not_disturb_each_other() {
    let runs: Vec<_> = (0..40_u8)
        .map(|index| {
            tokio::spawn(async move {
                let plugin = hostile(&["round-trip"]);
                let state = vec![index; usize::from(index) * 5_000];
                plugin.run(&state).await.unwrap().state.expose() == state
            })
        })
        .collect();
    for run in runs {
        assert!(run.await.unwrap());
    }
    until("no zombies", || support::zombies().is_empty()).await;
}

#[tokio::test]
async fn a_slow_plugin_is_waited_for() {
    let reply = hostile(&["slow", "300"]).run(b"").await.unwrap();
    assert!(reply.elapsed >= Duration::from_millis(300));
    assert_eq!(reply.token.expose(), b"token");
}
