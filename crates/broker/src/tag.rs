//! The name of a tag, as it may stand in ssh's configuration.

use std::fmt;

/// Letters, digits and `. _ -`: what needs no quoting anywhere. At most 64 characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TagName(Box<str>);

/// A name that is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` cannot be a tag; use 1 to {TAG_MAX} letters, digits and `. _ -`")]
pub struct TagError(String);

/// The longest name.
const TAG_MAX: usize = 64;

impl std::str::FromStr for TagName {
    type Err = TagError;

    fn from_str(text: &str) -> Result<Self, TagError> {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        if (1..=TAG_MAX).contains(&text.len()) && text.bytes().all(is_plain) && !text.starts_with('-') {
            Ok(Self(text.into()))
        } else {
            Err(TagError(epithet_wire::display::sanitize_line(text, TAG_MAX)))
        }
    }
}

impl fmt::Display for TagName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_needs_no_quoting() {
        let longest = "t".repeat(TAG_MAX);
        for good in ["work", "a", "prod-eu.1_x", &longest] {
            assert_eq!(good.parse::<TagName>().unwrap().to_string(), good);
        }
        let too_long = "t".repeat(TAG_MAX + 1);
        for bad in ["", "a b", "a\"b", "a,b", "*", "-x", "a\nb", "\u{e4}", &too_long] {
            assert!(bad.parse::<TagName>().is_err(), "{bad}");
        }
    }
}
