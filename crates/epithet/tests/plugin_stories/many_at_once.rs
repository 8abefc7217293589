//! Many connections at once, and one login for all of them.

use crate::support::{FakeCa, Gate, Plugin, Stage, certificate, is_gone, output};
use epithet_testkit::{DEADLINE, Daemon, wait_until};
use rustix::process::{Pid, Signal, kill_process};
use std::time::Duration;

/// How many ssh are started together.
const CONNECTIONS: usize = 40;

/// A plugin that says that it is there and then waits for its gate.
fn gated(stage: &Stage) -> (Plugin, Gate) {
    let plugin = Plugin::write(
        &stage.home,
        r#"echo "please log in" >&4; read -r _ < "$folder/gate"; printf 'token-%s' "$run"; printf 's' >&3"#,
    );
    let gate = Gate::of(&plugin);
    (plugin, gate)
}

#[test]
fn forty_first_connections_cost_one_login() {
    let ca = FakeCa::start(|_| certificate());
    let stage = Stage::new(&ca.public_line());
    let (plugin, mut gate) = gated(&stage);
    let _broker = stage.broker(&ca.url(), plugin.command(), []);

    let mut logins: Vec<_> = (0..CONNECTIONS)
        .map(|n| stage.begin(&format!("127.0.0.{}", 1 + n % 10)))
        .collect();
    // Everybody hears what the plugin says, also those who came later.
    for login in &logins {
        login
            .stderr()
            .wait_for_line("please log in", DEADLINE)
            .expect("each waiting ssh is told");
    }
    gate.open();

    for login in &mut logins {
        assert!(
            login.wait(2 * DEADLINE).unwrap().success(),
            "{}",
            login.stderr().text()
        );
    }
    assert_eq!(plugin.runs(), 1);
}

/// Interrupts an ssh and what it runs, as Ctrl-C at its terminal does: `begin` gave it a session of its own.
fn interrupt(ssh: &Daemon) {
    let group = Pid::from_raw(i32::try_from(ssh.pid()).unwrap()).unwrap();
    rustix::process::kill_process_group(group, Signal::INT).unwrap();
}

#[test]
fn one_of_three_who_leaves_does_not_end_the_login_of_the_others_and_the_last_one_does() {
    let ca = FakeCa::start(|_| certificate());
    let stage = Stage::new(&ca.public_line());
    let (plugin, mut gate) = gated(&stage);
    let _broker = stage.broker(&ca.url(), plugin.command(), []);

    let mut waiting: Vec<_> = (1..=3).map(|n| stage.begin(&format!("127.0.0.{n}"))).collect();
    for login in &waiting {
        login
            .stderr()
            .wait_for_line("please log in", DEADLINE)
            .expect("each waiting ssh is told");
    }
    let mut first = waiting.remove(0);
    interrupt(&first);
    assert!(!first.wait(DEADLINE).unwrap().success());
    gate.open();
    for login in &mut waiting {
        assert!(
            login.wait(DEADLINE).unwrap().success(),
            "{}",
            login.stderr().text()
        );
    }
    assert_eq!(plugin.runs(), 1);
}

#[test]
fn when_the_last_one_leaves_the_plugin_is_ended_and_the_next_one_begins_anew() {
    let ca = FakeCa::start(|_| certificate());
    let stage = Stage::new(&ca.public_line());
    let (plugin, mut gate) = gated(&stage);
    let _broker = stage.broker(&ca.url(), plugin.command(), []);
    let mut waiting: Vec<_> = (1..=2).map(|n| stage.begin(&format!("127.0.0.{n}"))).collect();
    for login in &waiting {
        login
            .stderr()
            .wait_for_line("please log in", DEADLINE)
            .expect("each waiting ssh is told");
    }
    let said = waiting[0].stderr().text();
    assert!(
        said.contains("asked for by process") && said.contains("ssh -F"),
        "who asks is shown: {said}"
    );
    let group = plugin.group_of(1);
    for login in &mut waiting {
        interrupt(login);
        login.wait(DEADLINE).expect("an interrupted ssh ends");
    }
    wait_until(Duration::from_secs(3), || is_gone(group).then_some(()))
        .expect("the plugin's process group is gone");

    let mut again = Daemon::start("ssh", stage.ssh_in_terminal("127.0.0.1"), None);
    plugin.wait_for_run(2);
    gate.open();
    assert!(
        again.wait(DEADLINE).unwrap().success(),
        "{}",
        again.stdout().text()
    );
    assert!(plugin.stdin_of(2).is_empty(), "an ended run leaves no state");
}

#[test]
fn a_terminal_that_stopped_reading_holds_up_nobody_else() {
    let ca = FakeCa::start(|_| certificate());
    let stage = Stage::new(&ca.public_line());
    let plugin = Plugin::write(
        &stage.home,
        r#"i=0; while [ $i -lt 3000 ]; do echo "still here, line $i of many that nobody has to read" >&4; i=$((i+1)); done; printf tok"#,
    );
    let _broker = stage.broker(&ca.url(), plugin.command(), []);
    let stopped = stage.begin("127.0.0.1");
    plugin.wait_for_run(1);
    let pid = Pid::from_raw(i32::try_from(stopped.pid()).unwrap()).unwrap();
    kill_process(pid, Signal::STOP).unwrap();
    output(stage.log_in("127.0.0.2"));
    kill_process(pid, Signal::CONT).unwrap();
}
