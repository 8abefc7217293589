//! SIGHUP: the broker reads its configuration again. Agents, state and token stay where they are still right.

use crate::laptop::start;
use crate::support::Story;
use epithet_testkit::{Broker, plugin_script};
use rustix::process::Signal;
use serde_json::{Value, json};

/// Writes the person's configuration file.
fn configure(story: &Story, agent: &Value) {
    let path = story
        .laptop
        .home
        .write(".epithet/config.json", json!({"agent": agent}).to_string());
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

fn reload(broker: &mut Broker, expected: &str) -> String {
    let position = broker.log().position();
    broker.daemon().signal(Signal::HUP);
    broker.wait_for_log_after(position, expected)
}

fn ssh_config(broker: &Broker) -> String {
    std::fs::read_to_string(broker.run_dir().join("ssh-config.conf")).unwrap()
}

#[test]
fn a_reload_changes_what_changed_and_a_bad_file_changes_nothing() {
    let story = Story::begin();
    let agent = |hosts: &str, auth: &str| json!({"ca-url": story.site.url(), "match": hosts, "auth": auth, "token-reuse": "10m"});
    configure(&story, &agent("127.0.0.1", &story.plugin));
    let mut command = story.laptop.epithet();
    command.args(["agent", "-v"]);
    let mut broker = start(command);
    story.laptop.log_in("127.0.0.1");
    assert!(reload(&mut broker, "reloaded").contains("nothing changed"));

    // More hosts: the token of the first login pays for them, too.
    configure(&story, &agent("127.0.0.*", &story.plugin));
    assert!(reload(&mut broker, "reloaded").ends_with("reloaded: match"));
    assert!(ssh_config(&broker).contains("127.0.0.*"));
    story.laptop.log_in("127.0.0.2");
    assert_eq!(story.plugin_runs(), 1);

    // What cannot be used is said, and changes nothing.
    story
        .laptop
        .home
        .write(".epithet/config.json", r#"{"agent": {"mtach": "*"}}"#);
    let line = reload(&mut broker, "not reloaded, the old configuration stays");
    assert!(line.contains("did you mean `match`?"), "{line}");
    story.laptop.log_in("127.0.0.3");
    assert_eq!(story.plugin_runs(), 1);

    // Another plugin is another login: what the first one brought is not used for it.
    let token = story.laptop.home.join("token");
    let marker = story.laptop.home.join("other-ran");
    let script = format!(
        "#!/bin/sh\ntouch '{}'\nexec cat '{}'\n",
        marker.display(),
        token.display()
    );
    let other = plugin_script(story.laptop.home.path(), "other", &script);
    configure(&story, &agent("127.0.0.*", &other.display().to_string()));
    assert!(reload(&mut broker, "reloaded").ends_with("reloaded: auth"));
    story.laptop.log_in("127.0.0.4");
    assert!(marker.exists());
    // Agents that were there before serve on.
    story.laptop.log_in("127.0.0.1");
    assert_eq!((story.plugin_runs(), story.site.decisions().len()), (1, 4));

    // Another name would be another run directory.
    let mut renamed = agent("127.0.0.*", &story.plugin);
    renamed["name"] = json!("other");
    configure(&story, &renamed);
    assert!(reload(&mut broker, "not reloaded").contains("restart it"));
}

#[test]
fn profiles_in_one_file_stand_alone_and_run_beside_each_other() {
    let story = Story::begin();
    let config = json!({
        "agent": {"ca-url": story.site.url(), "match": "127.0.0.1", "auth": story.plugin},
        "profiles": {"work": {"ca-url": story.site.url(), "match": "127.0.0.2", "auth": "echo no; exit 3"}},
    });
    story
        .laptop
        .home
        .write(".epithet/config.json", config.to_string());
    let start_profile = |name: &[&str]| {
        let mut command = story.laptop.epithet();
        command.args(["agent", "-v"]).args(name);
        start(command)
    };
    let (own, work) = (start_profile(&[]), start_profile(&["--name", "work"]));
    assert_ne!(own.run_dir(), work.run_dir());
    assert!(work.run_dir().ends_with(".epithet/run/work"));
    story.laptop.log_in("127.0.0.1");
    // The other profile has the other plugin, and no other hosts.
    let refused = story.laptop.run_ssh(["127.0.0.2", "true"]);
    assert!(
        refused.stderr.contains("exited with status 3"),
        "{}",
        refused.stderr
    );
    assert!(!ssh_config(&work).contains("127.0.0.1"));
    assert_eq!(story.plugin_runs(), 1);
}
