//! From nothing to a shell, and later again without a browser.

use crate::support::{Counts, Provider, Story};
use epithet_testkit::devidp::Person;
use epithet_testkit::{DEADLINE, wait_until};
use std::time::Duration;

/// The life of certificates whose end a story waits for. They count as ended five seconds before.
const SHORT: &str = "12s";

#[test]
fn a_person_logs_in_once_in_the_browser_at_the_certified_provider() {
    a_person_logs_in_once_in_the_browser(Provider::certified());
}

#[test]
fn a_person_logs_in_once_in_the_browser_at_the_development_provider() {
    a_person_logs_in_once_in_the_browser(Provider::development());
}

fn a_person_logs_in_once_in_the_browser(provider: Provider) {
    let story = Story::at(provider);
    let broker = story.broker();

    let said = story.laptop.log_in("127.0.0.1");

    let accepted = story.sshd.wait_for_log("Accepted publickey");
    for part in ["ID alice@example.com", &story.site.fingerprint()] {
        assert!(accepted.contains(part), "{part} is not in: {accepted}");
    }
    let opened = story.browser.opened();
    let [address] = opened.as_slice() else {
        panic!("the browser was to open {opened:?}")
    };
    assert!(address.starts_with(story.provider.issuer()), "{address}");
    assert!(said.contains(address), "the address is always shown: {said}");
    assert!(said.contains("to reach 127.0.0.1"), "and what it is for: {said}");
    let page = story
        .browser
        .next_page(DEADLINE)
        .expect("the login ended on a page");
    let page = page.expect("it is ours");
    assert_eq!(page.status, 200);
    assert!(page.text.contains("close this tab"), "{}", page.text);
    assert_eq!(
        story.provider.counts(),
        Counts {
            logins: 1,
            refreshes: 0,
            refused_refreshes: 0
        }
    );

    // The next hosts need neither browser nor provider.
    for host in ["127.0.0.1", "127.0.0.2"] {
        let said = story.laptop.log_in(host);
        assert!(!said.contains("http"), "{said}");
    }
    assert_eq!((story.opened(), story.provider.counts().refreshes), (1, 0));
    assert_eq!(story.laptop.certificates(&broker).len(), 2);
}

#[test]
fn when_the_certificate_has_ended_a_refresh_pays_for_the_next_at_the_certified_provider() {
    when_the_certificate_has_ended_a_refresh_pays_for_the_next(Provider::certified());
}

#[test]
fn when_the_certificate_has_ended_a_refresh_pays_for_the_next_at_the_development_provider() {
    when_the_certificate_has_ended_a_refresh_pays_for_the_next(Provider::development());
}

fn when_the_certificate_has_ended_a_refresh_pays_for_the_next(provider: Provider) {
    let story = Story::with(provider, Person::named("alice"), SHORT);
    let broker = story.broker();
    story.laptop.log_in("127.0.0.1");
    let is_over = || {
        let inspection = story.laptop.inspect(&broker);
        let agents = inspection["agents"].as_array().expect("a list of agents");
        (!agents.iter().any(|agent| agent["state"] == "ready")).then_some(())
    };
    wait_until(DEADLINE, is_over).expect("the certificate ends");

    let position = story.sshd.log_position();
    let said = story.laptop.log_in("127.0.0.1");

    let accepted = story.sshd.wait_for_log_after(position, "Accepted publickey");
    assert!(accepted.contains("ID alice@example.com"), "{accepted}");
    assert!(
        !said.contains("http"),
        "nobody is asked to log in anywhere: {said}"
    );
    assert_eq!(story.opened(), 1);
    assert_eq!(
        story.provider.counts(),
        Counts {
            logins: 1,
            refreshes: 1,
            refused_refreshes: 0
        }
    );
    assert_eq!(story.site.decisions().len(), 2);
}

