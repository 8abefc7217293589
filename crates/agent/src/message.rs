//! The messages of the agent protocol (RFC 9987), as far as this agent has an answer for them.
//!
//! Decoding is total: whatever a message holds, it becomes a [`Request`], and what is not understood is one too.

use epithet_ssh::agent_wire::{
    EXTENSION, EXTENSION_FAILURE, EXTENSION_RESPONSE, FAILURE, REMOVE_ALL_IDENTITIES, REMOVE_IDENTITY,
    REQUEST_IDENTITIES, SIGN_REQUEST, SIGN_RESPONSE, SUCCESS, framed, put_identities,
};
use epithet_ssh::encoding::{Malformed, Put, Reader};

pub use epithet_ssh::agent_wire::Identity;

/// The extension that lists extensions (RFC 9987 section 3.8.1).
const QUERY: &str = "query";
/// The extension that tells an agent which session a connection serves (OpenSSH `PROTOCOL.agent` section 1).
const SESSION_BIND: &str = "session-bind@openssh.com";

/// What a client asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request<'a> {
    /// List the keys.
    Identities,
    /// Sign something.
    Sign(SignRequest<'a>),
    /// Forget one key.
    Remove {
        /// The key, or certificate, as SSH carries it.
        key: &'a [u8],
    },
    /// Forget all keys.
    RemoveAll,
    /// List the extensions.
    Query,
    /// This connection serves that session.
    Bind(SessionBind<'a>),
    /// A message of a type or an extension that this agent does not have, such as adding a key.
    Unsupported {
        /// The message's type.
        kind: u8,
    },
    /// A message that does not follow its format.
    Malformed {
        /// The message's type.
        kind: u8,
        /// What is wrong.
        error: Malformed,
    },
}

/// `SSH_AGENTC_SIGN_REQUEST` (RFC 9987 section 3.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SignRequest<'a> {
    /// The key, or certificate, as SSH carries it.
    pub key: &'a [u8],
    /// What is to be signed.
    pub data: &'a [u8],
    /// Which hash an RSA key shall use; other keys have none.
    pub flags: u32,
}

/// `session-bind@openssh.com`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionBind<'a> {
    /// The host's key or certificate.
    pub host_key: &'a [u8],
    /// The session: the exchange hash of its first key exchange.
    pub session_id: &'a [u8],
    /// The host's signature over the session id.
    pub signature: &'a [u8],
    /// Whether the connection comes from that host, through a forwarded agent, rather than going to it.
    pub is_forwarding: bool,
}

impl<'a> Request<'a> {
    /// Decodes one message.
    pub fn decode(message: &'a [u8]) -> Self {
        let mut reader = Reader::new(message);
        let Ok(kind) = reader.u8() else {
            return Self::Malformed {
                kind: 0,
                error: Malformed::Truncated,
            };
        };
        Self::decode_content(kind, reader).unwrap_or_else(|error| Self::Malformed { kind, error })
    }

    fn decode_content(kind: u8, mut reader: Reader<'a>) -> Result<Self, Malformed> {
        let request = match kind {
            REQUEST_IDENTITIES => Self::Identities,
            SIGN_REQUEST => Self::Sign(SignRequest {
                key: reader.string()?,
                data: reader.string()?,
                flags: reader.u32()?,
            }),
            REMOVE_IDENTITY => Self::Remove {
                key: reader.string()?,
            },
            REMOVE_ALL_IDENTITIES => Self::RemoveAll,
            EXTENSION => match reader.text()? {
                QUERY => Self::Query,
                SESSION_BIND => Self::Bind(SessionBind {
                    host_key: reader.string()?,
                    session_id: reader.string()?,
                    signature: reader.string()?,
                    is_forwarding: reader.boolean()?,
                }),
                _ => return Ok(Self::Unsupported { kind }),
            },
            _ => return Ok(Self::Unsupported { kind }),
        };
        reader.finish()?;
        Ok(request)
    }
}

/// Whether a message asks for `session-bind@openssh.com`, well formed or not.
///
/// A bind that cannot be read is a failed bind, and a failed bind must have its effect.
pub(crate) fn is_session_bind(message: &[u8]) -> bool {
    let mut reader = Reader::new(message);
    reader.u8() == Ok(EXTENSION) && reader.string() == Ok(SESSION_BIND.as_bytes())
}

/// What the agent answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// No.
    Failure,
    /// Done.
    Success,
    /// The extension is known, but no.
    ExtensionFailure,
    /// No keys.
    NoIdentities,
    /// One key.
    Identity {
        /// The certificate as SSH carries it.
        blob: Vec<u8>,
        /// What `ssh-add -l` shows.
        comment: String,
    },
    /// Several keys, in this order.
    Identities(Vec<Identity>),
    /// A signature as SSH carries it.
    Signature(Vec<u8>),
    /// What another agent answered, without its length.
    Relayed(Vec<u8>),
    /// The extensions that this agent has.
    Extensions,
}

