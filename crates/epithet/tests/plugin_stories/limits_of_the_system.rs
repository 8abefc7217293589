//! A broker in a narrow place: few descriptors, little memory to lock, a terminal that goes away, a process that is
//! stopped. It goes on with what it has, and says what it lacks.

use crate::support::{FakeCa, Gate, Plugin, Stage, certificate, is_gone, output, start};
use epithet_testkit::{Broker, DEADLINE, TestUser, wait_until};
use rustix::process::Signal;
use std::process::Command;
use std::time::{Duration, Instant};

/// Starts a broker in a shell that first does something else, as `ulimit`, and then becomes `wrapper` and the broker.
fn start_after(before: &str, agent: &Command) -> Broker {
    let mut command = Command::new("/bin/sh");
    command.arg("-c").arg(format!("{before} \"$0\" \"$@\""));
    command.arg(agent.get_program()).args(agent.get_args());
    command.env_clear();
    command.envs(agent.get_envs().filter_map(|(name, value)| Some((name, value?))));
    if let Some(directory) = agent.get_current_dir() {
        command.current_dir(directory);
    }
    start(command)
}

#[test]
fn with_sixty_four_descriptors_agents_leave_enough_for_logins_and_requests() {
    let ca = FakeCa::start(|_| certificate());
    let stage = Stage::new(&ca.public_line());
    let plugin = Plugin::counting(&stage.home);
    let agent = stage.agent(&ca.url(), plugin.command(), ["--token-reuse", "0s"]);
    let broker = start_after("ulimit -n 64; exec", &agent);
    output(stage.log_in("127.0.0.1"));
    let (mut served, mut refused) = (1, 0);
    for last in 1..=60 {
        let finished = stage.ask(&broker, &format!("127.0.0.{last}"));
        match finished.code() {
            Some(0) => served += 1,
            _ => {
                assert!(finished.stderr.contains("raise `ulimit -n`"), "{finished:?}");
                refused += 1;
            }
        }
    }
    assert!(served >= 4 && refused > 0, "{served} served, {refused} refused");
    // With every agent that there may be, a login still works, and so does what is there.
    let runs = plugin.runs();
    let login = stage.epithet_login_from_terminal(&broker);
    assert!(login.status.success(), "{login:?}");
    assert_eq!(plugin.runs(), runs + 1);
    assert_eq!(
        stage.inspect(&broker)["agents"].as_array().map(Vec::len),
        Some(served)
    );
    output(stage.log_in("127.0.0.1"));
}

#[test]
fn a_plugin_has_the_limit_of_open_files_that_the_broker_was_started_with() {
    let ca = FakeCa::start(|_| certificate());
    let stage = Stage::new(&ca.public_line());
    let plugin = Plugin::write(
        &stage.home,
        r#"ulimit -Sn > "$folder/soft"; ulimit -Hn > "$folder/hard"; printf token"#,
    );
    let agent = stage.agent(&ca.url(), plugin.command(), []);
    let broker = start_after("ulimit -Sn 200; ulimit -Hn 2048; exec", &agent);
    output(stage.log_in("127.0.0.1"));
    let limit = |name: &str| std::fs::read_to_string(stage.home.join(format!("plugin/{name}"))).unwrap();
    assert_eq!((limit("soft").trim(), limit("hard").trim()), ("200", "2048"));
    // The broker itself has raised its own.
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", stage.inspect(&broker)["pid"])).unwrap();
    let open_files = limits
        .lines()
        .find(|line| line.starts_with("Max open files"))
        .unwrap();
    let words: Vec<_> = open_files.split_whitespace().collect();
    assert_eq!(words[3..5], ["2048", "2048"], "{open_files}");
}

