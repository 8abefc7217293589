//! The ssh that asked: whether it will go through a connection that is there already (`ControlPath`), and so needs no
//! certificate.
//!
//! ssh looks for a master when it has read its whole configuration, and our question is part of that reading. So ssh itself is
//! asked: `ssh -G` with the words of the asking one, in its directory and with its environment, prints where the master's
//! socket would be. That takes some ten milliseconds, so it is done only where a master is likely or a login would be started
//! (`match_`). No shell is involved, nothing but the words of an ssh that runs already as this very user is passed on, and
//! the `match` that this `ssh -G` runs answers yes without asking anybody ([`DRY_RUN`]).
//!
//! Where there is no `/proc`, nothing is known about the asking ssh, and every one is taken for one that connects.

use epithet_wire::Connection;
use epithet_wire::broker::DRY_RUN;
use epithet_wire::limits::{SSH_PRINT_DEADLINE, SSH_PRINT_MAX, SSH_PRINTS, SSH_WORDS_MAX};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use std::ffi::OsString;
use std::io::Read;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use tokio::io::AsyncReadExt;
use tokio::sync::Semaphore;

/// An ssh that waits for our answer, as it was started.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct AskingSsh {
    program: PathBuf,
    /// What follows its name on the command line.
    words: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
    directory: PathBuf,
}

impl AskingSsh {
    /// The process that asked, if it is this user's and an ssh. None when that cannot be known.
    pub(crate) fn of(process: u32) -> Option<Self> {
        Self::at(&PathBuf::from(format!("/proc/{process}")))
    }

    fn at(process: &Path) -> Option<Self> {
        if process.metadata().ok()?.uid() != rustix::process::geteuid().as_raw() {
            return None;
        }
        let program = std::fs::read_link(process.join("exe")).ok()?;
        if program.file_name()? != "ssh" {
            return None;
        }
        let words = strings(&process.join("cmdline"))?;
        let environment = strings(&process.join("environ"))?;
        Some(Self {
            program,
            words: words.into_iter().skip(1).collect(),
            environment: environment.into_iter().filter_map(variable).collect(),
            directory: std::fs::read_link(process.join("cwd")).ok()?,
        })
    }

    /// Whether a master listens where this ssh will look for one, for this very connection. False when that cannot be known.
    pub(crate) async fn has_master(&self, connection: &Connection) -> bool {
        let Ok(Some(printed)) = tokio::time::timeout(SSH_PRINT_DEADLINE, self.print()).await else {
            return false;
        };
        control_path(&printed, connection).is_some_and(|path| is_listening(&self.directory.join(path)))
    }

    /// What `ssh -G` prints.
    async fn print(&self) -> Option<String> {
        static PLACES: Semaphore = Semaphore::const_new(SSH_PRINTS);
        let _place = PLACES.acquire().await.ok()?;
        let mut command = std::process::Command::new(&self.program);
        command
            .arg("-G")
            .args(&self.words)
            .env_clear()
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .env(DRY_RUN, "1")
            .current_dir(&self.directory)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        epithet_plugin::start_cleanly(&mut command);
        let mut ssh = tokio::process::Command::from(command)
            .kill_on_drop(true)
            .spawn()
            .ok()?;
        let mut printed = Vec::new();
        let most = u64::try_from(SSH_PRINT_MAX).unwrap_or(u64::MAX);
        ssh.stdout
            .take()?
            .take(most)
            .read_to_end(&mut printed)
            .await
            .ok()?;
        ssh.wait().await.ok()?.success().then_some(())?;
        String::from_utf8(printed).ok()
    }
}

/// The master's socket as `ssh -G` prints it, if it was printed for this connection.
fn control_path<'a>(printed: &'a str, connection: &Connection) -> Option<&'a str> {
    let value = |name: &str| {
        let lines = printed.lines().filter_map(|line| line.split_once(' '));
        lines
            .into_iter()
            .find(|(key, _)| *key == name)
            .map(|(_, value)| value)
    };
    let is_this_one = value("hostname")?.eq_ignore_ascii_case(connection.remote_host.as_str())
        && value("user")? == connection.remote_user.as_str()
        && value("port")? == connection.port.to_string();
    value("controlpath").filter(|path| is_this_one && *path != "none")
}

