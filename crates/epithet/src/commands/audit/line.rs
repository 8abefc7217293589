//! A line of the audit log as it is read back: by whoever wrote it, and by versions that wrote less or more.

use jiff::Timestamp;
use serde::Deserialize;
use std::io::{self, BufRead, Read};

/// The longest line that is looked at; the CA's own are far shorter.
pub(super) const LINE_MAX: usize = 1024 * 1024;

/// What a line says. Only what every line has is required.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct Entry {
    pub(super) time: Option<Timestamp>,
    pub(super) decision: String,
    pub(super) status: u16,
    pub(super) request_id: String,
    pub(super) reason: String,
    pub(super) client: String,
    pub(super) host: String,
    pub(super) user: String,
    pub(super) identity: String,
    pub(super) rule: String,
    pub(super) serial: String,
    pub(super) valid_after: Option<Timestamp>,
    pub(super) valid_before: Option<Timestamp>,
}

impl Entry {
    /// Reads a line; `None` when it is not one of an audit log.
    pub(super) fn parse(line: &[u8]) -> Option<Self> {
        let entry: Self = serde_json::from_slice(line).ok()?;
        (!entry.decision.is_empty() && entry.time.is_some()).then_some(entry)
    }
}

/// One line of a file that may hold anything.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece {
    /// A line, which `buffer` now holds without its end.
    Line,
    /// One longer than [`LINE_MAX`]; it was passed over.
    TooLong,
    /// What stands at the end of the file without a line's end, which `buffer` now holds.
    Unfinished,
    /// Nothing more.
    End,
}

/// Reads up to the next line's end. `buffer` may hold the beginning of the line already.
pub(super) fn next_line(log: &mut impl BufRead, buffer: &mut Vec<u8>) -> io::Result<Piece> {
    let room = (LINE_MAX + 1).saturating_sub(buffer.len());
    let limit = u64::try_from(room).unwrap_or(u64::MAX);
    log.by_ref().take(limit).read_until(b'\n', buffer)?;
    if buffer.last() == Some(&b'\n') {
        buffer.pop();
        return Ok(Piece::Line);
    }
    if buffer.len() <= LINE_MAX {
        return Ok(if buffer.is_empty() {
            Piece::End
        } else {
            Piece::Unfinished
        });
    }
    buffer.clear();
    log.skip_until(b'\n')?;
    Ok(Piece::TooLong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_other_versions_are_understood_and_other_lines_are_not() {
        let entry = Entry::parse(
            br#"{"time":"2026-11-26T09:11:28.123Z","decision":"issued","status":200,"new":{"a":1}}"#,
        )
        .unwrap();
        assert_eq!((entry.decision.as_str(), entry.status), ("issued", 200));
        for line in [
            &b""[..],
            b"{}",
            b"{\"time\":\"20",
            b"[]",
            b"\xff\xfe",
            br#"{"time":"yesterday","decision":"issued"}"#,
            br#"{"decision":"issued"}"#,
        ] {
            assert_eq!(Entry::parse(line), None, "{}", String::from_utf8_lossy(line));
        }
    }

    #[test]
    fn a_line_of_the_longest_size_is_read_and_a_longer_one_is_passed_over() {
        let text = [
            vec![b'a'; LINE_MAX],
            b"\n".to_vec(),
            vec![b'b'; LINE_MAX + 1],
            b"\nc\nd".to_vec(),
        ]
        .concat();
        let (mut log, mut buffer) = (&text[..], Vec::new());
        let mut next = || {
            let read = next_line(&mut log, &mut buffer).unwrap();
            let length = buffer.len();
            buffer.clear();
            (read, length)
        };
        assert_eq!(next(), (Piece::Line, LINE_MAX));
        assert_eq!(next(), (Piece::TooLong, 0));
        assert_eq!(next(), (Piece::Line, 1));
        assert_eq!(next(), (Piece::Unfinished, 1));
        assert_eq!(next(), (Piece::End, 0));
    }
}
