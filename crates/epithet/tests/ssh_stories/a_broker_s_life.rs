//! How a broker begins and ends, and who else may begin beside it.

use crate::laptop::start;
use crate::support::{Story, wait_for_path};
use epithet_testkit::{Broker, DEADLINE, Daemon, Finished, plugin_script, wait_until};
use rustix::process::Signal;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long a broker may take to end.
const END: Duration = Duration::from_secs(3);

/// Everything below a folder, with its mode.
fn below(folder: &Path) -> Vec<(PathBuf, u32)> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let metadata = std::fs::symlink_metadata(&path).unwrap();
            // The mode of a link says nothing.
            if metadata.is_symlink() {
                continue;
            }
            found.push((path.clone(), metadata.mode() & 0o777));
            if metadata.is_dir() {
                folders.push(path);
            }
        }
    }
    found.sort();
    found
}

#[test]
fn what_a_broker_makes_is_its_owners_alone() {
    let story = Story::begin();
    let broker = story.broker();
    story.laptop.log_in("127.0.0.1");
    let run = story.laptop.home.join(".epithet");
    let made = below(&run);
    assert!(made.len() >= 7, "{made:?}");
    for (path, mode) in made {
        let expected = if path.is_dir() { 0o700 } else { 0o600 };
        assert_eq!(mode, expected, "{}", path.display());
    }
    assert_eq!(
        std::fs::metadata(broker.run_dir()).unwrap().permissions().mode() & 0o777,
        0o700
    );
}

#[test]
fn a_second_broker_of_the_same_profile_is_told_so_and_harms_nothing() {
    let story = Story::begin();
    let broker = story.broker();
    let before = below(broker.run_dir());

    let mut second = story.laptop.agent(story.site.url(), &story.plugin);
    second.args(["--match", "other.example.com"]);
    let error = Broker::try_start(second).unwrap_err();

    assert_eq!(error.status.and_then(|status| status.code()), Some(1), "{error}");
    for words in ["epithet: error:", "\"default\" is already running", "--name"] {
        assert!(error.stderr.contains(words), "{}", error.stderr);
    }
    assert_eq!(below(broker.run_dir()), before);
    story.laptop.log_in("127.0.0.1");
}

#[test]
fn brokers_of_two_profiles_serve_side_by_side() {
    let story = Story::begin();
    let with = |name: &str, hosts: &str| story.broker_with(["--name", name, "--match", hosts]);
    let (work, home) = (with("work", "127.0.0.1"), with("home", "127.0.0.2"));
    assert_ne!(work.run_dir(), home.run_dir());
    for host in ["127.0.0.1", "127.0.0.2"] {
        story.laptop.log_in(host);
    }
    for (broker, host) in [(&work, "127.0.0.1"), (&home, "127.0.0.2")] {
        let inspection = story.laptop.inspect(broker);
        let agents = inspection["agents"].as_array().unwrap();
        assert_eq!(agents.len(), 1, "{inspection:#}");
        assert_eq!(agents[0]["remoteHost"], host);
    }
    assert_eq!(story.plugin_runs(), 2, "each has a login of its own");
}

/// A broker with a live agent, a plugin that waits for ever, an ssh that waits for it, and somebody who connected and
/// says nothing. Returns the broker and the ssh.
fn in_the_middle_of_everything(story: &Story) -> (Broker, Daemon) {
    let begun = story.laptop.home.join("begun");
    let script = format!(
        "#!/bin/sh\n[ \"$EPITHET_HOST\" = 127.0.0.1 ] && exec {}\n: > '{}'\nexec sleep 600\n",
        story.plugin,
        begun.display()
    );
    let plugin = plugin_script(story.laptop.home.path(), "slow", &script);
    let mut command = story
        .laptop
        .agent(story.site.url(), &plugin.display().to_string());
    command.args(["--match", "127.0.0.*", "--token-reuse", "0s"]);
    let broker = start(command);
    story.laptop.knows(&story.sshd, &story.laptop.other_identity());
    story.laptop.log_in("127.0.0.1");
    let waiting = Daemon::start("ssh", story.laptop.ssh(["127.0.0.2", "echo logged in"]), None);
    wait_for_path(&begun);
    (broker, waiting)
}

#[test]
fn every_signal_that_ends_a_broker_removes_what_it_made_within_three_seconds() {
    for signal in [Signal::TERM, Signal::INT] {
        let story = Story::begin();
        let (mut broker, mut waiting) = in_the_middle_of_everything(&story);
        let _silent = UnixStream::connect(broker.socket()).unwrap();

        let told = Instant::now();
        broker.daemon().signal(signal);
        let status = broker.daemon().wait(DEADLINE).expect("it ends");

        assert!(
            told.elapsed() < END,
            "it took {:?} after {signal:?}",
            told.elapsed()
        );
        assert_eq!(status.code(), Some(0), "after {signal:?}: {}", broker.log());
        assert_eq!(
            below(&story.laptop.home.join(".epithet")),
            [(story.laptop.home.join(".epithet/run"), 0o700)]
        );
        let status = waiting
            .wait(DEADLINE)
            .expect("the ssh that waited for the plugin goes on");
        assert!(status.success(), "with its other key: {}", waiting.stderr());
    }
}

