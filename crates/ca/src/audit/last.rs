//! The link of the last line, kept beside the log.
//!
//! The log itself tells it as long as it has lines. Once it was rotated away, this file does: the first line of the new log
//! follows the last one of the old, also when the CA was started in between. And a log that lost its end, or that is
//! another one altogether, does not hold the line that this file names.

use super::chain::{Link, zeros};
use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// What its name adds to that of the log.
const SUFFIX: &str = ".last";
/// 64 digits and a line end.
const LENGTH: usize = 65;

/// The open file.
#[derive(Debug)]
pub(super) struct LastLink {
    file: File,
}

impl LastLink {
    /// Where it is, for a log.
    pub(super) fn path(log: &Path) -> PathBuf {
        let mut name = OsString::from(log);
        name.push(SUFFIX);
        name.into()
    }

    /// Opens it, for its owner only; made when it is missing. With the link that it holds.
    pub(super) fn open(log: &Path) -> io::Result<(Self, Option<Link>)> {
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed())
            .open(Self::path(log))?;
        let link = read_link(&mut file);
        Ok((Self { file }, link))
    }

    /// Notes the link of the last line.
    pub(super) fn keep(&self, link: &Link) -> io::Result<()> {
        self.file.write_all_at(format!("{link}\n").as_bytes(), 0)
    }
}

fn read_link(file: &mut File) -> Option<Link> {
    let mut text = String::new();
    let _ = file.take(LENGTH as u64).read_to_string(&mut text);
    let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    text.strip_suffix('\n')
        .filter(|link| link.len() + 1 == LENGTH && link.bytes().all(is_digit))
        .map(str::to_owned)
}

/// What the file beside a log says, for those who only look.
#[derive(Debug)]
pub struct WrittenLast {
    /// The file.
    pub path: PathBuf,
    /// The hash of the line that was written last; none when the file holds no hash.
    pub hash: Option<String>,
}

impl WrittenLast {
    /// Reads it. To be read before the log: it is written after it, so a log that is read later holds the line.
    ///
    /// # Errors
    /// The file is not there, or cannot be read.
    pub fn beside(log: &Path) -> io::Result<Self> {
        let path = LastLink::path(log);
        let hash = read_link(&mut File::open(&path)?);
        Ok(Self { path, hash })
    }

    /// Whether no line was written yet.
    pub fn is_before_all(&self) -> bool {
        self.hash.as_ref().is_some_and(|hash| *hash == zeros())
    }
}

#[cfg(test)]
mod tests {
    use super::super::chain::hash;
    use super::*;

    #[test]
    fn a_link_is_kept_and_anything_else_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("audit.jsonl");
        let path = LastLink::path(&log);
        assert_eq!(path, folder.path().join("audit.jsonl.last"));
        let (last, none) = LastLink::open(&log).unwrap();
        assert_eq!(none, None);
        for link in [zeros(), hash(b"line")] {
            last.keep(&link).unwrap();
            assert_eq!(LastLink::open(&log).unwrap().1, Some(link.clone()));
            let looked = WrittenLast::beside(&log).unwrap();
            assert_eq!(
                (looked.is_before_all(), looked.hash),
                (link == zeros(), Some(link))
            );
        }
        for wrong in [
            "",
            "abc\n",
            &"g".repeat(LENGTH),
            &("A".repeat(64) + "\n"),
            &"a".repeat(70),
        ] {
            std::fs::write(&path, wrong).unwrap();
            assert_eq!(LastLink::open(&log).unwrap().1, None, "{wrong}");
        }
        std::fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink(folder.path().join("elsewhere"), &path).unwrap();
        assert!(LastLink::open(&log).is_err(), "a link is not followed");
    }
}