#[test]
fn secrets_are_locked_in_memory_as_far_as_the_limit_goes_and_inspect_says_how_far() {
    let user = TestUser::ordinary().unwrap_or_else(TestUser::current);
    let ca = FakeCa::start(|_| certificate());
    let stage = Stage::of(&user, &ca.public_line());
    let large = 1024 * 1024;
    let plugin = Plugin::write(
        &stage.home,
        &format!("printf token; [ \"$run\" = 1 ] && printf state >&3 || head -c {large} /dev/zero >&3"),
    );
    let agent = stage.agent(&ca.url(), plugin.command(), ["--token-reuse", "0s"]);
    let broker = start_after("ulimit -l 256; exec", &agent);
    let memory = || {
        let inspection = stage.inspect(&broker);
        let number = |name: &str| inspection["memory"][name].as_u64().expect("a number");
        (number("heldBytes"), number("lockedBytes"))
    };
    assert_eq!(memory(), (0, 0));

    stage.ask(&broker, "127.0.0.1").success();
    let small = "token".len() as u64 + "state".len() as u64;
    assert_eq!(memory(), (small, small));

    stage.ask(&broker, "127.0.0.2").success();
    let (held, locked) = memory();
    assert_eq!(held, large + 5);
    assert!(0 < locked && locked < held, "{locked} of {held}");
    let socket = broker.socket().display().to_string();
    let page = epithet_testkit::Finished::of(stage.epithet(["inspect", "--broker", &socket]), DEADLINE);
    assert!(page.stdout.contains("Memory: partly locked ("), "{page:?}");

    // What is forgotten is given back.
    epithet_testkit::Finished::of(stage.epithet(["logout", "--broker", &socket]), DEADLINE).success();
    wait_until(DEADLINE, || (memory() == (0, 0)).then_some(())).expect("nothing is held after a logout");
}

#[test]
fn nohup_keeps_a_broker_when_its_terminal_goes() {
    let ca = FakeCa::start(|_| certificate());
    let stage = Stage::new(&ca.public_line());
    let plugin = Plugin::counting(&stage.home);
    let mut broker = start_after("exec nohup", &stage.agent(&ca.url(), plugin.command(), []));
    broker.daemon().signal(Signal::HUP);
    // The signal came before the question.
    output(stage.log_in("127.0.0.1"));
    assert!(broker.daemon().try_status().is_none());
    let run_dir = broker.run_dir().to_owned();
    assert_eq!(broker.stop(DEADLINE).and_then(|status| status.code()), Some(0));
    assert!(!run_dir.exists());
}

#[test]
fn a_stopped_broker_does_not_hold_whoever_reads_the_stderr_of_ssh() {
    let ca = FakeCa::start(|_| certificate());
    let stage = Stage::new(&ca.public_line());
    stage.give_another_key();
    let plugin = Plugin::counting(&stage.home);
    let mut broker = stage.broker(&ca.url(), plugin.command(), []);
    broker.daemon().signal(Signal::STOP);

    // Its stderr is a pipe, which is read to its end: until nobody has the other one any more.
    let ssh = Command::new("/bin/sh")
        .arg("-c")
        .arg("words=$(\"$0\" \"$@\" 2>&1 >/dev/null </dev/null); printf '%s' \"$words\"")
        .arg("timeout")
        .arg("60")
        .args(stage.ssh("127.0.0.1").get_args())
        .env_clear()
        .envs(
            stage
                .ssh("127.0.0.1")
                .get_envs()
                .filter_map(|(name, value)| Some((name, value?))),
        )
        .output();
    let words = String::from_utf8(ssh.expect("a shell").stdout).expect("text");

    broker.daemon().signal(Signal::CONT);
    assert!(words.contains("the broker does not answer"), "{words}");
    output(stage.log_in("127.0.0.2"));
}

#[test]
fn a_second_sigterm_hurries_a_broker_and_still_leaves_nothing_behind() {
    let ca = FakeCa::start(|_| certificate());
    let stage = Stage::new(&ca.public_line());
    let plugin = Plugin::write(
        &stage.home,
        "trap '' TERM; echo 'please wait' >&4; sleep 120 & read -r _ < \"$folder/gate\"",
    );
    let _gate = Gate::of(&plugin);
    let mut broker = stage.broker(&ca.url(), plugin.command(), []);
    let run_dir = broker.run_dir().to_owned();
    let waiting = stage.begin("127.0.0.1");
    waiting.expect_line("please wait", DEADLINE);

    broker.daemon().signal(Signal::TERM);
    // What is tested is a person who loses patience: a second signal later than a second after the first.
    let told = Instant::now();
    while told.elapsed() < Duration::from_millis(1100) {
        std::thread::sleep(Duration::from_millis(20));
    }
    broker.daemon().signal(Signal::TERM);

    broker.daemon().wait(DEADLINE).expect("it ends");
    assert!(!run_dir.exists(), "{}", run_dir.display());
    wait_until(DEADLINE, || is_gone(plugin.group_of(1)).then_some(())).expect("the plugin is killed");
}
