//! Many at once, at a provider that ends the whole login when a refresh token comes twice.

use crate::support::{Counts, Provider, Story};
use epithet_testkit::devidp::Person;
use epithet_testkit::{DEADLINE, Daemon, wait_until};
use std::time::Duration;

/// Forty logins with a real key exchange each, on a slow machine.
const PATIENCE: Duration = Duration::from_secs(120);
/// The life of certificates whose end the story waits for.
const SHORT: &str = "12s";

#[test]
fn forty_at_once_log_in_once_and_later_refresh_once_at_the_certified_provider() {
    let story = Story::with(Provider::certified(), Person::named("alice"), SHORT);
    let broker = story.broker();
    let all_log_in = || {
        let waiting: Vec<Daemon> = (0..40)
            .map(|number| {
                let host = format!("127.0.0.{}", number % 4 + 1);
                let ssh = story.laptop.ssh([host.as_str(), "echo logged in"]);
                Daemon::start("ssh", ssh, None)
            })
            .collect();
        for mut ssh in waiting {
            let status = ssh.wait(PATIENCE).expect("ssh ends");
            assert!(status.success(), "{}", ssh.stderr());
        }
    };
    all_log_in();
    let once = Counts {
        logins: 1,
        refreshes: story.provider.counts().refreshes,
        refused_refreshes: 0,
    };
    assert_eq!((story.provider.counts(), story.opened()), (once, 1));

    let is_over = || {
        let inspection = story.laptop.inspect(&broker);
        let agents = inspection["agents"].as_array().expect("a list of agents");
        (!agents.iter().any(|agent| agent["state"] == "ready")).then_some(())
    };
    wait_until(DEADLINE, is_over).expect("the certificates end");
    all_log_in();

    // A refresh token that came twice would have ended the login, and opened the browser again.
    let counts = story.provider.counts();
    assert_eq!(
        (counts.logins, counts.refused_refreshes, story.opened()),
        (1, 0, 1)
    );
    assert!(counts.refreshes > once.refreshes, "{counts:?}");
    let logins = story.laptop.inspect(&broker)["login"]["logins"].as_u64();
    let runs = u64::try_from(1 + counts.refreshes).expect("a small number");
    assert_eq!(logins, Some(runs), "each run of the plugin refreshed once");
}
