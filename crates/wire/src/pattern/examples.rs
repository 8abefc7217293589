//! Names that a pattern covers, to show what it means.

use super::syntax::Node;
use super::{HostPattern, nodes};

impl HostPattern {
    /// Two names that this pattern covers, as different as may be; fewer when there are none of letters and digits.
    pub fn examples(&self) -> Vec<String> {
        let Ok(nodes) = nodes(&self.text) else {
            return Vec::new();
        };
        let short = example(&nodes, "", true);
        let long = example(&nodes, "x7", false);
        [short, long].into_iter().flatten().collect()
    }
}

/// A name with `filling` for each `*`, and the first or last of everything that may be chosen.
fn example(nodes: &[Node], filling: &str, is_first: bool) -> Option<String> {
    let mut text = String::new();
    for node in nodes {
        match node {
            Node::Literal(byte) => text.push(char::from(*byte)),
            Node::Star => text.push_str(filling),
            Node::One(set) => {
                let mut fitting = (b'0'..=b'z').filter(|byte| set.has(*byte) && !byte.is_ascii_uppercase());
                let byte = if is_first {
                    fitting.next()
                } else {
                    fitting.next_back()
                };
                text.push(char::from(byte?));
            }
            Node::Choice(alternatives) => {
                let chosen = if is_first {
                    alternatives.first()
                } else {
                    alternatives.last()
                };
                text += &example(chosen?, filling, is_first)?;
            }
        }
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn examples_are_covered_by_their_pattern() {
        for (pattern, examples) in [
            ("web", &["web", "web"][..]),
            ("*.lan", &[".lan", "x7.lan"]),
            ("db{1,22}[a-c]?", &["db1a0", "db22cz"]),
            ("{,*}", &["", "x7"]),
            ("[!0-9a-z]", &[":", "`"]),
            ("\\*[+]", &[]),
        ] {
            let pattern = HostPattern::parse(pattern).unwrap();
            assert_eq!(pattern.examples(), examples, "{pattern}");
            assert!(
                pattern.examples().iter().all(|name| pattern.matches(name)),
                "{pattern}"
            );
        }
    }
}
