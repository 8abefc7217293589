//! The guard ends plugins when their broker was killed, and nothing else.
#![expect(clippy::unwrap_used, reason = "only tests call these functions")]

mod support;

use rustix::process::{Pid, Signal, kill_process};
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use support::{HOSTILE, is_alive, until};

/// A broker in a process of its own that runs one plugin with a guard.
struct Broker {
    process: Child,
    lines: BufReader<std::process::ChildStdout>,
}

fn broker(successes_before: usize, mode: &[&str]) -> Broker {
    let mut process = Command::new(HOSTILE)
        .arg("broker")
        .args(mode)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = process.stdin.take().unwrap();
    stdin
        .write_all("success\n".repeat(successes_before).as_bytes())
        .unwrap();
    drop(stdin);
    let lines = BufReader::new(process.stdout.take().unwrap());
    Broker { process, lines }
}

impl Broker {
    /// The rest of the next line that begins with `word`.
    fn line(&mut self, word: &str) -> String {
        loop {
            let mut line = String::new();
            assert!(
                self.lines.read_line(&mut line).unwrap() > 0,
                "the broker never said {word:?}"
            );
            if let Some(rest) = line.strip_prefix(word) {
                return rest.trim().to_owned();
            }
        }
    }

    fn number(&mut self, word: &str) -> u32 {
        self.line(word).parse().unwrap()
    }

    fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn end(process: u32) {
    let _ = kill_process(Pid::from_raw(process.try_into().unwrap()).unwrap(), Signal::KILL);
}

/// The state, parent and group of every process.
fn processes() -> Vec<(u32, String, u32, u32)> {
    let processes = std::fs::read_dir("/proc").unwrap();
    let stats = processes.filter_map(|entry| std::fs::read_to_string(entry.ok()?.path().join("stat")).ok());
    stats
        .filter_map(|stat| {
            let process = stat.split(' ').next()?.parse().ok()?;
            let mut fields = stat.rsplit(") ").next()?.split(' ');
            let state = fields.next()?.to_owned();
            Some((
                process,
                state,
                fields.next()?.parse().ok()?,
                fields.next()?.parse().ok()?,
            ))
        })
        .collect()
}

/// The living processes of the group that `leader` leads.
fn group(leader: u32) -> usize {
    processes()
        .iter()
        .filter(|(_, state, _, group)| state != "Z" && *group == leader)
        .count()
}

fn children_of(process: u32) -> Vec<u32> {
    let processes = processes();
    let children = processes.iter().filter(|(_, _, parent, _)| *parent == process);
    children.map(|(child, ..)| *child).collect()
}

#[tokio::test]
async fn killing_the_broker_ends_the_whole_group_of_the_plugin_and_then_the_guard() {
    for (mode, word) in [
        (&["hang"][..], "hanging"),
        (&["hang-deaf"], "hanging"),
        (&["forks", "3"], "leaf"),
    ] {
        let mut broker = broker(0, mode);
        let guard = broker.number("guard ");
        broker.line(word);
        let plugins: Vec<u32> = children_of(broker.process.id())
            .into_iter()
            .filter(|child| *child != guard)
            .collect();
        assert_eq!(plugins.len(), 1);
        assert!(group(plugins[0]) > 0);
        broker.kill();
        until("the plugin's group is gone", || group(plugins[0]) == 0).await;
        until("the guard is gone", || !is_alive(guard)).await;
    }
}

#[tokio::test]
async fn killing_the_broker_leaves_what_successful_runs_left() {
    let mut broker = broker(2, &["hang"]);
    let left = [broker.number("left "), broker.number("left ")];
    let guard = broker.number("guard ");
    broker.line("hanging");
    broker.kill();
    until("the guard is gone", || !is_alive(guard)).await;
    for process in left {
        assert!(is_alive(process), "a browser was ended");
        end(process);
    }
}

#[tokio::test]
async fn a_broker_that_ends_in_peace_takes_its_guard_along() {
    let mut broker = broker(0, &["leave", "hang"]);
    let guard = broker.number("guard ");
    let left = broker.number("left ");
    broker.line("succeeded");
    assert!(broker.process.wait().unwrap().success());
    until("the guard is gone", || !is_alive(guard)).await;
    assert!(is_alive(left));
    end(left);
}

#[tokio::test]
async fn a_guard_that_was_killed_is_replaced_and_knows_the_runs() {
    use epithet_plugin::{Guard, ProgressSink, progress_channel};
    use std::sync::Arc;
    let guard = Arc::new(Guard::new(HOSTILE.into(), vec!["guard".into()]));
    guard.start().unwrap();
    let first = guard.process_id().unwrap();
    let hanging = support::hostile(&["hang"]);
    let cancel = tokio_util::sync::CancellationToken::new();
    let (sink, mut feed) = progress_channel();
    let run = tokio::spawn({
        let (runner, cancel) = (hanging.runner.clone().with_guard(guard.clone()), cancel.clone());
        async move {
            runner
                .run(&Default::default(), &Default::default(), sink, cancel)
                .await
        }
    });
    feed.next().await.unwrap();
    end(first);
    until("the guard is dead", || !is_alive(first)).await;

    let honest = support::hostile(&["honest", "token"])
        .runner
        .with_guard(guard.clone());
    let reply = honest
        .run(
            &Default::default(),
            &Default::default(),
            ProgressSink::discard(),
            Default::default(),
        )
        .await;
    reply.unwrap();
    let second = guard.process_id().unwrap();
    assert_ne!(first, second);
    assert!(!hanging.left().is_empty(), "replacing the guard ended a plugin");

    drop((honest, guard));
    cancel.cancel();
    until("the run is over", || run.is_finished()).await;
    until("the second guard is gone", || !is_alive(second)).await;
    hanging.assert_nothing_is_left();
}

#[tokio::test]
async fn a_guard_that_cannot_be_started_does_not_stop_a_login() {
    let guard = epithet_plugin::Guard::new("/no/such/program".into(), vec![]);
    let runner = support::hostile(&["honest", "token"])
        .runner
        .with_guard(guard.into());
    let outcome = runner
        .run(
            &Default::default(),
            &Default::default(),
            epithet_plugin::ProgressSink::discard(),
            Default::default(),
        )
        .await;
    assert_eq!(outcome.unwrap().token.expose(), b"token");
}
