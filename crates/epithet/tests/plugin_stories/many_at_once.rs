//! Many who wait for one login: it runs once, everybody hears it, nobody's leaving harms the others.

use crate::support::{FakeCa, Gate, Plugin, Stage, certificate, is_gone};
use epithet_testkit::{DEADLINE, Daemon, wait_until};
use rustix::process::{Pid, Signal, kill_process_group};
use std::io::Write as _;
use std::process::Stdio;
use std::time::{Duration, Instant};

/// What a plugin says and then waits for the gate.
const ASKS: &str = "printf 'please look at \\033[31myour telephone\\n' >&4; read -r _ < \"$folder/gate\"";
/// What a person reads of it.
const ASKED: &str = "your telephone";
/// How long the last person's leaving may take to end the plugin.
const ENDS_WITHIN: Duration = Duration::from_secs(3);

/// A plugin that asks for something and waits, then succeeds.
fn asking_plugin(stage: &Stage) -> (Plugin, Gate) {
    let plugin = Plugin::write(
        &stage.home,
        &format!("{ASKS}; printf 'token-%s' \"$run\"; printf state >&3"),
    );
    let gate = Gate::of(&plugin);
    (plugin, gate)
}

/// `ssh` in a terminal with a keyboard.
fn at_a_terminal(stage: &Stage, host: &str) -> Daemon {
    let mut command = stage.ssh_in_terminal(host);
    command.stdin(Stdio::piped());
    Daemon::start("ssh", command, None)
}

#[track_caller]
fn wait_until_asked(screen: &epithet_testkit::Log) {
    let line = screen.wait_for_line(ASKED, DEADLINE);
    let line = line.unwrap_or_else(|| panic!("nobody was asked: {screen}"));
    assert!(
        !line.contains('\x1b'),
        "the plugin's words are not harmless: {line:?}"
    );
}

#[test]
fn forty_first_connections_at_once_are_one_run_and_forty_logins() {
    let ca = FakeCa::start(|_| certificate());
    let stage = Stage::new(&ca.public_line());
    let (plugin, mut gate) = asking_plugin(&stage);
    let broker = stage.broker(&ca.url(), plugin.command(), []);
    // Ten hosts, and four ssh to each of them.
    let mut waiting: Vec<Daemon> = (0..40)
        .map(|number| stage.begin(&format!("127.0.0.{}", number % 10 + 1)))
        .collect();
    for ssh in &waiting {
        let asked = ssh.stderr().wait_for_line(ASKED, DEADLINE);
        assert!(
            asked.is_some(),
            "nobody was asked: {}\n{}",
            ssh.stderr(),
            broker.log()
        );
    }

    gate.open();

    for ssh in &mut waiting {
        let status = ssh.wait(DEADLINE).expect("ssh ends");
        assert!(status.success(), "{}\n{}", ssh.stderr(), broker.log());
        assert_eq!(ssh.stdout().wait_for_end(DEADLINE).unwrap(), "logged in\n");
    }
    assert_eq!(plugin.runs(), 1);
    let all = || (stage.sshd.log().matches("Accepted publickey").count() == 40).then_some(());
    wait_until(DEADLINE, all).expect("sshd logs forty logins");
    let mut hosts: Vec<String> = ca.asked().into_iter().map(|asked| asked.host).collect();
    hosts.sort();
    hosts.dedup();
    assert_eq!(
        (hosts.len(), ca.asked().len()),
        (10, 10),
        "one certificate a connection"
    );
}

#[test]
fn who_comes_late_reads_what_was_said_so_far() {
    let ca = FakeCa::start(|_| certificate());
    let stage = Stage::new(&ca.public_line());
    let (plugin, mut gate) = asking_plugin(&stage);
    let _broker = stage.broker(&ca.url(), plugin.command(), []);
    let mut first = stage.begin("127.0.0.1");
    wait_until_asked(first.stderr());

    let mut late = stage.begin("127.0.0.2");
    wait_until_asked(late.stderr());

    let text = late.stderr().text();
    assert!(
        text.contains("epithet: logging in to reach 127.0.0.1 as"),
        "{text}"
    );
    assert!(text.contains("(asked for by process "), "{text}");
    gate.open();
    for ssh in [&mut first, &mut late] {
        assert!(ssh.wait(DEADLINE).unwrap().success(), "{}", ssh.stderr());
    }
    assert_eq!(plugin.runs(), 1);
}

