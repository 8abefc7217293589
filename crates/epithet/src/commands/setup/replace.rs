//! A file of somebody's replaced in one step: through links to where it really is, with its mode and owner.

use super::named;
use anyhow::{Context, bail};
use rustix::fs::{Gid, Uid, fchown};
use std::fs::{File, Permissions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Writes `after` where `before` was read; `None` was no file. Whoever changed it meanwhile is not overwritten.
pub(super) fn replace(path: &Path, before: Option<&str>, after: &str) -> anyhow::Result<()> {
    let target = target(path)?;
    let folder = target.parent().context("a file has a folder")?;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .with_context(|| format!("cannot make {}", folder.display()))?;
    let there = match std::fs::metadata(&target) {
        Ok(metadata) => Some(metadata),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => return Err(error).with_context(|| format!("cannot look at {}", target.display())),
    };
    let mut draft = tempfile::Builder::new()
        .prefix(".epithet-")
        .tempfile_in(folder)
        .with_context(|| format!("cannot write into {}", folder.display()))?;
    draft.write_all(after.as_bytes()).context("cannot write")?;
    let mode = there.as_ref().map_or(0o600, |there| there.mode() & 0o7777);
    if let Some(there) = &there {
        keep_owner(draft.as_file(), there)?;
    }
    draft
        .as_file()
        .set_permissions(Permissions::from_mode(mode))
        .and_then(|()| draft.as_file().sync_all())
        .context("cannot write")?;
    let now = std::fs::read(&target).ok();
    if now.as_deref() != before.map(str::as_bytes) {
        bail!(
            "{} was changed meanwhile; nothing was written to it\ntry: run this again",
            named(path)
        );
    }
    draft
        .persist(&target)
        .map_err(|error| error.error)
        .with_context(|| format!("cannot write {}", target.display()))?;
    Ok(())
}

/// Whether a file could be replaced: one that its owner made read-only is meant to stay as it is.
pub(super) fn is_writable(path: &Path) -> anyhow::Result<bool> {
    let target = target(path)?;
    match std::fs::OpenOptions::new().append(true).open(&target) {
        Ok(file) => Ok(file.metadata()?.mode() & 0o200 != 0),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(true),
        Err(_) => Ok(false),
    }
}

/// Where a path leads, through every link.
fn target(path: &Path) -> anyhow::Result<PathBuf> {
    match path.canonicalize() {
        Ok(target) => Ok(target),
        Err(_) if path.is_symlink() => bail!("{} is a link to a file that is not there", named(path)),
        Err(_) => Ok(path.to_owned()),
    }
}

/// Only root can write a file that is not its own, and leaves it to whom it belongs.
fn keep_owner(draft: &File, there: &std::fs::Metadata) -> anyhow::Result<()> {
    let made = draft.metadata().context("cannot write")?;
    if (made.uid(), made.gid()) == (there.uid(), there.gid()) {
        return Ok(());
    }
    fchown(
        draft,
        Some(Uid::from_raw(there.uid())),
        Some(Gid::from_raw(there.gid())),
    )
    .context("cannot give the new file to the owner of the old one")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().mode() & 0o777
    }

    #[test]
    fn links_and_modes_stay_and_a_new_file_is_its_owners() {
        let folder = tempfile::tempdir().unwrap();
        let real = folder.path().join("dotfiles/config");
        std::fs::create_dir(real.parent().unwrap()).unwrap();
        std::fs::write(&real, "old").unwrap();
        std::fs::set_permissions(&real, Permissions::from_mode(0o640)).unwrap();
        let link = folder.path().join("config");
        std::os::unix::fs::symlink("dotfiles/config", &link).unwrap();
        replace(&link, Some("old"), "new").unwrap();
        assert!(link.is_symlink());
        assert_eq!(std::fs::read_to_string(&real).unwrap(), "new");
        assert_eq!(mode(&real), 0o640);

        let fresh = folder.path().join("deep/er/file");
        replace(&fresh, None, "x").unwrap();
        assert_eq!((mode(&fresh), mode(fresh.parent().unwrap())), (0o600, 0o700));
        assert_eq!(std::fs::read_dir(real.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn what_changed_meanwhile_is_not_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, "theirs").unwrap();
        for before in [Some("as it was"), None] {
            let error = replace(&file, before, "ours").unwrap_err().to_string();
            assert!(error.contains("changed meanwhile"), "{error}");
        }
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "theirs");
        let dangling = folder.path().join("dangling");
        std::os::unix::fs::symlink("nowhere", &dangling).unwrap();
        assert!(
            replace(&dangling, None, "x")
                .unwrap_err()
                .to_string()
                .contains("is a link")
        );
    }

    #[test]
    fn a_file_that_was_made_read_only_is_not_for_us() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        assert!(is_writable(&file).unwrap());
        std::fs::write(&file, "").unwrap();
        assert!(is_writable(&file).unwrap());
        std::fs::set_permissions(&file, Permissions::from_mode(0o400)).unwrap();
        assert!(!is_writable(&file).unwrap());
    }
}
