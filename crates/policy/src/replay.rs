//! Which service tokens were used already.

use std::collections::{HashSet, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, PoisonError};

/// How many seconds share one set; old sets are dropped whole.
const GENERATION: u64 = 10;

/// Remembers names for a time. Of each name only a keyed 64-bit hash is kept: a name is wrongly taken for known once
/// in 10^12 requests at ten thousand a second, and never wrongly for new.
#[derive(Debug)]
pub(crate) struct Seen {
    keep: u64,
    max: usize,
    hasher: RandomState,
    generations: Mutex<VecDeque<(u64, HashSet<u64>)>>,
}

/// What is known about a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sight {
    First,
    Again,
    /// There is no room to remember it.
    TooMany,
}

impl Seen {
    /// Remembers each name for at least `keep` seconds, and at most `max` names.
    pub(crate) fn new(keep: u64, max: usize) -> Self {
        Self {
            keep,
            max,
            hasher: RandomState::new(),
            generations: Mutex::default(),
        }
    }

    /// Remembers `name` as of `now`, in seconds.
    pub(crate) fn see(&self, name: &str, now: u64) -> Sight {
        let hash = self.hasher.hash_one(name);
        let mut generations = self.generations.lock().unwrap_or_else(PoisonError::into_inner);
        while generations
            .front()
            .is_some_and(|(begun, _)| begun + GENERATION + self.keep <= now)
        {
            generations.pop_front();
        }
        if generations.iter().any(|(_, names)| names.contains(&hash)) {
            return Sight::Again;
        }
        if generations.iter().map(|(_, names)| names.len()).sum::<usize>() >= self.max {
            return Sight::TooMany;
        }
        match generations.back_mut() {
            // A clock that is set back goes on with the newest set.
            Some((begun, names)) if now < *begun + GENERATION => {
                names.insert(hash);
            }
            _ => generations.push_back((now, HashSet::from([hash]))),
        }
        Sight::First
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_known_for_as_long_as_it_matters_and_then_forgotten() {
        let seen = Seen::new(70, 100);
        assert_eq!(seen.see("a", 1000), Sight::First);
        for now in [1000, 1009, 1070, 1079, 990] {
            assert_eq!(seen.see("a", now), Sight::Again, "{now}");
        }
        assert_eq!(seen.see("b", 1009), Sight::First);
        assert_eq!(seen.see("b", 1079), Sight::Again);
        assert_eq!(seen.see("a", 1080), Sight::First);
    }

    #[test]
    fn memory_is_bounded() {
        let seen = Seen::new(70, 3);
        for name in ["a", "b", "c"] {
            assert_eq!(seen.see(name, 1), Sight::First);
        }
        assert_eq!(seen.see("d", 1), Sight::TooMany);
        assert_eq!(seen.see("a", 1), Sight::Again);
        assert_eq!(seen.see("d", 100), Sight::First);
    }
}
