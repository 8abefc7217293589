//! What differs from one OpenSSH to the next, shown with the ssh that is here. `scripts/other-ssh` runs these and all the
//! other stories with the ssh of other releases.

use crate::laptop::start;
use crate::support::Story;
use epithet_testkit::{Broker, DEADLINE, Finished, plugin_script, search_path, ssh_version};
use std::path::{Path, PathBuf};

/// The first ssh with `Tag` and `Match tagged`.
const TAGGED: (u32, u32) = (9, 4);

/// What `ssh -G` says of the agent for a destination. ssh must have nothing to complain about.
#[track_caller]
fn agent_for(story: &Story, arguments: &[&str]) -> Option<String> {
    // Not with a terminal at the other end, about which ssh may have something to say.
    let mut all = vec!["-T", "-G"];
    all.extend(arguments);
    let printed = story.laptop.run_ssh(all).success();
    assert_eq!(printed.stderr, "", "{arguments:?}");
    let mut lines = printed.stdout.lines();
    lines.find_map(|line| line.strip_prefix("identityagent ").map(str::to_owned))
}

/// The first ssh whose `Match exec` and `IdentityAgent` know `%C`.
const HASHED: (u32, u32) = (8, 3);

/// The path of programs in which ssh says that it is `version`, whatever it is.
fn path_with_ssh(story: &Story, version: &str) -> String {
    let script = format!(
        "#!/bin/sh\n[ \"$1\" != -V ] || {{ echo OpenSSH_{version} >&2; exit; }}\nPATH=$USUAL exec ssh \"$@\"\n"
    );
    let folder = story.laptop.home.join("other-ssh");
    std::fs::create_dir_all(&folder).unwrap();
    plugin_script(&folder, "ssh", &script);
    format!("{}:{}", folder.display(), search_path().display())
}

#[test]
fn an_ssh_that_is_too_old_is_said_to_be_and_goes_on_as_before() {
    let story = Story::begin();
    // This one says it is older than it is: without `Match final`.
    let path = path_with_ssh(&story, "7.9p1");
    let mut agent = story.laptop.agent(story.site.url(), &story.plugin);
    agent.args(["--match", "127.0.0.*"]).env("PATH", &path);
    let refused = Finished::of(agent, DEADLINE);
    assert_eq!(refused.code(), Some(1));
    assert!(
        refused.stderr.contains("which is too old; install 8.0 or later"),
        "{}",
        refused.stderr
    );
    let mut ssh = story.laptop.ssh(["127.0.0.1", "true"]);
    ssh.env("PATH", &path).env("USUAL", search_path());
    let finished = Finished::of(ssh, DEADLINE);
    assert!(
        finished.stderr.contains("Permission denied"),
        "{}",
        finished.stderr
    );
}

/// A broker that takes the ssh that is here for 8.2, unless it is one that does not know `%C`.
fn broker_of_an_ssh_without_hash(story: &Story) -> Broker {
    let mut agent = story.laptop.agent(story.site.url(), &story.plugin);
    agent.args(["--match", "127.0.0.*,localhost"]);
    if ssh_version() >= HASHED {
        agent.env("PATH", path_with_ssh(story, "8.2p1 Ubuntu-4ubuntu0.13"));
    }
    start(agent)
}

/// Where the link of this user's connections to `host` leads, if it is there.
fn link(story: &Story, broker: &Broker, host: &str) -> Option<PathBuf> {
    let name = format!("{}@{host}", story.laptop.home.user().name());
    std::fs::read_link(broker.run_dir().join("agent").join(name)).ok()
}

