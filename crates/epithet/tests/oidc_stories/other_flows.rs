//! Logging in without a browser on this machine: a code for another device, an address that is opened elsewhere. The
//! person is at a terminal, which is where the broker shows what to do.

use crate::laptop::start;
use crate::support::{Provider, Story};
use epithet_testkit::devidp::{DevProvider, Person, Settings, sign_in_blocking};
use epithet_testkit::{Broker, DEADLINE, Daemon};
use std::time::Duration;

/// The development provider, which lets devices ask often.
fn provider() -> Provider {
    let settings = Settings {
        device_interval: Duration::from_secs(1),
        ..Settings::default()
    };
    Provider::Development(DevProvider::start(settings).expect("a loopback port is free"))
}

/// A broker whose plugin logs in this way, every time.
fn broker(story: &Story, flow: &str) -> Broker {
    let auth = story
        .auth("/no/such/browser")
        .replace("--flow browser", &format!("--flow {flow}"));
    let mut command = story.laptop.agent(story.site.url(), &auth);
    command.args(["--match", "127.0.0.*", "--token-reuse", "0s"]);
    start(command)
}

/// `ssh` in a terminal of its own, whose screen is stdout.
fn in_a_terminal(story: &Story, host: &str) -> Daemon {
    let config = story.laptop.home.join(".ssh/config");
    let line = format!("exec ssh -n -F '{}' {host} 'echo logged in'", config.display());
    let mut command = story.laptop.home.command("script");
    command.args(["-qefc", &line, "/dev/null"]);
    Daemon::start("ssh in a terminal", command, None)
}

/// The address on the screen that begins so.
#[track_caller]
fn address(ssh: &Daemon, beginning: &str) -> String {
    let line = ssh.stdout().wait_for_line(beginning, DEADLINE);
    let line = line.unwrap_or_else(|| panic!("{beginning} is not on the screen:\n{}", ssh.stdout()));
    let at = line.find(beginning).expect("the line was found by it");
    let rest = &line[at..];
    rest.split_whitespace()
        .next()
        .expect("it begins with text")
        .to_owned()
}

/// Waits until ssh has logged in.
#[track_caller]
fn logs_in(mut ssh: Daemon) {
    let status = ssh.wait(DEADLINE).expect("ssh ends");
    let screen = ssh
        .stdout()
        .wait_for_end(DEADLINE)
        .expect("and its screen with it");
    assert!(
        status.success() && screen.trim_end().ends_with("logged in"),
        "{status}\n{screen}"
    );
}

fn a_code_is_entered_on_another_device(provider: Provider) {
    let story = Story::at(provider);
    let _broker = broker(&story, "device");
    let ssh = in_a_terminal(&story, "127.0.0.1");

    let page = address(&ssh, &format!("{}/device", story.provider.issuer()));
    // The code stands in an address of its own, for those who can click or scan it.
    let complete = match page.contains("user_code=") {
        true => page,
        false => address(&ssh, &format!("{page}?user_code=")),
    };
    sign_in_blocking(&complete, &Person::named("alice")).expect("the page takes the code");

    logs_in(ssh);
    let accepted = story.sshd.wait_for_log("Accepted publickey");
    assert!(accepted.contains("ID alice@example.com"), "{accepted}");
    assert_eq!(story.opened(), 0);
    // The next login is a refresh, like any other.
    logs_in(in_a_terminal(&story, "127.0.0.2"));
    assert_eq!(story.provider.counts().refreshes, 1);
}

#[test]
fn a_code_is_entered_on_another_device_at_the_certified_provider() {
    a_code_is_entered_on_another_device(Provider::certified());
}

#[test]
fn a_code_is_entered_on_another_device_at_the_development_provider() {
    a_code_is_entered_on_another_device(provider());
}

#[test]
fn an_address_that_is_opened_elsewhere_finds_its_way_back() {
    let story = Story::at(provider());
    let _broker = broker(&story, "paste");
    let ssh = in_a_terminal(&story, "127.0.0.1");

    let page = address(&ssh, &format!("{}/authorize?", story.provider.issuer()));
    let forward = ssh.stdout().wait_for_line("ssh -N -L ", DEADLINE);
    assert!(
        forward.is_some(),
        "the line that brings the browser back is shown"
    );
    sign_in_blocking(&page, &Person::named("alice")).expect("it leads back to this machine");

    logs_in(ssh);
    assert_eq!((story.opened(), story.provider.counts().logins), (0, 1));
}

#[test]
fn without_a_browser_and_a_display_the_plugin_chooses_the_code_by_itself() {
    let story = Story::at(provider());
    let _broker = broker(&story, "auto");
    let ssh = in_a_terminal(&story, "127.0.0.1");
    let complete = address(&ssh, &format!("{}/device?user_code=", story.provider.issuer()));
    sign_in_blocking(&complete, &Person::named("alice")).expect("the page takes the code");
    logs_in(ssh);
}

#[test]
fn a_browser_that_is_named_needs_no_display() {
    let story = Story::at(provider());
    let auth = story
        .auth(&story.browser.program().display().to_string())
        .replace("--flow browser", "--flow auto");
    let mut command = story.laptop.agent(story.site.url(), &auth);
    command.args(["--match", "127.0.0.*"]);
    let _broker = start(command);
    let said = story.laptop.log_in("127.0.0.1");
    assert!(said.contains("If its page shows an error, wait"), "{said}");
    assert_eq!((story.opened(), story.provider.counts().logins), (1, 1));
}
