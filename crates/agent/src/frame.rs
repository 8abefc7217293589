//! The agent protocol's framing (RFC 9987 section 3): four bytes of length, then the message.

use std::io;

use epithet_wire::limits::AGENT_PARTIAL_FRAME;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

pub use epithet_ssh::agent_wire::{FrameError, length};

/// Reads one message into `message`. `Ok(false)` is the end of the connection between two messages.
///
/// A peer may be silent between messages for as long as it likes, but a frame once begun must be complete within
/// [`AGENT_PARTIAL_FRAME`].
pub(crate) async fn read(stream: &mut (impl AsyncRead + Unpin), message: &mut Vec<u8>) -> io::Result<bool> {
    let mut field = [0; 4];
    if stream.read(&mut field[..1]).await? == 0 {
        return Ok(false);
    }
    let complete = async {
        stream.read_exact(&mut field[1..]).await?;
        let length = length(field).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        message.clear();
        message.resize(length, 0);
        stream.read_exact(message).await
    };
    timeout(AGENT_PARTIAL_FRAME, complete).await??;
    Ok(true)
}

/// Writes one message that [`frame`] has framed.
///
/// A peer that does not read its answers is left after [`AGENT_PARTIAL_FRAME`].
pub(crate) async fn write(stream: &mut (impl AsyncWrite + Unpin), framed: &[u8]) -> io::Result<()> {
    timeout(AGENT_PARTIAL_FRAME, stream.write_all(framed)).await?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn frames_arrive_whole_however_they_are_cut() {
        let (mut near, mut far) = tokio::io::duplex(3);
        let sender = tokio::spawn(async move {
            far.write_all(&[0, 0, 0, 2, 7, 8, 0, 0, 0, 1, 9, 0, 0])
                .await
                .unwrap();
        });
        let mut message = Vec::new();
        assert!(read(&mut near, &mut message).await.unwrap());
        assert_eq!(message, [7, 8]);
        assert!(read(&mut near, &mut message).await.unwrap());
        assert_eq!(message, [9]);
        let cut_off = read(&mut near, &mut message).await.unwrap_err();
        assert_eq!(cut_off.kind(), io::ErrorKind::UnexpectedEof);
        sender.await.unwrap();
        assert!(!read(&mut near, &mut message).await.unwrap());
    }

    #[tokio::test(start_paused = true)]
    async fn a_frame_once_begun_must_be_completed_in_time() {
        let (mut near, mut far) = tokio::io::duplex(64);
        far.write_all(&[0, 0, 0, 2, 7]).await.unwrap();
        let mut message = Vec::new();
        let error = read(&mut near, &mut message).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
