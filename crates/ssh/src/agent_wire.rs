//! What both ends of the agent protocol (RFC 9987) share: numbers of messages, frames, and lists of keys.
//!
//! The length of a frame is checked before anything is allocated for it (CVE-2026-46673 is an agent that did not).

use epithet_wire::limits::AGENT_FRAME_MAX;

use crate::encoding::{Malformed, Put, Reader};

/// `SSH_AGENT_FAILURE`.
pub const FAILURE: u8 = 5;
/// `SSH_AGENT_SUCCESS`.
pub const SUCCESS: u8 = 6;
/// `SSH_AGENTC_REQUEST_IDENTITIES`.
pub const REQUEST_IDENTITIES: u8 = 11;
/// `SSH_AGENT_IDENTITIES_ANSWER`.
pub const IDENTITIES_ANSWER: u8 = 12;
/// `SSH_AGENTC_SIGN_REQUEST`.
pub const SIGN_REQUEST: u8 = 13;
/// `SSH_AGENT_SIGN_RESPONSE`.
pub const SIGN_RESPONSE: u8 = 14;
/// `SSH_AGENTC_REMOVE_IDENTITY`.
pub const REMOVE_IDENTITY: u8 = 18;
/// `SSH_AGENTC_REMOVE_ALL_IDENTITIES`.
pub const REMOVE_ALL_IDENTITIES: u8 = 19;
/// `SSH_AGENTC_EXTENSION`.
pub const EXTENSION: u8 = 27;
/// `SSH_AGENT_EXTENSION_FAILURE`.
pub const EXTENSION_FAILURE: u8 = 28;
/// `SSH_AGENT_EXTENSION_RESPONSE`.
pub const EXTENSION_RESPONSE: u8 = 29;

/// Which hash an RSA key in an agent signs with; without a flag it would be SHA-1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RsaHash {
    /// `SSH_AGENT_RSA_SHA2_256`.
    Sha256,
    /// `SSH_AGENT_RSA_SHA2_512`.
    Sha512,
}

impl RsaHash {
    /// The flag of a sign request (RFC 9987 section 3.6.1).
    pub fn flag(self) -> u32 {
        match self {
            Self::Sha256 => 2,
            Self::Sha512 => 4,
        }
    }

    /// The name of such a signature (RFC 8332 section 3).
    pub fn algorithm(self) -> &'static str {
        match self {
            Self::Sha256 => "rsa-sha2-256",
            Self::Sha512 => "rsa-sha2-512",
        }
    }
}

/// A key that an agent holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The key, or certificate, as SSH carries it.
    pub blob: Vec<u8>,
    /// What `ssh-add -l` shows; another agent's may be any bytes.
    pub comment: Vec<u8>,
}

/// A connection that sends this is closed: where the next frame begins is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// A message has at least its type.
    #[error("a frame of length 0")]
    Empty,
    /// More than any message of the protocol needs.
    #[error("a frame of {0} bytes; at most {AGENT_FRAME_MAX} are allowed")]
    TooLarge(u32),
}

/// The size of the message that follows a length field.
///
/// # Errors
/// [`FrameError`] when it is zero or more than [`AGENT_FRAME_MAX`].
pub fn length(field: [u8; 4]) -> Result<usize, FrameError> {
    let length = u32::from_be_bytes(field);
    match usize::try_from(length) {
        Ok(0) => Err(FrameError::Empty),
        Ok(length) if length <= AGENT_FRAME_MAX => Ok(length),
        _ => Err(FrameError::TooLarge(length)),
    }
}

/// A message with its length in front.
pub fn framed(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut frame = Vec::with_capacity(1024);
    frame.put_nested(write);
    frame
}

/// Writes a whole `SSH_AGENT_IDENTITIES_ANSWER`, without its length.
pub fn put_identities<'a>(message: &mut Vec<u8>, keys: impl ExactSizeIterator<Item = (&'a [u8], &'a [u8])>) {
    message.put_u8(IDENTITIES_ANSWER);
    message.put_u32(u32::try_from(keys.len()).unwrap_or(0));
    for (blob, comment) in keys {
        message.put_string(blob);
        message.put_string(comment);
    }
}

/// Reads what follows the number of a `SSH_AGENT_IDENTITIES_ANSWER`, to its last byte. `take` is given the blob and the
/// comment of each key and keeps what it wants: the count in front is whatever the agent says.
///
/// # Errors
/// [`Malformed`] when the keys are not as many as the count says, or something follows them.
pub fn read_identities(
    mut reader: Reader<'_>,
    mut take: impl FnMut(&[u8], &[u8]) -> Result<(), Malformed>,
) -> Result<(), Malformed> {
    for _ in 0..reader.u32()? {
        take(reader.string()?, reader.string()?)?;
    }
    reader.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_is_believed_up_to_the_limit_only() {
        assert_eq!(length([0, 0, 0, 0]), Err(FrameError::Empty));
        assert_eq!(length([0, 0, 0, 1]), Ok(1));
        assert_eq!(length([0, 4, 0, 0]), Ok(AGENT_FRAME_MAX));
        assert_eq!(length([0, 4, 0, 1]), Err(FrameError::TooLarge(262_145)));
        assert_eq!(length([0xff; 4]), Err(FrameError::TooLarge(u32::MAX)));
    }

    #[test]
    fn a_list_is_read_back_whole_or_not_at_all() {
        let mut list = Vec::new();
        put_identities(&mut list, [(&b"B"[..], &b"c"[..]), (b"A", b"\xff")].into_iter());
        assert_eq!(
            list,
            b"\x0c\0\0\0\x02\0\0\0\x01B\0\0\0\x01c\0\0\0\x01A\0\0\0\x01\xff"
        );
        let read = |bytes: &[u8]| {
            let mut found = Vec::new();
            let taken = read_identities(Reader::new(bytes), |blob, comment| {
                found.push((blob.to_vec(), comment.to_vec()));
                Ok(())
            });
            taken.map(|()| found)
        };
        assert_eq!(
            read(&list[1..]),
            Ok(vec![(b"B".to_vec(), b"c".to_vec()), (b"A".to_vec(), vec![0xff])])
        );
        for length in 1..list.len() {
            assert!(read(&list[1..length]).is_err(), "{length}");
        }
        assert_eq!(read(&[&list[1..], &[0]].concat()), Err(Malformed::Trailing(1)));
        // A count that would need four thousand million keys is not believed.
        assert_eq!(read(&[255; 4]), Err(Malformed::Truncated));
    }
}
