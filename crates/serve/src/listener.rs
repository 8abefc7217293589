//! The listening socket: bound, accepting, and gone without a trace.

use crate::listen::{Listen, ListenError};
use crate::request::ClientAddress;
use rustix::fs::{FileType, Mode};
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixListener, UnixStream};

/// Connections the system queues while the server is busy accepting others.
const BACKLOG: u32 = 1024;

/// A socket that listens; made by [`Listen::bind`]. A Unix socket's file is removed when this is dropped.
#[derive(Debug)]
pub struct Listener(Kind);

#[derive(Debug)]
enum Kind {
    Tcp(TcpListener),
    Unix(UnixListener, SocketFile),
}

/// One accepted connection, before anything was read from it.
#[derive(Debug)]
pub(crate) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Listen {
    /// Binds and listens. When this returns, clients can connect.
    ///
    /// A Unix socket is created with mode 0600. One that a killed process left behind is taken over; one that
    /// answers, is no socket, or belongs to another user is an error.
    pub async fn bind(&self) -> Result<Listener, ListenError> {
        let failed = |source| ListenError::Bind {
            address: self.to_string(),
            source,
        };
        let kind = match self {
            Self::Tcp {
                host: Some(host),
                port,
            } => {
                let addresses = tokio::net::lookup_host((host.as_str(), *port))
                    .await
                    .map_err(failed)?;
                Kind::Tcp(bind_tcp(addresses).map_err(failed)?)
            }
            // An IPv6 socket takes IPv4 as well; where there is no IPv6, IPv4 alone.
            Self::Tcp { host: None, port } => {
                let everywhere = [([0_u16; 8], *port).into(), ([0_u8; 4], *port).into()];
                Kind::Tcp(bind_tcp(everywhere.into_iter()).map_err(failed)?)
            }
            Self::Unix(path) => {
                clear_leftover(path)?;
                let (listener, file) = bind_unix(path).map_err(failed)?;
                Kind::Unix(listener, file)
            }
        };
        Ok(Listener(kind))
    }
}

/// Listens on the first of these addresses that the system allows.
fn bind_tcp(addresses: impl Iterator<Item = SocketAddr>) -> io::Result<TcpListener> {
    let mut error = io::Error::new(io::ErrorKind::NotFound, "the host name has no address");
    for address in addresses {
        let bound = if address.is_ipv4() {
            TcpSocket::new_v4()
        } else {
            TcpSocket::new_v6()
        }
        .and_then(|socket| {
            // Otherwise a restarted server could not have its port back while old connections linger.
            socket.set_reuseaddr(true)?;
            socket.bind(address)?;
            socket.listen(BACKLOG)
        });
        match bound {
            Ok(listener) => return Ok(listener),
            Err(refused) => error = refused,
        }
    }
    Err(error)
}

/// Removes a socket that nobody answers on any more.
fn clear_leftover(path: &Path) -> Result<(), ListenError> {
    let occupied = |problem| ListenError::Occupied {
        path: path.to_owned(),
        problem,
    };
    let Ok(found) = rustix::fs::lstat(path) else {
        return Ok(());
    };
    if FileType::from_raw_mode(found.st_mode) != FileType::Socket {
        return Err(occupied("something that is not a socket is there"));
    }
    if found.st_uid != rustix::process::geteuid().as_raw() {
        return Err(occupied("a socket of another user is there"));
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Ok(_) => Err(ListenError::InUse(path.to_owned())),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            tracing::info!(path = %path.display(), "taking over the socket of a process that has ended");
            std::fs::remove_file(path).map_err(|source| ListenError::Bind {
                address: path.display().to_string(),
                source,
            })
        }
        Err(source) => Err(ListenError::Bind {
            address: path.display().to_string(),
            source,
        }),
    }
}

/// Binds a socket that is this user's alone from the moment it exists.
fn bind_unix(path: &Path) -> io::Result<(UnixListener, SocketFile)> {
    use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
    let private = Mode::RUSR | Mode::WUSR;
    let socket = rustix::net::socket_with(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )?;
    // Linux creates the file with the mode of the socket; elsewhere this fails and the mode follows at once below.
    let _ = rustix::fs::fchmod(&socket, private);
    rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
    let file = SocketFile::of(path)?;
    rustix::fs::chmod(path, private)?;
    rustix::net::listen(&socket, BACKLOG.cast_signed())?;
    let listener = std::os::unix::net::UnixListener::from(socket);
    listener.set_nonblocking(true)?;
    Ok((UnixListener::from_std(listener)?, file))
}

/// The socket's file, removed when dropped unless somebody else's stands there by then.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    identity: (u64, u64),
}

impl SocketFile {
    fn of(path: &Path) -> io::Result<Self> {
        Ok(Self {
            path: path.to_owned(),
            identity: identity(path)?,
        })
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    std::fs::symlink_metadata(path).map(|found| (found.dev(), found.ino()))
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|found| found == self.identity) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

impl Listener {
    /// Where it listens, with the port that was chosen: `127.0.0.1:41234` or `unix:///run/epithet.sock`.
    pub fn address(&self) -> String {
        match &self.0 {
            Kind::Tcp(listener) => listener
                .local_addr()
                .map_or_else(|_| "a TCP port".to_owned(), |address| address.to_string()),
            Kind::Unix(_, file) => format!("unix://{}", file.path.display()),
        }
    }

    /// The address it listens on, when it is TCP.
    pub fn tcp_address(&self) -> Option<SocketAddr> {
        match &self.0 {
            Kind::Tcp(listener) => listener.local_addr().ok(),
            Kind::Unix(..) => None,
        }
    }

    /// The next connection and who made it.
    pub(crate) async fn accept(&self) -> io::Result<(Stream, ClientAddress)> {
        match &self.0 {
            Kind::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                let _ = stream.set_nodelay(true);
                Ok((Stream::Tcp(stream), ClientAddress::Ip(peer.ip().to_canonical())))
            }
            Kind::Unix(listener, _) => loop {
                let (stream, _) = listener.accept().await?;
                let uid = stream.peer_cred()?.uid();
                // The mode keeps others out; this holds where somebody loosened it.
                if uid == 0 || uid == rustix::process::geteuid().as_raw() {
                    return Ok((Stream::Unix(stream), ClientAddress::Unix { uid }));
                }
                tracing::warn!(uid, "closed a connection of another user to the Unix socket");
            },
        }
    }
}
