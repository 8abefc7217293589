//! OpenSSH 8.0 to 8.8 talk to their agent as a newer one does, but for `session-bind@openssh.com`, which they do not know.
//! Here the newer ssh's is taken out on the way. With `EPITHET_TEST_SSH` an older one shows that there is none.

use crate::support::Story;
use epithet_testkit::{DEADLINE, Finished, Sshd, ssh_version};
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

const HASH: &str = "0123456789abcdef0123456789abcdef01234567";

/// The first ssh that binds its connections to agents.
const SESSION_BIND: (u32, u32) = (8, 9);

/// A way to an agent on which nobody can bind.
#[derive(Debug)]
struct WithoutBinds {
    socket: PathBuf,
    taken_out: Arc<AtomicUsize>,
}

impl WithoutBinds {
    fn before(agent: PathBuf, socket: PathBuf) -> Self {
        let listener = UnixListener::bind(&socket).expect("a path in a home of ours");
        let taken_out = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&taken_out);
        thread::spawn(move || {
            for ssh in listener.incoming().flatten() {
                let (agent, count) = (agent.clone(), Arc::clone(&count));
                thread::spawn(move || pass_on(ssh, &agent, &count));
            }
        });
        Self { socket, taken_out }
    }
}

/// Passes on questions and answers; a bind is answered as an agent answers what it does not know.
fn pass_on(mut ssh: UnixStream, agent: &Path, taken_out: &AtomicUsize) -> Option<()> {
    let mut agent = UnixStream::connect(agent).ok()?;
    loop {
        let question = frame(&mut ssh)?;
        if question[4..].starts_with(b"\x1b\0\0\0\x18session-bind@openssh.com") {
            taken_out.fetch_add(1, Ordering::Relaxed);
            ssh.write_all(&[0, 0, 0, 1, 5]).ok()?;
            continue;
        }
        agent.write_all(&question).ok()?;
        ssh.write_all(&frame(&mut agent)?).ok()?;
    }
}

fn frame(stream: &mut UnixStream) -> Option<Vec<u8>> {
    let mut frame = vec![0; 4];
    stream.read_exact(&mut frame).ok()?;
    let length = u32::from_be_bytes([frame[0], frame[1], frame[2], frame[3]]);
    frame.resize(4 + usize::try_from(length).ok()?, 0);
    stream.read_exact(&mut frame[4..]).ok()?;
    Some(frame)
}

/// Asks the broker as a child of this process, which is also the one that connects to the agent.
fn ask(story: &Story, broker: &Path) {
    let mut question = Command::new(env!("CARGO_BIN_EXE_epithet-match"));
    question
        .args(["--host", "127.0.0.1", "--port", &story.sshd.port().to_string()])
        .args([
            "--user",
            story.laptop.home.user().name(),
            "--hash",
            HASH,
            "--broker",
        ])
        .arg(broker);
    Finished::of(question, DEADLINE).success();
}

/// An old ssh: it knows neither bound connections nor host-bound logins.
fn old_ssh(story: &Story, way: &WithoutBinds, more: &[&str]) -> Finished {
    let home = &story.laptop.home;
    let mut ssh = home.command("ssh");
    ssh.args(["-F", "none", "-o", "IdentityFile=none", "-o", "BatchMode=yes"]);
    if ssh_version() >= SESSION_BIND {
        ssh.args(["-o", "PubkeyAuthentication=unbound"]);
    }
    ssh.arg("-o").arg(format!(
        "UserKnownHostsFile={}",
        home.join(".ssh/known_hosts").display()
    ));
    ssh.arg("-o")
        .arg(format!("IdentityAgent={}", way.socket.display()));
    ssh.args(["-p", &story.sshd.port().to_string(), "-l", home.user().name()])
        .args(more);
    Finished::of(ssh, DEADLINE)
}

/// What a remote host does with the agent that it was given: its own ssh is a newer one, and binds.
fn onward(story: &Story, behind: &Sshd) -> String {
    story.laptop.home.trust(behind);
    format!(
        "ssh-add -L; ssh -F none -o IdentityAgent=SSH_AUTH_SOCK -o IdentityFile=none -o BatchMode=yes \
         -o UserKnownHostsFile={} -p {} 127.0.0.1 echo got further; echo login $?",
        story.laptop.home.join(".ssh/known_hosts").display(),
        behind.port()
    )
}

#[test]
fn an_ssh_that_cannot_bind_logs_in_and_the_host_that_it_forwards_its_agent_to_cannot() {
    let story = Story::begin();
    let broker = story.broker();
    let behind = story.site.host(&story.laptop.other_key);
    let way = WithoutBinds::before(
        broker.run_dir().join("agent").join(HASH),
        story.laptop.home.join("way"),
    );

    ask(&story, broker.socket());
    let finished = old_ssh(&story, &way, &["127.0.0.1", "echo logged in"]).success();
    assert_eq!(finished.stdout, "logged in\n");
    assert_eq!(
        way.taken_out.load(Ordering::Relaxed) > 0,
        ssh_version() >= SESSION_BIND,
        "a newer ssh would have bound, and an older one not"
    );

    ask(&story, broker.socket());
    let script = onward(&story, &behind);
    let finished = old_ssh(&story, &way, &["-A", "127.0.0.1", &script]);
    let said = format!("{}{}", finished.stdout, finished.stderr);
    assert!(finished.stdout.contains("The agent has no identities."), "{said}");
    assert!(finished.stdout.contains("login 255"), "{said}");
    assert!(!behind.log().contains("Accepted"), "{}", behind.log());
}
