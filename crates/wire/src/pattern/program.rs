//! Matching in time proportional to the lengths of pattern and name: all ways through the pattern at once.

use super::syntax::{Node, Set};
use crate::limits::PATTERN_MAX;

/// A step of a program that follows all its possible ways at once (Thompson's construction).
#[derive(Debug, Clone, Copy)]
pub(super) enum Step {
    Byte(u8),
    One(Set),
    /// Go on at both places.
    Fork(usize, usize),
    Jump(usize),
    Accept,
}

pub(super) fn compile(nodes: &[Node], steps: &mut Vec<Step>) {
    for node in nodes {
        match node {
            Node::Literal(byte) => steps.push(Step::Byte(*byte)),
            Node::One(set) => steps.push(Step::One(*set)),
            Node::Star => {
                let here = steps.len();
                steps.extend([
                    Step::Fork(here + 1, here + 3),
                    Step::One(Set::ANY),
                    Step::Jump(here),
                ]);
            }
            Node::Choice(alternatives) => compile_choice(alternatives, steps),
        }
    }
}

fn compile_choice(alternatives: &[Vec<Node>], steps: &mut Vec<Step>) {
    let mut exits = Vec::new();
    for (index, alternative) in alternatives.iter().enumerate() {
        let fork = steps.len();
        let last = index + 1 == alternatives.len();
        if !last {
            steps.push(Step::Fork(fork + 1, 0));
        }
        compile(alternative, steps);
        if !last {
            exits.push(steps.len());
            steps.push(Step::Jump(0));
            let next = steps.len();
            steps[fork] = Step::Fork(fork + 1, next);
        }
    }
    let end = steps.len();
    for exit in exits {
        steps[exit] = Step::Jump(end);
    }
}

/// The places that use up a character or accept, reached from these without using one up; sorted.
pub(super) fn closure(steps: &[Step], from: impl IntoIterator<Item = usize>) -> Vec<usize> {
    let mut places = Places::new(steps.len());
    from.into_iter().for_each(|place| places.add(place));
    let mut index = 0;
    while let Some(&place) = places.list.get(index) {
        index += 1;
        match steps[place] {
            Step::Fork(one, other) => {
                places.add(one);
                places.add(other);
            }
            Step::Jump(to) => places.add(to),
            Step::Byte(_) | Step::One(_) | Step::Accept => {}
        }
    }
    let mut reached = places.list;
    reached.retain(|place| !matches!(steps[*place], Step::Fork(..) | Step::Jump(_)));
    reached.sort_unstable();
    reached
}

/// The most steps a pattern of [`PATTERN_MAX`] bytes can have: three for a `*`, and one to accept.
const STEPS_MAX: usize = PATTERN_MAX * 3 + 1;

/// The steps a program may be at, in no order, each once.
struct Places {
    list: Vec<usize>,
    listed: [u64; STEPS_MAX.div_ceil(64)],
}

impl Places {
    fn new(steps: usize) -> Self {
        Self {
            list: Vec::with_capacity(steps),
            listed: [0; STEPS_MAX.div_ceil(64)],
        }
    }

    fn clear(&mut self) {
        self.list.clear();
        self.listed.fill(0);
    }

    fn add(&mut self, place: usize) {
        let (word, bit) = (place / 64, 1 << (place % 64));
        if self.listed[word] & bit == 0 {
            self.listed[word] |= bit;
            self.list.push(place);
        }
    }
}

/// Whether the program accepts the whole text.
pub(super) fn run(steps: &[Step], text: &[u8]) -> bool {
    let (mut now, mut next) = (Places::new(steps.len()), Places::new(steps.len()));
    now.add(0);
    for byte in text.iter().copied().map(Some).chain([None]) {
        let mut index = 0;
        // The list grows while it is walked: forks and jumps lead on without using up a character.
        while let Some(&place) = now.list.get(index) {
            index += 1;
            match steps[place] {
                Step::Fork(one, other) => {
                    now.add(one);
                    now.add(other);
                }
                Step::Jump(to) => now.add(to),
                Step::Byte(wanted) if byte == Some(wanted) => next.add(place + 1),
                Step::One(set) if byte.is_some_and(|byte| set.has(byte)) => next.add(place + 1),
                Step::Accept if byte.is_none() => return true,
                Step::Byte(_) | Step::One(_) | Step::Accept => {}
            }
        }
        std::mem::swap(&mut now, &mut next);
        next.clear();
    }
    false
}
