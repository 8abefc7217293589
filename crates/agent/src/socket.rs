//! The socket of one connection's agent: made so that only its owner can reach it, served until it is told to end.

use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream as BlockingStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use epithet_wire::limits::{AGENT_CONNECTIONS, SOCKET_PATH_MAX};
use rustix::fs::Mode;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, listen, socket_with};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::askers::Askers;
use crate::chain::Chain;
use crate::clock::Clock;
use crate::connection::{self, Shared, Standing};
use crate::promise::Promise;
use crate::watcher::Watcher;

/// How many connections may wait to be accepted: as many as are served at once.
const BACKLOG: i32 = 64;
/// The first and the longest wait after an accept that failed, which is mostly a lack of descriptors.
const ACCEPT_BACK_OFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// How many connections there may be: with all agents that share this, and with each of them.
#[derive(Debug, Clone)]
pub struct Places {
    all: Arc<Semaphore>,
    each: usize,
}

impl Places {
    /// So many in all. One agent has at most half of them, so that whoever fills it up leaves some to the others, and never
    /// more than [`AGENT_CONNECTIONS`].
    pub fn of(all: usize) -> Self {
        Self {
            all: Arc::new(Semaphore::new(all.min(Semaphore::MAX_PERMITS))),
            each: (all / 2).clamp(1, AGENT_CONNECTIONS),
        }
    }

    /// A place for one more, when an agent has `taken` so many.
    fn take(&self, taken: usize) -> Option<OwnedSemaphorePermit> {
        (taken < self.each).then(|| Arc::clone(&self.all).try_acquire_owned().ok())?
    }
}

impl Default for Places {
    /// As many as one agent may have, to each.
    fn default() -> Self {
        Self::of(Semaphore::MAX_PERMITS)
    }
}

/// How an agent behaves.
#[derive(Debug, Clone)]
pub struct AgentSettings {
    /// See [`Rules::allow_forwarding`](crate::Rules::allow_forwarding).
    pub allow_forwarding: bool,
    /// Whether a connection that is not bound to a session may never sign; see [`Rules::require_bind`](crate::Rules::require_bind).
    pub require_bind: bool,
    /// Where a process must have asked before an unbound connection of its own may sign; none lets every one sign.
    /// With `allow_forwarding` it makes no difference.
    pub askers: Option<Askers>,
    /// How long `list` and `sign` wait for a pending promise. ssh itself waits for its agent without end.
    pub wait: Duration,
    /// The person's own agent, to be offered after ours.
    pub chain: Option<Chain>,
    /// How many may be connected.
    pub places: Places,
    /// Who is told what the agent is asked.
    pub watcher: Option<Arc<dyn Watcher>>,
    /// Where the time comes from.
    pub clock: Clock,
}

impl Default for AgentSettings {
    /// No forwarding, old clients served, and half a minute for a certificate.
    fn default() -> Self {
        Self {
            allow_forwarding: false,
            require_bind: false,
            askers: None,
            wait: Duration::from_secs(30),
            chain: None,
            places: Places::default(),
            watcher: None,
            clock: Clock::default(),
        }
    }
}

/// A listening agent socket. Its file goes when this is dropped, unless it is no longer ours by then.
#[derive(Debug)]
pub struct AgentSocket {
    listener: UnixListener,
    file: SocketFile,
    shared: Arc<Shared>,
}

impl AgentSocket {
    /// Makes the socket, with mode 0600 from its first moment, and listens. Must be called within a tokio runtime.
    ///
    /// The directory must be ours and closed to everybody else. A socket that was left behind by an agent that is
    /// gone is replaced; one that still answers is not.
    ///
    /// # Errors
    /// `InvalidInput` when the path is longer than a socket's can be; `PermissionDenied` when the directory is not
    /// private; `AddrInUse` when something else is there. The message names the path.
    pub fn bind(path: impl Into<PathBuf>) -> io::Result<Self> {
        let path = path.into();
        if path.as_os_str().len() > SOCKET_PATH_MAX {
            let problem = format!(
                "the agent socket's path is longer than {SOCKET_PATH_MAX} bytes: {}; choose a shorter run directory",
                path.display()
            );
            return Err(io::Error::new(io::ErrorKind::InvalidInput, problem));
        }
        check_directory(&path)?;
        remove_left_over(&path)?;
        let listener = listen_privately(&path).map_err(|error| {
            io::Error::new(
                error.kind(),
                format!("cannot make the agent socket {}: {error}", path.display()),
            )
        })?;
        let file = SocketFile::of(path)?;
        Ok(Self {
            listener: UnixListener::from_std(listener)?,
            file,
            shared: Arc::default(),
        })
    }

