//! The chain of hashes from line to line.

use aws_lc_rs::digest::{SHA256, digest};
use std::io::{self, BufRead};

/// A hash in hexadecimal digits.
pub(super) type Link = String;

/// What the first line of all follows.
pub(super) fn zeros() -> Link {
    "0".repeat(64)
}

/// The link that the next line carries.
pub(super) fn hash(line: &[u8]) -> Link {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digits = |byte: &u8| [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]].map(char::from);
    digest(&SHA256, line).as_ref().iter().flat_map(digits).collect()
}

/// The link at the end of a line.
pub(super) fn link_of(line: &[u8]) -> Option<&[u8]> {
    let rest = line.strip_suffix(b"\"}")?;
    let (before, link) = rest.split_at_checked(rest.len().checked_sub(64)?)?;
    before.ends_with(b",\"previous\":\"").then_some(link)
}

/// What is wrong with an audit log.
#[derive(Debug, thiserror::Error)]
pub enum BrokenChain {
    /// It cannot be read.
    #[error("the audit log cannot be read: {0}")]
    Unreadable(#[from] io::Error),
    /// A line that is none of ours, or was cut off.
    #[error("line {line} is not a whole line of an audit log")]
    NotALine {
        /// The line's number, from 1.
        line: u64,
    },
    /// The line before it is missing or was changed.
    #[error("line {line} does not follow the line before it: a line was taken out, put in or changed")]
    Broken {
        /// The line's number, from 1.
        line: u64,
    },
}

/// Checks that every line of an audit log follows the one before it, and returns how many there are.
///
/// The first line may follow a line of an earlier file. Lines that were cut off by a full disk are reported, since
/// they cannot be told from lines that somebody cut.
///
/// # Errors
/// [`BrokenChain`] names the first line that is wrong.
pub fn verify(log: impl BufRead) -> Result<u64, BrokenChain> {
    let mut expected: Option<Link> = None;
    let mut count = 0;
    for (line, number) in log.split(b'\n').zip(1..) {
        let line = line?;
        let link = link_of(&line).ok_or(BrokenChain::NotALine { line: number })?;
        if expected.is_some_and(|expected| expected.as_bytes() != link) {
            return Err(BrokenChain::Broken { line: number });
        }
        expected = Some(hash(&line));
        count = number;
    }
    Ok(count)
}
