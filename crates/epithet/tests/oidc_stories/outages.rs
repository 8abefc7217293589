//! Providers that are away for a while.

use crate::support::{Provider, Story};
use epithet_testkit::devidp::Person;
use epithet_testkit::{DEADLINE, wait_until};

use crate::site::Site;

#[test]
fn while_the_certified_provider_is_down_the_login_is_kept_and_it_goes_on_when_it_is_back() {
    while_the_provider_is_down_the_login_is_kept(Provider::certified());
}

#[test]
fn while_the_development_provider_is_down_the_login_is_kept_and_it_goes_on_when_it_is_back() {
    while_the_provider_is_down_the_login_is_kept(Provider::development());
}

fn while_the_provider_is_down_the_login_is_kept(provider: Provider) {
    let story = Story::at(provider);
    let broker = story.broker_without_reuse();
    story.laptop.log_in("127.0.0.1");
    let state = |name: &str| story.laptop.inspect(&broker)["login"][name].clone();
    let kept = state("stateBytes");
    assert!(kept.as_u64() > Some(0), "{kept}");
    story.provider.set_down(true);

    let finished = story.laptop.run_ssh(["127.0.0.2", "true"]);

    assert_eq!(finished.code(), Some(255));
    assert!(
        finished.stderr.contains("authentication failed"),
        "{}",
        finished.stderr
    );
    assert!(
        finished.stderr.contains("503"),
        "what the provider said: {}",
        finished.stderr
    );
    assert_eq!(state("stateBytes"), kept, "the state is kept");
    assert_eq!(state("failures"), 1);
    assert_eq!(story.opened(), 1, "no browser is opened for it");
    // The certificate that is there is as good as ever.
    story.laptop.log_in("127.0.0.1");

    story.provider.set_down(false);
    // Without a terminal the broker does not try again at once.
    let back = wait_until(DEADLINE, || {
        let finished = story.laptop.run_ssh(["127.0.0.2", "true"]);
        finished.status.success().then_some(())
    });

    back.expect("it works again");
    assert_eq!((story.opened(), story.provider.counts().refreshes), (1, 1));
}

#[test]
fn a_server_that_is_started_while_the_certified_provider_is_down_serves_when_it_is_back() {
    a_server_that_is_started_while_the_provider_is_down(Provider::certified());
}

#[test]
fn a_server_that_is_started_while_the_development_provider_is_down_serves_when_it_is_back() {
    a_server_that_is_started_while_the_provider_is_down(Provider::development());
}

fn a_server_that_is_started_while_the_provider_is_down(provider: Provider) {
    provider.set_down(true);
    let site = Site::start(provider.issuer(), "5m");
    let story = Story::at_site(provider, site, Person::named("alice"));
    // The broker comes up as well, and knows its hosts.
    let broker = story.broker();
    let finished = story.laptop.run_ssh(["127.0.0.1", "true"]);
    assert_eq!(finished.code(), Some(255));
    assert_eq!(story.opened(), 0, "there is nothing to open yet");
    story.provider.set_down(false);

    let back = wait_until(DEADLINE, || {
        let finished = story.laptop.run_ssh(["127.0.0.1", "true"]);
        finished.status.success().then_some(())
    });

    back.unwrap_or_else(|| {
        panic!(
            "it does not work again:\n{}\n{}",
            broker.log(),
            story.site.server.log()
        )
    });
    assert_eq!((story.opened(), story.provider.counts().logins), (1, 1));
}
