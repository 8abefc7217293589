//! Signals, more of them than anybody would send.

use crate::rounds::repeat;
use crate::support::Story;
use epithet_testkit::{DEADLINE, Daemon};
use rustix::process::Signal;
use std::time::{Duration, Instant};

/// How long a broker may take to end. The promise is 3 s; a machine that is busy with other tests gets more.
const SOON: Duration = Duration::from_secs(10);

#[test]
fn a_storm_of_signals_ends_it_once_and_cleanly() {
    let story = Story::begin();
    story.laptop.knows(&story.sshd, &story.laptop.other_identity());
    repeat(
        "a storm of SIGTERM, SIGINT and SIGHUP while ssh log in: a clean end",
        |number| {
            let mut broker = story.broker();
            let hosts = ["127.0.0.1", "127.0.0.2", "127.0.0.3"];
            let mut sshs = hosts.map(|host| Daemon::start("ssh", story.laptop.ssh([host, "true"]), None));
            let began = Instant::now();
            let order = [Signal::TERM, Signal::INT, Signal::HUP];
            for turn in 0..60 {
                broker.daemon().signal(order[(number + turn) % order.len()]);
            }
            let status = broker.daemon().wait(DEADLINE).expect("it ends");
            let took = began.elapsed();
            assert_eq!(status.code(), Some(0), "{}", broker.log());
            assert!(took < SOON, "it took {took:?}");
            assert!(!broker.run_dir().exists(), "{} stays", broker.run_dir().display());
            for ssh in &mut sshs {
                assert!(
                    ssh.wait(DEADLINE).expect("ssh goes on").success(),
                    "{}",
                    ssh.stderr()
                );
            }
            Some(took)
        },
    );
}

#[test]
fn its_terminal_is_closed() {
    let story = Story::begin();
    repeat("the terminal it was started from is closed: a clean end", |_| {
        let run = story.laptop.home.join(".epithet/run/default");
        // Whoever runs the tests under `nohup` has SIGHUP ignored, and the broker then means to outlive its terminal.
        let line = format!(
            "exec env --default-signal=HUP '{}' agent --auth '{}' --match '127.0.0.*' --ca-url {}",
            story.laptop.program.display(),
            story.plugin,
            story.site.url()
        );
        let mut terminal = story.laptop.home.command("script");
        terminal
            .args(["-qefc", &line, "/dev/null"])
            .stdin(std::process::Stdio::piped());
        let mut terminal = Daemon::start("script", terminal, None);
        let ready = terminal.stdout().wait_for_line("ready: broker socket", DEADLINE);
        assert!(ready.is_some(), "{}", terminal.stdout());
        story.laptop.log_in("127.0.0.1");

        let began = Instant::now();
        terminal.kill();

        let gone = epithet_testkit::wait_until(DEADLINE, || (!run.exists()).then_some(()));
        assert!(gone.is_some(), "the broker goes on without its terminal");
        Some(began.elapsed())
    });
}
