//! Too few descriptors.

use crate::laptop::start;
use crate::networks::{falls_through_at, with_a_certificate_at};
use crate::rounds::repeat;
use crate::set_clock::unix_now;
use crate::support::Story;
use epithet_ssh::UserCertificate;
use epithet_testkit::{Broker, DEADLINE, Finished, wait_until};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use std::io::copy;
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

/// For how long a broker without descriptors is watched.
const WATCHED: Duration = Duration::from_secs(2);
/// What it may use of a core meanwhile.
const SPINS: f64 = 0.05;
/// Longer than a round takes.
const A_ROUND: Duration = Duration::from_secs(45);
/// More than there are descriptors.
const CROWD: usize = 120;

/// `epithet agent` by a shell that limits it first.
pub(crate) fn limited(story: &Story, limit: &str, plugin: &str) -> Command {
    let mut command = story.laptop.home.command("/bin/sh");
    command
        .args(["-c", &format!("{limit} && exec \"$@\"")])
        .arg("sh")
        .arg(&story.laptop.program);
    command.args([
        "agent",
        "-v",
        "--auth",
        plugin,
        "--match",
        "127.0.0.*",
        "--ca-url",
        story.site.url(),
    ]);
    command
}

/// The processor time that a process has used (proc(5): fields 14 and 15, in ticks of 10 ms).
fn cpu(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let after = stat.rsplit_once(") ").map_or("", |(_, after)| after);
    let ticks = after
        .split(' ')
        .skip(11)
        .take(2)
        .filter_map(|field| field.parse::<u64>().ok());
    Duration::from_millis(ticks.sum::<u64>() * 10)
}

/// Connects without waiting for a place in the queue.
fn knock(path: &Path) -> Option<OwnedFd> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).ok()?;
    connect(&socket, &SocketAddrUnix::new(path).ok()?).ok()?;
    Some(socket)
}

fn crowd(path: &Path) -> Vec<OwnedFd> {
    (0..CROWD).filter_map(|_| knock(path)).collect()
}

/// Watches a broker that can do nothing, once it has done what the crowd was about.
#[track_caller]
fn stays_calm(broker: &mut Broker) -> Duration {
    let pid = broker.daemon().pid();
    let pause = Duration::from_millis(100);
    let settled = wait_until(DEADLINE, || {
        let before = cpu(pid);
        thread::sleep(pause);
        (cpu(pid) == before).then_some(())
    });
    assert!(settled.is_some(), "it is never quiet");
    let before = cpu(pid);
    // Not waiting for anything: this is how long it is watched.
    thread::sleep(WATCHED);
    let used = cpu(pid) - before;
    assert!(
        used.as_secs_f64() < SPINS * WATCHED.as_secs_f64(),
        "it used {used:?} of {WATCHED:?}"
    );
    used
}

/// Logs in to a host, and returns the socket of its agent, whose certificate does not end while a round uses it.
#[track_caller]
pub(crate) fn live_agent(story: &Story, broker: &Broker, host: &str) -> PathBuf {
    loop {
        with_a_certificate_at(story, host);
        let inspection = story.laptop.inspect(broker);
        let agents = inspection["agents"].as_array().expect("a list of agents");
        let agent = agents.iter().find(|agent| agent["remoteHost"] == host);
        let agent = agent.expect("it has an agent");
        let line = agent["certificate"].as_str().unwrap_or_default();
        let certificate = UserCertificate::parse(line.trim()).expect("a certificate");
        let left = certificate.valid_before().saturating_sub(unix_now());
        let socket = agent["socketPath"].as_str().expect("every agent has a socket");
        if left > A_ROUND.as_secs() {
            return socket.into();
        }
        // Its end comes first, and then a new one.
        let ended = wait_until(A_ROUND + DEADLINE, || {
            thread::sleep(Duration::from_millis(200));
            (!Path::new(socket).exists()).then_some(())
        });
        assert!(ended.is_some(), "{socket} outlives its certificate");
    }
}

/// Logs in through an agent's socket alone: it lists its certificate, and signs. Nobody asks the broker.
#[track_caller]
pub(crate) fn lists_and_signs(story: &Story, socket: &Path) {
    let position = story.sshd.log_position();
    let mut ssh = story.laptop.home.command("setsid");
    let known_hosts = story.laptop.home.join(".ssh/known_hosts");
    ssh.args(["--wait", "ssh", "-F", "none", "-o", "BatchMode=yes"])
        .args(["-o", "IdentityFile=none", "-o"])
        .arg(format!("IdentityAgent={}", socket.display()))
        .arg("-o")
        .arg(format!("UserKnownHostsFile={}", known_hosts.display()))
        .args(["-p", &story.sshd.port().to_string(), "-l"])
        .args([story.laptop.home.user().name(), "127.0.0.1", "true"]);
    Finished::of(ssh, DEADLINE).success();
    let accepted = story.accepted(position);
    assert!(accepted.contains("ID alice@example.com"), "{accepted}");
}

/// A socket that leads to connections with an agent that were made before. Those that nobody used end when this is dropped.
struct OldConnections {
    path: PathBuf,
    left: Arc<Mutex<Vec<UnixStream>>>,
}

