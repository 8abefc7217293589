//! The disk that holds the run directory: full, without room for another name, read-only, or gone; before the broker starts
//! and while it runs.

use crate::laptop::start;
use crate::namespaces::{Ground, inside, run};
use crate::networks::{BOUNDED, falls_through, falls_through_at, with_a_certificate_at};
use crate::rounds::repeat;
use crate::support::Story;
use epithet_testkit::{Broker, DEADLINE};
use rustix::process::Signal;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

/// A small file system where `~/.epithet` is. It goes when this is dropped.
struct Disk {
    path: PathBuf,
}

impl Disk {
    fn mount(story: &Story) -> Self {
        let path = story.laptop.home.join(".epithet");
        if !path.exists() {
            fs::create_dir(&path).expect("a folder in a home of ours");
        }
        let options = "size=64k,nr_inodes=40,mode=700";
        run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", text(&path)]);
        Self { path }
    }

    /// Leaves no room for a byte.
    fn fill(&self) {
        let mut file = File::create(self.path.join("large")).expect("the disk is not full yet");
        while file.write_all(&[0; 4096]).is_ok() {}
    }

    /// Leaves no room for another name.
    fn use_up_names(&self) {
        let names = self.path.join("many");
        fs::create_dir(&names).expect("the disk is not full yet");
        let next = |number: usize| File::create(names.join(number.to_string())).is_ok();
        assert!((0..100).any(|number| !next(number)), "the disk has no end");
    }

    fn make_room(&self) {
        let _ = fs::remove_file(self.path.join("large"));
        let _ = fs::remove_dir_all(self.path.join("many"));
    }

    fn remount(&self, mode: &str) {
        let options = format!("remount,{mode}");
        run(["mount", "-o", &options, text(&self.path)]);
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Whatever still has a file open there keeps it until its own end.
        let _ = Command::new("umount").arg("-l").arg(&self.path).status();
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a home's path is plain")
}

fn agent(story: &Story) -> Command {
    let mut command = story.laptop.agent(story.site.url(), &story.plugin);
    command.args(["--match", "127.0.0.*"]);
    command
}

#[test]
fn the_disk_is_full_or_read_only() {
    inside("disks::the_disk_is_full_or_read_only", &["--mount"], |ground| {
        let story = Story::begin();
        story.laptop.knows(&story.sshd, &story.laptop.other_identity());
        repeat(
            "the disk fills up, or becomes read-only: logins go on, or a clean word and the next key",
            |_| {
                match ground {
                    Ground::Own => a_disk_that_fills_up(&story),
                    Ground::Shared => a_folder_that_goes(&story),
                }
                None
            },
        );
    });
}

fn a_disk_that_fills_up(story: &Story) {
    let disk = Disk::mount(story);
    let mut broker = start(agent(story));
    let agents = broker.run_dir().join("agent");
    // A mount of its own: the broker's lock, which is open for writing, keeps the whole from becoming read-only.
    run(["mount", "--bind", text(&agents), text(&agents)]);

    // An agent's socket needs a name, but no room.
    disk.fill();
    with_a_certificate_at(story, "127.0.0.1");
    // And the configuration that ssh reads stays as it is until there is room for another.
    let position = broker.log().position();
    broker.daemon().signal(Signal::HUP);
    broker.wait_for_log_after(position, "reloaded");
    with_a_certificate_at(story, "127.0.0.1");
    disk.make_room();

    disk.use_up_names();
    let said = falls_through_at(story, "127.0.0.2");
    assert!(said.contains("o space left on device"), "{said}");
    with_a_certificate_at(story, "127.0.0.1");
    disk.make_room();
    with_a_certificate_at(story, "127.0.0.2");

    run(["mount", "-o", "remount,bind,ro", text(&agents)]);
    let said = falls_through_at(story, "127.0.0.3");
    assert!(said.contains("ead-only file system"), "{said}");
    with_a_certificate_at(story, "127.0.0.1");
    run(["mount", "-o", "remount,bind,rw", text(&agents)]);
    with_a_certificate_at(story, "127.0.0.3");

    run(["umount", "-l", text(&agents)]);
    broker.stop(DEADLINE);
}

/// Where nothing can be mounted: the folder of the sockets is not there for a while.
fn a_folder_that_goes(story: &Story) {
    let broker = start(agent(story));
    with_a_certificate_at(story, "127.0.0.1");
    let agents = broker.run_dir().join("agent");
    let away = broker.run_dir().join("away");
    fs::rename(&agents, &away).expect("a folder of ours");
    let said = falls_through_at(story, "127.0.0.2");
    assert!(said.contains("o such file or directory"), "{said}");
    fs::rename(&away, &agents).expect("a folder of ours");
    with_a_certificate_at(story, "127.0.0.1");
    with_a_certificate_at(story, "127.0.0.2");
    broker.stop(DEADLINE);
}

/// Fails to start a broker: soon, with its own status, the file and the reason, and without anything left to mislead an ssh.
#[track_caller]
fn does_not_start(story: &Story, words: &str) {
    let began = Instant::now();
    let problem = Broker::try_start(agent(story)).expect_err("there is no room for it");
    assert!(began.elapsed() < BOUNDED, "it took {:?}", began.elapsed());
    let status = problem.status.expect("it ends by itself");
    assert!(status.code().is_some_and(|code| code != 0), "{problem}");
    assert!(
        problem.stderr.contains(words) && problem.stderr.contains(".epithet"),
        "{problem}"
    );
    let said = falls_through(story);
    assert!(
        !said.contains("epithet"),
        "nothing asks a broker that is not there: {said}"
    );
}

#[test]
fn the_disk_is_full_or_read_only_from_the_start() {
    inside(
        "disks::the_disk_is_full_or_read_only_from_the_start",
        &["--mount"],
        |ground| {
            let story = Story::begin();
            story.laptop.knows(&story.sshd, &story.laptop.other_identity());
            repeat(
                "the disk is full or read-only from the start: the file and the reason, and later it starts",
                |_| {
                    match ground {
                        Ground::Own => a_disk_that_is_full(&story),
                        Ground::Shared => something_else_in_the_way(&story),
                    }
                    None
                },
            );
        },
    );
}

fn a_disk_that_is_full(story: &Story) {
    let disk = Disk::mount(story);
    disk.fill();
    does_not_start(story, "o space left on device");
    // Filled up further while there is no broker, and then no room for names either.
    disk.make_room();
    disk.use_up_names();
    does_not_start(story, "o space left on device");
    disk.make_room();
    disk.remount("ro");
    does_not_start(story, "ead-only file system");
    disk.remount("rw");
    let broker = start(agent(story));
    with_a_certificate_at(story, "127.0.0.1");
    broker.stop(DEADLINE);
}

/// Where nothing can be mounted: a file has the place of the folder.
fn something_else_in_the_way(story: &Story) {
    let run = story.laptop.home.join(".epithet/run");
    let _ = fs::remove_dir_all(&run);
    story.laptop.home.write(".epithet/run", "");
    does_not_start(story, "is not a directory");
    fs::remove_file(&run).expect("a file of ours");
    let broker = start(agent(story));
    with_a_certificate_at(story, "127.0.0.1");
    broker.stop(DEADLINE);
}
