//! Bytes that must not outlive their use: wiped when dropped, printed as `[redacted]`.

use std::fmt;
use std::sync::Arc;
use zeroize::Zeroizing;

/// Secret bytes. Clones share one allocation, which is overwritten when the last of them goes.
#[derive(Clone)]
pub struct SecretBytes(Arc<dyn SecretStorage>);

/// Where secret bytes are kept. Whoever implements it wipes them when it is dropped.
pub trait SecretStorage: Send + Sync {
    /// The bytes; the same ones each time.
    fn bytes(&self) -> &[u8];
}

impl SecretStorage for Zeroizing<Vec<u8>> {
    fn bytes(&self) -> &[u8] {
        self
    }
}

impl SecretBytes {
    /// Takes the bytes over; no copy is made.
    ///
    /// The vector should have been allocated at its final size: growing a vector leaves copies behind.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self::kept_in(Zeroizing::new(bytes))
    }

    /// Secret bytes that stay where they are: in memory that is locked, for example.
    pub fn kept_in(storage: impl SecretStorage + 'static) -> Self {
        Self(Arc::new(storage))
    }

    /// The bytes themselves. Do not copy them into anything that is not wiped.
    pub fn expose(&self) -> &[u8] {
        self.0.bytes()
    }

    /// How many bytes there are.
    pub fn len(&self) -> usize {
        self.expose().len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.expose().is_empty()
    }
}

impl Default for SecretBytes {
    fn default() -> Self {
        Self::new(Vec::new())
    }
}

impl fmt::Debug for SecretBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

impl PartialEq for SecretBytes {
    /// Compares without stopping at the first difference.
    fn eq(&self, other: &Self) -> bool {
        let (a, b) = (self.expose(), other.expose());
        a.len() == b.len() && a.iter().zip(b).fold(0, |difference, (x, y)| difference | (x ^ y)) == 0
    }
}

impl Eq for SecretBytes {}

/// What an auth plugin wants to find on its stdin next time: opaque, in memory only, empty at first.
pub type PluginState = SecretBytes;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_never_prints_itself() {
        let secret = SecretBytes::new(b"canary".to_vec());
        assert_eq!(format!("{secret:?} {secret:#?}"), "[redacted] [redacted]");
    }

    #[test]
    fn equality_looks_at_every_byte() {
        let a = SecretBytes::new(vec![1, 2, 3]);
        assert_eq!(a, SecretBytes::new(vec![1, 2, 3]));
        assert_ne!(a, SecretBytes::new(vec![1, 2, 4]));
        assert_ne!(a, SecretBytes::new(vec![1, 2]));
    }
}
