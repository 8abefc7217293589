//! The person's own agent behind ours: a real ssh-agent, real ssh, real sshd.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output};
use std::time::{Duration, Instant};

use crate::stage::{Stage, credential, err, out, run, settings, text};
use epithet_agent::{AgentSettings, Chain, ChainWhen};
use epithet_ssh::CaKey;

/// A running ssh-agent with one key that hosts of the stage accept.
pub(crate) struct OwnAgent {
    process: Child,
    pub(crate) socket: PathBuf,
    key: PathBuf,
}

impl Drop for OwnAgent {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl OwnAgent {
    /// Starts it; `constraints` are `ssh-add`'s options for the key.
    pub(crate) fn start(folder: &Path, constraints: &[&str]) -> Self {
        let (socket, key) = (folder.join("own-agent"), folder.join("own-key"));
        run(
            "ssh-keygen",
            &["-q", "-t", "ed25519", "-N", "", "-C", "mine", "-f", text(&key)],
        );
        fs::copy(folder.join("own-key.pub"), folder.join("authorized-keys")).expect("copied");
        let process = Command::new("ssh-agent")
            .args(["-D", "-a", text(&socket)])
            .stdout(std::process::Stdio::null())
            .spawn()
            .expect("ssh-agent is installed");
        let agent = Self { process, socket, key };
        let begun = Instant::now();
        // The socket's name is there a moment before somebody listens.
        while !agent
            .add([constraints, &[text(&agent.key)]].concat().as_slice())
            .status
            .success()
        {
            assert!(
                begun.elapsed() < Duration::from_secs(30),
                "ssh-agent takes no key"
            );
        }
        agent
    }

