//! What can be said of a name and of a pattern at a glance, so that most patterns need no closer look.

use super::syntax::Node;

/// The characters of host names in their canonical form. Everything else shares one more letter.
pub(super) const ALPHABET: &[u8; 44] = b"abcdefghijklmnopqrstuvwxyz0123456789._:%+,@-";
/// The letter of every other character.
const OTHER: u8 = 63;

/// The number of each byte's letter.
pub(super) static LETTERS: [u8; 256] = letters();

const fn letters() -> [u8; 256] {
    let mut letters = [OTHER; 256];
    let mut index = 0;
    while index < ALPHABET.len() {
        letters[ALPHABET[index] as usize] = index as u8;
        index += 1;
    }
    letters
}

fn bit(byte: u8) -> u64 {
    1 << LETTERS[usize::from(byte)]
}

/// A host name at a glance.
#[derive(Debug, Clone, Copy)]
pub struct HostSketch {
    letters: u64,
    first: u64,
    last: u64,
    length: u16,
}

impl HostSketch {
    /// Of a name in the form that [`crate::HostName::canonical`] gives.
    pub fn of(name: &str) -> Self {
        let bytes = name.as_bytes();
        let of = |byte: Option<&u8>| byte.map_or(u64::MAX, |byte| bit(*byte));
        Self {
            letters: bytes.iter().fold(0, |letters, byte| letters | bit(*byte)),
            first: of(bytes.first()),
            last: of(bytes.last()),
            length: u16::try_from(bytes.len()).unwrap_or(u16::MAX),
        }
    }
}

/// What every name that a pattern covers has.
#[derive(Debug, Clone, Copy)]
pub struct PatternSketch {
    /// All of these.
    letters: u64,
    /// One of these at its beginning.
    first: u64,
    /// One of these at its end.
    last: u64,
    shortest: u16,
    longest: u16,
}

impl PatternSketch {
    /// Whether the pattern may cover a name. `false` is certain.
    pub fn admits(&self, name: &HostSketch) -> bool {
        self.letters & !name.letters == 0
            && self.first & name.first != 0
            && self.last & name.last != 0
            && (self.shortest..=self.longest).contains(&name.length)
    }

    /// Whether some name may be covered by both patterns. `false` is certain.
    pub(super) fn may_overlap(&self, other: &Self) -> bool {
        self.first & other.first != 0
            && self.last & other.last != 0
            && self.shortest.max(other.shortest) <= self.longest.min(other.longest)
    }

    pub(super) fn of(nodes: &[Node]) -> Self {
        let part = Part::of_all(nodes);
        // A name of no characters has every first and last one.
        let any = if part.shortest == 0 { u64::MAX } else { 0 };
        Self {
            letters: part.letters,
            first: part.first | any,
            last: part.last | any,
            shortest: part.shortest,
            longest: part.longest,
        }
    }
}

/// The same of a part of a pattern, which may be of no characters.
#[derive(Clone, Copy)]
struct Part {
    letters: u64,
    first: u64,
    last: u64,
    shortest: u16,
    longest: u16,
}

impl Part {
    const NOTHING: Self = Self {
        letters: 0,
        first: 0,
        last: 0,
        shortest: 0,
        longest: 0,
    };

    fn of_all(nodes: &[Node]) -> Self {
        nodes.iter().map(Self::of).fold(Self::NOTHING, Self::then)
    }

    fn of(node: &Node) -> Self {
        let one = |letters: u64, set: u64| Self {
            letters,
            first: set,
            last: set,
            shortest: 1,
            longest: 1,
        };
        match node {
            Node::Literal(byte) => one(bit(*byte), bit(*byte)),
            Node::One(set) => {
                let bytes = (0..=u8::MAX).filter(|byte| set.has(*byte));
                one(0, bytes.fold(0, |letters, byte| letters | bit(byte)))
            }
            Node::Star => Self {
                letters: 0,
                first: u64::MAX,
                last: u64::MAX,
                shortest: 0,
                longest: u16::MAX,
            },
            Node::Choice(alternatives) => {
                let parts = alternatives.iter().map(|one| Self::of_all(one));
                parts.reduce(Self::or).unwrap_or(Self::NOTHING)
            }
        }
    }

    fn then(self, next: Self) -> Self {
        let may_be_empty = |part: &Self| part.shortest == 0;
        Self {
            letters: self.letters | next.letters,
            first: self.first | if may_be_empty(&self) { next.first } else { 0 },
            last: next.last | if may_be_empty(&next) { self.last } else { 0 },
            shortest: self.shortest.saturating_add(next.shortest),
            longest: self.longest.saturating_add(next.longest),
        }
    }

    fn or(self, other: Self) -> Self {
        Self {
            letters: self.letters & other.letters,
            first: self.first | other.first,
            last: self.last | other.last,
            shortest: self.shortest.min(other.shortest),
            longest: self.longest.max(other.longest),
        }
    }
}
