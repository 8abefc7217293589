//! The broker's own corner of the file system: a directory that only its owner can enter, held by a lock.
//!
//! `~/.epithet/run/<profile>/` holds the lock, `ssh-config.conf`, the broker's socket and the agents' sockets. When the
//! home directory's path is too long for sockets they move to `$XDG_RUNTIME_DIR/epithet/<profile>/`. The lock, not a
//! process id, says whether a broker lives: what a killed one left behind is taken over.

use crate::lock::{self, Holder, Lock, Owner, Seen};
use epithet_wire::ProfileName;
use epithet_wire::limits::SOCKET_PATH_MAX;
use rustix::fs::{Mode, OFlags};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The length of `/agent/` and a connection hash as OpenSSH makes it.
const AGENT_SUFFIX: usize = "/agent/".len() + 40;

/// Why the run directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RunDirError {
    /// Another broker of this profile lives.
    #[error("profile \"{0}\" is already running (use --name to run a second profile)")]
    Running(ProfileName),
    /// No broker lives, but somebody listens in its place: a service manager, which starts one when ssh connects.
    #[error(
        "somebody listens at {0} already: a service manager, which starts the broker with the next ssh\ntry, to run it by hand: epithet agent stop"
    )]
    Waited(PathBuf),
    /// A directory in the way that is not safe.
    #[error("{path} {problem}; nothing was changed")]
    Unsafe {
        /// Which.
        path: PathBuf,
        /// What is wrong with it, and what to do.
        problem: String,
    },
    /// No directory is short enough for a socket.
    #[error(
        "the path {0} is too long for sockets (at most {SOCKET_PATH_MAX} bytes with the agent's name); set XDG_RUNTIME_DIR to a short directory of your own, or choose a shorter --name"
    )]
    TooLong(PathBuf),
    /// The file system refused.
    #[error("{path}: {error}")]
    Io {
        /// Where.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
}

/// A profile's run directory, locked for as long as this value lives.
#[derive(Debug)]
pub struct RunDir {
    home: PathBuf,
    runtime_dir: Option<PathBuf>,
    profile: ProfileName,
    dir: PathBuf,
    sockets: PathBuf,
    lock: Mutex<Lock>,
    socket: Mutex<SocketOwner>,
}

/// What became of a run directory that was held all the time.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Held {
    /// It is as it was.
    Still,
    /// Its lock had been removed, and was taken again.
    Again,
    /// Another broker has it, with this process id.
    Lost(u32),
}

/// Who opened the broker's socket, and so who removes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SocketOwner {
    /// The broker, which leaves nothing behind.
    Broker,
    /// A service manager, which starts a broker when somebody connects: the socket stays, and with it the generated ssh
    /// configuration that makes ssh connect.
    ServiceManager,
}

impl RunDir {
    /// Makes or takes over the run directory of `profile` below `home`, and clears what a killed broker left there.
    pub fn claim(
        home: &Path,
        runtime_dir: Option<&Path>,
        profile: &ProfileName,
        socket: SocketOwner,
    ) -> Result<Self, RunDirError> {
        let dir = make_run_dir(home, profile)?;
        let sockets = socket_dir(&dir, runtime_dir, profile)?;
        let lock = Lock::take(&dir, profile)?;
        let broker_socket = sockets.join("broker.sock");
        if socket == SocketOwner::Broker && is_bound(&broker_socket) {
            lock.release();
            return Err(RunDirError::Waited(broker_socket));
        }
        lock.sign(&broker_socket)?;
        let run_dir = Self {
            home: home.to_owned(),
            runtime_dir: runtime_dir.map(Path::to_owned),
            profile: profile.clone(),
            dir,
            sockets,
            lock: Mutex::new(lock),
            socket: Mutex::new(socket),
        };
        run_dir.clear()?;
        make_private(&run_dir.agent_dir(), 0o077)?;
        Ok(run_dir)
    }