    fn add(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new("ssh-add");
        command.env("SSH_AUTH_SOCK", &self.socket).args(arguments);
        command.output().expect("ssh-add is installed")
    }
}

fn wait_for(socket: &Path) {
    let begun = Instant::now();
    while !socket.exists() {
        assert!(
            begun.elapsed() < Duration::from_secs(30),
            "{} does not appear",
            socket.display()
        );
        std::thread::yield_now();
    }
}

fn user() -> String {
    run("id", &["-un"]).trim().to_owned()
}

/// Settings with a chain that leads nowhere yet, and the chain.
fn chained(when: ChainWhen) -> (AgentSettings, Chain) {
    let chain = Chain::new(when, user().parse().expect("a user"), None);
    let settings = AgentSettings {
        chain: Some(chain.clone()),
        ..settings()
    };
    (settings, chain)
}

#[tokio::test(flavor = "multi_thread")]
async fn who_was_denied_a_certificate_still_has_the_keys_of_their_own_agent() {
    let (settings, chain) = chained(ChainWhen::Denied);
    let (stage, fulfil) = Stage::pending(settings);
    let own = OwnAgent::start(stage.folder.path(), &[]);
    chain.lead_to(own.socket.clone());
    let sshd = stage.sshd("host");
    fulfil.refuse();
    let output = stage.ssh(&sshd, &[], "echo arrived");
    let log = stage.sshd_log("host");
    assert_eq!(out(&output), "arrived\n", "{}{log}", err(&output));
    assert!(log.contains("Accepted publickey"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_certificate_the_other_keys_are_offered_after_it_only_when_asked_for() {
    for (when, arrives) in [(ChainWhen::Always, true), (ChainWhen::Denied, false)] {
        let (settings, chain) = chained(when);
        let (stage, fulfil) = Stage::pending(settings);
        let own = OwnAgent::start(stage.folder.path(), &[]);
        chain.lead_to(own.socket.clone());
        let sshd = stage.sshd("host");
        // The host does not trust the CA of this certificate, so that ssh goes on to the next key.
        let stranger = CaKey::generate_ed25519().unwrap();
        assert!(fulfil.ready(credential(&stranger, &stage.user)));
        let output = stage.ssh(&sshd, &["-v"], "echo arrived");
        let said = err(&output);
        assert_eq!(out(&output) == "arrived\n", arrives, "{said}");
        let offered: Vec<_> = said
            .lines()
            .filter(|line| line.contains("Offering public key:"))
            .collect();
        assert_eq!(offered.len(), if arrives { 2 } else { 1 }, "{offered:?}");
        assert!(offered[0].contains("ED25519-CERT"), "{offered:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_remote_host_with_the_forwarded_agent_gets_nothing_of_the_persons_own() {
    let (settings, chain) = chained(ChainWhen::Always);
    // Even one that may go on with the certificate.
    let settings = AgentSettings {
        allow_forwarding: true,
        ..settings
    };
    let stage = Stage::ready(settings);
    let own = OwnAgent::start(stage.folder.path(), &[]);
    chain.lead_to(own.socket.clone());
    let sshd = stage.sshd("host");
    let plunder = format!("ssh-add -L; ssh-add -T {}.pub; echo test $?", own.key.display());
    let output = stage.ssh(&sshd, &["-A"], &plunder);
    let got = out(&output);
    assert!(got.contains("ed25519-cert-v01"), "{got}");
    assert!(!got.contains("mine"), "{got}");
    assert!(!got.contains("test 0"), "{got}");
}

#[tokio::test(flavor = "multi_thread")]
async fn constraints_on_keys_of_the_other_agent_hold_because_it_is_told_which_host_it_is() {
    let (settings, chain) = chained(ChainWhen::Denied);
    let (stage, fulfil) = Stage::pending(settings);
    let (here, elsewhere) = (stage.sshd("host"), stage.sshd("elsewhere"));
    let known = stage.path("known");
    let key = fs::read_to_string(stage.path("host-host-key.pub")).unwrap();
    fs::write(&known, format!("host {key}")).unwrap();
    // The key may be used towards `host` only, and that is what its host key says.
    let own = OwnAgent::start(stage.folder.path(), &["-H", text(&known), "-h", "host"]);
    chain.lead_to(own.socket.clone());
    fulfil.refuse();
    let output = stage.ssh(&here, &[], "echo arrived");
    assert_eq!(
        out(&output),
        "arrived\n",
        "{}{}",
        err(&output),
        stage.sshd_log("host")
    );
    let output = stage.ssh(&elsewhere, &[], "echo arrived");
    assert_ne!(out(&output), "arrived\n", "{}", err(&output));
}

#[tokio::test(flavor = "multi_thread")]
async fn other_programs_see_the_certificate_only_and_can_change_nothing_in_the_other_agent() {
    let (settings, chain) = chained(ChainWhen::Always);
    let stage = Stage::ready(settings);
    let own = OwnAgent::start(stage.folder.path(), &[]);
    chain.lead_to(own.socket.clone());
    let ssh_add = |argument: &str| stage.program("ssh-add").arg(argument).output().unwrap();
    assert_eq!(out(&ssh_add("-L")).lines().count(), 1);
    assert!(ssh_add("-D").status.success());
    assert!(out(&ssh_add("-L")).contains("no identities"));
    assert!(
        out(&own.add(&["-L"])).contains("mine"),
        "the other agent keeps its keys"
    );
    // Who emptied this agent wants it empty: ssh gets nothing either.
    let sshd = stage.sshd("host");
    let output = stage.ssh(&sshd, &["-v"], "echo arrived");
    assert_ne!(out(&output), "arrived\n");
    assert!(!err(&output).contains("Offering public key:"), "{}", err(&output));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_does_not_answer_and_one_that_is_this_very_one_hold_nobody_up() {
    let (settings, chain) = chained(ChainWhen::Always);
    let stage = Stage::ready(settings);
    let sshd = stage.sshd("host");
    let silent = stage.path("silent");
    let script = "import socket, sys, time\ns = socket.socket(socket.AF_UNIX)\ns.bind(sys.argv[1])\ns.listen()\ntime.sleep(600)";
    let mut listener = Command::new("python3")
        .args(["-c", script, text(&silent)])
        .spawn()
        .expect("python3 is installed");
    wait_for(&silent);
    for socket in [silent, stage.socket.clone(), stage.path("nothing-there")] {
        chain.lead_to(socket);
        let output = stage.ssh(&sshd, &[], "echo arrived");
        assert_eq!(out(&output), "arrived\n", "{}", err(&output));
    }
    listener.kill().unwrap();
    listener.wait().unwrap();
}
