//! Clocks that are wrong, stand still, or go on while the machine sleeps.
//!
//! Whatever a clock does: no certificate serves longer than the ten minutes it may have, its end comes even when the calendar
//! has been set back, and as soon as the clock is right, so are logins.

use crate::laptop::start;
use crate::networks::{BOUNDED, with_a_certificate_at};
use crate::rounds::repeat;
use crate::set_clock::{SetClock, unix_now};
use crate::support::Story;
use epithet_ssh::UserCertificate;
use epithet_testkit::{Broker, DEADLINE, Finished, wait_until};
use rustix::process::Signal;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

/// The most that a certificate may have left.
const LIFE_MAX: u64 = 600;
/// Longer than a certificate of the story lives, which is five minutes.
const LONG_SLEEP: i64 = 400;
const HOUR: i64 = 3600;
const YEAR: i64 = 365 * 24 * HOUR;

const AHEAD: &str = "is the clock right?";
const BEHIND: &str = "is this machine's clock behind the CA's?";

struct Scene {
    story: Story,
    clock: SetClock,
    broker: Broker,
}

impl Scene {
    fn begin() -> Self {
        let story = Story::begin();
        story.laptop.knows(&story.sshd, &story.laptop.other_identity());
        let clock = SetClock::new(&story.laptop.home);
        let mut command = story.laptop.agent(story.site.url(), &story.plugin);
        command.args(["--match", "127.0.0.*"]);
        clock.rule(&mut command);
        let broker = start(command);
        Self { story, clock, broker }
    }

    fn agent_of(&self, host: &str) -> PathBuf {
        let inspection = self.story.laptop.inspect(&self.broker);
        let agents = inspection["agents"].as_array().expect("a list of agents");
        let agent = agents.iter().find(|agent| agent["remoteHost"] == host);
        let path = agent.expect("it has an agent")["socketPath"].as_str();
        path.expect("every agent has a socket").into()
    }

    /// Whether the agent offers a certificate.
    fn is_offered(&self, agent: &Path) -> bool {
        let mut list = Command::new("ssh-add");
        list.arg("-L").env("SSH_AUTH_SOCK", agent);
        Finished::of(list, DEADLINE)
            .stdout
            .contains("-cert-v01@openssh.com")
    }

    /// ssh goes on with its other key, and is told why.
    #[track_caller]
    fn refused(&self, host: &str, words: &str) {
        let (position, began) = (self.story.sshd.log_position(), Instant::now());
        let said = self.story.laptop.log_in(host);
        assert!(
            began.elapsed() < BOUNDED,
            "ssh took {:?}: {said}",
            began.elapsed()
        );
        let accepted = self.story.accepted(position);
        assert!(
            accepted.contains(&self.story.laptop.other_key.fingerprint()),
            "{accepted}{said}"
        );
        assert!(said.contains(words), "{said}");
    }

    /// Logs in with a certificate, by the second attempt at the latest. Nobody has one that lives too long.
    #[track_caller]
    fn works_again(&self, host: &str) {
        let attempts = (1..=2).find(|_| {
            let position = self.story.sshd.log_position();
            self.story.laptop.log_in(host);
            self.story.accepted(position).contains("ID alice@example.com")
        });
        assert!(
            attempts.is_some(),
            "not with the second attempt either: {}",
            self.broker.log()
        );
        self.lives_are_short();
    }

    #[track_caller]
    fn lives_are_short(&self) {
        let inspection = self.story.laptop.inspect(&self.broker);
        let agents = inspection["agents"].as_array().expect("a list of agents");
        for agent in agents {
            let line = agent["certificate"].as_str().unwrap_or_default();
            if line.is_empty() {
                continue;
            }
            let certificate = UserCertificate::parse(line.trim()).expect("a certificate");
            let left = certificate.valid_before().saturating_sub(unix_now());
            assert!(left <= LIFE_MAX, "{agent} has {left} s left");
        }
    }
}

/// A calendar that is too far ahead for any certificate of the CA's.
fn the_calendar_is_ahead(name: &str, seconds: i64) {
    let scene = Scene::begin();
    repeat(name, |_| {
        with_a_certificate_at(&scene.story, "127.0.0.1");
        let agent = scene.agent_of("127.0.0.1");
        assert!(scene.is_offered(&agent));

        scene.clock.set_calendar(seconds);
        assert!(!scene.is_offered(&agent), "it has ended by the calendar");
        scene.refused("127.0.0.1", AHEAD);
        scene.refused("127.0.0.2", AHEAD);

        scene.clock.set_right();
        scene.works_again("127.0.0.2");
        scene.works_again("127.0.0.1");
        None
    });
}

