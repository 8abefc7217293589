//! A log that is being written: read to its end, and on in the next file when it is rotated.

use super::line::{Piece, next_line};
use std::fs::File;
use std::io::{self, BufReader, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Between two looks at a file to which nothing was added.
const PAUSE: Duration = Duration::from_millis(200);

/// A file that is followed by its name.
#[derive(Debug)]
pub(super) struct Followed {
    path: PathBuf,
    log: BufReader<File>,
    /// The beginning of a line whose end is not there yet.
    begun: Vec<u8>,
    number: u64,
}

impl Followed {
    /// Opens the file that has this name now.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self {
            path: path.to_owned(),
            log: BufReader::new(File::open(path)?),
            begun: Vec::new(),
            number: 0,
        })
    }

    /// The next whole line with its number; `None` when there is none for now.
    pub(super) fn next(&mut self) -> io::Result<Option<(u64, Vec<u8>)>> {
        loop {
            match next_line(&mut self.log, &mut self.begun)? {
                Piece::Line => {
                    self.number += 1;
                    return Ok(Some((self.number, std::mem::take(&mut self.begun))));
                }
                Piece::TooLong => self.number += 1,
                Piece::Unfinished | Piece::End => {
                    if !self.go_on()? {
                        return Ok(None);
                    }
                }
            }
        }
    }

    /// At the end of the file: is another one in its place, or was it emptied? Then reading goes on at its beginning.
    fn go_on(&mut self) -> io::Result<bool> {
        let Ok(there) = std::fs::metadata(&self.path) else {
            // Moved away, and the CA has not made the new one yet.
            return Ok(false);
        };
        let here = self.log.get_ref().metadata()?;
        if (there.dev(), there.ino()) != (here.dev(), here.ino()) {
            // Whatever was written between the last read and the rotation comes first.
            if self.log.stream_position()? < here.len() {
                return Ok(true);
            }
            match File::open(&self.path) {
                Ok(file) => self.log = BufReader::new(file),
                Err(_) => return Ok(false),
            }
        } else if here.len() < self.log.stream_position()? {
            self.log.seek(SeekFrom::Start(0))?;
        } else {
            return Ok(false);
        }
        self.begun.clear();
        self.number = 0;
        Ok(true)
    }

    /// Waits a moment for more.
    pub(super) fn wait(&self) {
        std::thread::sleep(PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn lines_are_found_across_rotation_truncation_and_halves() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let mut file = File::create(&path).unwrap();
        write!(file, "one\ntw").unwrap();
        let mut followed = Followed::open(&path).unwrap();
        let mut lines = || {
            let mut lines = Vec::new();
            while let Some((number, line)) = followed.next().unwrap() {
                lines.push((number, String::from_utf8(line).unwrap()));
            }
            lines
        };
        assert_eq!(lines(), [(1, "one".to_owned())]);
        writeln!(file, "o").unwrap();
        assert_eq!(lines(), [(2, "two".to_owned())]);
        // The CA still has the old file for a moment after it was moved away.
        std::fs::rename(&path, folder.path().join("log.1")).unwrap();
        writeln!(file, "three").unwrap();
        assert_eq!(lines(), [(3, "three".to_owned())]);
        assert_eq!(lines(), []);
        writeln!(file, "four").unwrap();
        let mut file = File::create(&path).unwrap();
        writeln!(file, "five").unwrap();
        assert_eq!(lines(), [(4, "four".to_owned()), (1, "five".to_owned())]);
        file.set_len(0).unwrap();
        file.seek(SeekFrom::Start(0)).unwrap();
        writeln!(file, "6").unwrap();
        assert_eq!(lines(), [(1, "6".to_owned())]);
    }
}
