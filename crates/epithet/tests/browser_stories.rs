//! A real browser in the whole path: `ssh`, `epithet match`, the broker, `epithet auth oidc`, headless Chromium with
//! somebody in front of it, a certified provider, `epithet server`, and back to `sshd`.

#![cfg(test)]

#[expect(dead_code, reason = "other stories need more of it")]
#[path = "shared/laptop.rs"]
mod laptop;
#[path = "shared/site.rs"]
mod site;

use epithet_testkit::{Broker, CertifiedProvider, DEADLINE, RealBrowser, Sshd, Visitor, wait_until};
use laptop::Laptop;
use serde_json::{Value, json};
use site::{EPITHET, Site};
use std::time::Duration;

/// A browser on a busy machine takes its time.
const PATIENCE: Duration = Duration::from_secs(60);

struct Story {
    laptop: Laptop,
    browser: RealBrowser,
    site: Site,
    sshd: Sshd,
    provider: CertifiedProvider,
    broker: Broker,
}

impl Story {
    /// Certificates live for `life`; they count as ended five seconds before.
    fn with(visitor: Visitor<'_>, life: &str) -> Self {
        let provider = CertifiedProvider::start(&json!({}));
        let site = Site::start(provider.issuer(), life);
        let laptop = Laptop::new();
        let browser = RealBrowser::with(laptop.home.path(), visitor);
        let sshd = site.host(&laptop.other_key);
        laptop.knows(&sshd, "");
        let auth = format!(
            "'{EPITHET}' auth oidc --issuer {} --client-id epithet --flow browser --browser '{}'",
            provider.issuer(),
            browser.program().display()
        );
        let mut agent = laptop.agent(site.url(), &auth);
        agent.args(["--match", "127.0.0.*"]);
        let broker = laptop::start(agent);
        Self {
            laptop,
            browser,
            site,
            sshd,
            provider,
            broker,
        }
    }
}

#[test]
fn a_person_logs_in_in_chromium_and_later_again_without_it() {
    let story = Story::with(Visitor::SignsIn("alice"), "15s");

    story.laptop.log_in("127.0.0.1");

    let accepted = story.sshd.wait_for_log("Accepted publickey");
    for part in ["ID alice@example.com", &story.site.fingerprint()] {
        assert!(accepted.contains(part), "{part} is not in: {accepted}");
    }
    let page = story.browser.page(PATIENCE);
    assert_eq!(page["title"], "You are logged in \u{2013} Epithet");
    let text = page["text"].as_str().expect("a page has text");
    assert!(text.contains("logged in as alice@example.com"), "{text}");
    assert!(text.contains("You can close this tab"), "{text}");
    is_a_page_of_ours(&page);
    keep_picture(&story.browser, "success");

    let is_over = || {
        let inspection = story.laptop.inspect(&story.broker);
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
    assert_eq!(story.browser.opened().len(), 1);
    assert_eq!(
        (
            story.provider.events("grant authorization_code"),
            story.provider.events("grant refresh_token"),
            story.site.decisions().len(),
        ),
        (1, 1, 2)
    );
}

#[test]
fn a_person_who_cancels_in_chromium_is_told_so_in_both_places_and_ssh_goes_on_without_a_certificate() {
    let story = Story::with(Visitor::Cancels, "5m");

    let finished = story.laptop.run_ssh(["127.0.0.1", "true"]);

    assert_eq!(finished.code(), Some(255), "{}", finished.stderr);
    for part in ["the login was refused", "access_denied", "Permission denied"] {
        assert!(
            finished.stderr.contains(part),
            "{part} is not in: {}",
            finished.stderr
        );
    }
    let page = story.browser.page(PATIENCE);
    assert_eq!(page["title"], "The login did not work \u{2013} Epithet");
    let text = page["text"].as_str().expect("a page has text");
    assert!(text.contains("The login was refused"), "{text}");
    assert!(text.contains("you can try again from there"), "{text}");
    is_a_page_of_ours(&page);
    keep_picture(&story.browser, "failure");
    assert_eq!(story.site.decisions().len(), 0, "the CA was not asked");
}

/// Small, by itself, and nothing in it that the browser had to refuse.
#[track_caller]
fn is_a_page_of_ours(page: &Value) {
    let url = page["url"].as_str().expect("a page has an address");
    assert!(url.starts_with("http://127.0.0.1:"), "{url}");
    // The dark one is the last that was looked at: #12161c.
    assert_eq!(
        page["background"], "rgb(18, 22, 28)",
        "the style sheet is allowed by its hash"
    );
    let loaded = page["loaded"].as_array().expect("a list of addresses");
    let others: Vec<_> = loaded
        .iter()
        .filter_map(Value::as_str)
        .filter(|other| *other != url && !other.ends_with("/favicon.ico"))
        .collect();
    assert!(others.is_empty(), "the page loaded {others:?}");
    let complaints = page["complaints"].as_array().expect("a list");
    assert!(complaints.is_empty(), "the browser complained: {complaints:?}");
}

/// Keeps the pictures for people who want to look at them, where `EPITHET_TEST_PICTURES` says.
fn keep_picture(browser: &RealBrowser, name: &str) {
    for scheme in ["light", "dark"] {
        let picture = browser.picture(scheme);
        assert!(picture.starts_with(b"\x89PNG"), "{scheme}");
        if let Some(folder) = std::env::var_os("EPITHET_TEST_PICTURES") {
            let file = std::path::Path::new(&folder).join(format!("{name}-{scheme}.png"));
            std::fs::write(file, picture).expect("a folder that was named for it");
        }
    }
}
