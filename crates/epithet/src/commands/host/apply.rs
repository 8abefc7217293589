//! Carrying a plan out: every file whole or not at all, and all of it or nothing.
//!
//! `sshd -t` sees the new settings before a file is touched, and the real files afterwards. When it does not agree, or
//! anything else fails on the way, everything is put back.

use super::plan::{Change, Plan};
use super::sshd::Sshd;
use anyhow::{Context, bail};
use std::fs::Permissions;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use tempfile::NamedTempFile;

/// What the first copy of a changed file is called.
const KEPT: &str = ".before-epithet";

/// A file as it was before.
struct Before {
    path: PathBuf,
    /// None when it was not there.
    content: Option<Vec<u8>>,
}

/// Carries the plan out, or changes nothing and says why.
pub(super) fn apply(plan: &Plan, sshd: &Sshd) -> anyhow::Result<()> {
    if let Some(candidate) = &plan.candidate {
        try_out(candidate, sshd)?;
    }
    let mut done = Vec::new();
    let result = plan
        .changes
        .iter()
        .try_for_each(|change| perform(change, &mut done))
        .and_then(|()| confirm(plan, sshd));
    let Err(error) = result else {
        return Ok(());
    };
    for before in done.iter().rev() {
        put_back(before).with_context(|| {
            format!(
                "{error:#}; and then {} could not be put back",
                before.path.display()
            )
        })?;
    }
    Err(error.context("nothing was changed"))
}

/// Lets sshd look at the settings in a file that nobody uses.
fn try_out(candidate: &str, sshd: &Sshd) -> anyhow::Result<()> {
    let folder = folder_of(sshd.config());
    let mut file = tempfile::Builder::new()
        .prefix(".epithet-")
        .tempfile_in(folder)
        .with_context(|| format!("cannot write into {}; run this as root", folder.display()))?;
    file.write_all(candidate.as_bytes())
        .context("cannot write a configuration to try")?;
    match sshd.test_file(file.path())? {
        Ok(()) => Ok(()),
        Err(said) => bail!("sshd does not take the new settings, and nothing was changed: {said}"),
    }
}

/// sshd agrees with the files as they are now, and trusts the keys.
fn confirm(plan: &Plan, sshd: &Sshd) -> anyhow::Result<()> {
    if let Err(said) = sshd.test()? {
        bail!("sshd does not take the new configuration: {said}");
    }
    let Some(wanted) = &plan.trusts else {
        return Ok(());
    };
    let settings = sshd
        .settings(None)?
        .map_err(|said| anyhow::anyhow!("sshd does not say its settings: {said}"))?;
    match settings.path("trustedusercakeys") {
        Some(file) if file == *wanted => Ok(()),
        other => bail!(
            "sshd still takes TrustedUserCAKeys {} and not {}: an earlier line in its configuration wins",
            other.map_or("none".to_owned(), |file| file.display().to_string()),
            wanted.display()
        ),
    }
}

fn perform(change: &Change, done: &mut Vec<Before>) -> anyhow::Result<()> {
    match change {
        Change::Folder(path) => {
            std::fs::create_dir_all(path).with_context(|| format!("cannot make {}", path.display()))?;
            std::fs::set_permissions(path, Permissions::from_mode(0o755))
                .with_context(|| format!("cannot make {} readable", path.display()))
        }
        Change::Write(path, content) => {
            let before = read(path)?;
            if let Some(content) = &before {
                keep(path, content)?;
            }
            done.push(Before {
                path: path.clone(),
                content: before,
            });
            write(path, content.as_bytes())
        }
        Change::Remove(path) => {
            done.push(Before {
                path: path.clone(),
                content: read(path)?,
            });
            std::fs::remove_file(path).with_context(|| format!("cannot remove {}", path.display()))
        }
        Change::RemoveFolder(path) => match std::fs::remove_dir(path) {
            Err(error) if !matches!(error.kind(), ErrorKind::DirectoryNotEmpty | ErrorKind::NotFound) => {
                Err(error).with_context(|| format!("cannot remove {}", path.display()))
            }
            _ => Ok(()),
        },
    }
}

/// Keeps the first version beside the file.
fn keep(path: &Path, content: &[u8]) -> anyhow::Result<()> {
    let mut kept = path.as_os_str().to_owned();
    kept.push(KEPT);
    let kept = PathBuf::from(kept);
    if kept.exists() {
        return Ok(());
    }
    write_like(&kept, content, path)
}

fn put_back(before: &Before) -> anyhow::Result<()> {
    match &before.content {
        Some(content) => write(&before.path, content),
        None => match std::fs::remove_file(&before.path) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        },
    }
}

fn read(path: &Path) -> anyhow::Result<Option<Vec<u8>>> {
    match std::fs::read(path) {
        Ok(content) => Ok(Some(content)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

/// Writes a file as a whole: owner and mode stay; a new one is everybody's to read.
fn write(path: &Path, content: &[u8]) -> anyhow::Result<()> {
    write_like(path, content, path)
}

/// Writes a file with the owner and the mode of another one, if that is there.
fn write_like(path: &Path, content: &[u8], like: &Path) -> anyhow::Result<()> {
    let failed = || format!("cannot write {}; run this as root", path.display());
    // In the same folder, so that it can be renamed, and so that SELinux labels it as that folder's.
    let mut file: NamedTempFile = tempfile::Builder::new()
        .prefix(".epithet-")
        .tempfile_in(folder_of(path))
        .with_context(failed)?;
    file.write_all(content).with_context(failed)?;
    let mode = match std::fs::metadata(like) {
        Ok(metadata) => {
            if rustix::process::geteuid().is_root() {
                std::os::unix::fs::fchown(file.as_file(), Some(metadata.uid()), Some(metadata.gid()))
                    .with_context(failed)?;
            }
            metadata.mode() & 0o7777
        }
        Err(_) => 0o644,
    };
    file.as_file()
        .set_permissions(Permissions::from_mode(mode))
        .with_context(failed)?;
    file.as_file().sync_all().with_context(failed)?;
    file.persist(path)
        .map_err(|error| error.error)
        .with_context(failed)?;
    Ok(())
}

fn folder_of(path: &Path) -> &Path {
    path.parent()
        .filter(|folder| !folder.as_os_str().is_empty())
        .unwrap_or(Path::new("."))
}
