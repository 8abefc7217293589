//! When the broker is not there, or not well: ssh to everything else is as ever, and to our hosts it is as without us.

use crate::laptop::Laptop;
use crate::support::{Story, lines, wait_for_path};
use epithet_testkit::{DEADLINE, Finished};
use rustix::process::Signal;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// What ssh may lose when nobody answers.
const AT_ONCE: Duration = Duration::from_millis(100);
/// Tries on a machine that is busy with other things: the quickest is what the program itself needs.
const TRIES: usize = 8;

const SMALL: &str = env!("CARGO_BIN_EXE_epithet-match");

/// The question that ssh asks, by the program and first words that ask it.
fn ask(command: &Command, broker: &Path) -> Finished {
    let mut asking = Command::new(command.get_program());
    asking.args(command.get_args());
    asking.args(["--host", "web.example.com", "--port", "22", "--user", "root"]);
    asking.args(["--hash", &"a".repeat(40), "--broker"]).arg(broker);
    Finished::of(asking, DEADLINE)
}

#[test]
fn match_without_a_broker_says_no_at_once_and_nothing_else() {
    let laptop = Laptop::new();
    let nobody = laptop.home.join("nobody.sock");
    // A socket on which nobody listens any more, as a killed broker leaves it.
    let left_behind = laptop.home.join("left.sock");
    drop(std::os::unix::net::UnixListener::bind(&left_behind).unwrap());
    let no_socket = laptop.home.write("file", "");
    let too_long = laptop.home.join("x".repeat(200));
    let big = || {
        let mut command = laptop.epithet();
        command.arg("match");
        command
    };
    for socket in [&nobody, &left_behind, &no_socket, &too_long] {
        for mut command in [Command::new(SMALL), big()] {
            let tries: Vec<_> = (0..TRIES).map(|_| ask(&command, socket)).collect();
            for finished in &tries {
                assert_eq!(finished.code(), Some(1), "{socket:?}: {finished:?}");
                assert_eq!(
                    (finished.stdout.as_str(), finished.stderr.as_str()),
                    ("", ""),
                    "{socket:?}"
                );
            }
            let quickest = tries.iter().map(|finished| finished.elapsed).min().unwrap();
            assert!(quickest < AT_ONCE, "{command:?} took {quickest:?}");

            command.arg("-v");
            let finished = ask(&command, socket);
            assert_eq!(finished.code(), Some(1));
            assert_eq!(
                finished.stderr.lines().count(),
                1,
                "one line with -v: {}",
                finished.stderr
            );
            assert!(finished.stderr.contains("epithet agent"), "{}", finished.stderr);
        }
    }
}

/// Gives the person another key and a host that is not ours; returns the broker's extra arguments.
fn with_another_key(story: &Story) -> [&'static str; 2] {
    story.laptop.knows(&story.sshd, &story.laptop.other_identity());
    ["--match", "127.0.0.1"]
}

/// Logs in with the other key, and returns what was said.
#[track_caller]
fn with_the_other_key(story: &Story, host: &str) -> String {
    let position = story.sshd.log_position();
    let said = story.laptop.log_in(host);
    let accepted = story.accepted(position);
    assert!(
        accepted.contains(&story.laptop.other_key.fingerprint()),
        "{accepted}"
    );
    said
}

#[test]
fn after_a_stopped_broker_nothing_reminds_ssh_of_it() {
    let story = Story::begin();
    let broker = story.broker_with(with_another_key(&story));
    story.laptop.log_in("127.0.0.1");
    assert!(story.accepted(0).contains("ID alice@example.com"));
    broker.stop(DEADLINE);

    for host in ["127.0.0.1", "127.0.0.2"] {
        let said = with_the_other_key(&story, host);
        assert!(!said.contains("epithet"), "{said}");
    }
}

#[test]
fn a_killed_broker_costs_other_hosts_nothing_and_its_own_only_the_certificate_until_the_next_one_takes_over()
{
    let mut story = Story::begin();
    let matches = story.watch_matches();
    let arguments = with_another_key(&story);
    let broker = story.broker_with(arguments);
    story.laptop.log_in("127.0.0.1");
    let run_dir = broker.run_dir().to_owned();
    broker.kill();
    for left in ["ssh-config.conf", "broker.sock", "agent", "lock"] {
        assert!(run_dir.join(left).exists(), "a killed broker leaves {left}");
    }

    let asked = lines(&matches).len();
    let said = with_the_other_key(&story, "127.0.0.2");
    assert!(!said.contains("epithet"), "{said}");
    assert_eq!(
        lines(&matches).len(),
        asked,
        "another host is not even asked about"
    );
    let said = with_the_other_key(&story, "127.0.0.1");
    assert!(!said.contains("epithet"), "{said}");
    assert_eq!(lines(&matches).len(), asked + 1);

    let position = story.sshd.log_position();
    let broker = story.broker_with(arguments);
    let left = std::fs::read_dir(run_dir.join("agent")).unwrap().count();
    assert_eq!(
        left, 0,
        "the sockets of the killed broker's agents are cleared away"
    );
    story.laptop.log_in("127.0.0.1");
    assert!(story.accepted(position).contains("ID alice@example.com"));
    broker.stop(DEADLINE);
    assert!(!run_dir.exists());
}

#[test]
fn a_broker_that_hangs_costs_other_hosts_nothing_and_its_own_a_few_seconds_and_a_line() {
    let mut story = Story::begin();
    let matches = story.watch_matches();
    let mut broker = story.broker_with(with_another_key(&story));
    broker.daemon().signal(Signal::STOP);

    let said = with_the_other_key(&story, "127.0.0.2");
    assert!(!said.contains("epithet"), "{said}");
    assert_eq!(lines(&matches), [""; 0]);
    let said = with_the_other_key(&story, "127.0.0.1");
    assert!(
        said.contains("the broker does not answer; ssh goes on without Epithet"),
        "{said}"
    );

    broker.daemon().signal(Signal::CONT);
    wait_for_path(broker.socket());
    let position = story.sshd.log_position();
    let said = story.laptop.log_in("127.0.0.1");
    let accepted = story.accepted(position);
    assert!(
        accepted.contains("ID alice@example.com"),
        "{accepted}\n{said}\n{}",
        broker.log()
    );
    assert_eq!(
        story.plugin_runs(),
        1,
        "nothing was begun for the ssh that had gone"
    );
}