/// Whether somebody listens on a socket, found out without waiting.
fn is_listening(path: &Path) -> bool {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let Ok(socket) = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None) else {
        return false;
    };
    let Ok(address) = SocketAddrUnix::new(path) else {
        return false;
    };
    // A master whose backlog is full is busy, not gone.
    matches!(connect(&socket, &address), Ok(()) | Err(Errno::AGAIN))
}

/// A file of strings that each end with a NUL.
fn strings(path: &Path) -> Option<Vec<OsString>> {
    let most = u64::try_from(SSH_WORDS_MAX).unwrap_or(u64::MAX);
    let mut text = Vec::new();
    let file = std::fs::File::open(path).ok()?;
    file.take(most + 1).read_to_end(&mut text).ok()?;
    if text.len() > SSH_WORDS_MAX {
        return None;
    }
    let text = text.strip_suffix(b"\0").unwrap_or(&text);
    let strings = text.split(|byte| *byte == 0);
    Some(
        strings
            .map(|string| OsString::from_vec(string.to_vec()))
            .collect(),
    )
}

fn variable(text: OsString) -> Option<(OsString, OsString)> {
    let text = text.into_vec();
    let sign = text
        .iter()
        .position(|byte| *byte == b'=')
        .filter(|sign| *sign > 0)?;
    let name = OsString::from_vec(text[..sign].to_vec());
    Some((name, OsString::from_vec(text[sign + 1..].to_vec())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use epithet_wire::ConnectionFields;
    use std::os::unix::net::UnixListener;

    fn connection() -> Connection {
        let fields = ConnectionFields {
            remote_host: "web.example.com".into(),
            remote_user: "root".into(),
            port: 22,
            hash: "a".repeat(40),
            ..ConnectionFields::default()
        };
        fields.check().unwrap()
    }

    #[test]
    fn the_path_counts_only_when_it_is_that_of_the_connection_asked_about() {
        let printed = "user root\nhostname Web.example.com\nport 22\ncontrolmaster auto\ncontrolpath /home/a b/.ssh/cm\n";
        assert_eq!(control_path(printed, &connection()), Some("/home/a b/.ssh/cm"));
        for (from, to) in [
            ("user root", "user alice"),
            ("hostname Web", "hostname db"),
            ("port 22", "port 2222"),
            ("controlpath /home/a b/.ssh/cm", "controlpath none"),
            ("controlpath", "controlpersist"),
            ("hostname", "host"),
        ] {
            let other = printed.replace(from, to);
            assert_eq!(control_path(&other, &connection()), None, "{other}");
        }
        assert_eq!(control_path("", &connection()), None);
    }

    #[test]
    fn a_socket_that_was_left_behind_is_no_master() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cm");
        assert!(!is_listening(&path));
        let listener = UnixListener::bind(&path).unwrap();
        assert!(is_listening(&path));
        drop(listener);
        assert!(path.exists() && !is_listening(&path));
        assert!(!is_listening(&folder.path().join("x".repeat(200))));
    }

    #[test]
    fn only_an_ssh_of_this_user_s_is_asked_and_it_is_read_as_it_was_started() {
        let folder = tempfile::tempdir().unwrap();
        let process = folder.path();
        std::os::unix::fs::symlink("/usr/bin/ssh", process.join("exe")).unwrap();
        std::os::unix::fs::symlink("/tmp", process.join("cwd")).unwrap();
        std::fs::write(process.join("cmdline"), b"ssh\0-p\0\0a b;c\0").unwrap();
        std::fs::write(process.join("environ"), b"A=1\0=x\0none\0B==\xff\0").unwrap();
        let ssh = AskingSsh::at(process).unwrap();
        assert_eq!(ssh.program, Path::new("/usr/bin/ssh"));
        assert_eq!(ssh.words, ["-p", "", "a b;c"]);
        let b = OsString::from_vec(b"=\xff".to_vec());
        assert_eq!(ssh.environment, [("A".into(), "1".into()), ("B".into(), b)]);
        std::fs::write(process.join("cmdline"), vec![b'x'; SSH_WORDS_MAX + 1]).unwrap();
        assert_eq!(AskingSsh::at(process), None);
        std::fs::write(process.join("cmdline"), vec![b'x'; SSH_WORDS_MAX]).unwrap();
        assert!(AskingSsh::at(process).is_some());
        std::fs::remove_file(process.join("exe")).unwrap();
        std::os::unix::fs::symlink("/usr/bin/env", process.join("exe")).unwrap();
        assert_eq!(AskingSsh::at(process), None);
        assert_eq!(AskingSsh::of(0), None);
    }
}
