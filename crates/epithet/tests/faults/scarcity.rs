//! Too little of everything: descriptors, memory, disk.

use crate::laptop::start;
use crate::rounds::repeat;
use crate::support::Story;
use epithet_testkit::{Broker, DEADLINE, Finished, TestUser, plugin_script, wait_until};
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::thread;
use std::time::Duration;

/// For how long a broker without descriptors is watched.
const WATCHED: Duration = Duration::from_secs(2);
/// What it may use of a core meanwhile. The promise is 5 %; the kernel counts in steps of 10 ms.
const SPINS: f64 = 0.10;

/// `epithet agent` by a shell that limits it first.
fn limited(story: &Story, limit: &str, plugin: &str) -> Command {
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

#[test]
fn descriptors_run_out() {
    let story = Story::begin();
    let mut broker = start(limited(&story, "ulimit -n 64", &story.plugin));
    repeat(
        "64 descriptors, and all of them taken: no spinning, and then it serves again",
        |_| {
            let held: Vec<_> = (0..120)
                .filter_map(|_| UnixStream::connect(broker.socket()).ok())
                .collect();
            let before = cpu(broker.daemon().pid());
            // Not waiting for anything: this is how long it is watched.
            thread::sleep(WATCHED);
            let used = cpu(broker.daemon().pid()) - before;
            assert!(
                used.as_secs_f64() < SPINS * WATCHED.as_secs_f64(),
                "it used {used:?} of {WATCHED:?}"
            );
            drop(held);
            let position = story.sshd.log_position();
            let served = wait_until(DEADLINE, || {
                story
                    .laptop
                    .run_ssh(["127.0.0.1", "true"])
                    .status
                    .success()
                    .then_some(())
            });
            assert!(served.is_some(), "it serves nobody any more: {}", broker.log());
            assert!(story.accepted(position).contains("ID alice@example.com"));
            Some(used)
        },
    );
}

#[test]
fn live_agents_survive_others_who_take_all_descriptors() {
    let story = Story::begin();
    let broker = start(limited(&story, "ulimit -n 64", &story.plugin));
    story.laptop.log_in("127.0.0.1");
    let agents = broker.run_dir().join("agent");
    let mut entries = std::fs::read_dir(&agents).expect("the broker made it");
    let agent = entries.next().expect("an agent").expect("a name").path();
    repeat(
        "a live agent while all descriptors are taken: it answers when there is one again",
        |_| {
            let held: Vec<_> = (0..120)
                .filter_map(|_| UnixStream::connect(broker.socket()).ok())
                .collect();
            drop(held);
            let mut list = Command::new("ssh-add");
            list.arg("-L").env("SSH_AUTH_SOCK", &agent);
            let finished = Finished::of(list, DEADLINE);
            assert!(
                finished.stdout.contains("-cert-v01@openssh.com"),
                "{}{}",
                finished.stdout,
                finished.stderr
            );
            None
        },
    );
}

#[test]
fn memory_is_capped() {
    let story = Story::begin();
    let home = &story.laptop.home;
    let flood = format!(
        "#!/bin/sh\nhead -c 10485760 /dev/zero >&3\nhead -c 1000000 /dev/zero | tr '\\0' x >&2\nexec '{}'\n",
        story.plugin
    );
    let plugin = plugin_script(home.path(), "large", &flood).display().to_string();
    let mut broker = start(limited(&story, "ulimit -v 700000", &plugin));
    repeat(
        "700 MB of address space, and a plugin with 10 MiB of state: nothing is aborted",
        |number| {
            let host = format!("127.0.0.{}", number % 4 + 1);
            let position = story.sshd.log_position();
            story.laptop.log_in(&host);
            assert!(story.accepted(position).contains("ID alice@example.com"));
            assert!(broker.daemon().try_status().is_none(), "{}", broker.log());
            let resident = broker.daemon().resident_bytes().unwrap_or(0);
            assert!(resident < 128 * 1024 * 1024, "{resident} bytes are resident");
            None
        },
    );
}

/// A command in the mount namespace of a broker.
fn beside(story: &Story, broker: &mut Broker, words: &[&str]) -> Finished {
    let mut command = story.laptop.home.command("nsenter");
    command
        .arg(format!("--mount=/proc/{}/ns/mnt", broker.daemon().pid()))
        .args(words);
    Finished::of(command, DEADLINE)
}

#[test]
fn the_disk_is_full_or_read_only() {
    if !TestUser::is_root() {
        return;
    }
    let story = Story::begin();
    story.laptop.knows(&story.sshd, &story.laptop.other_identity());
    let run = story.laptop.home.join(".epithet");
    let run = run.display().to_string();
    let config = story.laptop.home.join(".ssh/config").display().to_string();
    repeat(
        "the disk fills up, or becomes read-only: logins go on, or a clean word and the next key",
        |_| {
            let mount =
                format!("mkdir -p -m 700 '{run}' && mount -t tmpfs -o size=64k,mode=700 tmpfs '{run}'");
            let mut command = story.laptop.home.command("unshare");
            command.args([
                "--mount",
                "--propagation",
                "private",
                "/bin/sh",
                "-c",
                &format!("{mount} && exec \"$@\""),
            ]);
            command.arg("sh").arg(&story.laptop.program);
            command.args([
                "agent",
                "-v",
                "--auth",
                &story.plugin,
                "--match",
                "127.0.0.*",
                "--ca-url",
                story.site.url(),
            ]);
            let mut broker = start(command);
            let ssh = |broker: &mut Broker, host: &str| {
                let position = story.sshd.log_position();
                let finished = beside(&story, broker, &["ssh", "-F", &config, host, "true"]).success();
                (story.accepted(position), finished.stderr)
            };
            // A mount of its own: the broker's lock, which is open for writing, keeps the whole from becoming read-only.
            let agents = broker.run_dir().join("agent").display().to_string();
            beside(&story, &mut broker, &["mount", "--bind", &agents, &agents]).success();
            // A full disk: an agent's socket needs a name, but no room.
            beside(
                &story,
                &mut broker,
                &[
                    "/bin/sh",
                    "-c",
                    &format!("cat /dev/zero > '{run}/full' 2>/dev/null; true"),
                ],
            )
            .success();
            let (accepted, said) = ssh(&mut broker, "127.0.0.1");
            assert!(accepted.contains("ID alice@example.com"), "{accepted}{said}");

            beside(&story, &mut broker, &["mount", "-o", "remount,bind,ro", &agents]).success();
            let (accepted, said) = ssh(&mut broker, "127.0.0.2");
            assert!(
                accepted.contains(&story.laptop.other_key.fingerprint()),
                "{accepted}{said}"
            );
            assert!(said.contains("ead-only file system"), "{said}");
            let (accepted, said) = ssh(&mut broker, "127.0.0.1");
            assert!(
                accepted.contains("ID alice@example.com"),
                "a live agent needs no disk: {accepted}{said}"
            );

            beside(&story, &mut broker, &["mount", "-o", "remount,bind,rw", &agents]).success();
            let (accepted, said) = ssh(&mut broker, "127.0.0.2");
            assert!(accepted.contains("ID alice@example.com"), "{accepted}{said}");
            broker.stop(DEADLINE);
            None
        },
    );
}