#[test]
fn an_ssh_that_does_not_know_the_hash_finds_its_agent_by_user_and_host() {
    let story = Story::begin();
    if ssh_version() < HASHED {
        // This is why: it would be the end of every ssh to our hosts.
        let home = &story.laptop.home;
        let config = home.write("connection", "Match exec \"true %C\"\n  User x\n");
        let refused = home.run("ssh", ["-F", &config.display().to_string(), "-G", "127.0.0.1"]);
        assert_eq!(refused.code(), Some(255));
        assert!(refused.stderr.contains("unknown key %C"), "{}", refused.stderr);
    }
    let broker = broker_of_an_ssh_without_hash(&story);
    let agents = broker.run_dir().join("agent");
    let file = std::fs::read_to_string(broker.run_dir().join("ssh-config.conf")).unwrap();
    assert!(file.contains(" --by-name ") && !file.contains("%C"), "{file}");

    story.laptop.log_in("127.0.0.1");
    story.laptop.log_in("127.0.0.1");
    story.laptop.log_in("LOCALHOST");
    assert!(story.accepted(0).contains("ID alice@example.com"));
    assert_eq!(story.site.decisions().len(), 2, "one for each connection");
    let hash = link(&story, &broker, "127.0.0.1").expect("a link to the agent");
    assert!(agents.join(&hash).exists() && link(&story, &broker, "localhost").is_some());
    if ssh_version() >= HASHED {
        // It is the name that ssh itself would have given it.
        let agent = agent_for(&story, &["-o", "IdentityAgent=/%C", "127.0.0.1"]);
        assert_eq!(agent, Some(format!("/{}", hash.display())));
    }

    // A name is not all of a connection: the port is another one.
    let other = story.site.host(&story.laptop.other_key);
    story.laptop.home.trust(&other);
    let port = other.port().to_string();
    let there = ["-p", &port, "127.0.0.1", "echo logged in"];
    assert_eq!(story.laptop.run_ssh(there).success().stdout, "logged in\n");
    assert!(other.log().contains("ID alice@example.com"), "{}", other.log());
    assert_ne!(link(&story, &broker, "127.0.0.1").as_ref(), Some(&hash));
    story.laptop.log_in("127.0.0.1");
    assert_eq!(link(&story, &broker, "127.0.0.1"), Some(hash));
    assert_eq!(story.site.decisions().len(), 3);

    // The links go with their agents, and with the broker.
    let mut log_out = story.laptop.epithet();
    log_out.args(["logout", "--broker"]).arg(broker.socket());
    Finished::of(log_out, DEADLINE).success();
    for host in ["127.0.0.1", "localhost"] {
        assert_eq!(link(&story, &broker, host), None, "{host}");
    }
    story.laptop.log_in("127.0.0.1");
    assert!(link(&story, &broker, "127.0.0.1").is_some());
    broker.stop(DEADLINE).expect("it ends");
    assert!(!agents.exists());
}

#[test]
fn a_user_and_a_host_that_no_socket_could_be_named_after_are_denied_with_the_reason() {
    let story = Story::begin();
    let _broker = broker_of_an_ssh_without_hash(&story);
    let user = "u".repeat(100);
    let finished = story.laptop.run_ssh(["-l", &user, "127.0.0.1", "true"]);
    assert_eq!(finished.code(), Some(255));
    assert!(
        finished.stderr.contains("is longer than a socket's path may be")
            && finished.stderr.contains("OpenSSH 8.3 or later"),
        "{}",
        finished.stderr
    );
    assert_eq!((story.plugin_runs(), story.site.decisions().len()), (0, 0));
}

#[test]
fn ssh_reads_the_generated_file_and_takes_it_for_our_hosts_only() {
    let story = Story::begin();
    let broker = story.broker();
    let agents = broker.run_dir().join("agent");

    let agent = agent_for(&story, &["127.0.0.1"]).expect("one of ours");

    assert_eq!(agent_for(&story, &["github.com"]), None);
    if ssh_version() < HASHED {
        // This one prints what stands in the file.
        assert_eq!(agent, format!("{}/%r@%h", agents.display()));
        return;
    }
    let hash = Path::new(&agent).strip_prefix(&agents);
    let hash = hash.unwrap_or_else(|_| panic!("{agent} is not in {}", agents.display()));
    let hash = hash.to_str().unwrap();
    assert!(
        hash.len() == 40 && hash.bytes().all(|byte| byte.is_ascii_hexdigit()),
        "{hash}"
    );
    // Another user at the same host is another connection.
    let root = agent_for(&story, &["-l", "somebody", "127.0.0.1"]).expect("one of ours");
    assert_ne!(root, agent);
}

