//! However the broker ends, no plugin outlives it, ssh goes on, and what it made is gone or reclaimed.

use crate::support::{FakeCa, Gate, Plugin, Stage, certificate, is_gone, output};
use epithet_testkit::{DEADLINE, wait_until};
use rustix::process::Signal;
use std::time::{Duration, Instant};

/// How long a broker may take to end.
const ENDS_WITHIN: Duration = Duration::from_secs(3);
/// A plugin that waits for ever, together with somebody it started.
const WAITS: &str = "echo 'please wait' >&4; sleep 120 & read -r _ < \"$folder/gate\"";
/// The same, and neither listens to SIGTERM.
const STUBBORN: &str = "trap '' TERM; echo 'please wait' >&4; sleep 120 & read -r _ < \"$folder/gate\"";

#[test]
fn a_killed_broker_takes_its_plugin_with_it_and_the_next_one_serves() {
    for body in [WAITS, STUBBORN] {
        let ca = FakeCa::start(|_| certificate());
        let stage = Stage::new(&ca.public_line());
        stage.give_another_key();
        let plugin = Plugin::write(
            &stage.home,
            &format!("if [ \"$run\" = 1 ]; then {body}; fi; printf token"),
        );
        let _gate = Gate::of(&plugin);
        let broker = stage.broker(&ca.url(), plugin.command(), []);
        let run_dir = broker.run_dir().to_owned();
        let mut waiting = stage.begin("127.0.0.1");
        waiting.expect_line("please wait", DEADLINE);

        broker.kill();

        let status = waiting.wait(DEADLINE).expect("ssh does not wait for the dead");
        assert!(status.success(), "it has another key: {}", waiting.stderr());
        wait_until(DEADLINE, || is_gone(plugin.group_of(1)).then_some(()))
            .expect("the guard ends the plugin");
        // What is left behind costs the next ssh nothing, and the next broker takes it over.
        assert!(run_dir.join("ssh-config.conf").exists());
        output(stage.log_in("127.0.0.1"));
        assert_eq!(ca.asked().len(), 0);
        let _again = stage.broker(&ca.url(), plugin.command(), []);
        output(stage.log_in("127.0.0.1"));
        assert_eq!((plugin.runs(), ca.asked().len()), (2, 1));
    }
}

#[test]
fn a_broker_that_is_told_to_end_ends_its_plugin_and_removes_what_it_made() {
    for signal in [Signal::TERM, Signal::INT] {
        let ca = FakeCa::start(|_| certificate());
        let stage = Stage::new(&ca.public_line());
        stage.give_another_key();
        let plugin = Plugin::write(
            &stage.home,
            &format!("if [ \"$run\" = 2 ]; then {WAITS}; fi; printf 'token-%s' \"$run\""),
        );
        let _gate = Gate::of(&plugin);
        let mut broker = stage.broker(&ca.url(), plugin.command(), ["--token-reuse", "0s"]);
        let run_dir = broker.run_dir().to_owned();
        output(stage.log_in("127.0.0.1"));
        assert_eq!(std::fs::read_dir(run_dir.join("agent")).unwrap().count(), 1);
        let mut waiting = stage.begin("127.0.0.2");
        waiting.expect_line("please wait", DEADLINE);

        let told = Instant::now();
        broker.daemon().signal(signal);
        let status = broker.daemon().wait(DEADLINE).expect("it ends");
        let elapsed = told.elapsed();

        assert!(elapsed < ENDS_WITHIN, "{elapsed:?}");
        assert_eq!(status.code(), Some(0), "{}", broker.log());
        assert!(!run_dir.exists(), "{}", run_dir.display());
        assert!(is_gone(plugin.group_of(2)));
        let status = waiting.wait(DEADLINE).expect("ssh does not wait for the dead");
        assert!(status.success(), "it has another key: {}", waiting.stderr());
    }
}

#[test]
fn a_plugin_that_does_not_listen_cannot_keep_the_broker() {
    let ca = FakeCa::start(|_| certificate());
    let stage = Stage::new(&ca.public_line());
    let plugin = Plugin::write(&stage.home, STUBBORN);
    let _gate = Gate::of(&plugin);
    let mut broker = stage.broker(&ca.url(), plugin.command(), []);
    let run_dir = broker.run_dir().to_owned();
    let waiting = stage.begin("127.0.0.1");
    waiting.expect_line("please wait", DEADLINE);

    let told = Instant::now();
    broker.daemon().signal(Signal::TERM);
    broker.daemon().wait(DEADLINE).expect("it ends");
    let elapsed = told.elapsed();

    assert!(elapsed < ENDS_WITHIN, "{elapsed:?}");
    assert!(!run_dir.exists(), "{}", run_dir.display());
    wait_until(DEADLINE, || is_gone(plugin.group_of(1)).then_some(())).expect("the plugin is killed");
}
