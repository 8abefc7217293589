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

/// What takes a change back.
enum Before {
    /// The file had this content.
    Was(PathBuf, Vec<u8>),
    /// The file was not there.
    NoFile(PathBuf),
    /// The folder was not there.
    NoFolder(PathBuf),
}

impl Before {
    fn path(&self) -> &Path {
        match self {
            Self::Was(path, _) | Self::NoFile(path) | Self::NoFolder(path) => path,
        }
    }
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
                before.path().display()
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
        .map_err(|error| cannot("write into", folder, error).context("nothing was changed"))?;
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
        Change::Folder(path) => make_folder(path, done),
        Change::Write(path, content) => {
            match read(path)? {
                Some(content) => {
                    keep(path, &content, done)?;
                    done.push(Before::Was(path.clone(), content));
                }
                None => done.push(Before::NoFile(path.clone())),
            }
            write(path, content.as_bytes())
        }
        Change::Remove(path) => {
            if let Some(content) = read(path)? {
                done.push(Before::Was(path.clone(), content));
            }
            std::fs::remove_file(path).map_err(|error| cannot("remove", path, error))
        }
        Change::RemoveFolder(path) => match std::fs::remove_dir(path) {
            Err(error) if !matches!(error.kind(), ErrorKind::DirectoryNotEmpty | ErrorKind::NotFound) => {
                Err(cannot("remove", path, error))
            }
            _ => Ok(()),
        },
    }
}

/// Makes a folder and those above it that are not there.
fn make_folder(path: &Path, done: &mut Vec<Before>) -> anyhow::Result<()> {
    let missing: Vec<&Path> = path.ancestors().take_while(|folder| !folder.exists()).collect();
    for folder in missing.into_iter().rev() {
        std::fs::create_dir(folder).map_err(|error| cannot("make", folder, error))?;
        done.push(Before::NoFolder(folder.to_owned()));
        std::fs::set_permissions(folder, Permissions::from_mode(0o755))
            .with_context(|| format!("cannot make {} readable", folder.display()))?;
    }
    Ok(())
}

/// What could not be done to a path, why, and what would help.
fn cannot(what: &str, path: &Path, error: std::io::Error) -> anyhow::Error {
    let remedy = match error.kind() {
        ErrorKind::PermissionDenied => "; run this as root",
        ErrorKind::ReadOnlyFilesystem => {
            "; make it writable first, or do this where the image of this host is made"
        }
        _ => "",
    };
    anyhow::Error::new(error).context(format!("cannot {what} {}{remedy}", path.display()))
}

/// Keeps the first version beside the file.
fn keep(path: &Path, content: &[u8], done: &mut Vec<Before>) -> anyhow::Result<()> {
    let mut kept = path.as_os_str().to_owned();
    kept.push(KEPT);
    let kept = PathBuf::from(kept);
    if kept.exists() {
        return Ok(());
    }
    done.push(Before::NoFile(kept.clone()));
    write_like(&kept, content, path)
}

fn put_back(before: &Before) -> anyhow::Result<()> {
    let removed = match before {
        Before::Was(path, content) => return write(path, content),
        Before::NoFile(path) => std::fs::remove_file(path),
        Before::NoFolder(path) => std::fs::remove_dir(path),
    };
    match removed {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
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
    let failed = |error| cannot("write", path, error);
    // In the same folder, so that it can be renamed, and so that SELinux labels it as that folder's.
    let mut file: NamedTempFile = tempfile::Builder::new()
        .prefix(".epithet-")
        .tempfile_in(folder_of(path))
        .map_err(failed)?;
    file.write_all(content).map_err(failed)?;
    let mode = match std::fs::metadata(like) {
        Ok(metadata) => {
            if rustix::process::geteuid().is_root() {
                std::os::unix::fs::fchown(file.as_file(), Some(metadata.uid()), Some(metadata.gid()))
                    .map_err(failed)?;
            }
            metadata.mode() & 0o7777
        }
        Err(_) => 0o644,
    };
    file.as_file()
        .set_permissions(Permissions::from_mode(mode))
        .map_err(failed)?;
    file.as_file().sync_all().map_err(failed)?;
    file.persist(path).map_err(|error| failed(error.error))?;
    Ok(())
}

fn folder_of(path: &Path) -> &Path {
    path.parent()
        .filter(|folder| !folder.as_os_str().is_empty())
        .unwrap_or(Path::new("."))
}
