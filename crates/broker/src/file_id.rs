//! Which file is at a path: the one that was made here, or another one by now.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// A file by its device and inode, which stay the same for as long as somebody holds it open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileId {
    device: u64,
    inode: u64,
}

impl FileId {
    /// What is at `path` now, without following a link. None when nothing is there, or it cannot be seen.
    pub(crate) fn at(path: &Path) -> Option<Self> {
        path.symlink_metadata().ok().as_ref().map(Self::from)
    }

    /// An open file.
    pub(crate) fn of(file: &File) -> io::Result<Self> {
        file.metadata()
            .as_ref()
            .map(Self::from)
            .map_err(|error| error.kind().into())
    }
}

impl From<&Metadata> for FileId {
    fn from(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
        }
    }
}
