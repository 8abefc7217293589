//! The guard: a tiny process that ends plugins when the broker can't any more.
//!
//! A broker that is killed with SIGKILL runs no code, and its plugins would go on: a browser flow nobody waits for, a
//! prompt for a touch. So the broker keeps a guard, connected by a socket. Every plugin announces its own process group
//! there before its program starts, and the broker strikes it off when the run is over. The end of the socket is the
//! broker's end: the guard then ends the groups that are still listed, and itself.

use super::group::has_living_member;
use epithet_wire::limits::PLUGIN_KILL_AFTER;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
use rustix::process::{Pid, Signal, getpid, kill_process_group};
use std::collections::HashMap;
use std::ffi::OsString;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// One entry of the guard's list: what happened, the run's number, and the group's.
const RECORD: usize = 13;
const STARTED: u8 = b'+';
const ENDED: u8 = b'-';

fn record(what: u8, run: u64, group: i32) -> [u8; RECORD] {
    let mut record = [what; RECORD];
    record[1..9].copy_from_slice(&run.to_ne_bytes());
    record[9..].copy_from_slice(&group.to_ne_bytes());
    record
}

/// What the running broker holds of its guard. One for all plugins of a process; share it in an `Arc`.
///
/// The process is started with the first plugin, and again should somebody have ended it.
pub struct Guard {
    program: PathBuf,
    arguments: Vec<OsString>,
    post: Mutex<Post>,
}

#[derive(Default)]
struct Post {
    guard: Option<(Child, Arc<OwnedFd>)>,
    next_run: u64,
    /// What the guard has to know, for the case that it must be replaced.
    listed: HashMap<u64, i32>,
}

impl Guard {
    /// A guard that is this very program, started again with `arguments`; given those, it must call [`guard_main`].
    ///
    /// # Errors
    /// When this program's own file cannot be named.
    pub fn reexec(arguments: &[&str]) -> io::Result<Self> {
        let program = if cfg!(target_os = "linux") {
            // Still there when the file was replaced by an upgrade.
            PathBuf::from("/proc/self/exe")
        } else {
            std::env::current_exe()?
        };
        Ok(Self::new(program, arguments.iter().map(OsString::from).collect()))
    }

    /// A guard that is `program` with `arguments`.
    pub fn new(program: PathBuf, arguments: Vec<OsString>) -> Self {
        Self {
            program,
            arguments,
            post: Mutex::default(),
        }
    }

    /// Starts the guard now, if it is not running. The first plugin run would do it.
    ///
    /// # Errors
    /// When the process cannot be started.
    pub fn start(&self) -> io::Result<()> {
        self.post().man(self)
    }

    /// The guard's process id, while it runs.
    pub fn process_id(&self) -> Option<u32> {
        self.post().guard.as_ref().map(|(process, _)| process.id())
    }

    /// Prepares the announcement of one run.
    pub(crate) fn list(self: &Arc<Self>) -> io::Result<Listing> {
        let mut post = self.post();
        post.man(self)?;
        let run = post.next_run;
        post.next_run += 1;
        let socket = post.guard.as_ref().map(|(_, socket)| socket.clone());
        Ok(Listing {
            guard: self.clone(),
            socket,
            run,
        })
    }

