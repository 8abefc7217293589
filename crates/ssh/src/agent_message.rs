//! What a client and an ssh-agent say to each other (RFC 9987), as far as somebody needs it who has one key there.

use epithet_wire::limits::AGENT_FRAME_MAX;

use crate::encoding::{Malformed, Put, Reader};

const FAILURE: u8 = 5;
const REQUEST_IDENTITIES: u8 = 11;
const IDENTITIES_ANSWER: u8 = 12;
const SIGN_REQUEST: u8 = 13;
const SIGN_RESPONSE: u8 = 14;
/// `SSH_AGENT_RSA_SHA2_512`; without it an agent signs with SHA-1.
const RSA_SHA2_512: u32 = 4;
/// Keys that are believed in one answer, as OpenSSH's own client does.
const IDENTITIES_MAX: u32 = 2048;

/// A key that an agent holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) blob: Vec<u8>,
    pub(crate) comment: String,
}

/// An answer that we have a use for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The agent cannot or will not.
    Failure,
    Identities(Vec<Identity>),
    /// `string algorithm, string signature`.
    Signature(Vec<u8>),
}

/// Asks which keys there are; framed.
pub(crate) fn list_request() -> Vec<u8> {
    framed(|message| message.put_u8(REQUEST_IDENTITIES))
}

/// Asks for a signature by the key with this blob; framed. Keys other than RSA take no flag.
pub(crate) fn sign_request(blob: &[u8], message: &[u8], is_rsa: bool) -> Vec<u8> {
    framed(|request| {
        request.put_u8(SIGN_REQUEST);
        request.put_string(blob);
        request.put_string(message);
        request.put_u32(if is_rsa { RSA_SHA2_512 } else { 0 });
    })
}

fn framed(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut frame = Vec::with_capacity(1024);
    frame.put_nested(write);
    frame
}

/// The size of the message that follows a length field; none that is zero or more than [`AGENT_FRAME_MAX`].
pub(crate) fn length(field: [u8; 4]) -> Option<usize> {
    let length = usize::try_from(u32::from_be_bytes(field)).ok()?;
    (1..=AGENT_FRAME_MAX).contains(&length).then_some(length)
}

/// Reads an agent's message, without its length.
pub(crate) fn parse(message: &[u8]) -> Result<Answer, Malformed> {
    let mut reader = Reader::new(message);
    let answer = match reader.u8()? {
        FAILURE => Answer::Failure,
        SIGN_RESPONSE => Answer::Signature(reader.string()?.to_vec()),
        IDENTITIES_ANSWER => {
            let count = reader.u32()?;
            if count > IDENTITIES_MAX {
                return Err(Malformed::Value);
            }
            let mut identities = Vec::new();
            for _ in 0..count {
                identities.push(Identity {
                    blob: reader.string()?.to_vec(),
                    comment: String::from_utf8_lossy(reader.string()?).into_owned(),
                });
            }
            Answer::Identities(identities)
        }
        _ => return Err(Malformed::Value),
    };
    reader.finish()?;
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn requests_have_the_bytes_of_the_protocol() {
        assert_eq!(list_request(), [0, 0, 0, 1, 11]);
        assert_eq!(
            sign_request(b"k", b"mm", true),
            [
                0, 0, 0, 16, 13, 0, 0, 0, 1, b'k', 0, 0, 0, 2, b'm', b'm', 0, 0, 0, 4
            ]
        );
        assert_eq!(sign_request(b"k", b"", false)[17..], [0]);
    }

    #[test]
    fn a_length_is_believed_up_to_the_limit_only() {
        assert_eq!(length([0; 4]), None);
        assert_eq!(length([0, 0, 0, 1]), Some(1));
        assert_eq!(length([0, 4, 0, 0]), Some(AGENT_FRAME_MAX));
        assert_eq!(length([0, 4, 0, 1]), None);
        assert_eq!(length([0xff; 4]), None);
    }

    #[test]
    fn answers_are_read_whole_or_not_at_all() {
        assert_eq!(parse(&[5]), Ok(Answer::Failure));
        assert_eq!(parse(&[14, 0, 0, 0, 1, 7]), Ok(Answer::Signature(vec![7])));
        let one = [12, 0, 0, 0, 1, 0, 0, 0, 1, 9, 0, 0, 0, 2, b'c', b'a'];
        let identity = Identity {
            blob: vec![9],
            comment: "ca".into(),
        };
        assert_eq!(parse(&one), Ok(Answer::Identities(vec![identity])));
        for bad in [
            &[][..],
            &[5, 0],
            &[6],
            &[14, 0, 0, 0, 2, 7],
            &one[..15],
            &[12, 0, 0, 8, 1],
        ] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn no_answer_makes_the_reader_panic(kind in 0u8..32, rest in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = parse(&[&[kind][..], &rest].concat());
        }
    }
}