    /// Makes sure that the directory is there and ours: whoever tidies up may have removed it, or a part of it.
    ///
    /// # Errors
    /// Why it cannot be made again now.
    pub(crate) fn hold(&self) -> Result<Held, RunDirError> {
        let mut lock = self.lock();
        let held = match lock.owner() {
            Owner::Us => Held::Still,
            Owner::Nobody | Owner::Other => {
                if let Seen::Held(Some(other)) = lock::look(&self.dir)
                    && other.process != std::process::id()
                {
                    return Ok(Held::Lost(other.process));
                }
                make_run_dir(&self.home, &self.profile)?;
                *lock = Lock::take(&self.dir, &self.profile)?;
                Held::Again
            }
        };
        socket_dir(&self.dir, self.runtime_dir.as_deref(), &self.profile)?;
        if held == Held::Again {
            lock.sign(&self.broker_socket())?;
        }
        make_private(&self.agent_dir(), 0o077)?;
        Ok(held)
    }

    /// Makes room for a socket of the broker's own, in the place of one that is gone. What is there is removed, unless
    /// somebody listens at it.
    ///
    /// # Errors
    /// [`RunDirError::Waited`], or why the file cannot be removed.
    pub(crate) fn make_way(&self) -> Result<(), RunDirError> {
        let path = self.broker_socket();
        if is_bound(&path) {
            return Err(RunDirError::Waited(path));
        }
        // A service manager's is not coming back before it is restarted; what is made instead goes with the broker.
        *self.socket.lock().unwrap_or_else(PoisonError::into_inner) = SocketOwner::Broker;
        remove_file_if_there(&path).map_err(|error| RunDirError::Io { path, error })
    }

    fn lock(&self) -> MutexGuard<'_, Lock> {
        self.lock.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn leaves_socket(&self) -> bool {
        *self.socket.lock().unwrap_or_else(PoisonError::into_inner) == SocketOwner::ServiceManager
    }

    /// Whether a broker of `profile` lives, by its lock and without asking it.
    pub fn is_claimed(home: &Path, profile: &ProfileName) -> bool {
        lock::look(&Self::path_of(home, profile)) != Seen::Free
    }

    /// The broker of `profile` that lives, as it wrote itself down. None when there is none, or it did not (yet).
    pub fn holder(home: &Path, profile: &ProfileName) -> Option<Holder> {
        match lock::look(&Self::path_of(home, profile)) {
            Seen::Held(holder) => holder,
            Seen::Free => None,
        }
    }

    /// Whether somebody listens where the broker of `profile` would: while none lives, a service manager that starts one.
    ///
    /// Nobody is woken by this question.
    pub fn is_waited_for(home: &Path, runtime_dir: Option<&Path>, profile: &ProfileName) -> bool {
        Self::broker_socket_of(home, runtime_dir, profile).is_ok_and(|socket| is_bound(&socket))
    }

    /// The run directory of `profile`, whether it is there or not.
    pub fn path_of(home: &Path, profile: &ProfileName) -> PathBuf {
        home.join(".epithet/run").join(profile.as_str())
    }

    /// Where a broker of `profile` has its socket.
    ///
    /// # Errors
    /// [`RunDirError::TooLong`] when no directory is short enough.
    pub fn broker_socket_of(
        home: &Path,
        runtime_dir: Option<&Path>,
        profile: &ProfileName,
    ) -> Result<PathBuf, RunDirError> {
        let dir = Self::path_of(home, profile);
        if fits(&dir) {
            return Ok(dir.join("broker.sock"));
        }
        let elsewhere = runtime_dir.map(|runtime| runtime.join("epithet").join(profile.as_str()));
        match elsewhere.filter(|elsewhere| elsewhere.is_absolute() && fits(elsewhere)) {
            Some(elsewhere) => Ok(elsewhere.join("broker.sock")),
            None => Err(RunDirError::TooLong(dir)),
        }
    }

    /// The directory that the `Include` line finds.
    pub fn path(&self) -> &Path {
        &self.dir
    }

    /// The broker's socket.
    pub fn broker_socket(&self) -> PathBuf {
        self.sockets.join("broker.sock")
    }

    /// Where each connection's agent has its socket.
    pub fn agent_dir(&self) -> PathBuf {
        self.sockets.join("agent")
    }