    /// Where it is: the value for `IdentityAgent`.
    pub fn path(&self) -> &Path {
        &self.file.path
    }

    /// Which file it is, to see later whether it is still there.
    pub fn stamp(&self) -> SocketStamp {
        SocketStamp {
            device: self.file.device,
            inode: self.file.inode,
        }
    }

    /// What the agent has done so far; stays readable while and after it is served.
    pub fn activity(&self) -> Activity {
        Activity(Arc::clone(&self.shared))
    }

    /// Answers until `cancel`; then the socket file and every connection are gone. Nothing else ends it.
    // Not an `async fn`: that would keep its arguments twice, and there are thousands of these, mostly idle.
    pub fn serve(
        self,
        promise: Promise,
        settings: AgentSettings,
        cancel: CancellationToken,
    ) -> impl Future<Output = ()> + Send + use<> {
        let service = Service {
            socket: self,
            promise,
            settings: Arc::new(settings),
            cancel,
        };
        async move { service.run().await }
    }
}

/// A socket that is served, and with what.
struct Service {
    socket: AgentSocket,
    promise: Promise,
    settings: Arc<AgentSettings>,
    cancel: CancellationToken,
}

impl Service {
    async fn run(&self) {
        let path = self.socket.path();
        let mut connections = JoinSet::new();
        let mut back_off = ACCEPT_BACK_OFF.0;
        loop {
            let accepted = tokio::select! {
                biased;
                () = self.cancel.cancelled() => break,
                Some(_) = connections.join_next(), if !connections.is_empty() => continue,
                accepted = self.socket.listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, _)) => {
                    back_off = ACCEPT_BACK_OFF.0;
                    self.admit(stream, &mut connections);
                }
                Err(error) => {
                    warn!(path = %path.display(), %error, "agent cannot accept; it tries again");
                    let pause = Box::pin(tokio::time::sleep(back_off));
                    if self.cancel.run_until_cancelled(pause).await.is_none() {
                        break;
                    }
                    back_off = (back_off * 2).min(ACCEPT_BACK_OFF.1);
                }
            }
        }
        // Before the connections are cut, so that nobody connects to an agent that is ending.
        self.socket.file.remove();
    }

    /// Serves one more connection, unless it is a stranger's or one too many.
    fn admit(&self, stream: UnixStream, connections: &mut JoinSet<()>) {
        if !is_admitted(&stream) {
            return;
        }
        let Some(place) = self.settings.places.take(connections.len()) else {
            let path = self.socket.path();
            warn!(path = %path.display(), here = connections.len(), "agent connection closed: too many at once");
            return;
        };
        let standing = standing(&self.settings, &stream);
        let (promise, settings) = (self.promise.clone(), Arc::clone(&self.settings));
        let shared = Arc::clone(&self.socket.shared);
        connections.spawn(async move {
            let _place = place;
            connection::serve(stream, promise, standing, settings, shared).await;
        });
    }
}

/// The file of an agent's socket, as it was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SocketStamp {
    device: u64,
    inode: u64,
}

impl SocketStamp {
    /// Whether it is still the one at `path`: somebody may have removed it, and then nobody can reach the agent.
    pub fn is_at(&self, path: &Path) -> bool {
        path.symlink_metadata()
            .is_ok_and(|there| there.dev() == self.device && there.ino() == self.inode)
    }
}

/// A view of an agent's counters, for `inspect` and for choosing which agent to end first.
#[derive(Debug, Clone)]
pub struct Activity(Arc<Shared>);

impl Activity {
    /// How many logins were signed.
    pub fn signatures(&self) -> u64 {
        self.0.signatures()
    }

    /// When a login was last signed, on the clock of [`crate::Now::boot`]. None when none ever was.
    pub fn last_signature(&self) -> Option<Duration> {
        self.0.last_signature()
    }

    /// When the agent was last asked for anything, on the clock of [`crate::Now::boot`]. None when it never was.
    pub fn last_request(&self) -> Option<Duration> {
        self.0.last_request()
    }
}

/// Who connects.
fn standing(settings: &AgentSettings, stream: &UnixStream) -> Standing {
    let peer = stream.peer_cred().ok();
    let process = peer.and_then(|peer| u32::try_from(peer.pid()?).ok());
    let has_asked = (settings.askers.as_ref()).is_none_or(|askers| askers.connects(process));
    Standing { has_asked }
}

