//! Values that nobody can guess.
//!
//! Straight from the operating system: the generator of aws-lc gathers entropy of its own for some 20 ms before its first
//! number, which a person would wait for before their browser opens.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// The operating system gave no random bytes. Nothing can be done safely without them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the operating system gives no random numbers")]
pub struct NoRandomness;

/// Any number; 0 when there are no random bytes, which only makes one thing happen earlier.
pub(crate) fn jitter() -> u16 {
    let mut bytes = [0; 2];
    let _ = getrandom::fill(&mut bytes);
    u16::from_ne_bytes(bytes)
}

/// 32 random bytes as 43 characters of `[A-Za-z0-9_-]`: state, nonce, PKCE verifier (RFC 7636 section 4.1).
pub(crate) fn text() -> Result<String, NoRandomness> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|_| NoRandomness)?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}
