//! The ways people write their ssh configuration, and what ssh then asks.

use crate::support::{Story, lines};
use epithet_testkit::Broker;
use std::path::PathBuf;

/// A story in which somebody looks at what ssh asks.
fn watched() -> (Story, Broker, PathBuf) {
    let mut story = Story::begin();
    let matches = story.watch_matches();
    let broker = story.broker();
    (story, broker, matches)
}

/// The words of a command line that follow these flags.
fn values<'a, const N: usize>(line: &'a str, flags: [&str; N]) -> [&'a str; N] {
    let words: Vec<_> = line.split(' ').collect();
    flags.map(|flag| {
        let at = words.iter().position(|word| *word == flag).expect(flag);
        words[at + 1]
    })
}

#[test]
fn with_the_include_at_the_top_and_the_names_set_below_it_ssh_asks_once_for_what_it_will_dial() {
    let (story, _broker, matches) = watched();
    let user = story.laptop.home.user().name();
    let port = story.sshd.port().to_string();
    story.laptop.ssh_config(&format!(
        "Host web w\n  HostName 127.0.0.1\n\nHost w*\n  User {user}\n  Port {port}\n  KexAlgorithms curve25519-sha256\n"
    ));

    story.laptop.log_in("web");

    let asked = lines(&matches);
    assert_eq!(asked.len(), 1, "{asked:#?}");
    assert_eq!(
        values(&asked[0], ["--host", "--port", "--user"]),
        ["127.0.0.1", &port, user]
    );
    let decisions = story.site.decisions();
    assert_eq!(
        (&decisions[0]["host"], &decisions[0]["port"]),
        (&"127.0.0.1".into(), &story.sshd.port().into())
    );
    // Another name for the same host, user and port is the same connection to ssh.
    story.laptop.log_in("w");
    assert_eq!(story.site.decisions().len(), 1);
}

#[test]
fn a_command_line_that_says_otherwise_than_the_configuration_wins() {
    let (story, _broker, matches) = watched();
    let user = story.laptop.home.user().name();
    let port = story.sshd.port().to_string();
    story.laptop.ssh_config(&format!(
        "Host 127.0.0.*\n  User somebody-else\n  Port {}\n  KexAlgorithms curve25519-sha256\n",
        1
    ));
    let url = format!("ssh://{user}@127.0.0.1:{port}");
    let finished = story.laptop.run_ssh([url.as_str(), "true"]).success();
    assert_eq!(finished.stdout, "");
    let finished = story
        .laptop
        .run_ssh(["-o", &format!("User={user}"), "-p", &port, "127.0.0.1", "true"])
        .success();
    assert_eq!(finished.stdout, "");

    let asked = lines(&matches);
    assert_eq!(asked.len(), 2, "{asked:#?}");
    for line in &asked {
        assert_eq!(values(line, ["--port", "--user"]), [&port, user]);
    }
    assert_eq!(story.site.decisions().len(), 1, "both are the same connection");
}

#[test]
fn upper_case_host_names_are_the_same_hosts() {
    let (story, broker, matches) = watched();
    let config = std::fs::read_to_string(story.laptop.home.join(".ssh/config")).unwrap();
    story.laptop.home.write(
        ".ssh/config",
        config.replacen(
            "Host 127.0.0.*",
            "Host Web.EXAMPLE\n  HostName LocalHost\nHost *",
            1,
        ),
    );

    for host in ["LOCALHOST", "localhost", "Web.EXAMPLE"] {
        story.laptop.log_in(host);
    }

    let asked = lines(&matches);
    assert_eq!(asked.len(), 3, "{asked:#?}");
    for line in &asked {
        assert_eq!(values(line, ["--host"]), ["localhost"]);
    }
    assert_eq!(story.site.decisions().len(), 1, "one connection, one certificate");
    assert_eq!(story.laptop.certificates(&broker).len(), 1);
}

#[test]
fn with_canonical_names_ssh_still_asks_once() {
    let (story, _broker, matches) = watched();
    let config = std::fs::read_to_string(story.laptop.home.join(".ssh/config")).unwrap();
    story
        .laptop
        .home
        .write(".ssh/config", format!("CanonicalizeHostname always\n{config}"));
    story.laptop.log_in("localhost");
    assert_eq!(lines(&matches).len(), 1, "{:#?}", lines(&matches));
}

#[test]
fn ssh_g_prints_the_agent_and_leaves_a_socket_for_it() {
    let (story, broker, matches) = watched();

    let printed = story.laptop.run_ssh(["-G", "127.0.0.1"]).success().stdout;

    let agent = printed
        .lines()
        .find_map(|line| line.strip_prefix("identityagent "))
        .expect("ssh -G prints the agent");
    let asked = lines(&matches);
    let agents = broker.run_dir().join("agent");
    if asked[0].contains(" --by-name ") {
        // An ssh before 8.3, which prints what stands in the file.
        assert_eq!(agent, format!("{}/%r@%h", agents.display()));
        let name = format!("{}@127.0.0.1", story.laptop.home.user().name());
        assert!(agents.join(name).exists());
    } else {
        let [hash] = values(&asked[0], ["--hash"]);
        let socket = agents.join(hash);
        assert_eq!(agent, socket.to_str().unwrap());
        assert!(socket.exists());
    }

    let other = story.laptop.run_ssh(["-G", "other.example.com"]).success();
    assert!(!other.stdout.contains("identityagent"), "{}", other.stdout);
    assert!(!other.stderr.contains("epithet"), "{}", other.stderr);
    assert_eq!(lines(&matches).len(), 1);
}

#[test]
fn an_include_within_a_host_block_applies_there_and_nowhere_else() {
    let (story, _broker, matches) = watched();
    let include = story.laptop.home.join(".epithet/run/*/ssh-config.conf");
    story.laptop.home.ssh_config(&format!(
        "Host 127.0.0.1\n  Include {}\nHost 127.0.0.*\n  Port {}\n  User {}\n  KexAlgorithms curve25519-sha256\n{}",
        include.display(),
        story.sshd.port(),
        story.laptop.home.user().name(),
        story.laptop.other_identity(),
    ));
    story.laptop.log_in("127.0.0.1");
    assert!(story.accepted(0).contains("ID alice@example.com"));
    let position = story.sshd.log_position();
    story.laptop.log_in("127.0.0.2");
    assert!(
        story
            .accepted(position)
            .contains(&story.laptop.other_key.fingerprint())
    );
    // OpenSSH runs the program there as well and ignores what it says (readconf.c, SSHCONF_NEVERMATCH).
    assert!((1..=2).contains(&lines(&matches).len()));
}

#[test]
fn a_dot_at_the_end_of_a_name_does_not_matter_to_ssh_either() {
    let story = Story::begin();
    let broker = story.broker_with(["--match", "*.example.com,db"]);
    for host in ["web.example.com", "web.example.com.", "db", "db."] {
        let printed = story.laptop.run_ssh(["-G", host]).success().stdout;
        let agents = broker.run_dir().join("agent");
        assert!(
            printed.contains(&format!("identityagent {}/", agents.display())),
            "{host}: {printed}"
        );
    }
    let other = story.laptop.run_ssh(["-G", "web.example.org."]).success().stdout;
    assert!(!other.contains("identityagent"), "{other}");
}
