//! The client side of the broker's socket: one request line out, reply lines in, each wait with an end.

use epithet_wire::broker::{Reply, Request};
use epithet_wire::limits::{BROKER_REPLY_MAX, MATCH_FIRST_BYTE, MATCH_SILENCE};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketType};
use rustix::process::{Pid, getppid};
use std::io::{BufRead, BufReader, IoSlice, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// Why the broker could not be asked.
#[derive(Debug)]
pub enum ClientError {
    /// Nobody listens there.
    NoBroker(std::io::Error),
    /// The broker said nothing in time.
    Silent,
    /// The connection ended before the result.
    HungUp,
    /// The ssh that asked has ended, so nobody wants the answer.
    Unwanted,
    /// A reply that is not one, or is too long.
    Garbled,
    /// Another failure of the socket.
    Io(std::io::Error),
}

impl std::fmt::Display for ClientError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NoBroker(error) => {
                f.write_str("no broker is running")?;
                match error.kind() {
                    std::io::ErrorKind::NotFound | std::io::ErrorKind::ConnectionRefused => Ok(()),
                    _ => write!(f, " ({error})"),
                }
            }
            Self::Silent => f.write_str("the broker does not answer"),
            Self::HungUp => f.write_str("the broker ended the connection without an answer"),
            Self::Unwanted => f.write_str("whoever asked has gone"),
            Self::Garbled => f.write_str(
                "the broker's answer is not understood; is it another version? restart `epithet agent`",
            ),
            Self::Io(error) => write!(f, "the broker's socket failed: {error}"),
        }
    }
}

impl std::error::Error for ClientError {}

impl From<std::io::Error> for ClientError {
    /// A broker may close the connection before it has read the request, or while it answers.
    fn from(error: std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::BrokenPipe | std::io::ErrorKind::ConnectionReset => Self::HungUp,
            _ => Self::Io(error),
        }
    }
}

/// A connection to the broker with its request sent.
#[derive(Debug)]
pub struct BrokerClient {
    reader: BufReader<UnixStream>,
    patience: Duration,
    asked_by: Option<Pid>,
}

impl BrokerClient {
    /// Connects and sends `request`, with this process's stderr when `pass_stderr` says so.
    pub fn send(socket: &Path, request: &Request, pass_stderr: bool) -> Result<Self, ClientError> {
        let stream = connect(socket).map_err(ClientError::NoBroker)?;
        let mut line = serde_json::to_vec(request).map_err(|_| ClientError::Garbled)?;
        line.push(b'\n');
        let sent = if pass_stderr {
            send_with_stderr(&stream, &line)?
        } else {
            0
        };
        std::io::Write::write_all(&mut &stream, &line[sent..])?;
        stream.set_read_timeout(Some(MATCH_FIRST_BYTE))?;
        Ok(Self {
            reader: BufReader::new(stream),
            patience: MATCH_FIRST_BYTE,
            asked_by: None,
        })
    }

    /// Gives up once `parent` is no longer this process's parent: an ssh that is killed alone leaves the program it asks
    /// behind, and with it a login that nobody waits for. It is looked at with each line, so within two seconds.
    #[must_use]
    pub fn asked_by(mut self, parent: Option<Pid>) -> Self {
        self.asked_by = parent;
        self
    }

    /// The next reply line. The broker speaks at least every few seconds; silence is an error.
    pub fn next_reply(&mut self) -> Result<Reply, ClientError> {
        let mut line = Vec::new();
        let limit = u64::try_from(BROKER_REPLY_MAX).unwrap_or(u64::MAX);
        match self.reader.by_ref().take(limit).read_until(b'\n', &mut line) {
            Ok(0) => return Err(ClientError::HungUp),
            Ok(_) if !line.ends_with(b"\n") => {
                return Err(if line.len() < BROKER_REPLY_MAX {
                    ClientError::HungUp
                } else {
                    ClientError::Garbled
                });
            }
            Ok(_) => {}
            Err(error)
                if matches!(
                    error.kind(),
                    std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut
                ) =>
            {
                return Err(ClientError::Silent);
            }
            Err(error) => return Err(error.into()),
        }
        if self.asked_by.is_some() && getppid() != self.asked_by {
            return Err(ClientError::Unwanted);
        }
        self.patience = MATCH_SILENCE;
        self.wait_up_to(MATCH_SILENCE)?;
        serde_json::from_slice(&line).map_err(|_| ClientError::Garbled)
    }

    /// How long the next reply may take to come.
    pub(crate) fn patience(&self) -> Duration {
        self.patience
    }

    /// Whether something was read already that [`next_reply`](Self::next_reply) has not returned.
    pub(crate) fn has_read_ahead(&self) -> bool {
        !self.reader.buffer().is_empty()
    }

    fn wait_up_to(&self, limit: Duration) -> Result<(), ClientError> {
        Ok(self.reader.get_ref().set_read_timeout(Some(limit))?)
    }
}

impl AsFd for BrokerClient {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.reader.get_ref().as_fd()
    }
}

/// Connects with a deadline: a broker whose backlog is full must not hold ssh.
fn connect(path: &Path) -> std::io::Result<UnixStream> {
    let socket = rustix::net::socket_with(
        AddressFamily::UNIX,
        SocketType::STREAM,
        rustix::net::SocketFlags::CLOEXEC,
        None,
    )?;
    rustix::net::sockopt::set_socket_timeout(
        &socket,
        rustix::net::sockopt::Timeout::Send,
        Some(MATCH_FIRST_BYTE),
    )?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(UnixStream::from(socket))
}

/// Sends the beginning of `line` together with our stderr, and says how much of it went.
fn send_with_stderr(stream: &UnixStream, line: &[u8]) -> Result<usize, ClientError> {
    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
    let stderr = std::io::stderr();
    let descriptors = [stderr.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    ancillary.push(SendAncillaryMessage::ScmRights(&descriptors));
    match sendmsg(stream, &[IoSlice::new(line)], &mut ancillary, SendFlags::NOSIGNAL) {
        Ok(sent) => Ok(sent),
        // A closed stderr cannot be passed; the request goes without it.
        Err(rustix::io::Errno::BADF) => Ok(0),
        Err(error) => Err(std::io::Error::from(error).into()),
    }
}
