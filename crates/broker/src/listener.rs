//! The broker's socket: who may speak, one request line with a deadline, and the reply lines until the end or until
//! the other side hangs up.

use crate::hang_up;
use crate::voice::Voice;
use epithet_wire::broker::{Asker, Reply, Request};
use epithet_wire::limits::{BROKER_KEEPALIVE, BROKER_LINE_MAX, BROKER_READ_DEADLINE};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use std::future::Future;
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncWriteExt, Interest};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// After an error of accept (too many open files), how long to leave it alone.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Answers one request; dropping the future means that the asker has gone.
pub(crate) trait Answers: Send + Sync + 'static {
    fn answer(&self, request: Request, voice: Voice) -> impl Future<Output = Reply> + Send;
}

/// Opens the socket for its owner only.
pub(crate) fn bind(path: &Path) -> io::Result<UnixListener> {
    // Its directory is closed to others, so there is no moment in which they could reach it.
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Takes over a socket that a service manager opened, if it is the one that ssh will be told about.
pub(crate) fn take_over(listener: std::os::unix::net::UnixListener, path: &Path) -> io::Result<UnixListener> {
    let bound = listener.local_addr()?;
    let bound = bound.as_pathname().unwrap_or(Path::new("(no path)"));
    let folder = |path: &Path| path.parent().and_then(|folder| folder.canonicalize().ok());
    if bound.file_name() != path.file_name() || folder(bound) != folder(path) {
        return Err(io::Error::other(format!(
            "the service manager opened {} instead; `epithet agent install` writes units that fit",
            bound.display()
        )));
    }
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    listener.set_nonblocking(true)?;
    UnixListener::from_std(listener)
}

/// Serves the socket until `ending`, `most` requests at once. One of `newer` takes its place; whoever is spoken to already
/// is not cut off.
pub(crate) async fn serve<A: Answers>(
    mut listener: UnixListener,
    mut newer: mpsc::Receiver<UnixListener>,
    answers: Arc<A>,
    most: usize,
    ending: CancellationToken,
) {
    let places = Arc::new(Semaphore::new(most));
    let tasks = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            biased;
            () = ending.cancelled() => break,
            Some(newer) = newer.recv() => {
                listener = newer;
                continue;
            }
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "the broker's socket cannot accept; trying again");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            tracing::warn!("more than {most} requests at once; one was turned away");
            continue;
        };
        let (answers, ending) = (Arc::clone(&answers), ending.clone());
        tasks.spawn(async move {
            let _place = place;
            let conversation = converse(stream, answers.as_ref());
            if let Some(Err(error)) = ending.run_until_cancelled(conversation).await {
                tracing::debug!(%error, "a request to the broker broke off");
            }
        });
    }
    tasks.close();
    tasks.wait().await;
}

/// One request and its replies.
async fn converse<A: Answers>(mut stream: UnixStream, answers: &A) -> io::Result<()> {
    let peer = stream.peer_cred()?;
    if !is_ours(peer.uid()) {
        tracing::warn!(
            uid = peer.uid(),
            pid = peer.pid(),
            "another user's process was turned away from the broker's socket"
        );
        return Ok(());
    }
    let (line, stderr) = match tokio::time::timeout(BROKER_READ_DEADLINE, read_request(&stream)).await {
        Ok(request) => request?,
        Err(_) => return Ok(()),
    };
    // Whoever asked while this process was stopped has gone since; nothing is begun for them.
    if hang_up::is_closed(&stream) {
        return Ok(());
    }
    let request = match parse(&line) {
        Ok(request) => request,
        Err(problem) => return write_line(&mut stream, &Reply::deny(problem)).await,
    };
    let asker = asker(&request);
    let can_paste = asker.is_some_and(|asker| asker.terminal);
    let (voice, mut lines) = Voice::lent(stderr, asker.map_or(0, |asker| asker.process), can_paste);
    voice.keep_alive();
    let keep_alive = voice.clone();
    let answering = answers.answer(request, voice);
    tokio::pin!(answering);
    let mut beat = tokio::time::interval_at(tokio::time::Instant::now() + BROKER_KEEPALIVE, BROKER_KEEPALIVE);
    loop {
        tokio::select! {
            biased;
            reply = &mut answering => {
                // Whoever speaks from here on has to use the person's stderr: nothing is said into a closed ear.
                lines.close();
                while let Ok(line) = lines.try_recv() {
                    if line.output.as_deref() != Some("") {
                        write_line(&mut stream, &line).await?;
                    }
                }
                return write_line(&mut stream, &reply).await;
            }
            Some(line) = lines.recv() => write_line(&mut stream, &line).await?,
            _ = beat.tick() => keep_alive.keep_alive(),
            () = hang_up::wait(&stream) => return Ok(()),
        }
    }
}

/// Who asks, if the request says so.
fn asker(request: &Request) -> Option<&Asker> {
    let matching = request.match_.as_ref().and_then(|request| request.asker.as_ref());
    matching.or(request.login.as_ref())
}

