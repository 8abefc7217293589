//! When the broker ends, however it ends, its plugin ends with it.

use crate::support::{FakeCa, Plugin, Stage, certificate, is_gone};
use epithet_testkit::{DEADLINE, wait_until};
use std::time::{Duration, Instant};

const WAITING: &str = r#"echo "please log in" >&4; sleep 1000"#;

#[test]
fn a_killed_broker_takes_its_plugin_with_it() {
    let ca = FakeCa::start(|_| certificate());
    let stage = Stage::new(&ca.public_line());
    let plugin = Plugin::write(&stage.home, WAITING);
    let broker = stage.broker(&ca.url(), plugin.command(), []);
    let mut login = stage.begin("127.0.0.1");
    login
        .stderr()
        .wait_for_line("please log in", DEADLINE)
        .expect("the plugin runs");
    let group = plugin.group_of(1);

    broker.kill();

    wait_until(Duration::from_secs(5), || is_gone(group).then_some(()))
        .expect("the plugin's process group is gone");
    assert!(
        !login
            .wait(DEADLINE)
            .expect("ssh goes on without the broker")
            .success()
    );
}

#[test]
fn a_terminated_broker_ends_its_plugin_and_removes_what_it_made_within_three_seconds() {
    let ca = FakeCa::start(|_| certificate());
    let stage = Stage::new(&ca.public_line());
    let plugin = Plugin::write(&stage.home, WAITING);
    let broker = stage.broker(&ca.url(), plugin.command(), []);
    let run_dir = broker.run_dir().to_owned();
    let login = stage.begin("127.0.0.1");
    login
        .stderr()
        .wait_for_line("please log in", DEADLINE)
        .expect("the plugin runs");
    let group = plugin.group_of(1);

    let begun = Instant::now();
    let status = broker.stop(DEADLINE).expect("it ends");
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    assert!(status.success());
    assert!(
        !run_dir.exists(),
        "sockets, lock and the generated configuration are gone"
    );
    wait_until(Duration::from_secs(3), || is_gone(group).then_some(()))
        .expect("the plugin's process group is gone");
}
