//! The broker's own corner of the file system: a directory that only its owner can enter, held by a lock.
//!
//! `~/.epithet/run/<profile>/` holds the lock, `ssh-config.conf`, the broker's socket and the agents' sockets. When the
//! home directory's path is too long for sockets they move to `$XDG_RUNTIME_DIR/epithet/<profile>/`. The lock, not a
//! process id, says whether a broker lives: what a killed one left behind is taken over.

use epithet_wire::ProfileName;
use epithet_wire::limits::SOCKET_PATH_MAX;
use rustix::fs::{FlockOperation, Mode, OFlags};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The length of `/agent/` and a connection hash as OpenSSH makes it.
const AGENT_SUFFIX: usize = "/agent/".len() + 40;

/// Why the run directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RunDirError {
    /// Another broker of this profile lives.
    #[error("profile \"{0}\" is already running (use --name to run a second profile)")]
    Running(ProfileName),
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
    dir: PathBuf,
    sockets: PathBuf,
    lock: File,
    socket: SocketOwner,
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
        let mut dir = home.to_owned();
        for part in [".epithet", "run", profile.as_str()] {
            dir.push(part);
            // ~/.epithet itself may be readable: it holds the configuration, not the sockets.
            make_private(&dir, if part == ".epithet" { 0o022 } else { 0o077 })?;
        }
        let sockets = socket_dir(&dir, runtime_dir, profile)?;
        let lock = lock(&dir, profile)?;
        let run_dir = Self {
            dir,
            sockets,
            lock,
            socket,
        };
        run_dir.clear()?;
        make_private(&run_dir.agent_dir(), 0o077)?;
        Ok(run_dir)
    }

    /// Whether a broker of `profile` lives, by its lock and without asking it.
    pub fn is_claimed(home: &Path, profile: &ProfileName) -> bool {
        let lock = Self::path_of(home, profile).join("lock");
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        // Held for a moment only; a broker that starts in this very moment would have to be started again.
        rustix::fs::open(&lock, flags, Mode::empty()).is_ok_and(|lock| {
            rustix::fs::flock(&lock, FlockOperation::NonBlockingLockShared)
                .is_err_and(|error| error == rustix::io::Errno::WOULDBLOCK)
        })
    }

    /// The process that holds the lock of `profile`, when the system says so without being asked by its owner (Linux).
    pub fn holder(home: &Path, profile: &ProfileName) -> Option<u32> {
        use std::os::unix::fs::MetadataExt;
        let inode = Self::path_of(home, profile).join("lock").metadata().ok()?.ino();
        holder_in(&std::fs::read_to_string("/proc/locks").ok()?, inode)
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
            if self.socket == SocketOwner::Broker {
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
    /// Removes everything that was made, the lock last. A waiting successor notices that its lock file is gone.
    fn drop(&mut self) {
        let _ = self.clear();
        let _ = std::fs::remove_file(self.dir.join("lock"));
        let _ = rustix::fs::flock(self.lock.as_fd(), FlockOperation::Unlock);
        if self.sockets != self.dir {
            let _ = std::fs::remove_dir(&self.sockets);
        }
        let _ = std::fs::remove_dir(&self.dir);
    }
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

/// Who holds the exclusive lock (flock(2)) on the file with this inode number, in Linux's `/proc/locks`. `None` too when
/// two files have the number, on two file systems.
fn holder_in(locks: &str, inode: u64) -> Option<u32> {
    let mut holders = locks.lines().filter_map(|line| {
        // 1: FLOCK  ADVISORY  WRITE 1234 fd:00:5678 0 EOF; who waits has a `->` after the number.
        let mut words = line.split_whitespace().skip(1);
        let is_exclusive = words.next() == Some("FLOCK") && words.nth(1) == Some("WRITE");
        let process: u32 = words.next()?.parse().ok()?;
        let file: u64 = words.next()?.rsplit(':').next()?.parse().ok()?;
        (is_exclusive && file == inode && process != 0).then_some(process)
    });
    let holder = holders.next()?;
    holders.next().is_none().then_some(holder)
}

/// Takes the lock, and makes sure that the file it was taken on is still the one in the directory.
fn lock(dir: &Path, profile: &ProfileName) -> Result<File, RunDirError> {
    let path = dir.join("lock");
    let io_error = |error: io::Error| RunDirError::Io {
        path: path.clone(),
        error,
    };
    loop {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = File::from(
            rustix::fs::open(&path, flags, Mode::RUSR | Mode::WUSR)
                .map_err(|error| io_error(error.into()))?,
        );
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(RunDirError::Running(profile.clone())),
            Err(error) => return Err(io_error(error.into())),
        }
        let ours = file.metadata().map_err(io_error)?;
        match std::fs::symlink_metadata(&path) {
            Ok(there) if (there.dev(), there.ino()) == (ours.dev(), ours.ino()) => return Ok(file),
            // Its last owner removed it between our open and our lock: begin again.
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(io_error(error)),
        }
    }
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
    fn the_holder_of_a_lock_is_known_by_the_system_s_list() {
        let locks = "1: FLOCK  ADVISORY  WRITE 1234 fd:00:5678 0 EOF\n\
                     1: -> FLOCK  ADVISORY  WRITE 99 fd:00:5678 0 EOF\n\
                     2: POSIX  ADVISORY  WRITE 77 fd:00:42 0 EOF\n\
                     3: FLOCK  ADVISORY  READ 78 fd:00:42 0 EOF\n\
                     4: FLOCK  ADVISORY  WRITE 5 fd:00:7 0 EOF\n\
                     5: FLOCK  ADVISORY  WRITE 6 fd:01:7 0 EOF\n";
        assert_eq!(holder_in(locks, 5678), Some(1234));
        for unknown in [42, 7, 1] {
            assert_eq!(holder_in(locks, unknown), None, "{unknown}");
        }
        if cfg!(target_os = "linux") {
            let home = tempfile::tempdir().unwrap();
            let _run_dir = claim(home.path()).unwrap();
            let holder = RunDir::holder(home.path(), &ProfileName::default());
            assert_eq!(holder, Some(std::process::id()));
        }
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