fn is_ours(uid: u32) -> bool {
    uid == 0 || uid == rustix::process::geteuid().as_raw()
}

/// Reads up to the end of the first line, and takes a descriptor that came along.
async fn read_request(stream: &UnixStream) -> io::Result<(Vec<u8>, Option<OwnedFd>)> {
    let (mut line, mut stderr) = (Vec::new(), None);
    let mut buffer = [0; 4096];
    loop {
        stream.readable().await?;
        let received = stream.try_io(Interest::READABLE, || receive(stream, &mut buffer, &mut stderr));
        let count = match received {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(error) => return Err(error),
        };
        line.extend_from_slice(&buffer[..count]);
        let end = line.iter().position(|byte| *byte == b'\n');
        if let Some(end) = end.filter(|end| *end <= BROKER_LINE_MAX) {
            line.truncate(end);
            return Ok((line, stderr));
        }
        if line.len() > BROKER_LINE_MAX {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the request line is too long",
            ));
        }
    }
}

fn receive(stream: &UnixStream, buffer: &mut [u8], stderr: &mut Option<OwnedFd>) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received = recvmsg(
        stream.as_fd(),
        &mut [IoSliceMut::new(buffer)],
        &mut ancillary,
        RecvFlags::CMSG_CLOEXEC,
    )?;
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(descriptors) = message {
            // More than one is not ours to keep; they are closed here.
            for descriptor in descriptors {
                stderr.get_or_insert(descriptor);
            }
        }
    }
    Ok(received.bytes)
}

/// Reads a request line. Public for the fuzzers.
///
/// # Errors
/// What is wrong with it, for the peer.
pub fn parse(line: &[u8]) -> Result<Request, String> {
    let request: Request = epithet_wire::read_document(line).map_err(|error| {
        format!("malformed request: {error}; is this `epithet` of another version than the broker?")
    })?;
    let questions = [
        request.match_.is_some(),
        request.inspect.is_some(),
        request.login.is_some(),
        request.logout.is_some(),
        request.trace.is_some(),
    ];
    match questions.into_iter().filter(|asked| *asked).count() {
        1 => Ok(request),
        _ => Err("request must set exactly one of match, inspect, login, logout or trace".to_owned()),
    }
}

async fn write_line(stream: &mut UnixStream, reply: &Reply) -> io::Result<()> {
    let mut line = serde_json::to_vec(reply)?;
    line.push(b'\n');
    stream.write_all(&line).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tokio::sync::Notify;

    proptest! {
        #[test]
        fn no_line_is_a_panic(line in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse(&line);
        }
    }

    #[test]
    fn a_line_that_asks_nothing_or_two_things_is_told_what_to_ask() {
        for line in [
            &b"{}"[..],
            b"{\"other\":1}",
            b"{\"match\":{},\"logout\":{}}",
            b"{\"inspect\":{},\"login\":{}}",
        ] {
            assert!(parse(line).unwrap_err().contains("exactly one of"));
        }
        assert!(parse(b"x").unwrap_err().contains("malformed request"));
        assert!(parse(b"{\"inspect\":{}}").is_ok());
    }

    /// Gives an answer that takes long to write, and speaks meanwhile, when it is told to.
    #[derive(Default)]
    struct Afterthought {
        speak: Notify,
        spoken: Notify,
    }

    impl Answers for Arc<Afterthought> {
        async fn answer(&self, _request: Request, voice: Voice) -> Reply {
            let own = Self::clone(self);
            tokio::spawn(async move {
                own.speak.notified().await;
                voice.say("heard\n");
                own.spoken.notify_one();
            });
            Reply::deny("x".repeat(4 * 1024 * 1024))
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_is_said_while_the_answer_is_on_its_way_is_heard_on_stderr() {
        use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
        use std::io::Read;
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut theirs = theirs.into_std().unwrap();
        theirs.set_nonblocking(false).unwrap();
        let (mut terminal, stderr) = io::pipe().unwrap();
        let descriptors = [stderr.as_fd()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        ancillary.push(SendAncillaryMessage::ScmRights(&descriptors));
        let line = [io::IoSlice::new(b"{\"inspect\":{}}\n")];
        sendmsg(&theirs, &line, &mut ancillary, SendFlags::empty()).unwrap();
        drop(stderr);
        let afterthought = Arc::new(Afterthought::default());
        let answers = Arc::clone(&afterthought);
        let conversation = tokio::spawn(async move { converse(ours, &answers).await });
        // The answer has begun, and its end waits for a reader.
        theirs.read_exact(&mut [0]).unwrap();
        afterthought.speak.notify_one();
        afterthought.spoken.notified().await;
        io::copy(&mut theirs, &mut io::sink()).unwrap();
        conversation.await.unwrap().unwrap();
        let mut heard = String::new();
        terminal.read_to_string(&mut heard).unwrap();
        assert_eq!(heard, "heard\n");
    }
}
