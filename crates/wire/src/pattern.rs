//! Patterns of host names: which hosts a rule is about, and which a broker handles.

use crate::limits::PATTERN_MAX;
use crate::names::HostName;
use globset::{GlobBuilder, GlobMatcher};
use std::cmp::Ordering;
use std::fmt;

/// A pattern of host names, compared without regard to case, in time linear in the name's length.
///
/// `*` is any run of characters, dots included; `?` one character; `[a-z]` and `[!a-z]` classes; `{a,b}` alternatives,
/// which may nest and be empty; `\` takes the next character as it is. The syntax of epithet 0.19's files.
#[derive(Clone)]
pub struct HostPattern {
    text: Box<str>,
    matcher: GlobMatcher,
    precision: Precision,
}

/// How much a pattern leaves open: an exact name before any wildcard, fewer wildcards before more, then more literal text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Precision {
    wildcards: usize,
    literals: usize,
}

/// Why text is not a pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{pattern}` is not a host pattern: {problem}")]
pub struct PatternError {
    pattern: String,
    problem: String,
}

impl HostPattern {
    /// Reads a pattern of 1 to [`PATTERN_MAX`] bytes.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        let error = |problem: String| PatternError {
            pattern: text.chars().take(80).collect(),
            problem,
        };
        if text.is_empty() {
            return Err(error("it is empty; `*` means every host".to_owned()));
        }
        if text.len() > PATTERN_MAX {
            return Err(error(format!("it is longer than {PATTERN_MAX} bytes")));
        }
        if let Some(c) = text
            .chars()
            .find(|c| c.is_control() || c.is_whitespace() || "'\"`$;|&<>()".contains(*c))
        {
            return Err(error(format!("no host name has the character {c:?}")));
        }
        let glob = GlobBuilder::new(text)
            .case_insensitive(true)
            .literal_separator(false)
            .backslash_escape(true)
            .empty_alternates(true)
            .build()
            .map_err(|problem| error(problem.kind().to_string()))?;
        Ok(Self {
            text: text.into(),
            matcher: glob.compile_matcher(),
            precision: Precision::of(text),
        })
    }

    /// The pattern as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether it covers `host`, whatever its case and with or without the dot at its end.
    pub fn covers(&self, host: &HostName) -> bool {
        self.covers_canonical(&host.canonical())
    }

    /// The same for a name that is [`HostName::canonical`] already, so that many patterns can share the work.
    pub fn covers_canonical(&self, host: &str) -> bool {
        self.matcher.is_match(host)
    }

    /// Whether it names one host and nothing else.
    pub fn is_exact(&self) -> bool {
        self.precision.wildcards == 0
    }

    /// Orders the more precise pattern first: exact, then fewest wildcards, then longest literal text, then by text.
    pub fn by_precision(&self, other: &Self) -> Ordering {
        (self.precision.wildcards.cmp(&other.precision.wildcards))
            .then(other.precision.literals.cmp(&self.precision.literals))
            .then_with(|| self.text.cmp(&other.text))
    }

    /// Whether ssh's own patterns mean the same by this text: only literals, `*` and `?`.
    pub fn is_ssh_pattern(&self) -> bool {
        self.text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"._:-*?".contains(&byte))
    }
}

impl Precision {
    fn of(text: &str) -> Self {
        let (mut wildcards, mut literals) = (0, 0);
        let mut characters = text.chars();
        while let Some(c) = characters.next() {
            match c {
                '*' | '?' | '{' => wildcards += 1,
                '[' => {
                    wildcards += 1;
                    // A class stands for one character, however many it lists.
                    characters.by_ref().skip(1).find(|c| *c == ']');
                }
                '\\' => literals += usize::from(characters.next().is_some()),
                '}' | ',' => {}
                _ => literals += 1,
            }
        }
        Self { wildcards, literals }
    }
}

impl fmt::Debug for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HostPattern({})", self.text)
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl PartialEq for HostPattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for HostPattern {}

impl std::str::FromStr for HostPattern {
    type Err = PatternError;
    fn from_str(text: &str) -> Result<Self, PatternError> {
        Self::parse(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_cover_what_the_files_of_epithet_0_19_mean() {
        let cases = [
            ("*.example.com", "a.example.com", true),
            ("*.example.com", "a.b.example.com", true),
            ("*.example.com", "example.com", false),
            ("*.example.com", "a.example.com.evil", false),
            ("*.example.com", "A.EXAMPLE.com.", true),
            ("badb{,.home}", "badb", true),
            ("badb{,.home}", "badb.home", true),
            ("badb{,.home}", "badb.other", false),
            ("badb{,.home}", "xbadb", false),
            ("{prod,dev{1,2}}-*", "dev2-x", true),
            ("v*", "v", true),
            ("ab[c-e]", "abd", true),
            ("ab[!c-e]", "abd", false),
            ("web-?", "web-12", false),
            ("*", "anything", true),
        ];
        for (pattern, host, covered) in cases {
            let host = HostName::parse(host).unwrap();
            assert_eq!(
                HostPattern::parse(pattern).unwrap().covers(&host),
                covered,
                "{pattern} {host}"
            );
        }
        for bad in ["", "a[", "a{b", "a b", "a'b", "$(id)", &"a".repeat(257)] {
            assert!(HostPattern::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn precision_is_exact_then_fewest_wildcards_then_longest_literal() {
        let mut patterns: Vec<_> = [
            "{prod,dev,stage,qa}-*.example.com",
            "*",
            "prod-1.example.com",
            "*.example.com",
            "prod-*.example.com",
            "prod-[0-9].example.com",
        ]
        .iter()
        .map(|text| HostPattern::parse(text).unwrap())
        .collect();
        patterns.sort_by(HostPattern::by_precision);
        let order: Vec<_> = patterns.iter().map(HostPattern::as_str).collect();
        assert_eq!(
            order,
            [
                "prod-1.example.com",
                "prod-*.example.com",
                "prod-[0-9].example.com",
                "*.example.com",
                "*",
                "{prod,dev,stage,qa}-*.example.com",
            ]
        );
    }

    #[test]
    fn a_pattern_made_to_be_slow_is_not() {
        let pattern = HostPattern::parse(&"*a".repeat(100)).unwrap();
        let host = HostName::parse(&format!("{}b", "a".repeat(200))).unwrap();
        let begun = std::time::Instant::now();
        assert!(!pattern.covers(&host));
        assert!(begun.elapsed() < std::time::Duration::from_secs(1));
    }
}
