//! Text from outside, made harmless for a terminal or a log.
//!
//! A provider's error, a plugin's message and a CA's reply may hold anything: escape sequences that retitle or
//! clear a terminal, and marks that turn the direction of writing so that a line reads as another.

/// Whether a character could do something to a terminal or hide something from its reader.
fn is_harmful(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
        || matches!(c, '\u{2028}' | '\u{2029}')
}

/// One line: every harmful character, and the line's end, becomes a blank; at most `max` characters are kept.
pub fn sanitize_line(text: &str, max: usize) -> String {
    let mut line: String = text
        .trim()
        .chars()
        .map(|c| if is_harmful(c) { ' ' } else { c })
        .take(max)
        .collect();
    if text.trim().chars().nth(max).is_some() {
        line.push('\u{2026}');
    }
    line
}

/// Several lines: keeps line ends and tabs, drops every other harmful character and bytes that are not UTF-8.
///
/// A carriage return becomes a line end, so that nothing can be written over.
pub fn sanitize_text(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut clean = String::with_capacity(text.len());
    let mut characters = text.chars().peekable();
    while let Some(c) = characters.next() {
        match c {
            '\n' | '\t' => clean.push(c),
            '\r' if characters.peek() == Some(&'\n') => {}
            '\r' => clean.push('\n'),
            c if is_harmful(c) => {}
            c => clean.push(c),
        }
    }
    clean
}

/// What rustls says of a TLS CA's own certificate in a server's place (`CaUsedAsEndEntity`) helps nobody.
pub const TLS_CA_AS_SERVER: (&str, &str) = (
    "CaUsedAsEndEntity",
    "that is a TLS CA's own certificate: the server needs one that this CA issued for it",
);

/// The innermost reason of an error, which is the one that helps, and what to do where its words alone say nothing.
pub fn innermost(error: &dyn std::error::Error) -> String {
    let mut reason = error;
    while let Some(source) = reason.source() {
        reason = source;
    }
    let words = reason.to_string();
    let (sign, remedy) = TLS_CA_AS_SERVER;
    if words.contains(sign) {
        format!("{words}; {remedy}")
    } else {
        words
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_innermost_reason_is_told_and_a_ca_s_certificate_in_a_server_s_place_explained() {
        use std::io::Error;
        let reason = |words: &str| innermost(&Error::other(Error::other(words.to_owned())));
        assert_eq!(reason("no"), "no");
        assert_eq!(
            reason("invalid peer certificate: Other(OtherError(CaUsedAsEndEntity))"),
            "invalid peer certificate: Other(OtherError(CaUsedAsEndEntity)); that is a TLS CA's own certificate: the server needs one that this CA issued for it"
        );
    }

    #[test]
    fn nothing_that_moves_a_cursor_survives() {
        assert_eq!(sanitize_line("a\x1b]0;x\x07b\nc\u{202e}d", 100), "a ]0;x b c d");
        assert_eq!(sanitize_line(&"x".repeat(20), 5), "xxxxx\u{2026}");
        assert_eq!(
            sanitize_text(b"one\r\ntwo\rthree\x1b[2J\ttab\xff\n"),
            "one\ntwo\nthree[2J\ttab\u{fffd}\n"
        );
    }
}
