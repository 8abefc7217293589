//! An ssh before 8.3 finds its agent by user and host: `%C` means nothing to its `Match exec` and `IdentityAgent`.
//!
//! So the broker makes the connection's hash itself, and beside the agent's socket stands a link `USER@HOST` to it. Two
//! connections that differ only in their port share that name; it belongs to the one that asked last, and an ssh that finds
//! the agent of the other one is nobody that asked there, and gets nothing.

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use epithet_wire::limits::SOCKET_PATH_MAX;
use epithet_wire::{Connection, ConnectionFields};
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

/// The link by which an ssh finds a connection's agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ByName {
    link: PathBuf,
    /// The socket's name in the same directory.
    socket: String,
}

/// A link that no ssh could follow.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "this ssh finds its agent by user and host only, and {} is longer than a socket's path may be ({SOCKET_PATH_MAX} bytes); use a shorter `HostName` for this host, or install OpenSSH 8.3 or later",
    .0.display()
)]
pub(crate) struct NameTooLong(PathBuf);

impl ByName {
    /// The link of `connection` among the agents' sockets in `dir`.
    ///
    /// Neither a user's nor a host's name has a slash, a user's never begins with a dot, and no hash has an `@`: it is one
    /// file in `dir`, and nothing else there has its name.
    pub(crate) fn of(dir: &Path, connection: &Connection) -> Result<Self, NameTooLong> {
        let link = dir.join(format!("{}@{}", connection.remote_user, connection.remote_host));
        if link.as_os_str().len() > SOCKET_PATH_MAX {
            return Err(NameTooLong(link));
        }
        Ok(Self {
            link,
            socket: connection.hash.to_string(),
        })
    }

    /// Makes the link, in one step where it leads elsewhere.
    pub(crate) fn make(&self) -> io::Result<()> {
        if self.leads_there() {
            return Ok(());
        }
        let draft = self.link.with_file_name(format!(".{}", self.socket));
        match std::fs::remove_file(&draft) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => symlink(&self.socket, &draft)?,
        }
        std::fs::rename(&draft, &self.link)
    }

    /// Removes the link, unless it leads to another agent by now.
    pub(crate) fn remove(&self) {
        if self.leads_there()
            && let Err(error) = std::fs::remove_file(&self.link)
        {
            tracing::debug!(link = %self.link.display(), %error, "an agent's link was not removed");
        }
    }

    fn leads_there(&self) -> bool {
        std::fs::read_link(&self.link).is_ok_and(|socket| socket.as_os_str() == self.socket.as_str())
    }
}

/// What ssh calls a connection (`%C`): SHA-1, in hexadecimal, over this machine's name, the host, the port and the user
/// (ssh_config(5), "TOKENS"; jump hosts count only in later versions).
pub(crate) fn connection_hash(machine: &str, fields: &ConnectionFields) -> String {
    let text = format!(
        "{machine}{}{}{}",
        fields.remote_host, fields.port, fields.remote_user
    );
    let bytes = digest(&SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes());
    bytes.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// This machine's name as ssh knows it (gethostname(3)).
pub(crate) fn machine_name() -> String {
    let names = rustix::system::uname();
    names.nodename().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(host: &str, port: u32) -> ConnectionFields {
        let mut fields = ConnectionFields {
            remote_host: host.into(),
            remote_user: "root".into(),
            port,
            ..ConnectionFields::default()
        };
        fields.hash = connection_hash("laptop", &fields);
        fields
    }

    #[test]
    fn the_hash_is_the_one_that_ssh_makes() {
        // printf %s laptopweb.example.com22root | sha1sum
        assert_eq!(
            fields("web.example.com", 22).hash,
            "ad8e596a93f168cc1bc296e49c3046563a5dc88a"
        );
    }

    #[test]
    fn the_name_belongs_to_who_asked_last_and_goes_only_with_its_own_agent() {
        let dir = tempfile::tempdir().unwrap();
        let name = |port| {
            let connection = fields("web", port).check().unwrap();
            (
                ByName::of(dir.path(), &connection).unwrap(),
                PathBuf::from(connection.hash.as_str()),
            )
        };
        let ((first, first_socket), (second, second_socket)) = (name(22), name(2222));
        let link = dir.path().join("root@web");
        let leads_to = || std::fs::read_link(&link).ok();
        first.make().unwrap();
        first.make().unwrap();
        assert_eq!(leads_to(), Some(first_socket.clone()));
        second.make().unwrap();
        assert_eq!(leads_to(), Some(second_socket));
        first.remove();
        assert!(leads_to().is_some(), "it is the other's");
        first.make().unwrap();
        second.remove();
        assert_eq!(leads_to(), Some(first_socket));
        first.remove();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        // What a broker left that was killed in the middle is in nobody's way.
        symlink("elsewhere", dir.path().join(format!(".{}", first.socket))).unwrap();
        first.make().unwrap();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_name_that_is_too_long_for_a_socket_is_refused_with_the_reason() {
        let host = |length| "h".repeat(length);
        let dir = Path::new("/d");
        let most = SOCKET_PATH_MAX - "/d/root@".len();
        let of = |length| ByName::of(dir, &fields(&host(length), 22).check().unwrap());
        assert!(of(most).is_ok());
        let said = of(most + 1).unwrap_err().to_string();
        assert!(
            said.contains("8.3 or later") && said.contains("/d/root@h"),
            "{said}"
        );
    }

    #[test]
    fn odd_names_stay_in_the_directory() {
        for host in ["..", ".", "a@b", "fe80::1%eth0"] {
            let name = ByName::of(Path::new("/d"), &fields(host, 22).check().unwrap()).unwrap();
            assert_eq!(name.link.parent(), Some(Path::new("/d")));
            assert_eq!(name.link, Path::new("/d").join(format!("root@{host}")));
        }
    }
}
