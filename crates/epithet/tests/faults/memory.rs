//! Too little memory: a limit on addresses, and one on what is resident in all.

use crate::laptop::start;
use crate::rounds::repeat;
use crate::scarcity::{limited, lists_and_signs, live_agent};
use crate::support::Story;
use epithet_testkit::{DEADLINE, plugin_script, wait_until};
use std::fs;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// What a broker and its plugin may have resident.
const CAP: u64 = 128 * 1024 * 1024;
/// More than the broker takes at once, each with nearly the longest request.
const CROWD: usize = 300;
const REQUEST: usize = 60 * 1024;
/// Most of what one agent takes at once, each with nearly the longest message.
const AGENT_CROWD: usize = 40;
const MESSAGE: usize = 250 * 1024;
/// Between two looks at whether the crowd is complete.
const PAUSE: Duration = Duration::from_millis(50);

/// A group of processes with a limit on their memory (cgroups(7), either version). It goes when this is dropped.
struct MemoryGroup {
    path: PathBuf,
    is_second: bool,
}

impl MemoryGroup {
    /// `None` where no group can be made: that takes root, and a memory controller.
    fn capped(bytes: u64) -> Option<Self> {
        let name = format!("epithet-test-{}", std::process::id());
        let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
        let mounted = |kind: &str, option: &str| {
            mounts.lines().find_map(|line| {
                let fields: Vec<_> = line.split(' ').collect();
                let has_option = option.is_empty() || fields.get(3)?.split(',').any(|each| each == option);
                (*fields.get(2)? == kind && has_option)
                    .then(|| fields.get(1).map(PathBuf::from))
                    .flatten()
            })
        };
        let (root, is_second) = match mounted("cgroup", "memory") {
            Some(root) => (root, false),
            None => (mounted("cgroup2", "")?, true),
        };
        let path = root.join(name);
        fs::create_dir(&path).ok()?;
        let group = Self { path, is_second };
        let limit = if is_second {
            "memory.max"
        } else {
            "memory.limit_in_bytes"
        };
        fs::write(group.path.join(limit), bytes.to_string())
            .is_ok()
            .then_some(group)
    }

    /// How many processes were ended because it was full.
    fn killed(&self) -> u64 {
        let file = if self.is_second {
            "memory.events"
        } else {
            "memory.oom_control"
        };
        let text = fs::read_to_string(self.path.join(file)).expect("the group is there");
        let line = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
        line.and_then(|count| count.trim().parse().ok())
            .expect("the kernel counts that")
    }

    fn procs(&self) -> PathBuf {
        self.path.join("cgroup.procs")
    }
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        // It can be removed when its last process is gone.
        let _ = wait_until(Duration::from_secs(5), || fs::remove_dir(&self.path).ok());
    }
}

/// Connections that have said most of what they may say, and keep coming until this is dropped.
struct Flood {
    ends: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Flood {
    fn of(broker: &Path, agent: &Path) -> Self {
        let ends = Arc::new(AtomicBool::new(false));
        let mut message = vec![0x20; MESSAGE];
        // Its length, which is never reached.
        message[..4].copy_from_slice(&[0, 4, 0, 0]);
        let kinds = [
            (broker.to_owned(), CROWD, vec![b' '; REQUEST]),
            (agent.to_owned(), AGENT_CROWD, message),
        ];
        let threads = kinds.into_iter().map(|(path, count, bytes)| {
            let ends = Arc::clone(&ends);
            thread::spawn(move || {
                while !ends.load(Ordering::Relaxed) {
                    // Each round of it is turned away or times out; then there is the next one.
                    let held: Vec<_> = (0..count)
                        .filter_map(|_| {
                            let mut stream = UnixStream::connect(&path).ok()?;
                            stream.set_write_timeout(Some(PAUSE)).ok()?;
                            let _ = stream.write_all(&bytes);
                            Some(stream)
                        })
                        .collect();
                    for _ in 0..60 {
                        if ends.load(Ordering::Relaxed) {
                            break;
                        }
                        thread::sleep(PAUSE);
                    }
                    drop(held);
                }
            })
        });
        Self {
            threads: threads.collect(),
            ends,
        }
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// A plugin with as much state and as many words as one may have.
fn large_plugin(story: &Story) -> String {
    let script = format!(
        "#!/bin/sh\nhead -c 10485760 /dev/zero >&3\nhead -c 1000000 /dev/zero | tr '\\0' x >&2\nexec '{}'\n",
        story.plugin
    );
    let home = story.laptop.home.path();
    plugin_script(home, "large", &script).display().to_string()
}

/// The most that a process ever had resident.
fn peak(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
    kib.expect("the kernel says it") * 1024
}

fn under_a_limit(name: &str, limit: &str, group: Option<&MemoryGroup>) {
    let story = Story::begin();
    story.laptop.knows(&story.sshd, &story.laptop.other_identity());
    let mut broker = start(limited(&story, limit, &large_plugin(&story)));
    repeat(name, |number| {
        let agent = live_agent(&story, &broker, "127.0.0.1");
        let position = broker.log().position();
        let flood = Flood::of(broker.socket(), &agent);
        broker.wait_for_log_after(position, "requests at once; one was turned away");
        lists_and_signs(&story, &agent);
        // Served or turned away: ssh gets in, with this key or the other.
        story.laptop.log_in("127.0.0.2");
        lists_and_signs(&story, &agent);
        drop(flood);

        let host = ["127.0.0.3", "127.0.0.4"][number % 2];
        let served = wait_until(DEADLINE, || {
            let position = story.sshd.log_position();
            story.laptop.log_in(host);
            story
                .accepted(position)
                .contains("ID alice@example.com")
                .then_some(())
        });
        assert!(served.is_some(), "it serves nobody any more: {}", broker.log());
        assert!(broker.daemon().try_status().is_none(), "{}", broker.log());
        let peak = peak(broker.daemon().pid());
        assert!(peak < CAP, "{peak} bytes were resident");
        assert_eq!(
            group.map_or(0, MemoryGroup::killed),
            0,
            "nothing was ended for memory"
        );
        None
    });
    broker.stop(DEADLINE);
}

#[test]
fn addresses_are_capped() {
    under_a_limit(
        "700 MB of address space, a plugin with 10 MiB of state, and a flood: work is turned away, nothing is aborted",
        "ulimit -v 700000",
        None,
    );
}

#[test]
fn memory_is_capped() {
    let group = MemoryGroup::capped(CAP);
    let limit = match &group {
        Some(group) => format!("echo $$ > '{}'", group.procs().display()),
        None => {
            eprintln!(
                "no group with a memory limit can be made here (that takes root and a memory controller); what is \
                 resident is watched instead"
            );
            "true".to_owned()
        }
    };
    under_a_limit(
        "128 MiB of memory, a plugin with 10 MiB of state, and a flood: work is turned away, nothing is aborted",
        &limit,
        group.as_ref(),
    );
}
