//! Which principals policy may add to the user who was asked for: `--allow-principal`.

use epithet_wire::{NameError, Principal};
use std::fmt;
use std::str::FromStr;

/// A pattern of principals: their characters, `*` for any of them, and `?` for one. Case matters, as it does to sshd.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PrincipalPattern(String);

/// Why text is no such pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PrincipalPatternError {
    /// It would allow every login.
    #[error(
        "`{0}` would let policy add every user there is, root among them; name what the hosts expect, such as prod-*"
    )]
    Everything(String),
    /// No principal looks like that.
    #[error("`{0}` is no pattern of principals: {1}")]
    Name(String, NameError),
}

impl PrincipalPattern {
    /// Whether a principal is covered.
    pub fn matches(&self, principal: &Principal) -> bool {
        covers(self.0.as_bytes(), principal.as_str().as_bytes())
    }
}

/// In time proportional to the product of both lengths, without recursion: only the last `*` is ever gone back to.
fn covers(pattern: &[u8], name: &[u8]) -> bool {
    let (mut at, mut read) = (0, 0);
    let mut last_star: Option<(usize, usize)> = None;
    while read < name.len() {
        match pattern.get(at) {
            Some(b'*') => {
                last_star = Some((at, read));
                at += 1;
            }
            Some(one) if *one == b'?' || *one == name[read] => {
                at += 1;
                read += 1;
            }
            _ => match &mut last_star {
                Some((star, taken)) => {
                    *taken += 1;
                    (at, read) = (*star + 1, *taken);
                }
                None => return false,
            },
        }
    }
    pattern[at..].iter().all(|rest| *rest == b'*')
}

impl FromStr for PrincipalPattern {
    type Err = PrincipalPatternError;

    fn from_str(text: &str) -> Result<Self, PrincipalPatternError> {
        let wrong = |error| PrincipalPatternError::Name(text.to_owned(), error);
        // With a letter for each wildcard it has to be a principal.
        Principal::parse(&text.replace(['*', '?'], "x")).map_err(wrong)?;
        if text.bytes().all(|byte| matches!(byte, b'*' | b'?')) {
            return Err(PrincipalPatternError::Everything(text.to_owned()));
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for PrincipalPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_cover_what_the_table_says() {
        for (pattern, name, expected) in [
            ("prod-root", "prod-root", true),
            ("prod-root", "prod-roo", false),
            ("prod-*", "prod-root", true),
            ("prod-*", "prod-", true),
            ("prod-*", "Prod-root", false),
            ("prod-*", "xprod-root", false),
            ("*@*.example.com", "root@a.b.example.com", true),
            ("*@*.example.com", "root@example.com", false),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("*a*b*", "xaxxbx", true),
            ("*a*b*", "xbxxa", false),
            ("**a", "aaaa", true),
        ] {
            let pattern: PrincipalPattern = pattern.parse().unwrap();
            assert_eq!(
                pattern.matches(&name.parse().unwrap()),
                expected,
                "{pattern} {name}"
            );
        }
    }

    #[test]
    fn what_allows_everybody_or_nobody_is_refused() {
        for (text, word) in [
            ("*", "root among them"),
            ("**", "root among them"),
            ("?*", "root among them"),
            ("", "is empty"),
            ("a,b", "no pattern"),
            ("a b", "no pattern"),
            ("a/b", "no pattern"),
        ] {
            let error = text.parse::<PrincipalPattern>().unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
    }
}
