//! Names that want to be commands. ssh pastes host and user into a shell line, and does not look at what its own
//! configuration says: a name must never run, whatever it is made of.

use crate::support::{Story, lines};
use std::path::Path;

/// Names that would make `file` if a shell read them, in the ways a shell could be made to.
fn with_quotes(file: &Path) -> Vec<String> {
    let file = file.display();
    vec![
        format!("a';touch {file};'"),
        format!("a'$(touch {file})'"),
        format!("'`touch {file}`'"),
        format!("a' || touch {file} || 'b"),
    ]
}

/// The same without a single quote, which is all that the shell line itself uses.
fn without_quotes(file: &Path) -> Vec<String> {
    let file = file.display();
    vec![
        format!("a$(touch {file})"),
        format!("a`touch {file}`"),
        format!("a;touch {file}"),
        format!("a|touch {file}&"),
        "a* --broker /tmp/elsewhere".to_owned(),
        "-v".to_owned(),
    ]
}

/// The story's configuration with this user.
fn as_user(story: &Story, name: &str) {
    story.laptop.ssh_config(&format!(
        "Host 127.0.0.*\n  User \"{name}\"\n  Port {}\n  KexAlgorithms curve25519-sha256\n",
        story.sshd.port()
    ));
}

#[test]
fn a_user_name_with_a_quote_is_never_asked_about_and_ssh_goes_on() {
    let mut story = Story::begin();
    let matches = story.watch_matches();
    let _broker = story.broker();
    let file = story.laptop.home.join("made-by-a-name");
    for name in with_quotes(&file) {
        as_user(&story, &name);
        let position = story.sshd.log_position();
        let finished = story.laptop.run_ssh(["127.0.0.1", "true"]);
        assert_eq!(finished.code(), Some(255), "{name}: {}", finished.stderr);
        // Some versions look at such a name themselves, after the question was left out.
        if !finished.stderr.contains("invalid characters") {
            assert!(
                finished.stderr.contains("Permission denied"),
                "{name}: ssh went on as far as sshd: {}",
                finished.stderr
            );
            story.sshd.wait_for_log_after(position, "Invalid user");
        }
        assert!(!file.exists(), "{name} was run");
    }
    assert_eq!(lines(&matches), [""; 0], "not even the question was asked");
    assert_eq!((story.plugin_runs(), story.site.decisions().len()), (0, 0));
}

#[test]
fn a_user_name_that_no_quote_ends_is_only_text_and_is_refused_as_a_name() {
    let story = Story::begin();
    let _broker = story.broker();
    let file = story.laptop.home.join("made-by-a-name");
    for name in without_quotes(&file) {
        as_user(&story, &name);
        let finished = story.laptop.run_ssh(["127.0.0.1", "true"]);
        assert_eq!(finished.code(), Some(255), "{name}: {}", finished.stderr);
        assert!(
            finished.stderr.contains("Permission denied") || finished.stderr.contains("invalid characters"),
            "{name}: {}",
            finished.stderr
        );
        assert!(!file.exists(), "{name} was run");
    }
    assert_eq!((story.plugin_runs(), story.site.decisions().len()), (0, 0));
}

#[test]
fn a_host_name_with_a_quote_is_never_asked_about_and_ssh_goes_on() {
    let mut story = Story::begin();
    let matches = story.watch_matches();
    // Every host is asked about, so that only the guard keeps the question away.
    let _broker = story.broker_with(["--match", "*"]);
    let file = story.laptop.home.join("made-by-a-name");
    for name in with_quotes(&file) {
        story.laptop.ssh_config(&format!(
            "Host quoted\n  HostName \"127.0.0.1{name}\"\n  ConnectTimeout 5\n"
        ));
        let finished = story.laptop.run_ssh(["quoted", "true"]);
        assert_eq!(finished.code(), Some(255), "{name}: {}", finished.stderr);
        assert!(
            finished.stderr.contains("resolve hostname") || finished.stderr.contains("invalid characters"),
            "{name}: ssh went on to dial it: {}",
            finished.stderr
        );
        assert!(!file.exists(), "{name} was run");
    }
    assert_eq!(lines(&matches), [""; 0], "not even the question was asked");
    assert_eq!((story.plugin_runs(), story.site.decisions().len()), (0, 0));
}

#[test]
fn a_host_name_that_no_quote_ends_is_only_text_and_is_refused_as_a_name() {
    let story = Story::begin();
    let _broker = story.broker_with(["--match", "*"]);
    let file = story.laptop.home.join("made-by-a-name");
    for name in without_quotes(&file) {
        story.laptop.ssh_config(&format!(
            "Host quoted\n  HostName \"{name}\"\n  ConnectTimeout 5\n"
        ));
        let finished = story.laptop.run_ssh(["quoted", "true"]);
        assert_eq!(finished.code(), Some(255), "{name}: {}", finished.stderr);
        assert!(!file.exists(), "{name} was run");
    }
    assert_eq!((story.plugin_runs(), story.site.decisions().len()), (0, 0));
}