    /// The generated ssh configuration.
    pub fn ssh_config(&self) -> PathBuf {
        self.dir.join("ssh-config.conf")
    }

    /// Replaces the generated ssh configuration in one step, so that no ssh ever reads half of it.
    pub fn write_ssh_config(&self, text: &str) -> Result<(), RunDirError> {
        let (path, draft) = (self.ssh_config(), self.dir.join(".ssh-config.new"));
        let write = || -> io::Result<()> {
            remove_file_if_there(&draft)?;
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let mut file = File::from(rustix::fs::open(&draft, flags, Mode::RUSR | Mode::WUSR)?);
            io::Write::write_all(&mut file, text.as_bytes())?;
            std::fs::rename(&draft, &path)
        };
        write().map_err(|error| RunDirError::Io { path, error })
    }

    /// Removes sockets and the generated configuration: at the start what was left behind, at the end what was made.
    fn clear(&self) -> Result<(), RunDirError> {
        let agents = self.agent_dir();
        let clear = || -> io::Result<()> {
            remove_file_if_there(&self.dir.join(".ssh-config.new"))?;
            if !self.leaves_socket() {
                remove_file_if_there(&self.ssh_config())?;
                remove_file_if_there(&self.broker_socket())?;
            }
            match std::fs::symlink_metadata(&agents) {
                Ok(metadata) if metadata.is_dir() => std::fs::remove_dir_all(&agents),
                Ok(_) => std::fs::remove_file(&agents),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                Err(error) => Err(error),
            }
        };
        clear().map_err(|error| RunDirError::Io {
            path: self.sockets.clone(),
            error,
        })
    }
}

impl Drop for RunDir {
    /// Removes everything that was made, the lock last. A waiting successor notices that its lock file is gone; what belongs
    /// to one that is there already is not touched.
    fn drop(&mut self) {
        if self.lock().owner() != Owner::Us {
            let Ok(again) = Lock::take(&self.dir, &self.profile) else {
                return;
            };
            *self.lock() = again;
        }
        let _ = self.clear();
        self.lock().release();
        if self.sockets != self.dir {
            let _ = std::fs::remove_dir(&self.sockets);
        }
        let _ = std::fs::remove_dir(&self.dir);
    }
}

/// Makes the run directory, and what leads to it.
fn make_run_dir(home: &Path, profile: &ProfileName) -> Result<PathBuf, RunDirError> {
    let mut dir = home.to_owned();
    for part in [".epithet", "run", profile.as_str()] {
        dir.push(part);
        // ~/.epithet itself may be readable: it holds the configuration, not the sockets.
        make_private(&dir, if part == ".epithet" { 0o022 } else { 0o077 })?;
    }
    Ok(dir)
}

/// Whether somebody's socket is at `path`, and not only the file that a dead one left.
///
/// A datagram socket cannot be connected to a stream socket, and the error says whether there is one (`connect(2)`:
/// `EPROTOTYPE`); so whoever listens there notices nothing, and a service manager starts nothing.
fn is_bound(path: &Path) -> bool {
    let probe = || {
        let socket =
            rustix::net::socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
        rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)
    };
    matches!(probe(), Ok(()) | Err(rustix::io::Errno::PROTOTYPE))
}

/// The sockets' directory: beside the lock when paths are short enough, else below `$XDG_RUNTIME_DIR`.
fn socket_dir(dir: &Path, runtime_dir: Option<&Path>, profile: &ProfileName) -> Result<PathBuf, RunDirError> {
    if fits(dir) {
        return Ok(dir.to_owned());
    }
    let Some(runtime_dir) = runtime_dir.filter(|path| path.is_absolute()) else {
        return Err(RunDirError::TooLong(dir.to_owned()));
    };
    check_private(runtime_dir, 0o077)?;
    let (parent, own) = (
        runtime_dir.join("epithet"),
        runtime_dir.join("epithet").join(profile.as_str()),
    );
    if !fits(&own) {
        return Err(RunDirError::TooLong(own));
    }
    make_private(&parent, 0o077)?;
    make_private(&own, 0o077)?;
    Ok(own)
}

