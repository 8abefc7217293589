//! Wildcards, as sshd_config and its includes have them.

/// Whether a pattern with `*` (anything) and `?` (one byte) is all of `text`.
pub(crate) fn wild(pattern: &[u8], text: &[u8]) -> bool {
    let (mut at, mut from, mut star) = (0, 0, None);
    while from < text.len() {
        match pattern.get(at) {
            Some(b'*') => {
                star = Some((at, from));
                at += 1;
            }
            Some(c) if *c == b'?' || *c == text[from] => {
                at += 1;
                from += 1;
            }
            _ => match star {
                Some((place, eaten)) => {
                    star = Some((place, eaten + 1));
                    at = place + 1;
                    from = eaten + 1;
                }
                None => return false,
            },
        }
    }
    pattern[at..].iter().all(|c| *c == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_covers_a_text_as_a_whole() {
        for (pattern, text, covers) in [
            ("*.conf", "10-epithet.conf", true),
            ("*", "", true),
            ("??-*.conf", "10-epithet.conf", true),
            ("*.cfg", "10-epithet.conf", false),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-c-b", false),
            ("?", "", false),
            ("", "", true),
            ("", "a", false),
        ] {
            assert_eq!(
                wild(pattern.as_bytes(), text.as_bytes()),
                covers,
                "{pattern} {text}"
            );
        }
    }
}
