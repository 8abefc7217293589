//! Matching with a word of the machine: each bit is a place in the pattern, and a character moves all of them at once
//! (the Shift-And algorithm of Baeza-Yates and Gonnet, with places that stay for `*`).

use super::sketch::{ALPHABET, LETTERS};
use super::syntax::{Node, Set};

/// The most ways through `{...}` that are followed at once, each with bits of its own.
const WAYS_MAX: usize = 16;
/// Bits of a word.
const PLACES_MAX: usize = 64;

/// A pattern in the form of bits. Of a way through it, bit `n` says that its first `n` characters were read.
#[derive(Debug, Clone)]
pub(super) struct Places {
    begin: u64,
    /// Where a `*` keeps a place whatever comes.
    stay: u64,
    end: u64,
    /// For each letter, the places that go on with it.
    moves: Box<[u64; ALPHABET.len()]>,
}

/// One way through a pattern: sets of characters, and before which of them, or at the end, there is a `*`.
#[derive(Clone, Default)]
struct Way {
    sets: Vec<Set>,
    stars: Vec<usize>,
}

impl Places {
    /// `None` for what has more places than a word has bits.
    pub(super) fn of(nodes: &[Node]) -> Option<Self> {
        let ways = ways(nodes, vec![Way::default()])?;
        let mut places = Self {
            begin: 0,
            stay: 0,
            end: 0,
            moves: Box::new([0; ALPHABET.len()]),
        };
        let mut base = 0;
        for way in ways {
            if base + way.sets.len() >= PLACES_MAX {
                return None;
            }
            places.begin |= 1 << base;
            places.end |= 1 << (base + way.sets.len());
            for star in way.stars {
                places.stay |= 1 << (base + star);
            }
            for (index, set) in way.sets.iter().enumerate() {
                for (moves, letter) in places.moves.iter_mut().zip(ALPHABET) {
                    *moves |= u64::from(set.has(*letter)) << (base + index);
                }
            }
            base += way.sets.len() + 1;
        }
        Some(places)
    }

    /// Whether the whole text is covered; `None` for a text with characters that no host name has, which have no letter.
    pub(super) fn cover(&self, text: &[u8]) -> Option<bool> {
        let mut now = self.begin;
        for byte in text {
            let moves = self.moves.get(usize::from(LETTERS[usize::from(*byte)]))?;
            now = ((now & moves) << 1) | (now & self.stay);
            if now == 0 {
                return Some(false);
            }
        }
        Some(now & self.end != 0)
    }
}

/// Every way through these nodes after each of those before; `None` for too many.
fn ways(nodes: &[Node], mut before: Vec<Way>) -> Option<Vec<Way>> {
    for node in nodes {
        match node {
            Node::Literal(byte) => before.iter_mut().for_each(|way| way.sets.push(Set::of(*byte))),
            Node::One(set) => before.iter_mut().for_each(|way| way.sets.push(*set)),
            Node::Star => before.iter_mut().for_each(|way| way.stars.push(way.sets.len())),
            Node::Choice(alternatives) => {
                let mut all = Vec::new();
                for alternative in alternatives {
                    all.extend(ways(alternative, before.clone())?);
                    if all.len() > WAYS_MAX {
                        return None;
                    }
                }
                before = all;
            }
        }
    }
    Some(before)
}
