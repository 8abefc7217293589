//! Many at once.

use crate::rounds::{count, repeat};
use crate::support::Story;
use epithet_testkit::{DEADLINE, Daemon};
use std::collections::BTreeSet;

/// How many ssh in a round of a long run, and of a short one.
const CROWD: (usize, usize) = (100, 20);
/// From so many rounds on, a run is a long one.
const LONG: usize = 10;

#[test]
fn a_crowd_on_the_same_and_on_different_connections() {
    let story = Story::begin();
    let crowd = if count() < LONG { CROWD.1 } else { CROWD.0 };
    repeat(
        "a hundred ssh on one connection and on four: all log in, one run of the plugin, one certificate each",
        |_| {
            let before = (story.plugin_runs(), story.site.decisions().len());
            let broker = story.broker();
            let start = |number: usize| {
                let host = if number < crowd / 2 { 1 } else { number % 4 + 1 };
                Daemon::start(
                    "ssh",
                    story
                        .laptop
                        .ssh([format!("127.0.0.{host}").as_str(), "echo logged in"]),
                    None,
                )
            };
            let mut sshs: Vec<_> = (0..crowd).map(start).collect();
            for ssh in &mut sshs {
                let status = ssh.wait(4 * DEADLINE).expect("ssh ends");
                assert!(status.success(), "{}\n{}", ssh.stderr(), broker.log());
            }
            assert_eq!(story.plugin_runs() - before.0, 1, "one run of the plugin");
            let decisions = story.site.decisions();
            let new: Vec<_> = decisions[before.1..]
                .iter()
                .map(|decision| decision["serial"].to_string())
                .collect();
            let different: BTreeSet<_> = new.iter().collect();
            assert_eq!(
                (new.len(), different.len()),
                (4, 4),
                "one certificate for each connection"
            );
            broker.stop(DEADLINE);
            None
        },
    );
}