#[test]
fn ctrl_c_in_one_of_three_terminals_leaves_the_others_served() {
    let ca = FakeCa::start(|_| certificate());
    let stage = Stage::new(&ca.public_line());
    let (plugin, mut gate) = asking_plugin(&stage);
    let _broker = stage.broker(&ca.url(), plugin.command(), []);
    let mut terminals: Vec<Daemon> = ["127.0.0.1", "127.0.0.1", "127.0.0.2"]
        .map(|host| at_a_terminal(&stage, host))
        .into();
    for terminal in &terminals {
        wait_until_asked(terminal.stdout());
    }
    let mut given_up = terminals.remove(0);

    given_up.take_stdin().unwrap().write_all(b"\x03").unwrap();

    let status = given_up.wait(DEADLINE).expect("Ctrl-C ends ssh");
    assert!(!status.success(), "{}", given_up.stdout());
    assert!(!is_gone(plugin.group_of(1)), "two still wait");
    gate.open();
    for terminal in &mut terminals {
        // As a terminal does when its window is closed; `script` reads until then.
        drop(terminal.take_stdin());
        let status = terminal.wait(DEADLINE).expect("ssh ends");
        assert!(status.success(), "{}", terminal.stdout());
    }
    assert_eq!(plugin.runs(), 1);
}

#[test]
fn the_last_one_to_leave_ends_the_plugin_with_everything_it_started() {
    let ca = FakeCa::start(|_| certificate());
    let stage = Stage::new(&ca.public_line());
    let plugin = Plugin::write(&stage.home, &format!("sleep 120 & {ASKS}"));
    let _gate = Gate::of(&plugin);
    let broker = stage.broker(&ca.url(), plugin.command(), []);
    let mut waiting: Vec<Daemon> = ["127.0.0.1", "127.0.0.2", "127.0.0.3"]
        .map(|host| stage.begin(host))
        .into();
    for ssh in &waiting {
        wait_until_asked(ssh.stderr());
    }
    let group = plugin.group_of(1);
    for ssh in &mut waiting {
        assert!(!is_gone(group), "somebody still waits");
        // Each leads a group of its own, as a job of a shell does; its `match` is in it.
        let pid = i32::try_from(ssh.pid()).ok().and_then(Pid::from_raw).unwrap();
        kill_process_group(pid, Signal::INT).unwrap();
        ssh.wait(DEADLINE).expect("Ctrl-C ends ssh");
    }
    let left = Instant::now();
    wait_until(DEADLINE, || is_gone(group).then_some(())).expect("the plugin ends");
    assert!(left.elapsed() < ENDS_WITHIN, "{:?}", left.elapsed());

    // Giving up is no harm: the next one is asked again.
    let mut again = at_a_terminal(&stage, "127.0.0.1");
    wait_until_asked(again.stdout());
    assert_eq!(plugin.runs(), 2);
    again.take_stdin().unwrap().write_all(b"\x03").unwrap();
    again.wait(DEADLINE).expect("Ctrl-C ends ssh");
    wait_until(DEADLINE, || is_gone(plugin.group_of(2)).then_some(())).expect("the plugin ends");
    assert_eq!(stage.inspect(&broker)["login"]["logins"], 0);
}

#[test]
fn a_terminal_that_stopped_reading_holds_up_nobody() {
    let ca = FakeCa::start(|_| certificate());
    let stage = Stage::new(&ca.public_line());
    // Says far more than a pipe holds.
    let plugin = Plugin::write(
        &stage.home,
        "i=0; while [ $i -lt 3000 ]; do echo \"$i: still waiting for your telephone, please look at it\" >&4; \
         i=$((i + 1)); done; read -r _ < \"$folder/gate\"; printf token",
    );
    let mut gate = Gate::of(&plugin);
    let _broker = stage.broker(&ca.url(), plugin.command(), []);
    let mut deaf = stage.ssh("127.0.0.1");
    // Nobody reads this pipe.
    deaf.stdout(Stdio::null()).stderr(Stdio::piped());
    let mut deaf = deaf.spawn().unwrap();
    plugin.wait_for_run(1);
    let mut other = stage.begin("127.0.0.2");
    let last = other.stderr().wait_for_line("2999: still waiting", DEADLINE);
    assert!(last.is_some(), "{}", other.stderr());
    gate.open();
    assert!(other.wait(DEADLINE).unwrap().success(), "{}", other.stderr());
    drop(deaf.stderr.take());
    wait_until(DEADLINE, || deaf.try_wait().unwrap()).expect("ssh ends");
}

#[test]
fn those_who_waited_share_a_failure_as_well() {
    let ca = FakeCa::start(|_| certificate());
    let stage = Stage::new(&ca.public_line());
    stage.give_another_key();
    let plugin = Plugin::write(&stage.home, &format!("{ASKS}; echo 'you said no' >&2; exit 1"));
    let mut gate = Gate::of(&plugin);
    let _broker = stage.broker(&ca.url(), plugin.command(), []);
    let waiting: Vec<Daemon> = ["127.0.0.1", "127.0.0.2", "127.0.0.3"]
        .map(|host| stage.begin(host))
        .into();
    for ssh in &waiting {
        wait_until_asked(ssh.stderr());
    }
    gate.open();
    for mut ssh in waiting {
        assert!(ssh.wait(DEADLINE).unwrap().success(), "{}", ssh.stderr());
        let said = ssh.stderr().wait_for_end(DEADLINE).unwrap();
        assert!(said.contains("it said: you said no"), "{said}");
    }
    assert_eq!(plugin.runs(), 1);
}
