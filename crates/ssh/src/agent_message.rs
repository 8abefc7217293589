//! What a client and an ssh-agent say to each other (RFC 9987), as far as somebody needs it who has one key there.

use crate::agent_wire::{
    FAILURE, IDENTITIES_ANSWER, Identity, REQUEST_IDENTITIES, SIGN_REQUEST, SIGN_RESPONSE, framed,
    read_identities,
};
use crate::encoding::{Malformed, Put, Reader};

/// Keys that are believed in one answer, as OpenSSH's own client does.
const IDENTITIES_MAX: usize = 2048;

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

/// Asks for a signature by the key with this blob; framed. `flags` is how an RSA key shall sign, and 0 for others.
pub(crate) fn sign_request(blob: &[u8], message: &[u8], flags: u32) -> Vec<u8> {
    framed(|request| {
        request.put_u8(SIGN_REQUEST);
        request.put_string(blob);
        request.put_string(message);
        request.put_u32(flags);
    })
}

/// Reads an agent's message, without its length.
pub(crate) fn parse(message: &[u8]) -> Result<Answer, Malformed> {
    let mut reader = Reader::new(message);
    let answer = match reader.u8()? {
        FAILURE => Answer::Failure,
        SIGN_RESPONSE => Answer::Signature(reader.string()?.to_vec()),
        IDENTITIES_ANSWER => {
            let mut identities = Vec::new();
            read_identities(reader, |blob, comment| {
                if identities.len() == IDENTITIES_MAX {
                    return Err(Malformed::Value);
                }
                identities.push(Identity {
                    blob: blob.to_vec(),
                    comment: comment.to_vec(),
                });
                Ok(())
            })?;
            return Ok(Answer::Identities(identities));
        }
        _ => return Err(Malformed::Value),
    };
    reader.finish()?;
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent_wire::put_identities;
    use proptest::prelude::*;

    #[test]
    fn requests_have_the_bytes_of_the_protocol() {
        assert_eq!(list_request(), [0, 0, 0, 1, 11]);
        assert_eq!(
            sign_request(b"k", b"mm", 4),
            [
                0, 0, 0, 16, 13, 0, 0, 0, 1, b'k', 0, 0, 0, 2, b'm', b'm', 0, 0, 0, 4
            ]
        );
        assert_eq!(sign_request(b"k", b"", 0)[17..], [0]);
    }

    #[test]
    fn no_more_keys_are_believed_than_openssh_believes() {
        let list = |count: usize| {
            let mut answer = Vec::new();
            put_identities(&mut answer, (0..count).map(|_| (&b"k"[..], &b""[..])));
            parse(&answer)
        };
        assert!(matches!(list(IDENTITIES_MAX), Ok(Answer::Identities(keys)) if keys.len() == IDENTITIES_MAX));
        assert_eq!(list(IDENTITIES_MAX + 1), Err(Malformed::Value));
    }

    #[test]
    fn answers_are_read_whole_or_not_at_all() {
        assert_eq!(parse(&[5]), Ok(Answer::Failure));
        assert_eq!(parse(&[14, 0, 0, 0, 1, 7]), Ok(Answer::Signature(vec![7])));
        let one = [12, 0, 0, 0, 1, 0, 0, 0, 1, 9, 0, 0, 0, 2, b'c', b'a'];
        let identity = Identity {
            blob: vec![9],
            comment: b"ca".to_vec(),
        };
        assert_eq!(parse(&one), Ok(Answer::Identities(vec![identity])));
        for bad in [&[][..], &[5, 0], &[6], &[14, 0, 0, 0, 2, 7], &one[..15]] {
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
