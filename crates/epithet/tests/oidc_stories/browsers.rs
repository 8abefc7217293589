//! Programs that open a browser, and what they do besides.

use crate::laptop::start;
use crate::support::{Provider, Story};
use epithet_testkit::plugin_script;
use rustix::process::{Pid, Signal, kill_process};
use std::time::Duration;

#[test]
fn a_browser_that_talks_and_stays_and_holds_every_descriptor_does_not_touch_the_login() {
    let story = Story::at(Provider::development());
    let pid_file = story.laptop.home.join("browser.pid");
    let noise =
        "printf 'not-a-token'; printf 'noise' >&2; printf 'not-a-state' >&3; printf 'not-progress' >&4";
    let script = format!(
        "#!/bin/sh\n{{ {noise}; }} 2>/dev/null\nprintf 'noise' >&2\nprintf 'not-a-token'\n'{}' \"$1\"\necho $$ > '{}'\nexec sleep 600\n",
        story.browser.program().display(),
        pid_file.display()
    );
    let noisy = plugin_script(story.laptop.home.path(), "xdg-open", &script);
    let auth = story.auth(&noisy.display().to_string());
    let mut command = story.laptop.agent(story.site.url(), &auth);
    command.args(["--match", "127.0.0.*", "--token-reuse", "0s"]);
    let broker = start(command);

    let finished = story.laptop.run_ssh(["127.0.0.1", "echo logged in"]).success();

    let stays = std::fs::read_to_string(&pid_file).expect("the browser wrote its process id");
    let pid = Pid::from_raw(stays.trim().parse().unwrap()).unwrap();
    assert!(
        finished.elapsed < Duration::from_secs(20),
        "{:?}",
        finished.elapsed
    );
    for word in ["noise", "not-a-token", "not-a-state", "not-progress"] {
        assert!(!finished.stderr.contains(word), "{}", finished.stderr);
        assert!(!broker.log().text().contains(word), "{}", broker.log());
    }
    // The state is the plugin's and nobody else's: it refreshes.
    story.laptop.log_in("127.0.0.2");
    assert_eq!((story.opened(), story.provider.counts().refreshes), (1, 1));
    let _ = kill_process(pid, Signal::KILL);
}

#[test]
fn without_a_browser_the_address_is_shown_and_whoever_opens_it_logs_in() {
    let story = Story::at(Provider::development());
    let auth = story.auth("/no/such/browser");
    let mut command = story.laptop.agent(story.site.url(), &auth);
    command.args(["--match", "127.0.0.*"]);
    let _broker = start(command);
    let ssh = story.laptop.ssh(["127.0.0.1", "echo logged in"]);
    let mut ssh = epithet_testkit::Daemon::start("ssh", ssh, None);

    let line = ssh.expect_line(story.provider.issuer(), epithet_testkit::DEADLINE);
    let address = &line[line.find("http").expect("the address")..];
    let person = epithet_testkit::devidp::Person::named("alice");
    let page = epithet_testkit::devidp::sign_in_blocking(address.trim(), &person).unwrap();

    assert_eq!(page.status, 200);
    let status = ssh.wait(epithet_testkit::DEADLINE).expect("ssh ends");
    assert!(status.success(), "{}", ssh.stderr());
}