/// Only the owner, and root who can do everything anyway, may talk to the agent.
fn is_admitted(stream: &UnixStream) -> bool {
    let ours = rustix::process::geteuid().as_raw();
    match stream.peer_cred() {
        Ok(peer) if peer.uid() == ours || peer.uid() == 0 => true,
        Ok(peer) => {
            warn!(
                uid = peer.uid(),
                pid = peer.pid(),
                "agent connection closed: it is another user's"
            );
            false
        }
        Err(error) => {
            debug!(%error, "agent connection closed: its owner is unknown");
            false
        }
    }
}

/// The socket's directory must be ours alone, or others could exchange what is in it.
fn check_directory(path: &Path) -> io::Result<()> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let metadata = directory.symlink_metadata()?;
    let problem = if !metadata.is_dir() {
        "is not a directory"
    } else if metadata.uid() != rustix::process::geteuid().as_raw() {
        "belongs to another user"
    } else if metadata.mode() & 0o077 != 0 {
        "is open to other users; try: chmod 700"
    } else {
        return Ok(());
    };
    Err(io::Error::new(
        io::ErrorKind::PermissionDenied,
        format!("the agent's directory {} {problem}", directory.display()),
    ))
}

/// Removes a socket of ours that nobody listens on any more.
fn remove_left_over(path: &Path) -> io::Result<()> {
    let metadata = match path.symlink_metadata() {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let is_ours = metadata.file_type().is_socket() && metadata.uid() == rustix::process::geteuid().as_raw();
    let is_dead = is_ours
        && BlockingStream::connect(path).is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused);
    if is_dead {
        std::fs::remove_file(path)
    } else {
        let what = if is_ours {
            "another agent serves"
        } else {
            "something else is at"
        };
        Err(io::Error::new(
            io::ErrorKind::AddrInUse,
            format!("{what} {}", path.display()),
        ))
    }
}

/// A listening socket that has mode 0600 from the moment it has a name.
///
/// On Linux a socket's file gets the mode of the socket itself, so setting that first leaves no gap, and, unlike
/// `umask`, concerns no other thread. Elsewhere the private directory covers the gap.
fn listen_privately(path: &Path) -> io::Result<std::os::unix::net::UnixListener> {
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, socket_flags(), None)?;
    let is_private =
        cfg!(target_os = "linux") && rustix::fs::fchmod(&socket, Mode::RUSR | Mode::WUSR).is_ok();
    bind(&socket, &SocketAddrUnix::new(path)?)?;
    if !is_private {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    }
    listen(&socket, BACKLOG)?;
    let listener = std::os::unix::net::UnixListener::from(socket);
    listener.set_nonblocking(true)?;
    Ok(listener)
}

#[cfg(target_os = "linux")]
fn socket_flags() -> SocketFlags {
    SocketFlags::CLOEXEC
}

#[cfg(not(target_os = "linux"))]
fn socket_flags() -> SocketFlags {
    SocketFlags::empty()
}

/// The socket's file, as it was made.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
    /// From then on, even the same inode is somebody else's: numbers are used again.
    is_removed: AtomicBool,
}

impl SocketFile {
    fn of(path: PathBuf) -> io::Result<Self> {
        let metadata = path.symlink_metadata()?;
        Ok(Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            is_removed: AtomicBool::new(false),
            path,
        })
    }
}

impl SocketFile {
    /// Removes the file, unless the name belongs to a newer one.
    fn remove(&self) {
        if self.is_removed.swap(true, Ordering::Relaxed) {
            return;
        }
        let is_ours = self
            .path
            .symlink_metadata()
            .is_ok_and(|metadata| metadata.dev() == self.device && metadata.ino() == self.inode);
        if is_ours && let Err(error) = std::fs::remove_file(&self.path) {
            debug!(path = %self.path.display(), %error, "agent socket not removed");
        }
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        self.remove();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    /// There may be ten thousand of them, most of which nobody speaks to.
    #[tokio::test]
    async fn an_agent_that_nobody_speaks_to_is_a_small_task() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
        let socket = AgentSocket::bind(folder.path().join("agent")).unwrap();
        let (_fulfil, promise) = Promise::pending();
        let serving = socket.serve(promise, AgentSettings::default(), CancellationToken::new());
        let size = size_of_val(&serving);
        assert!(size <= 640, "{size} bytes");
    }
}