#[test]
fn refresh_tokens_that_rotate_are_followed_at_the_certified_provider() {
    refresh_tokens_that_rotate_are_followed(Provider::certified());
}

#[test]
fn refresh_tokens_that_rotate_are_followed_at_the_development_provider() {
    refresh_tokens_that_rotate_are_followed(Provider::development());
}

/// Both providers end the whole login when a refresh token comes twice.
fn refresh_tokens_that_rotate_are_followed(provider: Provider) {
    let story = Story::at(provider);
    let _broker = story.broker_without_reuse();
    for host in ["127.0.0.1", "127.0.0.2", "127.0.0.3", "127.0.0.4"] {
        story.laptop.log_in(host);
    }
    assert_eq!(story.opened(), 1);
    assert_eq!(
        story.provider.counts(),
        Counts {
            logins: 1,
            refreshes: 3,
            refused_refreshes: 0
        }
    );
}

#[test]
fn a_revoked_login_leads_to_a_new_one_at_the_certified_provider() {
    a_revoked_login_leads_to_a_new_one(Provider::certified());
}

#[test]
fn a_revoked_login_leads_to_a_new_one_at_the_development_provider() {
    a_revoked_login_leads_to_a_new_one(Provider::development());
}

fn a_revoked_login_leads_to_a_new_one(provider: Provider) {
    let story = Story::at(provider);
    let _broker = story.broker_without_reuse();
    story.laptop.log_in("127.0.0.1");
    story.provider.revoke_all();

    let said = story.laptop.log_in("127.0.0.2");

    let counts = story.provider.counts();
    assert_eq!((counts.logins, counts.refused_refreshes), (2, 1), "{said}");
    assert_eq!(story.opened(), 2);
    assert!(
        said.contains("invalid_grant"),
        "one line says why there is a login again: {said}"
    );
    // And with the new login's state it goes on as before.
    story.laptop.log_in("127.0.0.3");
    assert_eq!((story.provider.counts().refreshes, story.opened()), (1, 2));
}

#[test]
fn a_person_who_refuses_at_the_certified_provider_is_told_and_ssh_goes_on() {
    a_person_who_refuses_is_told_and_ssh_goes_on(Provider::certified());
}

#[test]
fn a_person_who_refuses_at_the_development_provider_is_told_and_ssh_goes_on() {
    a_person_who_refuses_is_told_and_ssh_goes_on(Provider::development());
}

fn a_person_who_refuses_is_told_and_ssh_goes_on(provider: Provider) {
    let story = Story::with(provider, Person::named("alice").who_refuses(), "5m");
    let broker = story.broker();
    story.laptop.knows(&story.sshd, &story.laptop.other_identity());

    let said = story.laptop.log_in("127.0.0.1");

    assert!(said.contains("access_denied"), "the provider's own word: {said}");
    let accepted = story.sshd.wait_for_log("Accepted publickey");
    assert!(
        accepted.contains(&story.laptop.other_key.fingerprint()),
        "{accepted}"
    );
    let page = story.browser.next_page(DEADLINE).expect("a page").expect("ours");
    assert!(page.text.contains("access_denied"), "{}", page.text);
    let login = &story.laptop.inspect(&broker)["login"];
    assert_eq!(
        (&login["token"], &login["stateBytes"]),
        (&false.into(), &0.into())
    );
    assert_eq!(story.site.decisions().len(), 0);
}

#[test]
fn somebody_whom_policy_does_not_know_logs_in_for_nothing_and_is_told_so() {
    let story = Story::with(Provider::development(), Person::named("mallory"), "5m");
    let _broker = story.broker();
    let finished = story.laptop.run_ssh(["127.0.0.1", "true"]);
    assert_eq!(finished.code(), Some(255));
    assert!(
        finished
            .stderr
            .contains("access denied by policy: User mallory@example.com not in users list"),
        "{}",
        finished.stderr
    );
    assert!(finished.elapsed < Duration::from_secs(20));
}