impl Reply {
    /// The message with its length in front.
    pub fn frame(&self) -> Vec<u8> {
        framed(|message| match self {
            Self::Failure => message.put_u8(FAILURE),
            Self::Success => message.put_u8(SUCCESS),
            Self::ExtensionFailure => message.put_u8(EXTENSION_FAILURE),
            Self::NoIdentities => put_identities(message, std::iter::empty()),
            Self::Identity { blob, comment } => {
                put_identities(message, std::iter::once((&**blob, comment.as_bytes())));
            }
            Self::Identities(keys) => {
                put_identities(message, keys.iter().map(|key| (&*key.blob, &*key.comment)));
            }
            Self::Relayed(answer) => message.extend_from_slice(answer),
            Self::Signature(signature) => {
                message.put_u8(SIGN_RESPONSE);
                message.put_string(signature);
            }
            // The name that was asked for, then the names, and nothing after them (OpenSSH bug 3967).
            Self::Extensions => {
                message.put_u8(EXTENSION_RESPONSE);
                message.put_string(QUERY);
                message.put_string(QUERY);
                message.put_string(SESSION_BIND);
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn each_message_of_the_standard_is_understood_or_declined() {
        assert_eq!(Request::decode(&[11]), Request::Identities);
        assert_eq!(Request::decode(&[19]), Request::RemoveAll);
        assert_eq!(Request::decode(b"\x12\0\0\0\x01k"), Request::Remove { key: b"k" });
        let sign = Request::Sign(SignRequest {
            key: b"k",
            data: b"dd",
            flags: 4,
        });
        assert_eq!(Request::decode(b"\x0d\0\0\0\x01k\0\0\0\x02dd\0\0\0\x04"), sign);
        assert_eq!(Request::decode(b"\x1b\0\0\0\x05query"), Request::Query);
        let bind = b"\x1b\0\0\0\x18session-bind@openssh.com\0\0\0\x01k\0\0\0\x01i\0\0\0\x01s\x01";
        assert_eq!(
            Request::decode(bind),
            Request::Bind(SessionBind {
                host_key: b"k",
                session_id: b"i",
                signature: b"s",
                is_forwarding: true
            })
        );
        // Adding keys and tokens, locking, and everything reserved or unknown.
        for kind in [0, 1, 9, 17, 20, 21, 22, 23, 25, 26, 28, 200, 255] {
            assert_eq!(Request::decode(&[kind, 1, 2, 3]), Request::Unsupported { kind });
        }
        assert_eq!(
            Request::decode(b"\x1b\0\0\0\x01x\xff"),
            Request::Unsupported { kind: 27 }
        );
    }

    #[test]
    fn what_is_left_over_makes_a_message_malformed() {
        for message in [
            &b""[..],
            b"\x0b\0",
            b"\x13\0",
            b"\x0d",
            b"\x0d\0\0\0\x01k\0\0\0\x02dd\0\0\0",
            b"\x0d\0\0\0\x01k\0\0\0\x02dd\0\0\0\0\0",
            b"\x1b\0\0\0\x05query\0",
            b"\x1b\0\0\0\x18session-bind@openssh.com",
            b"\x1b\0\0\0\x18session-bind@openssh.com\0\0\0\x01k\0\0\0\x01i\0\0\0\x01s\x02",
            b"\x1b\xff\xff\xff\xff",
        ] {
            assert!(
                matches!(Request::decode(message), Request::Malformed { .. }),
                "{message:?}"
            );
        }
        assert!(is_session_bind(b"\x1b\0\0\0\x18session-bind@openssh.com"));
        assert!(!is_session_bind(b"\x1b\0\0\0\x05query"));
        assert!(!is_session_bind(b""));
    }

    #[test]
    fn replies_have_the_bytes_of_the_standard() {
        assert_eq!(Reply::Failure.frame(), [0, 0, 0, 1, 5]);
        assert_eq!(Reply::Success.frame(), [0, 0, 0, 1, 6]);
        assert_eq!(Reply::ExtensionFailure.frame(), [0, 0, 0, 1, 28]);
        assert_eq!(Reply::NoIdentities.frame(), [0, 0, 0, 5, 12, 0, 0, 0, 0]);
        let identity = Reply::Identity {
            blob: b"B".to_vec(),
            comment: "c".into(),
        };
        assert_eq!(
            identity.frame(),
            b"\0\0\0\x0f\x0c\0\0\0\x01\0\0\0\x01B\0\0\0\x01c"
        );
        let key = |blob: &[u8]| Identity {
            blob: blob.to_vec(),
            comment: b"c".to_vec(),
        };
        assert_eq!(
            Reply::Identities(vec![key(b"B"), key(b"A")]).frame(),
            b"\0\0\0\x19\x0c\0\0\0\x02\0\0\0\x01B\0\0\0\x01c\0\0\0\x01A\0\0\0\x01c"
        );
        assert_eq!(Reply::Relayed(b"\x0es".to_vec()).frame(), b"\0\0\0\x02\x0es");
        assert_eq!(
            Reply::Signature(b"s".to_vec()).frame(),
            b"\0\0\0\x06\x0e\0\0\0\x01s"
        );
        assert_eq!(
            Reply::Extensions.frame(),
            b"\0\0\0\x2f\x1d\0\0\0\x05query\0\0\0\x05query\0\0\0\x18session-bind@openssh.com"
        );
    }

    proptest! {
        #[test]
        fn no_message_makes_the_decoder_panic(message in proptest::collection::vec(any::<u8>(), 0..200), kind in 0u8..30) {
            let _ = Request::decode(&message);
            let mut typed = vec![kind];
            typed.extend_from_slice(&message);
            let _ = Request::decode(&typed);
            let _ = is_session_bind(&typed);
        }
    }
}
