//! Whether one pattern covers every host that another covers.

use super::program::{Step, closure};
use super::sketch::ALPHABET;
use std::collections::HashSet;

/// How many pairs of positions are looked at before nothing is said.
const PAIRS_MAX: usize = 4096;

/// Whether every name that `narrow` accepts is accepted by `wide`. `false` also when that would take long to find out:
/// more than [`PAIRS_MAX`] pairs of positions, or more than are `left`, from which they are taken.
///
/// Follows both programs together: wherever the first may be after some beginning of a name, the second must still
/// have a way on, and must accept whenever the first does.
pub(super) fn includes(wide: &[Step], narrow: &[Step], left: &mut usize) -> bool {
    let begin = (closure(narrow, [0]), closure(wide, [0]));
    let (mut seen, mut to_do) = (HashSet::from([begin.clone()]), vec![begin]);
    while let Some((narrow_at, wide_at)) = to_do.pop() {
        if accepts(narrow, &narrow_at) && !accepts(wide, &wide_at) {
            return false;
        }
        for byte in ALPHABET {
            let narrow_next = step(narrow, &narrow_at, *byte);
            if narrow_next.is_empty() {
                continue;
            }
            let wide_next = step(wide, &wide_at, *byte);
            if wide_next.is_empty() || seen.len() >= PAIRS_MAX || *left == 0 {
                return false;
            }
            let pair = (narrow_next, wide_next);
            if !seen.contains(&pair) {
                *left -= 1;
                seen.insert(pair.clone());
                to_do.push(pair);
            }
        }
    }
    true
}

fn accepts(steps: &[Step], places: &[usize]) -> bool {
    places.iter().any(|place| matches!(steps[*place], Step::Accept))
}

/// Where a program may be after one more character; sorted, so that equal sets are equal lists.
fn step(steps: &[Step], places: &[usize], byte: u8) -> Vec<usize> {
    let moves = places.iter().filter_map(|place| match steps[*place] {
        Step::Byte(wanted) => (wanted == byte).then_some(place + 1),
        Step::One(set) => set.has(byte).then_some(place + 1),
        Step::Fork(..) | Step::Jump(_) | Step::Accept => None,
    });
    closure(steps, moves)
}
