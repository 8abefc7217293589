//! The broker is killed, as the kernel does it when memory runs out.

use crate::laptop::start;
use crate::rounds::repeat;
use crate::support::{Story, wait_for_path};
use epithet_testkit::{Broker, DEADLINE, Daemon, plugin_script, wait_until};
use std::io::ErrorKind;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long a killed broker's plugin may live on, and how long the next broker may take to serve. The promises are 5 s
/// and 2 s; a machine that is busy with other tests gets more.
const SOON: Duration = Duration::from_secs(15);

/// Whether a process runs.
fn runs(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
    let state = stat.rsplit_once(") ").map_or("", |(_, after)| after);
    !state.is_empty() && !state.starts_with('Z')
}

/// Starts a broker again and says how long it took until it served.
fn again(story: &Story) -> (Broker, Duration) {
    let began = Instant::now();
    let broker = story.broker();
    (broker, began.elapsed())
}

#[test]
fn killed_while_somebody_logs_in() {
    let story = Story::begin();
    story.laptop.knows(&story.sshd, &story.laptop.other_identity());
    let home = &story.laptop.home;
    let pids = home.join("pids");
    let script = format!(
        "#!/bin/sh\nsleep 600 & echo $$ $! > '{0}.new'; mv '{0}.new' '{0}'\nwait\n",
        pids.display()
    );
    let waits = plugin_script(home.path(), "waits", &script).display().to_string();
    repeat(
        "kill -9 while the plugin waits: it is ended, ssh goes on, the next broker serves",
        |_| {
            let _ = std::fs::remove_file(&pids);
            let mut command = story.laptop.agent(story.site.url(), &waits);
            command.args(["--match", "127.0.0.*"]);
            let broker = start(command);
            let mut ssh = Daemon::start("ssh", story.laptop.ssh(["127.0.0.1", "echo logged in"]), None);
            wait_for_path(&pids);
            let processes = std::fs::read_to_string(&pids).expect("the plugin wrote it");

            broker.kill();

            let killed = Instant::now();
            let gone = wait_until(SOON, || (!processes.split_whitespace().any(runs)).then_some(()));
            assert!(gone.is_some(), "the plugin's processes live on: {processes}");
            let took = killed.elapsed();
            let status = ssh.wait(DEADLINE).expect("ssh does not wait for the dead");
            assert!(status.success(), "it has another key: {}", ssh.stderr());
            let (broker, started) = again(&story);
            assert!(started < SOON, "the next broker took {started:?}");
            story.laptop.log_in("127.0.0.1");
            broker.stop(DEADLINE);
            Some(took)
        },
    );
}

#[test]
fn killed_with_live_agents() {
    let story = Story::begin();
    story.laptop.knows(&story.sshd, &story.laptop.other_identity());
    let mut broker = story.broker();
    repeat(
        "kill -9 with live agents: ssh is refused at once, the next broker takes over",
        |_| {
            let position = story.sshd.log_position();
            story.laptop.log_in("127.0.0.1");
            assert!(story.accepted(position).contains("ID alice@example.com"));
            let agents = broker.run_dir().join("agent");
            let left = only_entry(&agents);
            broker.daemon().kill();

            let refused = UnixStream::connect(&left).expect_err("nobody listens there");
            assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
            let began = Instant::now();
            story.laptop.log_in("127.0.0.1");
            assert!(began.elapsed() < SOON, "ssh took {:?}", began.elapsed());

            let (next, started) = again(&story);
            assert!(started < SOON, "the next broker took {started:?}");
            broker = next;
            assert!(!left.exists(), "a dead agent's socket stays");
            let position = story.sshd.log_position();
            story.laptop.log_in("127.0.0.1");
            assert!(story.accepted(position).contains("ID alice@example.com"));
            Some(started)
        },
    );
}

fn only_entry(folder: &Path) -> std::path::PathBuf {
    let mut entries = std::fs::read_dir(folder).expect("the broker made it");
    let entry = entries.next().expect("an agent").expect("a name").path();
    assert!(entries.next().is_none(), "one agent");
    entry
}
