//! The log file of a broker that has no terminal.

use crate::cli::{Global, StartOptions};
use crate::config::{self, Config};
use anyhow::Context;
use epithet_wire::ProfileName;
use epithet_wire::limits::BACKGROUND_LOG_MAX;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use tracing_subscriber::filter::LevelFilter;

/// Where the broker logs.
#[derive(Debug)]
pub(crate) struct Log {
    /// The global options with the log file in them.
    pub(crate) global: Global,
    /// The least that is logged.
    pub(crate) least: LevelFilter,
    /// The file, when the broker is in the background.
    pub(crate) path: PathBuf,
}

impl Log {
    /// The file, opened for appending.
    pub(crate) fn file(&self) -> anyhow::Result<File> {
        OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(&self.path)
            .with_context(|| format!("the log file {}", self.path.display()))
    }
}

/// Where this start logs: where it was told to; in the background, else, to a file of the profile's own.
pub(crate) fn log(global: &Global, options: &StartOptions, config: &Config) -> anyhow::Result<Log> {
    let mut log = Log {
        global: global.clone(),
        least: LevelFilter::WARN,
        path: PathBuf::new(),
    };
    if !options.detached {
        return Ok(log);
    }
    super::leave_session();
    log.least = LevelFilter::INFO;
    let named = global.log_file.clone().or_else(|| config.log_file.clone());
    log.path = match named {
        Some(named) => crate::logging::home_expanded(&named)?,
        None => {
            let profile = options.name.clone().or_else(|| config.agent.name.clone());
            let path = path(&profile.unwrap_or_default())?;
            make_room(&path)?;
            path
        }
    };
    log.global.log_file = Some(log.path.clone());
    Ok(log)
}

/// The log file of a profile's broker: below `$XDG_STATE_HOME`, or where macOS keeps logs.
pub(crate) fn path(profile: &ProfileName) -> anyhow::Result<PathBuf> {
    let home = config::home()?;
    let folder = if cfg!(target_os = "macos") {
        home.join("Library/Logs/epithet")
    } else {
        let state = std::env::var_os("XDG_STATE_HOME").map(PathBuf::from);
        let state = state.filter(|path| path.is_absolute());
        state.unwrap_or_else(|| home.join(".local/state")).join("epithet")
    };
    Ok(folder.join(format!("{profile}.log")))
}

/// Makes the folder, and puts a file that has grown large aside, over the one before it.
fn make_room(path: &Path) -> anyhow::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .with_context(|| format!("cannot make the folder {} for the log", folder.display()))?;
    if std::fs::metadata(path).is_ok_and(|file| file.len() > BACKGROUND_LOG_MAX) {
        let older = path.with_extension("log.1");
        std::fs::rename(path, &older)
            .with_context(|| format!("cannot put the log {} aside", path.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_that_has_grown_large_is_put_aside_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state/default.log");
        make_room(&path).unwrap();
        let file = File::create(&path).unwrap();
        file.set_len(BACKGROUND_LOG_MAX).unwrap();
        make_room(&path).unwrap();
        assert!(path.exists());
        file.set_len(BACKGROUND_LOG_MAX + 1).unwrap();
        make_room(&path).unwrap();
        assert!(!path.exists() && path.with_extension("log.1").exists());
    }
}
