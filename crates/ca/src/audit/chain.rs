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
    /// It carries 64 zeros, as the first line of all does, but is not the first.
    #[error("a new chain begins at line {line}: nothing says whether lines are missing before it")]
    Begins {
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

/// How a line stands to the one before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// It follows the line before it, or is the first to be looked at.
    Follows,
    /// A new chain begins: no line of this kind follows another. The CA wrote it without knowledge of an earlier one, or somebody
    /// put another log in the place of what was to follow.
    Begins,
}

/// An audit log that is being checked, line by line; its files one after the other.
#[derive(Debug, Default)]
pub struct ChainCheck {
    last: Option<Link>,
    lines: u64,
    first_follows: Option<Link>,
}

impl ChainCheck {
    /// Checks that the next line follows the one before it. `number` is the line's in its file, for errors.
    ///
    /// # Errors
    /// [`BrokenChain`]: it does not, or it is no line.
    pub fn line(&mut self, number: u64, line: &[u8]) -> Result<Step, BrokenChain> {
        let link = link_of(line).ok_or(BrokenChain::NotALine { line: number })?;
        let is_zeros = zeros().as_bytes() == link;
        let step = match &self.last {
            None => {
                self.first_follows = Some(String::from_utf8_lossy(link).into_owned());
                Step::Follows
            }
            Some(last) if last.as_bytes() == link => Step::Follows,
            Some(_) if is_zeros => Step::Begins,
            Some(_) => return Err(BrokenChain::Broken { line: number }),
        };
        self.last = Some(hash(line));
        self.lines += 1;
        Ok(step)
    }

    /// How many lines there were so far.
    pub fn lines(&self) -> u64 {
        self.lines
    }

    /// The hash of the last line so far, which the next one carries.
    pub fn last(&self) -> Option<&str> {
        self.last.as_deref()
    }

    /// Whether the first line is the first of all; otherwise it follows one of an earlier file.
    pub fn is_whole(&self) -> bool {
        self.first_follows.as_deref() == Some(zeros().as_str())
    }

    /// The hash that the first line carries, of the line that it follows.
    pub fn first_follows(&self) -> Option<&str> {
        self.first_follows.as_deref()
    }
}

/// Checks that every line of an audit log follows the one before it, and returns how many there are.
///
/// The first line may follow a line of an earlier file. Lines that were cut off by a full disk are reported, since
/// they cannot be told from lines that somebody cut.
///
/// # Errors
/// [`BrokenChain`] names the first line that is wrong.
pub fn verify(log: impl BufRead) -> Result<u64, BrokenChain> {
    let mut chain = ChainCheck::default();
    for (line, number) in log.split(b'\n').zip(1..) {
        if chain.line(number, &line?)? == Step::Begins {
            return Err(BrokenChain::Begins { line: number });
        }
    }
    Ok(chain.lines())
}
