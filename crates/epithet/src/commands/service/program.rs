//! The path under which this program will still be found after an upgrade.

use anyhow::Context;
use std::path::{Path, PathBuf};

/// The program as `PATH` leads to it, when that is this very program; else where it lies.
///
/// Package managers put a link into `PATH` and each version into a folder of its own, which goes with the next upgrade.
pub(crate) fn stable_path() -> anyhow::Result<PathBuf> {
    let running = std::env::current_exe().context("cannot find the running program")?;
    let path = std::env::var_os("PATH").unwrap_or_default();
    Ok(linked(&running, std::env::split_paths(&path)).unwrap_or(running))
}

fn linked(running: &Path, mut folders: impl Iterator<Item = PathBuf>) -> Option<PathBuf> {
    let same = |path: &Path| path.canonicalize().is_ok_and(|found| found == running);
    folders.find_map(|folder| {
        let candidate = folder.join(running.file_name()?);
        (folder.is_absolute() && same(&candidate)).then_some(candidate)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_in_the_path_is_better_than_the_folder_of_one_version() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().canonicalize().unwrap();
        for folder in ["other", "bin", "cellar/1.2"] {
            std::fs::create_dir_all(root.join(folder)).unwrap();
        }
        let running = root.join("cellar/1.2/epithet");
        std::fs::write(&running, "").unwrap();
        std::fs::write(root.join("other/epithet"), "another program").unwrap();
        let folders = || [root.join("other"), root.join("bin")].into_iter();
        assert_eq!(linked(&running, folders()), None);
        std::os::unix::fs::symlink(&running, root.join("bin/epithet")).unwrap();
        assert_eq!(linked(&running, folders()), Some(root.join("bin/epithet")));
    }
}
