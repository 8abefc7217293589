//! Which ssh is here, and what the broker writes for it.

use crate::laptop::start;
use crate::support::{Story, ask};
use epithet_testkit::{Broker, DEADLINE, Finished, plugin_script, search_path, ssh_version, wait_until};
use std::path::{Path, PathBuf};

fn ssh_config(broker: &Broker) -> String {
    std::fs::read_to_string(broker.run_dir().join("ssh-config.conf")).unwrap()
}

/// The search path with this folder first.
fn first_in_path(bin: &Path) -> String {
    format!("{}:{}", bin.display(), search_path().display())
}

/// A program that says it is this OpenSSH, first in the returned `PATH`.
fn pretending_ssh(story: &Story, version: &str) -> (PathBuf, String) {
    let bin = story.laptop.home.join("bin");
    std::fs::create_dir_all(&bin).unwrap();
    let script = format!("#!/bin/sh\necho 'OpenSSH_{version}p1, OpenSSL 3' >&2\n");
    let ssh = plugin_script(&bin, "ssh", &script);
    (ssh, first_in_path(&bin))
}

#[test]
fn hosts_may_be_chosen_by_tag_where_ssh_knows_tags_and_the_error_says_what_to_do_where_not() {
    let story = Story::begin();
    let agent = |path: Option<&str>| {
        let mut command = story.laptop.agent(story.site.url(), &story.plugin);
        command.args(["--tag", "work"]);
        if let Some(path) = path {
            command.env("PATH", path);
        }
        command
    };
    if ssh_version() < (9, 4) {
        let refused = Finished::of(agent(None), DEADLINE);
        assert_eq!(refused.code(), Some(1));
        assert!(
            refused.stderr.contains("needs OpenSSH 9.4") && refused.stderr.contains("--match"),
            "{}",
            refused.stderr
        );
    }
    let (_, path) = pretending_ssh(&story, "9.6");
    let broker = start(agent(Some(&path)));
    assert!(
        ssh_config(&broker).contains("\nMatch final tagged \"work\" user "),
        "{}",
        ssh_config(&broker)
    );
    // ssh itself asks about tagged hosts only, so whatever it asks about is handled.
    assert_eq!(story.laptop.inspect(&broker)["hosts"]["source"], "tag work");
}

#[test]
fn the_file_is_written_anew_when_ssh_has_become_another_one() {
    let story = Story::begin();
    let (ssh, path) = pretending_ssh(&story, "9.6");
    let mut command = story.laptop.agent(story.site.url(), &story.plugin);
    command.args(["--tag", "work"]).env("PATH", &path);
    let broker = start(command);
    let user = story.laptop.home.user().name().to_owned();
    let becomes = |version: &str, expected: &str| {
        let (new, _) = pretending_ssh(&story, version);
        assert_eq!(new, ssh);
        let rewritten = wait_until(DEADLINE, || {
            // Looked at when somebody asks, at most once a second.
            ask(broker.socket(), "elsewhere", &user, &"a".repeat(40));
            ssh_config(&broker).contains(expected).then_some(())
        });
        rewritten.unwrap_or_else(|| panic!("{expected} is not in: {}", ssh_config(&broker)));
    };
    // An older one would refuse every connection because of the tag, so nothing is said to it.
    becomes("9.3", "does nothing here");
    assert!(!ssh_config(&broker).contains("Match"));
    becomes("10.2", "Match final tagged");
}

#[test]
fn the_program_s_path_is_the_one_that_an_upgrade_keeps() {
    let mut story = Story::begin();
    let versions = story.laptop.home.join("cellar/1.2");
    let bin = story.laptop.home.join("bin");
    std::fs::create_dir_all(&versions).unwrap();
    std::fs::create_dir_all(&bin).unwrap();
    let installed = story.laptop.home.install(story.laptop.program.as_path());
    let real = versions.join("epithet");
    std::fs::rename(installed, &real).unwrap();
    std::os::unix::fs::symlink(&real, bin.join("epithet")).unwrap();
    story.laptop.program = bin.join("epithet");
    let mut command = story.laptop.agent(story.site.url(), &story.plugin);
    command
        .args(["--match", "127.0.0.*"])
        .env("PATH", first_in_path(&bin));
    let broker = start(command);
    let config = ssh_config(&broker);
    assert!(
        config.contains(&format!("'{}' 'match'", bin.join("epithet").display())),
        "{config}"
    );
    assert!(!config.contains("cellar"), "{config}");
    story.laptop.log_in("127.0.0.1");
}