fn fits(sockets: &Path) -> bool {
    sockets.as_os_str().len() + AGENT_SUFFIX <= SOCKET_PATH_MAX
}

/// Makes a directory for its owner only, or checks that the one that is there is one.
pub(crate) fn make_private(path: &Path, forbidden: u32) -> Result<(), RunDirError> {
    match rustix::fs::mkdir(path, Mode::RWXU) {
        Ok(()) | Err(rustix::io::Errno::EXIST) => check_private(path, forbidden),
        Err(error) => Err(RunDirError::Io {
            path: path.to_owned(),
            error: error.into(),
        }),
    }
}

/// Opens the directory without following a link, and refuses one that others own or (by `forbidden`) could change.
fn check_private(path: &Path, forbidden: u32) -> Result<(), RunDirError> {
    let unsafe_dir = |problem: String| {
        Err(RunDirError::Unsafe {
            path: path.to_owned(),
            problem,
        })
    };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let dir: OwnedFd = match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(dir) => dir,
        Err(rustix::io::Errno::LOOP | rustix::io::Errno::NOTDIR) => {
            return unsafe_dir("is not a directory (or is a link to one); remove it".to_owned());
        }
        Err(error) => {
            return Err(RunDirError::Io {
                path: path.to_owned(),
                error: error.into(),
            });
        }
    };
    let stat = rustix::fs::fstat(&dir).map_err(|error| RunDirError::Io {
        path: path.to_owned(),
        error: error.into(),
    })?;
    let me = rustix::process::geteuid().as_raw();
    if stat.st_uid != me {
        return unsafe_dir(format!(
            "belongs to user id {}, not to you ({me}); remove it",
            stat.st_uid
        ));
    }
    let mode = stat.st_mode & 0o777;
    if mode & forbidden != 0 {
        return unsafe_dir(format!(
            "has mode {mode:04o}, so others could reach into it; run: chmod go-rwx {}",
            path.display()
        ));
    }
    Ok(())
}

