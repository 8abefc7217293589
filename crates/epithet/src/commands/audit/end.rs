//! Is the end of an audit log still there? The hash of the line that was written last stands beside the log.

use anyhow::bail;
use epithet_ca::audit::{ChainCheck, WrittenLast};
use std::io;
use std::path::Path;
use std::time::Duration;

/// Between two looks at the hash beside a log.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// What is known of the end of a log that is being checked.
pub(super) enum End {
    /// This line has to be there.
    Written {
        log: String,
        last: WrittenLast,
        hash: String,
        found_at: Option<u64>,
    },
    /// Nobody can tell; why.
    Unknown(String),
}

/// What is to be said about the end of a log, when nothing is wrong with it as far as anybody can tell.
pub(super) enum Verdict {
    /// Every line that is known of is there.
    Well,
    /// The same, and this.
    Note(String),
    /// There is nothing to be judged where there was something once.
    Emptied(String),
}

impl End {
    /// Of the newest of the files. To be asked before the files are read: the hash is written after its line.
    pub(super) fn of(log: &Path) -> Self {
        if log == Path::new("-") {
            return Self::Unknown("standard input has no file beside it that names its last line".to_owned());
        }
        let name = log.display();
        match WrittenLast::beside(log) {
            Ok(last) => match last.hash.clone() {
                Some(hash) => Self::Written {
                    log: name.to_string(),
                    last,
                    hash,
                    found_at: None,
                },
                None => Self::Unknown(format!("{} holds no hash", last.path.display())),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Self::Unknown(format!("there is no {name}.last, which names the last line"))
            }
            Err(error) => Self::Unknown(format!("cannot read {name}.last: {error}")),
        }
    }

    /// Looks at the line that the chain has just got.
    pub(super) fn see(&mut self, chain: &ChainCheck) {
        if let Self::Written { hash, found_at, .. } = self {
            if chain.last() == Some(hash) {
                *found_at = Some(chain.lines());
            } else if chain.lines() == 1 && chain.first_follows() == Some(hash) {
                // The log was rotated, and written to since the hash was read.
                *found_at = Some(0);
            }
        }
    }

    /// When all lines were looked at: what is to be said about the end.
    ///
    /// # Errors
    /// The line that was written last is not there.
    pub(super) fn judge(self, chain: &ChainCheck, log_path: &Path) -> anyhow::Result<Verdict> {
        let (log, last, hash, found_at) = match self {
            Self::Unknown(why) => return Ok(Verdict::Note(format!("the end cannot be checked: {why}"))),
            Self::Written {
                log,
                last,
                hash,
                found_at,
            } => (log, last, hash, found_at),
        };
        let beside = last.path.display();
        match found_at {
            Some(at) => {
                let more = chain.lines().saturating_sub(at);
                if more == 0 || has_changed(log_path, &hash) {
                    return Ok(Verdict::Well);
                }
                let lines = if more == 1 {
                    "1 line stands".to_owned()
                } else {
                    format!("{more} lines stand")
                };
                Ok(Verdict::Note(format!(
                    "{lines} after the one that {beside} names as the last: a CA was killed as it wrote, or somebody else wrote"
                )))
            }
            None if chain.lines() == 0 && last.is_before_all() => Ok(Verdict::Well),
            None if chain.lines() == 0 => Ok(Verdict::Emptied(format!(
                "the end cannot be checked: {log} is empty, and {beside} names a line of an earlier file; give that file too. If \
                there is none, all lines were taken"
            ))),
            None => bail!(
                "{log}: the log ends before, or other than with, the line that was written last: lines were taken from its end, or \
                its last line was changed\nthe hash of that line is {hash}, in {beside}\ntry: compare the log with a copy of it; if \
                that file belongs to another log, check this one without it"
            ),
        }
    }
}

/// Whether a CA has written meanwhile: it changes the hash a moment after the log, so a moment is waited.
fn has_changed(log: &Path, hash: &str) -> bool {
    (0..10).any(|look| {
        if look > 0 {
            std::thread::sleep(LOOK_AGAIN);
        }
        WrittenLast::beside(log).is_ok_and(|now| now.hash.as_deref() != Some(hash))
    })
}