    fn post(&self) -> std::sync::MutexGuard<'_, Post> {
        self.post.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Post {
    /// Sees to it that a guard is there and knows what it has to.
    fn man(&mut self, guard: &Guard) -> io::Result<()> {
        if let Some((process, _)) = &mut self.guard {
            if let Ok(None) = process.try_wait() {
                return Ok(());
            }
            tracing::warn!("plugin_guard.replaced");
        }
        self.dismiss();
        let (process, socket) = guard.spawn()?;
        for (run, group) in &self.listed {
            send(&socket, &record(STARTED, *run, *group))?;
        }
        self.guard = Some((process, Arc::new(socket)));
        Ok(())
    }

    /// Ends a guard that does not know what it should: it must not act on an old list.
    fn dismiss(&mut self) {
        if let Some((mut process, _)) = self.guard.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    fn strike(&mut self, run: u64) {
        self.listed.remove(&run);
        let told = self
            .guard
            .as_ref()
            .map(|(_, socket)| send(socket, &record(ENDED, run, 0)));
        if let Some(Err(error)) = told {
            tracing::warn!(%error, "plugin_guard.dismissed");
            self.dismiss();
        }
    }
}

impl Guard {
    fn spawn(&self) -> io::Result<(Child, OwnedFd)> {
        let (ours, theirs) = rustix::net::socketpair(
            AddressFamily::UNIX,
            SocketType::STREAM,
            SocketFlags::CLOEXEC,
            None,
        )?;
        #[cfg(target_vendor = "apple")]
        rustix::net::sockopt::set_socket_nosigpipe(&ours, true)?;
        let mut command = Command::new(&self.program);
        command
            .args(&self.arguments)
            .arg0("epithet")
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .current_dir("/");
        super::start_cleanly(&mut command);
        let process = command.spawn()?;
        tracing::debug!(process = process.id(), "plugin_guard.started");
        Ok((process, ours))
    }
}

impl Drop for Guard {
    /// Nothing is left to guard, or the runs that are left lose their runner with this: the guard sees the socket's end.
    fn drop(&mut self) {
        if let Some((mut process, socket)) = self.post().guard.take() {
            drop(socket);
            // Its end may take until the last plugin's; who collects it must not make anybody wait.
            thread::spawn(move || process.wait());
        }
    }
}

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guard")
            .field("program", &self.program)
            .field("arguments", &self.arguments)
            .finish_non_exhaustive()
    }
}

/// One run on the guard's list, struck off when dropped.
pub(crate) struct Listing {
    guard: Arc<Guard>,
    socket: Option<Arc<OwnedFd>>,
    run: u64,
}

impl Listing {
    /// What the plugin's process does just before its program starts: system calls only.
    pub(crate) fn announcement(&self) -> impl Fn() + Send + Sync + use<> {
        let (socket, run) = (self.socket.clone(), self.run);
        move || {
            if let Some(socket) = &socket {
                // A guard that can't be told has been replaced by the time that matters.
                let _ = send(socket, &record(STARTED, run, getpid().as_raw_pid()));
            }
        }
    }

    pub(crate) fn started(&mut self, group: Pid) {
        self.guard.post().listed.insert(self.run, group.as_raw_pid());
        // The announcement held another reference to the socket.
        self.socket = None;
    }
}

impl Drop for Listing {
    fn drop(&mut self) {
        let mut post = self.guard.post();
        post.strike(self.run);
        if post.guard.is_none() && !post.listed.is_empty() {
            // Other runs are under way; should this fail, the next run tries again.
            let _ = post.man(&self.guard);
        }
    }
}

/// Sends without ever waiting and without SIGPIPE.
fn send(socket: impl AsFd, record: &[u8; RECORD]) -> io::Result<()> {
    #[cfg(not(target_vendor = "apple"))]
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    #[cfg(target_vendor = "apple")]
    let flags = SendFlags::DONTWAIT;
    match rustix::net::send(socket, record, flags)? {
        RECORD => Ok(()),
        _ => Err(io::ErrorKind::WriteZero.into()),
    }
}

/// The guard's own `main`: reads the list from stdin until the broker is gone, then ends what is still listed.
///
/// No runtime, no configuration, no output. To be called before anything else when the program is started with the
/// arguments that [`Guard::reexec`] was given.
pub fn guard_main() -> ExitCode {
    let listed = watch(io::stdin().as_fd());
    end_groups(&listed, PLUGIN_KILL_AFTER);
    ExitCode::SUCCESS
}

