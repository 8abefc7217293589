//! Whether configuration files are still those that were read.

use super::files;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Which files there are, and what tells each from what it was before: it is another file, or it was written to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Files(Vec<(PathBuf, Option<Mark>)>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Mark {
    device: u64,
    inode: u64,
    size: u64,
    written: (i64, i64),
    changed: (i64, i64),
}

impl Files {
    /// Those that [`super::load`] would read now.
    pub(crate) fn now(named: Option<&Path>) -> Self {
        // What cannot be listed is reported by whoever reads it.
        Self::of(&files::list(named).unwrap_or_default())
    }

    pub(super) fn of(paths: &[PathBuf]) -> Self {
        // Links are followed: what they lead to is what is read.
        let mark = |path: &PathBuf| {
            // A pipe is read once, and says nothing about changes.
            let metadata = std::fs::metadata(path).ok().filter(std::fs::Metadata::is_file)?;
            Some(Mark {
                device: metadata.dev(),
                inode: metadata.ino(),
                size: metadata.len(),
                written: (metadata.mtime(), metadata.mtime_nsec()),
                changed: (metadata.ctime(), metadata.ctime_nsec()),
            })
        };
        Self(paths.iter().map(|path| (path.clone(), mark(path))).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_to_change_a_file_is_seen() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let (file, other, link) = (path("a"), path("b"), path("link"));
        std::fs::write(&file, "one").unwrap();
        std::fs::write(&other, "two").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        let look = || Files::of(&[file.clone(), link.clone()]);
        let mut before = look();
        assert_eq!(before, look());
        let mut differs = |what: &str| {
            let now = look();
            assert_ne!(before, now, "{what}");
            before = now;
        };
        std::fs::write(&file, "three").unwrap();
        differs("written");
        std::fs::rename(&other, &file).unwrap();
        differs("another file by that name");
        let elsewhere = path("c");
        std::fs::write(&elsewhere, "two").unwrap();
        std::fs::remove_file(&link).unwrap();
        std::os::unix::fs::symlink(&elsewhere, &link).unwrap();
        differs("a link that leads elsewhere");
        std::fs::remove_file(&file).unwrap();
        differs("gone");
        std::fs::write(&file, "two").unwrap();
        differs("back");
    }
}