#[test]
fn a_run_directory_that_others_could_change_is_refused_by_name() {
    let story = Story::begin();
    story.laptop.home.write(".epithet/run/note", "");
    let run = story.laptop.home.join(".epithet/run");
    std::fs::set_permissions(&run, std::fs::Permissions::from_mode(0o777)).unwrap();
    let finished = Finished::of(story.laptop.agent(story.site.url(), &story.plugin), DEADLINE);
    assert_eq!(finished.code(), Some(1));
    for words in [run.to_str().unwrap(), "0777", "chmod go-rwx"] {
        assert!(finished.stderr.contains(words), "{}", finished.stderr);
    }
    assert!(run.join("note").exists(), "nothing was changed");
}

#[test]
fn a_broker_whose_directory_another_one_has_by_now_ends_and_leaves_it_alone() {
    let story = Story::begin();
    let mut first = story.broker();
    first.daemon().signal(Signal::STOP);
    std::fs::remove_dir_all(first.run_dir()).unwrap();
    let second = story.broker();
    let before = below(second.run_dir());

    first.daemon().signal(Signal::CONT);

    first.wait_for_log("another broker has this profile by now");
    assert!(first.daemon().wait(DEADLINE).expect("it ends").success());
    assert_eq!(below(second.run_dir()), before);
    story.laptop.log_in("127.0.0.1");
    assert_eq!(story.laptop.certificates(&second).len(), 1);
}

#[test]
fn an_agent_whose_socket_was_removed_is_made_anew() {
    let story = Story::begin();
    let broker = story.broker();
    story.laptop.log_in("127.0.0.1");
    let agents = broker.run_dir().join("agent");
    for entry in std::fs::read_dir(&agents).unwrap() {
        std::fs::remove_file(entry.unwrap().path()).unwrap();
    }
    story.laptop.log_in("127.0.0.1");
    std::fs::remove_dir_all(&agents).unwrap();
    story.laptop.log_in("127.0.0.1");
    assert_eq!(story.laptop.certificates(&broker).len(), 1);
    assert_eq!(
        std::fs::metadata(&agents).unwrap().permissions().mode() & 0o777,
        0o700
    );
}

#[test]
fn an_ssh_that_is_killed_alone_ends_the_login_that_it_waited_for() {
    let story = Story::begin();
    let begun = story.laptop.home.join("begun");
    let script = format!(
        "#!/bin/sh\necho $$ > '{0}.new'\nmv '{0}.new' '{0}'\nexec sleep 600\n",
        begun.display()
    );
    let plugin = plugin_script(story.laptop.home.path(), "slow", &script);
    let mut command = story
        .laptop
        .agent(story.site.url(), &plugin.display().to_string());
    command.args(["--match", "127.0.0.*"]);
    let _broker = start(command);
    let mut command = story.laptop.home.command("ssh");
    let config = story.laptop.home.join(".ssh/config");
    command.arg("-F").arg(config).args(["127.0.0.1", "true"]);
    let mut ssh = Daemon::start("ssh", command, None);
    wait_for_path(&begun);
    let login = std::fs::read_to_string(&begun).unwrap();
    let login = Path::new("/proc").join(login.trim());
    assert!(login.exists());

    ssh.signal(Signal::TERM);

    let ended = wait_until(DEADLINE, || (!login.exists()).then_some(()));
    assert!(ended.is_some(), "nobody waits for the login any more");
}

#[test]
fn a_match_program_that_is_gone_is_noticed_without_being_asked() {
    let mut story = Story::begin();
    story.watch_matches();
    let broker = story.broker();
    let config = broker.run_dir().join("ssh-config.conf");
    let named = |word: &str| std::fs::read_to_string(&config).unwrap().contains(word);
    assert!(named("/epithet-match'"));
    std::fs::remove_file(story.laptop.program.with_file_name("epithet-match")).unwrap();
    let noticed = wait_until(DEADLINE, || named("/epithet' 'match'").then_some(()));
    assert!(noticed.is_some());
    story.laptop.log_in("127.0.0.1");
}

#[test]
fn a_home_with_signs_that_mean_something_to_shells_serves_ssh() {
    let story = Story::begin();
    let home = story.laptop.home.join("J\u{fc}r (o) #1 ~&;<>|{}^!]");
    std::fs::create_dir(&home).unwrap();
    let mut command = story.laptop.agent(story.site.url(), &story.plugin);
    command.args(["--match", "127.0.0.*"]).env("HOME", &home);
    let _broker = start(command);
    story.laptop.home.ssh_config(&format!(
        "Include \"{}\"\nHost 127.0.0.*\n  Port {}\n  User {}\n  KexAlgorithms curve25519-sha256\n",
        home.join(".epithet/run/*/ssh-config.conf").display(),
        story.sshd.port(),
        story.laptop.home.user().name()
    ));
    story.laptop.log_in("127.0.0.1");

    // What ssh's own Include takes for a pattern would be found by nobody.
    let starred = story.laptop.home.join("a[b]");
    std::fs::create_dir(&starred).unwrap();
    let mut command = story.laptop.agent(story.site.url(), &story.plugin);
    command.env("HOME", &starred);
    let error = Broker::try_start(command).unwrap_err();
    assert!(error.stderr.contains("cannot be quoted"), "{}", error.stderr);
}
