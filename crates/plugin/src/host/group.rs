//! A plugin's process with everything it started: waiting for it, ending it, and always collecting it.
//!
//! The plugin leads a session and a process group of its own; its process id is the group's. As long as the leader has
//! not been collected the number cannot be given to anybody else, so signals go out before it is collected.

use super::guard::Listing;
use super::streams::Exit;
use rustix::process::{
    Pid, Signal, WaitId, WaitIdOptions, kill_process_group, test_kill_process_group, waitid,
};
use std::io;
use std::process::Child;
use std::time::Duration;
use tokio::signal::unix::{Signal as Signals, SignalKind, signal};
use tokio::time::{Instant, sleep, timeout, timeout_at};

/// After SIGKILL, how long the kernel may take. A process can hang in the kernel beyond reach of any signal.
const KERNEL_PATIENCE: Duration = Duration::from_secs(1);
/// SIGCHLD tells of exits; should somebody else have taken it over, this finds out.
const EXIT_POLL: Duration = Duration::from_secs(1);

/// News of children's exits, to be subscribed to before the child is started.
pub(crate) struct Exits(Signals);

impl Exits {
    pub(crate) fn subscribe() -> io::Result<Self> {
        signal(SignalKind::child()).map(Self)
    }

    async fn news(&mut self) {
        let _ = timeout(EXIT_POLL, self.0.recv()).await;
    }
}

/// The group that a plugin leads. Dropped without having been released or ended, it is killed.
pub(crate) struct Group {
    /// `None` when it was collected.
    leader: Option<Child>,
    id: Pid,
    /// Whether no signal is to be sent any more.
    over: bool,
    /// Declared last: the guard forgets the group after it has been ended.
    _listing: Option<Listing>,
}

impl Group {
    pub(crate) fn of(leader: Child, mut listing: Option<Listing>) -> Self {
        let id = Pid::from_child(&leader);
        if let Some(listing) = &mut listing {
            listing.started(id);
        }
        Self {
            leader: Some(leader),
            id,
            over: false,
            _listing: listing,
        }
    }

    /// Waits for the leader's exit and leaves it uncollected. Can be dropped and called again.
    pub(crate) async fn exit(&self, exits: &mut Exits) -> io::Result<Exit> {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        loop {
            match waitid(WaitId::Pid(self.id), options) {
                Ok(Some(status)) => {
                    return Ok(match (status.exit_status(), status.terminating_signal()) {
                        (Some(status), _) => Exit::Status(status),
                        (None, signal) => Exit::Signal(signal.unwrap_or_default()),
                    });
                }
                Ok(None) => exits.news().await,
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Lets the group go: its leader has exited in peace, and what it left running is meant to run.
    pub(crate) fn release(mut self) {
        self.over = true;
        self.collect();
    }

    /// Ends the group: SIGTERM, `patience`, SIGKILL. Returns whether SIGKILL was needed.
    ///
    /// With no patience at all, SIGKILL at once. SIGKILL goes out in any case before the leader is collected: a process
    /// that was being started when SIGTERM came has not got it (posix_spawn blocks signals meanwhile), and looking for
    /// what lives can miss it. Nothing can be started past SIGKILL.
    pub(crate) async fn end(mut self, exits: &mut Exits, patience: Duration) -> bool {
        let mut is_forced = true;
        if !patience.is_zero() {
            let _ = kill_process_group(self.id, Signal::TERM);
            // A stopped process takes SIGTERM only when it is continued.
            let _ = kill_process_group(self.id, Signal::CONT);
            is_forced = !self.is_gone_by(exits, Instant::now() + patience).await;
        }
        let _ = kill_process_group(self.id, Signal::KILL);
        if self.is_gone_by(exits, Instant::now() + KERNEL_PATIENCE).await {
            self.collect();
        }
        self.over = true;
        is_forced
    }

    /// Waits until the leader has exited and no member lives. False when some are left at the deadline.
    async fn is_gone_by(&self, exits: &mut Exits, deadline: Instant) -> bool {
        if timeout_at(deadline, self.exit(exits)).await.is_err() {
            return false;
        }
        let mut pause = Duration::from_millis(1);
        while has_living_member(self.id) {
            if Instant::now() >= deadline {
                return false;
            }
            sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(50));
        }
        true
    }

    fn collect(&mut self) {
        if let Some(mut leader) = self.leader.take() {
            // It has exited, so this does not wait.
            let _ = leader.wait();
        }
    }
}

/// Whether anybody in the group is still running.
///
/// A process whose parent has gone is collected by process 1, which in a container may be slow or may never do it: those
/// that only wait to be collected count as gone.
pub(crate) fn has_living_member(group: Pid) -> bool {
    if test_kill_process_group(group) == Err(rustix::io::Errno::SRCH) {
        return false;
    }
    let Ok(processes) = std::fs::read_dir("/proc") else {
        // Without /proc there is no telling; macOS has none, and a process 1 that collects.
        return true;
    };
    let mut stats = processes.filter_map(|entry| {
        let entry = entry.ok()?;
        let is_process = entry
            .file_name()
            .to_str()?
            .bytes()
            .all(|byte| byte.is_ascii_digit());
        std::fs::read(entry.path().join("stat"))
            .ok()
            .filter(|_| is_process)
    });
    stats.any(|stat| is_living_member(&String::from_utf8_lossy(&stat), group))
}

/// Reads `/proc/PID/stat` (proc(5)): after the command's name in parentheses come state, parent and process group.
fn is_living_member(stat: &str, group: Pid) -> bool {
    let Some((_, fields)) = stat.rsplit_once(") ") else {
        return false;
    };
    let mut fields = fields.split(' ');
    let state = fields.next();
    fields.nth(1).and_then(|field| field.parse().ok()) == Some(group.as_raw_pid())
        && !matches!(state, Some("Z" | "X"))
}

impl Drop for Group {
    /// The last resort: a runtime that is shut down drops its tasks where they stand.
    fn drop(&mut self) {
        if !self.over {
            let _ = kill_process_group(self.id, Signal::KILL);
        }
        if let Some(mut leader) = self.leader.take() {
            // Nobody knows whether the kernel lets go of it; that must not hold up whoever drops this.
            std::thread::spawn(move || leader.wait());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_lives_unless_it_only_waits_to_be_collected() {
        let group = Pid::from_raw(4002).unwrap();
        for (stat, lives) in [
            ("4003 (sleep) S 4002 4002 4002 0 -1", true),
            ("4003 (a) Z 1) T 4002 4002 4002 0 -1", true),
            ("4003 (sleep) Z 1 4002 4002 0 -1", false),
            ("4003 (sleep) S 4002 4003 4002 0 -1", false),
            ("4003 (sleep", false),
            ("", false),
        ] {
            assert_eq!(is_living_member(stat, group), lives, "{stat}");
        }
    }
}
