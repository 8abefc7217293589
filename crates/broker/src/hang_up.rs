//! When has the other side of a Unix socket really gone? A half-closed one (`printf ... | nc -N`) still waits for its
//! answer; only a socket that is closed in both directions is given up.

use crate::readiness::readiness;
use rustix::event::PollFlags;
use std::time::Duration;
use tokio::io::Interest;
use tokio::net::UnixStream;

/// How often a half-closed socket is looked at again.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// Ends when the peer has closed the socket altogether. Anything it sends meanwhile is left unread.
pub(crate) async fn wait(stream: &UnixStream) {
    // Readable means data, half-close or close; after the request line a well-behaved peer sends nothing.
    if stream.ready(Interest::READABLE).await.is_err() {
        return;
    }
    while !is_closed(stream) {
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// Whether the peer has closed the socket altogether, as of now.
pub(crate) fn is_closed(stream: &UnixStream) -> bool {
    let gone = PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL;
    readiness(stream, PollFlags::empty()).is_ok_and(|found| found.intersects(gone))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_half_closed_peer_still_waits_and_a_closed_one_does_not() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let theirs = theirs.into_std().unwrap();
        theirs.shutdown(std::net::Shutdown::Write).unwrap();
        assert!(
            tokio::time::timeout(Duration::from_millis(500), wait(&ours))
                .await
                .is_err()
        );
        drop(theirs);
        assert!(
            tokio::time::timeout(Duration::from_secs(5), wait(&ours))
                .await
                .is_ok()
        );
    }
}