#[test]
fn the_calendar_is_an_hour_ahead() {
    the_calendar_is_ahead(
        "the calendar jumps an hour ahead, and back: a word, the other key, and then it works",
        HOUR,
    );
}

#[test]
fn the_calendar_is_a_year_ahead() {
    the_calendar_is_ahead(
        "the calendar jumps a year ahead, and back: a word, the other key, and then it works",
        YEAR,
    );
}

#[test]
fn the_calendar_is_an_hour_behind() {
    let mut scene = Scene::begin();
    repeat(
        "the calendar jumps an hour back: nothing lives longer, a word, and then it works",
        |_| {
            with_a_certificate_at(&scene.story, "127.0.0.1");
            let agent = scene.agent_of("127.0.0.1");

            scene.clock.set_calendar(-HOUR);
            with_a_certificate_at(&scene.story, "127.0.0.1");
            scene.clock.sleep(LONG_SLEEP);
            assert!(
                !scene.is_offered(&agent),
                "the calendar that was set back keeps it alive"
            );
            scene.refused("127.0.0.1", BEHIND);
            scene.refused("127.0.0.2", BEHIND);

            scene.clock.set_right();
            scene.works_again("127.0.0.2");
            scene.works_again("127.0.0.1");
            None
        },
    );
}

#[test]
fn the_calendar_stands_still() {
    let mut scene = Scene::begin();
    repeat(
        "the calendar stands still: agents end all the same, and logins go on",
        |_| {
            with_a_certificate_at(&scene.story, "127.0.0.1");
            let agent = scene.agent_of("127.0.0.1");

            scene.clock.stop_calendar();
            assert!(scene.is_offered(&agent));
            scene.clock.sleep(LONG_SLEEP);
            assert!(
                !scene.is_offered(&agent),
                "the calendar that stands still keeps it alive"
            );
            scene.works_again("127.0.0.1");

            scene.clock.set_right();
            scene.works_again("127.0.0.2");
            None
        },
    );
}

#[test]
fn the_machine_sleeps() {
    let mut scene = Scene::begin();
    repeat(
        "the machine sleeps: a nap ends nothing, a night ends every agent, and then it works",
        |_| {
            with_a_certificate_at(&scene.story, "127.0.0.1");
            let agent = scene.agent_of("127.0.0.1");
            let runs = scene.story.plugin_runs();

            scene.clock.sleep(100);
            assert!(
                scene.is_offered(&agent),
                "it has more than three minutes left: {}",
                scene.broker.log()
            );
            scene.clock.sleep(8 * HOUR);
            assert!(
                !scene.is_offered(&agent),
                "it has ended, whatever the calendar says"
            );
            scene.works_again("127.0.0.1");
            scene.works_again("127.0.0.2");
            assert_eq!(
                scene.story.plugin_runs(),
                runs + 1,
                "one login pays for what follows"
            );
            // The next round begins with agents that have ended.
            scene.clock.sleep(LONG_SLEEP);
            None
        },
    );
}

/// The letter of a process's state.
fn state_of(pid: u32) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

#[test]
fn the_broker_is_frozen() {
    let mut scene = Scene::begin();
    repeat(
        "the broker is frozen longer than a certificate lives: ssh goes on, and then it works",
        |_| {
            // A round that failed may have left it as it was.
            scene.broker.daemon().signal(Signal::CONT);
            with_a_certificate_at(&scene.story, "127.0.0.1");
            let agent = scene.agent_of("127.0.0.1");
            let runs = scene.story.plugin_runs();

            scene.broker.daemon().signal(Signal::STOP);
            let pid = scene.broker.daemon().pid();
            let stopped = wait_until(DEADLINE, || (state_of(pid) == Some('T')).then_some(()));
            assert!(stopped.is_some(), "{:?}", state_of(pid));
            let began = Instant::now();
            scene.refused("127.0.0.1", "");
            let took = began.elapsed();
            scene.clock.sleep(LONG_SLEEP);
            scene.broker.daemon().signal(Signal::CONT);

            assert!(!scene.is_offered(&agent), "it has ended meanwhile");
            scene.works_again("127.0.0.1");
            scene.works_again("127.0.0.2");
            assert_eq!(
                scene.story.plugin_runs(),
                runs + 1,
                "whoever asked meanwhile has gone, and costs no login"
            );
            scene.clock.sleep(LONG_SLEEP);
            Some(took)
        },
    );
}