impl OldConnections {
    fn with(story: &Story, agent: &Path) -> Self {
        let path = story.laptop.home.join("old-connections");
        let _ = std::fs::remove_file(&path);
        let listener = UnixListener::bind(&path).expect("a path in a home of ours");
        let connect = |_| UnixStream::connect(agent).expect("the agent listens");
        let left = Arc::new(Mutex::new((0..3).map(connect).collect::<Vec<_>>()));
        // The agent has taken them when it answers.
        let mut list = Command::new("ssh-add");
        list.arg("-L").env("SSH_AUTH_SOCK", agent);
        Finished::of(list, DEADLINE).success();
        let pool = Arc::clone(&left);
        thread::spawn(move || {
            for near in listener.incoming().flatten() {
                let Some(far) = pool.lock().unwrap_or_else(PoisonError::into_inner).pop() else {
                    return;
                };
                let (Ok(far_too), Ok(near_too)) = (far.try_clone(), near.try_clone()) else {
                    return;
                };
                for (mut from, mut to) in [(near_too, far_too), (far, near)] {
                    thread::spawn(move || {
                        let _ = copy(&mut from, &mut to);
                        let _ = to.shutdown(Shutdown::Write);
                    });
                }
            }
        });
        Self { path, left }
    }
}

impl Drop for OldConnections {
    fn drop(&mut self) {
        self.left.lock().unwrap_or_else(PoisonError::into_inner).clear();
        // And so does the thread that leads to them.
        let _ = UnixStream::connect(&self.path);
    }
}

#[test]
fn descriptors_run_out() {
    let story = Story::begin();
    let mut broker = start(limited(&story, "ulimit -n 64", &story.plugin));
    repeat(
        "64 descriptors, and all that requests may have taken: live agents answer and sign, no spinning, then it serves again",
        |_| {
            let agent = live_agent(&story, &broker, "127.0.0.1");
            let held = crowd(broker.socket());
            lists_and_signs(&story, &agent);
            let used = stays_calm(&mut broker);
            lists_and_signs(&story, &agent);
            drop(held);
            let served = wait_until(DEADLINE, || {
                (story.laptop.run_ssh(["127.0.0.2", "true"]).status.success()).then_some(())
            });
            assert!(served.is_some(), "it serves nobody any more: {}", broker.log());
            Some(used)
        },
    );
}

/// As many connections as a crowd gets with one agent are not all there are: the others have theirs, and whoever comes new
/// is served, or told so and goes on. Once ssh waited for an agent that could not take it, for as long as the crowd stayed.
#[test]
fn a_crowd_on_one_agent_leaves_the_others_their_connections() {
    let story = Story::begin();
    story.laptop.knows(&story.sshd, &story.laptop.other_identity());
    let mut broker = start(limited(&story, "ulimit -n 64", &story.plugin));
    repeat(
        "64 descriptors, and a crowd on one agent and on the broker: the other agents answer and sign, nobody hangs",
        |_| {
            live_agent(&story, &broker, "127.0.0.1");
            let other = live_agent(&story, &broker, "127.0.0.2");
            // Again: the second may have waited for a certificate to end, and the first one's ended with it.
            let agent = live_agent(&story, &broker, "127.0.0.1");
            let position = broker.log().position();
            let held = (crowd(&other), crowd(broker.socket()));
            broker.wait_for_log_after(position, "too many at once");
            lists_and_signs(&story, &agent);
            let used = stays_calm(&mut broker);
            story.laptop.log_in("127.0.0.3");
            lists_and_signs(&story, &agent);
            drop(held);
            comes_back(&story, &broker, "127.0.0.2");
            Some(used)
        },
    );
}

/// Sets how many descriptors a running process may have; those it has beyond that it keeps.
fn allow_descriptors(broker: &mut Broker, most: usize) {
    let mut prlimit = Command::new("prlimit");
    prlimit
        .args(["--pid", &broker.daemon().pid().to_string()])
        .arg(format!("--nofile={most}:"));
    Finished::of(prlimit, DEADLINE).success();
}

/// Logs in to `host` with a certificate, soon.
#[track_caller]
fn comes_back(story: &Story, broker: &Broker, host: &str) {
    let served = wait_until(DEADLINE, || {
        let position = story.sshd.log_position();
        story.laptop.log_in(host);
        story
            .accepted(position)
            .contains("ID alice@example.com")
            .then_some(())
    });
    assert!(served.is_some(), "it serves nobody any more: {}", broker.log());
}

#[test]
fn not_one_descriptor_is_left() {
    let story = Story::begin();
    story.laptop.knows(&story.sshd, &story.laptop.other_identity());
    let mut broker = start(limited(&story, "ulimit -n 256", &story.plugin));
    repeat(
        "not one descriptor is left: what is connected is answered and signed for, no spinning, and then it serves again",
        |number| {
            let agent = live_agent(&story, &broker, "127.0.0.1");
            let old = OldConnections::with(&story, &agent);
            allow_descriptors(&mut broker, 8);
            let position = broker.log().position();
            let waiting = (knock(&agent), knock(broker.socket()));
            broker.wait_for_log_after(position, "cannot accept");

            lists_and_signs(&story, &old.path);
            let used = stays_calm(&mut broker);
            // Whoever comes now waits no longer than `match` does for a first word.
            falls_through_at(&story, "127.0.0.3");

            allow_descriptors(&mut broker, 256);
            drop(waiting);
            comes_back(&story, &broker, ["127.0.0.3", "127.0.0.4"][number % 2]);
            with_a_certificate_at(&story, "127.0.0.1");
            assert!(broker.daemon().try_status().is_none(), "{}", broker.log());
            Some(used)
        },
    );
}
