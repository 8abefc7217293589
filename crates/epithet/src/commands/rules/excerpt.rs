//! The line that a message is about, with a mark under the place.

/// The most of a line that is shown, in characters.
const WIDTH: usize = 100;

/// Two lines: the text's line, numbered, and a mark under its column. `None` for a place that is not in the text.
pub(super) fn of(text: &str, (line, column): (u64, u64)) -> Option<String> {
    let index = usize::try_from(line).ok()?.checked_sub(1)?;
    let whole: Vec<char> = text.lines().nth(index)?.chars().map(plain).collect();
    let at = usize::try_from(column).ok()?.checked_sub(1)?.min(whole.len());
    // Of a long line the part around the place.
    let begin = at
        .saturating_sub(WIDTH / 2)
        .min(whole.len().saturating_sub(WIDTH));
    let part: String = whole.iter().skip(begin).take(WIDTH).collect();
    let number = line.to_string();
    let margin = " ".repeat(number.len());
    let mark = format!("{}^", " ".repeat(at - begin));
    Some(format!("  {number} | {}\n  {margin} | {mark}\n", part.trim_end()))
}

/// A tab would move the mark, and other control characters more than that.
fn plain(c: char) -> char {
    if c.is_control() { ' ' } else { c }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_is_shown_with_a_mark_under_the_place() {
        let text = "users:\n  alice: [b\n\tc: \u{e4}\u{1b}[2J d\n";
        assert_eq!(of(text, (2, 3)).unwrap(), "  2 |   alice: [b\n    |   ^\n");
        assert_eq!(
            of(text, (3, 6)).unwrap(),
            "  3 |  c: \u{e4} [2J d\n    |      ^\n"
        );
        assert_eq!(of(text, (1, 99)).unwrap(), "  1 | users:\n    |       ^\n");
        for nowhere in [(0, 1), (1, 0), (9, 1)] {
            assert_eq!(of(text, nowhere), None);
        }
        let long = format!("{}x{}", "a".repeat(300), "b".repeat(300));
        let shown = of(&long, (1, 301)).unwrap();
        let (line, mark) = shown.split_once('\n').unwrap();
        let under = mark.trim_end().len() - 1;
        assert_eq!(line.as_bytes()[under], b'x', "{shown}");
        assert!(line.len() < 120);
    }
}
