//! Bytes of unknown length that must leave no copy behind: a state or a token while it is being read.
//!
//! A plain vector that grows frees its old allocation as it is. This one wipes it first, grows in few large steps, stops at
//! its limit, and is in locked memory.

use crate::locked::LockedBuffer;

/// The first allocation: a token nearly always fits.
const FIRST: usize = 4 * 1024;
/// How much larger every further allocation is. Untouched pages cost no memory, but they count against the limit of locked
/// memory.
const GROWTH: usize = 4;

pub(crate) struct SecretBuffer {
    bytes: LockedBuffer,
    filled: usize,
    limit: usize,
}

/// More bytes came than the limit allows.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct OverLimit;

impl SecretBuffer {
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            bytes: LockedBuffer::zeroed(0),
            filled: 0,
            limit,
        }
    }

    /// Room for the next read: never empty, so that a read of 0 bytes means the end and nothing else.
    pub(crate) fn room(&mut self) -> &mut [u8] {
        if self.filled == self.bytes.len() {
            let size = (self.bytes.len() * GROWTH).clamp(FIRST, FIRST.max(self.limit)) + 1;
            let mut larger = LockedBuffer::zeroed(size.max(self.filled + 1));
            larger.as_mut_slice()[..self.filled].copy_from_slice(self.as_slice());
            self.bytes = larger;
        }
        &mut self.bytes.as_mut_slice()[self.filled..]
    }

    /// Counts `read` bytes of what [`room`](Self::room) gave as filled.
    pub(crate) fn filled(&mut self, read: usize) -> Result<(), OverLimit> {
        self.filled += read;
        if self.filled > self.limit {
            Err(OverLimit)
        } else {
            Ok(())
        }
    }

    pub(crate) fn as_slice(&self) -> &[u8] {
        &self.bytes.as_slice()[..self.filled]
    }

    /// A copy of the bytes in an allocation of exactly their size.
    pub(crate) fn to_exact(&self) -> Vec<u8> {
        let mut exact = Vec::with_capacity(self.filled);
        exact.extend_from_slice(self.as_slice());
        exact
    }

    /// A copy of the bytes that stays in locked memory, of exactly their size.
    #[cfg(feature = "host")]
    pub(crate) fn to_secret(&self) -> epithet_wire::SecretBytes {
        let mut exact = LockedBuffer::zeroed(self.filled);
        exact.as_mut_slice().copy_from_slice(self.as_slice());
        epithet_wire::SecretBytes::kept_in(exact)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn collect(mut input: &[u8], steps: &[usize], limit: usize) -> Result<Vec<u8>, OverLimit> {
        let mut buffer = SecretBuffer::new(limit);
        let mut steps = steps.iter().cycle();
        while !input.is_empty() {
            let room = buffer.room();
            let step = room.len().min(input.len()).min(*steps.next().unwrap());
            room[..step].copy_from_slice(&input[..step]);
            input = &input[step..];
            buffer.filled(step)?;
        }
        assert!(!buffer.room().is_empty());
        Ok(buffer.to_exact())
    }

    #[test]
    fn the_limit_is_inclusive() {
        for limit in [0, 1, FIRST - 1, FIRST, FIRST + 1, FIRST * GROWTH, 100_000] {
            assert_eq!(
                collect(&vec![7; limit], &[usize::MAX], limit).unwrap().len(),
                limit
            );
            assert_eq!(collect(&vec![7; limit + 1], &[usize::MAX], limit), Err(OverLimit));
        }
    }

    proptest! {
        #[test]
        fn whatever_the_pieces_the_bytes_are_the_same(
            input in proptest::collection::vec(any::<u8>(), 0..20_000),
            steps in proptest::collection::vec(1_usize..6_000, 1..8),
        ) {
            let exact = collect(&input, &steps, 20_000).unwrap();
            prop_assert_eq!(exact.capacity(), exact.len());
            prop_assert_eq!(exact, input);
        }
    }
}
