//! The keys of the person's own agent when a broker serves their connection: a real ssh-agent in `SSH_AUTH_SOCK`.

use crate::support::Story;
use epithet_testkit::{DEADLINE, Daemon, Finished, ssh_version, wait_until};
use std::path::{Path, PathBuf};

/// A running ssh-agent with the person's other key, which hosts accept.
fn own_agent(story: &Story) -> (Daemon, PathBuf) {
    let home = &story.laptop.home;
    let socket = home.join("own-agent");
    let mut command = home.command("ssh-agent");
    command.arg("-D").arg("-a").arg(&socket);
    let agent = Daemon::start("ssh-agent", command, None);
    let added = wait_until(DEADLINE, || {
        let mut add = home.command("ssh-add");
        add.arg(story.laptop.other_key.path())
            .env("SSH_AUTH_SOCK", &socket);
        let added = Finished::of(add, DEADLINE);
        added.status.success().then_some(())
    });
    added.expect("the agent takes the key");
    (agent, socket)
}

/// `ssh` in an environment with that agent and without key files. Its stderr is a file, as it may be a terminal, so that the
/// certificate is promised before it is there.
fn ssh(story: &Story, socket: &Path, user: &str) -> Finished {
    let said = story.laptop.home.join("said");
    let ssh = story.laptop.ssh([
        "-o",
        "IdentityFile=none",
        "-l",
        user,
        "127.0.0.1",
        "echo logged in",
    ]);
    let mut command = story.laptop.home.command("sh");
    command.args(["-c", "exec \"$@\" 2>\"$SAID\"", "sh"]);
    command.arg(ssh.get_program()).args(ssh.get_args());
    command.env("SSH_AUTH_SOCK", socket).env("SAID", &said);
    let mut finished = Finished::of(command, DEADLINE);
    finished.stderr = std::fs::read_to_string(said).unwrap_or_default();
    finished
}

#[test]
fn a_person_whose_certificate_is_denied_goes_on_with_their_own_agent_unless_they_said_never() {
    for (chain, arrives) in [(None, true), (Some("always"), true), (Some("never"), false)] {
        let mut story = Story::begin();
        // The plugin's token is nobody's.
        let token = story.laptop.home.write("token", "nobody");
        let script = format!("#!/bin/sh\nexec cat '{}'\n", token.display());
        let plugin = epithet_testkit::plugin_script(story.laptop.home.path(), "denied", &script);
        story.plugin = plugin.display().to_string();
        let more = chain.map(|chain| format!("--chain={chain}"));
        let _broker = story.broker_with(["--match=127.0.0.*"].into_iter().chain(more.as_deref()));
        let (_agent, socket) = own_agent(&story);
        let user = story.laptop.home.user().name().to_owned();
        // One before 8.9 does not say for which login it asks, so it would get no keys but ours; it waits for the denial.
        let finished = ssh(&story, &socket, &user);
        assert!(
            finished.stderr.contains("epithet: "),
            "the denial is said: {}",
            finished.stderr
        );
        assert_eq!(
            finished.stdout == "logged in\n",
            arrives,
            "{chain:?}: {}",
            finished.stderr
        );
        if arrives {
            let accepted = story.accepted(0);
            assert!(
                accepted.contains(&story.laptop.other_key.fingerprint()),
                "{accepted}"
            );
        }
    }
}

#[test]
fn an_ssh_that_cannot_bind_is_sent_to_the_persons_own_agent_when_its_certificate_is_denied() {
    let mut story = Story::begin();
    let token = story.laptop.home.write("token", "nobody");
    let script = format!("#!/bin/sh\nexec cat '{}'\n", token.display());
    let plugin = epithet_testkit::plugin_script(story.laptop.home.path(), "denied", &script);
    story.plugin = plugin.display().to_string();
    // To the broker the ssh that is here is an old one, which it may be.
    let old = "#!/bin/sh\necho 'OpenSSH_8.4p1 Debian-5+deb11u3' >&2\n";
    let old = epithet_testkit::plugin_script(story.laptop.home.path(), "ssh", old);
    let path = format!(
        "{}:{}",
        old.parent().unwrap().display(),
        std::env::var("PATH").unwrap()
    );
    let mut agent = story.laptop.agent(story.site.url(), &story.plugin);
    agent.arg("--match=127.0.0.*");
    if ssh_version() >= (8, 9) {
        agent.env("PATH", path);
    }
    let broker = crate::laptop::start(agent);
    let (_agent, socket) = own_agent(&story);
    let user = story.laptop.home.user().name().to_owned();

    let finished = ssh(&story, &socket, &user);

    assert_eq!(finished.stdout, "logged in\n", "{}", finished.stderr);
    assert!(
        finished.stderr.contains("epithet: "),
        "the denial is said: {}",
        finished.stderr
    );
    let agents = story.laptop.inspect(&broker)["agents"].clone();
    assert_eq!(
        agents.as_array().map(Vec::len),
        Some(0),
        "ssh was told to use its own: {agents}"
    );
}

#[test]
fn with_a_certificate_the_own_agent_is_not_needed_and_a_broken_one_hinders_nobody() {
    let story = Story::begin();
    let broker = story.broker_with(["--match=127.0.0.*", "--chain=always"]);
    let user = story.laptop.home.user().name().to_owned();
    let nothing = story.laptop.home.join("nothing-there");
    assert_eq!(ssh(&story, &nothing, &user).success().stdout, "logged in\n");
    assert!(story.accepted(0).contains("ID alice@example.com"));
    // SSH_AUTH_SOCK may even be one of the broker's own agents, as in a shell that was started from there.
    let own = std::fs::read_dir(broker.run_dir().join("agent"))
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    assert_eq!(ssh(&story, &own, &user).success().stdout, "logged in\n");
}

#[test]
fn forwarding_is_allowed_for_the_hosts_that_are_named_and_no_others() {
    let story = Story::begin();
    let _broker = story.broker_with(["--match=127.0.0.*", "--allow-forwarding=127.0.0.2"]);
    for (host, lists) in [("127.0.0.1", false), ("127.0.0.2", true)] {
        let finished = story.laptop.run_ssh(["-A", host, "ssh-add -L"]);
        let listed = finished.stdout.contains("ed25519-cert-v01");
        assert_eq!(listed, lists, "{host}: {}{}", finished.stdout, finished.stderr);
    }
}
