//! Files that we write for a service manager, each with a mark: only a file that carries it is ever changed or removed.

use anyhow::{Context, bail};
use std::io::Write;
use std::path::PathBuf;

/// What stands in the first lines of each file of ours.
pub(super) const MARK: &str = "Written by `epithet agent install`";

/// A file as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Written {
    pub(super) path: PathBuf,
    pub(super) text: String,
}

/// What writing did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    New,
    Updated,
    None,
}

impl Change {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::New => "wrote",
            Self::Updated => "updated",
            Self::None => "unchanged:",
        }
    }
}

impl Written {
    /// Whether a file of ours is there.
    pub(super) fn is_ours(&self) -> bool {
        std::fs::read_to_string(&self.path).is_ok_and(|text| text.contains(MARK))
    }

    /// Writes it in one step, unless it is there already or somebody else's is.
    pub(super) fn write(&self) -> anyhow::Result<Change> {
        let shown = self.path.display();
        let before = match std::fs::read_to_string(&self.path) {
            Ok(text) if text == self.text => return Ok(Change::None),
            Ok(text) if !text.contains(MARK) => bail!(
                "{shown} is there and was not written by `epithet agent install`; nothing was changed\ntry: move it away, then run this again"
            ),
            Ok(_) => Change::Updated,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Change::New,
            Err(error) => return Err(error).with_context(|| format!("cannot read {shown}")),
        };
        let folder = self
            .path
            .parent()
            .with_context(|| format!("{shown} has no folder"))?;
        std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let mut draft = tempfile::NamedTempFile::new_in(folder)
            .with_context(|| format!("cannot write into {}", folder.display()))?;
        draft
            .write_all(self.text.as_bytes())
            .and_then(|()| draft.as_file().sync_all())
            .with_context(|| format!("cannot write {shown}"))?;
        draft
            .persist(&self.path)
            .map_err(|error| error.error)
            .with_context(|| format!("cannot write {shown}"))?;
        Ok(before)
    }

    /// Removes it.
    pub(super) fn remove(&self) -> anyhow::Result<()> {
        std::fs::remove_file(&self.path).with_context(|| format!("cannot remove {}", self.path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_somebody_else_wrote_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let file = Written {
            path: folder.path().join("new/unit"),
            text: format!("# {MARK}\none\n"),
        };
        assert!(!file.is_ours());
        assert_eq!(file.write().unwrap(), Change::New);
        assert_eq!(file.write().unwrap(), Change::None);
        let later = Written {
            text: format!("# {MARK}\ntwo\n"),
            ..file.clone()
        };
        assert_eq!(later.write().unwrap(), Change::Updated);
        assert!(later.is_ours());
        std::fs::write(&file.path, "[Unit]\n").unwrap();
        assert!(!file.is_ours());
        assert!(
            file.write()
                .unwrap_err()
                .to_string()
                .contains("nothing was changed")
        );
        assert_eq!(std::fs::read_to_string(&file.path).unwrap(), "[Unit]\n");
    }
}
