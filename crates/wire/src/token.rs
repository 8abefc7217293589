//! The user's authentication token: raw bytes from a plugin, and how they travel in a header.

use crate::limits::TOKEN_MAX;
use crate::secret::SecretBytes;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use std::fmt;
use zeroize::Zeroizing;

/// The header that says the bearer token is encoded: its value is `base64url`.
pub const TOKEN_ENCODING_HEADER: &str = "Epithet-Token-Encoding";

/// An authentication token: 1 to [`TOKEN_MAX`] bytes that nobody but the policy server looks into.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(SecretBytes);

/// Why bytes are not a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// A plugin that says nothing has not logged anybody in.
    #[error("the token is empty")]
    Empty,
    /// More than [`TOKEN_MAX`] bytes.
    #[error("the token is larger than {TOKEN_MAX} bytes")]
    TooLarge,
    /// The encoding header has a value nobody defined.
    #[error("{TOKEN_ENCODING_HEADER} must be `base64url`")]
    UnknownEncoding,
    /// The token is said to be base64url and is not.
    #[error("the token is not base64url without padding, as {TOKEN_ENCODING_HEADER} says")]
    BadEncoding,
}

/// A token as it travels after `Authorization: Bearer `.
#[derive(Clone)]
pub struct HeaderToken {
    /// A legal header value.
    pub value: Zeroizing<String>,
    /// Whether `value` is base64url of the token, to be said in [`TOKEN_ENCODING_HEADER`].
    pub encoded: bool,
}

impl fmt::Debug for HeaderToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "HeaderToken {{ value: [redacted], encoded: {} }}",
            self.encoded
        )
    }
}

impl Token {
    /// Takes bytes as a token, unchanged: no trimming, no decoding.
    pub fn new(bytes: Vec<u8>) -> Result<Self, TokenError> {
        Self::of(SecretBytes::new(bytes))
    }

    /// The same for bytes that are kept as a secret already.
    pub fn of(bytes: SecretBytes) -> Result<Self, TokenError> {
        match bytes.len() {
            0 => Err(TokenError::Empty),
            1..=TOKEN_MAX => Ok(Self(bytes)),
            _ => Err(TokenError::TooLarge),
        }
    }

    /// The token's bytes.
    pub fn expose(&self) -> &[u8] {
        self.0.expose()
    }

    /// How many bytes; safe to log.
    pub fn size(&self) -> usize {
        self.0.len()
    }

    /// The token as a header value: as it is when it is visible ASCII, else base64url without padding.
    ///
    /// White space is never sent as it is: proxies trim and fold it.
    pub fn header_value(&self) -> HeaderToken {
        let bytes = self.expose();
        match std::str::from_utf8(bytes) {
            Ok(text) if bytes.iter().all(u8::is_ascii_graphic) => HeaderToken {
                value: Zeroizing::new(text.to_owned()),
                encoded: false,
            },
            _ => HeaderToken {
                value: Zeroizing::new(URL_SAFE_NO_PAD.encode(bytes)),
                encoded: true,
            },
        }
    }

    /// Reads a token back from what followed `Bearer ` and from [`TOKEN_ENCODING_HEADER`], when there was one.
    pub fn from_header(value: &[u8], encoding: Option<&[u8]>) -> Result<Self, TokenError> {
        match encoding {
            None => Self::new(value.to_vec()),
            Some(b"base64url") => Self::new(
                URL_SAFE_NO_PAD
                    .decode(value)
                    .map_err(|_| TokenError::BadEncoding)?,
            ),
            Some(_) => Err(TokenError::UnknownEncoding),
        }
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token([redacted], {} bytes)", self.size())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_jwt_travels_verbatim_and_anything_else_encoded() {
        let cases: [(&[u8], &str, bool); 5] = [
            (b"eyJh.eyJp.c2ln", "eyJh.eyJp.c2ln", false),
            (b"tok\n", "dG9rCg", true),
            (b"tok\r\nX-Admin: 1", "dG9rDQpYLUFkbWluOiAx", true),
            (b"\0", "AA", true),
            ("t\u{f6}k".as_bytes(), "dMO2aw", true),
        ];
        for (bytes, value, encoded) in cases {
            let header = Token::new(bytes.to_vec()).unwrap().header_value();
            assert_eq!((header.value.as_str(), header.encoded), (value, encoded));
        }
    }

    #[test]
    fn size_limits_hold_at_the_limit_and_one_past_it() {
        assert_eq!(Token::new(vec![]), Err(TokenError::Empty));
        assert!(Token::new(vec![b'a'; TOKEN_MAX]).is_ok());
        assert_eq!(Token::new(vec![b'a'; TOKEN_MAX + 1]), Err(TokenError::TooLarge));
    }

    proptest! {
        #[test]
        fn every_token_survives_the_header(bytes in proptest::collection::vec(any::<u8>(), 1..300)) {
            let token = Token::new(bytes).unwrap();
            let header = token.header_value();
            prop_assert!(header.value.bytes().all(|byte| byte.is_ascii_graphic()));
            let encoding = header.encoded.then_some(&b"base64url"[..]);
            prop_assert_eq!(Token::from_header(header.value.as_bytes(), encoding).unwrap(), token);
        }
    }
}