/// Keeps the list until the socket ends; returns what is left of it.
fn watch(socket: impl AsFd) -> Vec<Pid> {
    let mut listed: HashMap<u64, i32> = HashMap::new();
    let mut record = [0; RECORD];
    let mut filled = 0;
    loop {
        match rustix::net::recv(&socket, &mut record[filled..], RecvFlags::empty()) {
            Ok((_, 0)) => break,
            Ok((_, read)) => filled += read,
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => break,
        }
        if filled == RECORD {
            filled = 0;
            let run = u64::from_ne_bytes(record[1..9].try_into().unwrap_or_default());
            let group = i32::from_ne_bytes(record[9..].try_into().unwrap_or_default());
            if record[0] == STARTED {
                listed.insert(run, group);
            } else {
                listed.remove(&run);
            }
        }
    }
    // 1 and below are never a plugin's group; signals to them would go far beyond one.
    listed
        .into_values()
        .filter(|group| *group > 1)
        .filter_map(Pid::from_raw)
        .collect()
}

fn end_groups(groups: &[Pid], patience: Duration) {
    for group in groups {
        let _ = kill_process_group(*group, Signal::TERM);
        let _ = kill_process_group(*group, Signal::CONT);
    }
    let deadline = Instant::now() + patience;
    while Instant::now() < deadline && groups.iter().any(|group| has_living_member(*group)) {
        thread::sleep(Duration::from_millis(20));
    }
    for group in groups.iter().filter(|group| has_living_member(**group)) {
        let _ = kill_process_group(*group, Signal::KILL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (OwnedFd, OwnedFd) {
        rustix::net::socketpair(
            AddressFamily::UNIX,
            SocketType::STREAM,
            SocketFlags::CLOEXEC,
            None,
        )
        .unwrap()
    }

    #[test]
    fn the_list_is_what_was_started_and_not_ended() {
        let (ours, theirs) = pair();
        for record in [
            record(STARTED, 1, 4001),
            record(STARTED, 2, 4002),
            record(ENDED, 1, 0),
            record(STARTED, 3, 4003),
            record(ENDED, 7, 0),
            record(STARTED, 8, 1),
            record(STARTED, 9, -1),
        ] {
            send(&ours, &record).unwrap();
        }
        drop(ours);
        let mut left: Vec<i32> = watch(theirs).iter().map(|group| group.as_raw_pid()).collect();
        left.sort_unstable();
        assert_eq!(left, [4002, 4003]);
    }

    #[test]
    fn a_peer_that_is_gone_or_does_not_read_is_an_error_and_never_a_wait() {
        let (ours, theirs) = pair();
        while send(&ours, &record(STARTED, 1, 2)).is_ok() {}
        drop(theirs);
        assert!(send(&ours, &record(STARTED, 1, 2)).is_err());
    }

    #[test]
    fn a_replaced_guard_is_told_what_its_predecessor_knew() {
        let folder = tempfile::tempdir().unwrap();
        // Stands in for the guard: keeps what it is told in a file named by its process id.
        let note = r#"exec cat >"$0/$$""#;
        let guard = Arc::new(Guard::new(
            "/bin/sh".into(),
            vec!["-c".into(), note.into(), folder.path().into()],
        ));
        let mut ended = guard.list().unwrap();
        let mut running = guard.list().unwrap();
        ended.started(Pid::from_raw(4001).unwrap());
        running.started(Pid::from_raw(4002).unwrap());
        drop(ended);
        guard.post().guard.as_mut().unwrap().0.kill().unwrap();
        guard.post().guard.as_mut().unwrap().0.wait().unwrap();
        let third = guard.list().unwrap();
        let file = folder.path().join(guard.process_id().unwrap().to_string());
        let expected = record(STARTED, running.run, 4002);
        let begun = Instant::now();
        while !std::fs::read(&file).is_ok_and(|told| told == expected) {
            assert!(begun.elapsed() < Duration::from_secs(30));
            thread::sleep(Duration::from_millis(5));
        }
        drop((running, third));
    }
}