#[test]
fn where_ssh_knows_tags_those_hosts_are_ours_and_elsewhere_the_file_would_break_every_ssh() {
    let story = Story::begin();
    if ssh_version() < TAGGED {
        // This is why nothing is written for such an ssh.
        let home = &story.laptop.home;
        let config = home.write(
            "tagged",
            "Match final tagged \"work\"\n  IdentityAgent /nowhere\n",
        );
        let refused = home.run("ssh", ["-F", &config.display().to_string(), "-G", "127.0.0.1"]);
        assert_eq!(refused.code(), Some(255));
        assert!(refused.stderr.contains("tagged"), "{}", refused.stderr);
        return;
    }
    let broker = story.broker_with(["--tag", "work"]);
    // Below the Include, as everything of the person's own is.
    story.laptop.ssh_config(&format!(
        "Host 127.0.0.1\n  Tag work\nHost 127.0.0.*\n  Port {}\n  User {}\n",
        story.sshd.port(),
        story.laptop.home.user().name()
    ));

    // The tag of the person's own configuration, and one from the command line.
    story.laptop.log_in("127.0.0.1");
    let finished = story
        .laptop
        .run_ssh(["-P", "work", "127.0.0.2", "echo logged in"]);
    assert_eq!(finished.success().stdout, "logged in\n");
    assert_eq!(story.site.decisions().len(), 2);
    assert_eq!(
        story.laptop.inspect(&broker)["agents"].as_array().unwrap().len(),
        2
    );

    for other in [&["127.0.0.3"][..], &["-P", "play", "127.0.0.3"]] {
        assert_eq!(agent_for(&story, other), None, "{other:?}");
    }
    assert_eq!(
        story.laptop.inspect(&broker)["agents"].as_array().unwrap().len(),
        2
    );
}

#[test]
fn a_program_and_a_run_directory_with_blanks_in_their_paths_are_found_by_ssh() {
    let mut story = Story::begin();
    let home = &story.laptop.home;
    let apps = home.join("my apps 100%");
    std::fs::create_dir(&apps).unwrap();
    for program in [env!("CARGO_BIN_EXE_epithet"), env!("CARGO_BIN_EXE_epithet-match")] {
        let copy = home.install(Path::new(program));
        std::fs::rename(&copy, apps.join(copy.file_name().unwrap())).unwrap();
    }
    let person = home.join("a person");
    std::fs::create_dir(&person).unwrap();
    story.laptop.program = apps.join("epithet");
    let mut agent = story.laptop.agent(story.site.url(), &story.plugin);
    agent.args(["--match", "127.0.0.*"]).env("HOME", &person);
    let broker = start(agent);
    assert!(
        broker.run_dir().starts_with(&person),
        "{}",
        broker.run_dir().display()
    );
    story.laptop.home.trust(&story.sshd);
    story.laptop.home.ssh_config(&format!(
        "Include \"{}\"\nHost 127.0.0.*\n  Port {}\n  User {}\n",
        person.join(".epithet/run/*/ssh-config.conf").display(),
        story.sshd.port(),
        story.laptop.home.user().name()
    ));
    story.laptop.log_in("127.0.0.1");
    assert_eq!(story.site.decisions().len(), 1);
}

#[test]
fn a_user_name_on_the_command_line_is_never_run() {
    let story = Story::begin();
    let _broker = story.broker();
    let file = story.laptop.home.join("made-by-a-name");
    let names = [
        format!("u$(touch {})x", file.display()),
        format!("u`touch {}`", file.display()),
        format!("u;touch {};", file.display()),
        format!("u';touch {};'", file.display()),
        "u*{a,b}~".to_owned(),
        "two words".to_owned(),
    ];
    // ssh refuses most of them itself; 10.0, and older ones that were not mended, do not.
    for name in &names {
        for arguments in [
            vec!["-l".to_owned(), name.clone(), "127.0.0.1".to_owned()],
            vec![format!("{name}@127.0.0.1")],
        ] {
            let mut ssh = story.laptop.ssh(arguments.iter().map(String::as_str));
            ssh.arg("true");
            let finished = Finished::of(ssh, DEADLINE);
            assert_eq!(finished.code(), Some(255), "{arguments:?}: {}", finished.stderr);
            assert!(!file.exists(), "{arguments:?} was run");
        }
    }
    assert_eq!((story.plugin_runs(), story.site.decisions().len()), (0, 0));
}
