//! Taking directives out of what a plugin says to people.

use crate::directive::{CAN_LOG_OUT, DIRECTIVE_PREFIX, PASTE};
use epithet_wire::LoopbackAddress;
use epithet_wire::limits::DIRECTIVE_MAX;
use std::fmt;

/// What a plugin said to the broker and not to people. See the module `directive` of the plugin's side.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Directive {
    /// The plugin can revoke what its state stands for.
    CanLogOut,
    /// A pasted address may be delivered there.
    Paste(LoopbackAddress),
}

impl Directive {
    /// Reads what follows the prefix. Unknown ones, and those that make no sense, are none.
    fn parse(text: &str) -> Option<Self> {
        let mut words = text.split_whitespace();
        match (words.next()?, words.next(), words.next()) {
            (CAN_LOG_OUT, None, _) => Some(Self::CanLogOut),
            (PASTE, Some(address), None) => address.parse().ok().map(Self::Paste),
            _ => None,
        }
    }
}

impl fmt::Display for Directive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CanLogOut => f.write_str(CAN_LOG_OUT),
            Self::Paste(address) => write!(f, "{PASTE} {address}"),
        }
    }
}

/// Parts text that comes in pieces of any size into directives and all the rest.
///
/// Text goes on at once, without waiting for the end of its line; only what may become a directive waits.
#[derive(Default)]
pub(super) struct Sieve {
    /// The beginning of a line that is, or may become, a directive.
    held: String,
    /// In the middle of a line that is none.
    in_text: bool,
    /// The directive is longer than any; the rest of its line is nothing.
    is_too_long: bool,
}

/// What came through.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Sifted {
    pub(super) text: String,
    pub(super) directives: Vec<Directive>,
}

impl Sieve {
    pub(super) fn sift(&mut self, text: &str) -> Sifted {
        let mut sifted = Sifted::default();
        for piece in text.split_inclusive('\n') {
            self.take(piece, &mut sifted);
        }
        sifted
    }

    /// No more will come: what was held is a directive without a line end, or text.
    pub(super) fn finish(&mut self) -> Sifted {
        let mut sifted = Sifted::default();
        if self.held.starts_with(DIRECTIVE_PREFIX) {
            self.take("\n", &mut sifted);
        } else {
            sifted.text = std::mem::take(&mut self.held);
        }
        sifted
    }

    /// Takes a part of one line, which only at its end may have the line's end.
    fn take(&mut self, piece: &str, sifted: &mut Sifted) {
        let is_end = piece.ends_with('\n');
        if self.in_text {
            sifted.text.push_str(piece);
            self.in_text = !is_end;
            return;
        }
        if self.held.len() + piece.len() <= DIRECTIVE_PREFIX.len() + DIRECTIVE_MAX
            || !self.is_directive(piece)
        {
            self.held.push_str(piece);
        } else {
            self.is_too_long = true;
            self.held.truncate(0);
            self.held.push_str(DIRECTIVE_PREFIX);
        }
        if let Some(directive) = self.held.strip_prefix(DIRECTIVE_PREFIX) {
            if is_end {
                let known = Directive::parse(directive).filter(|_| !self.is_too_long);
                sifted.directives.extend(known);
                *self = Self::default();
            }
        } else if !DIRECTIVE_PREFIX.starts_with(&self.held) {
            sifted.text.push_str(&std::mem::take(&mut self.held));
            self.in_text = !is_end;
        }
    }

    /// Whether the line that `piece` goes on is a directive.
    fn is_directive(&self, piece: &str) -> bool {
        let beginning = self.held.chars().chain(piece.chars());
        beginning
            .take(DIRECTIVE_PREFIX.len())
            .eq(DIRECTIVE_PREFIX.chars())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn through(pieces: &[&str]) -> Sifted {
        let mut sieve = Sieve::default();
        let mut all = Sifted::default();
        let mut add = |sifted: Sifted| {
            all.text.push_str(&sifted.text);
            all.directives.extend(sifted.directives);
        };
        for piece in pieces {
            add(sieve.sift(piece));
        }
        add(sieve.finish());
        all
    }

    fn paste(address: &str) -> Directive {
        Directive::Paste(address.parse().unwrap())
    }

    #[test]
    fn directives_are_taken_out_and_the_rest_is_left_as_it_is() {
        let cases = [
            (
                "one\n#epithet: can-log-out\ntwo\n",
                "one\ntwo\n",
                vec![Directive::CanLogOut],
            ),
            ("#epithet: can-log-out", "", vec![Directive::CanLogOut]),
            (
                "#epithet: paste http://127.0.0.1:7/cb\n#epithet: can-log-out\n",
                "",
                vec![paste("http://127.0.0.1:7/cb"), Directive::CanLogOut],
            ),
            // Unknown, or nonsense: ignored, and not shown.
            ("#epithet: brew-coffee now\nx", "x", vec![]),
            ("#epithet: paste https://example.com/\n", "", vec![]),
            ("#epithet: paste\n#epithet: \n", "", vec![]),
            ("#epithet: can-log-out please\n", "", vec![]),
            // Not directives.
            (" #epithet: can-log-out\n", " #epithet: can-log-out\n", vec![]),
            ("say #epithet: x\n", "say #epithet: x\n", vec![]),
            ("#epithet:can-log-out\n", "#epithet:can-log-out\n", vec![]),
            ("#epi", "#epi", vec![]),
            ("#\n\n# x\n", "#\n\n# x\n", vec![]),
        ];
        for (said, text, directives) in cases {
            let expected = Sifted {
                text: text.to_owned(),
                directives,
            };
            assert_eq!(through(&[said]), expected, "{said:?}");
            let letters: Vec<_> = said.split("").collect();
            assert_eq!(through(&letters), expected, "{said:?} letter by letter");
        }
    }

    #[test]
    fn text_goes_on_at_once_and_a_directive_of_any_length_is_held_in_little() {
        let mut sieve = Sieve::default();
        assert_eq!(sieve.sift("Touch your key").text, "Touch your key");
        assert_eq!(sieve.sift(" now\n#epithet").text, " now\n");
        assert_eq!(sieve.sift("s\n").text, "#epithets\n");
        sieve.sift("#epithet: ");
        for _ in 0..1000 {
            assert_eq!(sieve.sift(&"x".repeat(1000)), Sifted::default());
            assert!(sieve.held.len() <= 2 * DIRECTIVE_MAX);
        }
        assert_eq!(sieve.sift("\ntext").text, "text");
    }

    #[test]
    fn a_directive_of_the_largest_size_counts_and_a_larger_one_does_not() {
        let blanks = |count: usize| format!("{DIRECTIVE_PREFIX}{}can-log-out\n", " ".repeat(count));
        let room = DIRECTIVE_MAX - "can-log-out\n".len();
        for cut in [1, 20, 2000] {
            for (count, known) in [(room, 1), (room + 1, 0)] {
                let (one, two) = (blanks(count), "after\n");
                let (start, end) = one.split_at(cut);
                let sifted = through(&[start, end, two]);
                assert_eq!((sifted.directives.len(), sifted.text.as_str()), (known, two));
            }
        }
    }

    proptest! {
        #[test]
        fn where_it_is_cut_changes_nothing(text in "(#epithet: (can-log-out|x)?|[#e :\u{e4}\n]{0,3}){0,8}", cut in 0_usize..80) {
            let at = text.char_indices().map(|(at, _)| at).nth(cut).unwrap_or(text.len());
            let (start, end) = text.split_at(at);
            prop_assert_eq!(through(&[start, end]), through(&[&text]));
        }
    }
}