fn remove_file_if_there(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn claim(home: &Path) -> Result<RunDir, RunDirError> {
        RunDir::claim(home, None, &ProfileName::default(), SocketOwner::Broker)
    }

    #[test]
    fn one_broker_a_profile_and_nothing_left_behind() {
        let home = tempfile::tempdir().unwrap();
        let profile = ProfileName::default();
        assert!(!RunDir::is_claimed(home.path(), &profile));
        let first = claim(home.path()).unwrap();
        assert!(RunDir::is_claimed(home.path(), &profile));
        first.write_ssh_config("Match all\n").unwrap();
        let error = claim(home.path()).unwrap_err().to_string();
        assert!(error.contains("already running"), "{error}");
        drop(first);
        assert!(!RunDir::is_claimed(home.path(), &profile));
        assert!(!home.path().join(".epithet/run/default").exists());
        assert!(claim(home.path()).is_ok());
    }

    #[test]
    fn a_service_managers_socket_and_what_leads_to_it_stay() {
        let home = tempfile::tempdir().unwrap();
        let profile = ProfileName::default();
        let run_dir = RunDir::claim(home.path(), None, &profile, SocketOwner::ServiceManager).unwrap();
        std::fs::write(run_dir.broker_socket(), "").unwrap();
        run_dir.write_ssh_config("Match all\n").unwrap();
        let (agents, kept) = (
            run_dir.agent_dir(),
            [run_dir.broker_socket(), run_dir.ssh_config()],
        );
        drop(run_dir);
        assert!(!agents.exists() && kept.iter().all(|path| path.exists()));
        assert!(!RunDir::is_claimed(home.path(), &profile));
    }

    #[test]
    fn what_a_killed_broker_left_is_taken_over() {
        let home = tempfile::tempdir().unwrap();
        let dir = home.path().join(".epithet/run/default");
        drop(claim(home.path()).unwrap());
        std::fs::create_dir(&dir).unwrap();
        std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o700)).unwrap();
        std::fs::create_dir(dir.join("agent")).unwrap();
        for file in ["lock", "broker.sock", "ssh-config.conf", "agent/abc"] {
            std::fs::write(dir.join(file), "").unwrap();
        }
        let run_dir = claim(home.path()).unwrap();
        assert!(!run_dir.ssh_config().exists());
        assert_eq!(std::fs::read_dir(run_dir.agent_dir()).unwrap().count(), 0);
    }

    #[test]
    fn a_directory_that_another_broker_has_by_now_is_not_touched_at_the_end() {
        let home = tempfile::tempdir().unwrap();
        let profile = ProfileName::default();
        let dir = RunDir::path_of(home.path(), &profile);
        let first = claim(home.path()).unwrap();
        assert_eq!(first.hold().unwrap(), Held::Still);
        std::fs::remove_dir_all(&dir).unwrap();
        assert_eq!(first.hold().unwrap(), Held::Again);
        assert!(first.agent_dir().is_dir() && RunDir::holder(home.path(), &profile).is_some());

        std::fs::remove_dir_all(&dir).unwrap();
        let second = claim(home.path()).unwrap();
        second.write_ssh_config("Match all\n").unwrap();
        // Another process's, as it would be.
        std::fs::write(dir.join("lock"), "4242\n/s\n").unwrap();
        assert_eq!(first.hold().unwrap(), Held::Lost(4242));
        drop(first);
        assert!(second.ssh_config().exists() && second.agent_dir().is_dir());
        assert!(RunDir::is_claimed(home.path(), &profile));
        drop(second);
        assert!(!dir.exists());
    }

    #[test]
    fn a_socket_at_which_somebody_listens_is_not_removed() {
        let home = tempfile::tempdir().unwrap();
        let profile = ProfileName::default();
        let dir = RunDir::path_of(home.path(), &profile);
        let waited = || RunDir::is_waited_for(home.path(), None, &profile);
        make_run_dir(home.path(), &profile).unwrap();
        assert!(!waited());
        let socket = dir.join("broker.sock");
        let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        listener.set_nonblocking(true).unwrap();
        assert!(waited());
        assert!(matches!(claim(home.path()), Err(RunDirError::Waited(path)) if path == socket));
        assert!(socket.exists() && !RunDir::is_claimed(home.path(), &profile));
        let nobody = listener.accept().unwrap_err();
        assert_eq!(nobody.kind(), io::ErrorKind::WouldBlock, "nobody was woken");
        drop(listener);
        assert!(!waited());
        assert!(claim(home.path()).is_ok());
    }

    #[test]
    fn an_unsafe_directory_is_refused_by_name_and_not_repaired() {
        let home = tempfile::tempdir().unwrap();
        let epithet = home.path().join(".epithet");
        let elsewhere = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(elsewhere.path(), &epithet).unwrap();
        assert!(
            claim(home.path())
                .unwrap_err()
                .to_string()
                .contains("not a directory")
        );
        assert_eq!(std::fs::read_dir(elsewhere.path()).unwrap().count(), 0);

        std::fs::remove_file(&epithet).unwrap();
        std::fs::create_dir_all(epithet.join("run")).unwrap();
        std::fs::set_permissions(epithet.join("run"), std::fs::Permissions::from_mode(0o777)).unwrap();
        let error = claim(home.path()).unwrap_err().to_string();
        assert!(error.contains("0777") && error.contains("chmod"), "{error}");
    }

    #[test]
    fn sockets_move_to_the_runtime_directory_when_home_is_too_deep() {
        let base = tempfile::tempdir().unwrap();
        let home = base.path().join("d".repeat(80));
        std::fs::create_dir(&home).unwrap();
        assert!(matches!(claim(&home), Err(RunDirError::TooLong(_))));
        let runtime = tempfile::tempdir().unwrap();
        std::fs::set_permissions(runtime.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
        let profile = ProfileName::default();
        let run_dir = RunDir::claim(&home, Some(runtime.path()), &profile, SocketOwner::Broker).unwrap();
        assert!(run_dir.broker_socket().starts_with(runtime.path()));
        let said = RunDir::broker_socket_of(&home, Some(runtime.path()), &profile).unwrap();
        assert_eq!(said, run_dir.broker_socket());
        assert!(run_dir.ssh_config().starts_with(&home));
    }
}
