//! Logs: one line an event, to stderr or a file, as text or JSON. Whatever an event carries, it stays one line.

use crate::cli::{Global, LogFormat};
use crate::config::Common;
use anyhow::Context;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::{Layer, layer::SubscriberExt, util::SubscriberInitExt};

/// Sets up logging for the whole process. `least` is the level without any `-v`.
pub(crate) fn start(global: &Global, common: &Common, least: LevelFilter) -> anyhow::Result<()> {
    let level = match (global.verbose.max(common.verbose.unwrap_or(0)), least) {
        (0, least) => least,
        (1, _) => LevelFilter::INFO,
        (2, _) => LevelFilter::DEBUG,
        _ => LevelFilter::TRACE,
    };
    let sink = match global.log_file.as_ref().or(common.log_file.as_ref()) {
        Some(path) => Sink::File(Arc::new(open(&home_expanded(path)?)?)),
        None => Sink::Stderr,
    };
    let ours = tracing_subscriber::filter::filter_fn(|metadata| metadata.target().starts_with("epithet"));
    let registry = tracing_subscriber::registry();
    let format = global.log_format.or(common.log_format).unwrap_or(LogFormat::Text);
    let layer = tracing_subscriber::fmt::layer()
        .with_ansi(false)
        .with_writer(sink);
    match format {
        LogFormat::Text => registry
            .with(layer.with_target(false).with_filter(level).with_filter(ours))
            .init(),
        LogFormat::Json => registry
            .with(layer.json().with_filter(level).with_filter(ours))
            .init(),
    }
    Ok(())
}

/// Opens the log file for appending, for its owner only; its directory is made when it is missing.
fn open(path: &Path) -> anyhow::Result<File> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    if let Some(parent) = parent {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(parent)
            .with_context(|| format!("--log-file {}: cannot make its directory", path.display()))?;
    }
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)
        .with_context(|| format!("--log-file {}: cannot open it", path.display()))
}

/// Replaces a leading `~/` by the home directory; `~user` is refused rather than misread.
pub(crate) fn home_expanded(path: &Path) -> anyhow::Result<PathBuf> {
    let Some(text) = path.to_str().filter(|text| text.starts_with('~')) else {
        return Ok(path.to_owned());
    };
    match text.strip_prefix("~/") {
        Some(rest) => Ok(crate::config::home()?.join(rest)),
        None if text == "~" => crate::config::home(),
        None => {
            anyhow::bail!("{text}: only `~/` is understood, not another user's home; write the whole path")
        }
    }
}

/// Where lines go.
#[derive(Clone)]
enum Sink {
    Stderr,
    File(Arc<File>),
}

impl<'a> MakeWriter<'a> for Sink {
    type Writer = OneLine;
    fn make_writer(&'a self) -> OneLine {
        OneLine { sink: self.clone() }
    }
}

/// Writes an event as one line: control characters within it, line ends too, become `\x..`.
struct OneLine {
    sink: Sink,
}

impl Write for OneLine {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let mut line = Vec::with_capacity(event.len() + 1);
        let (body, end) = event
            .strip_suffix(b"\n")
            .map_or((event, &b""[..]), |body| (body, b"\n"));
        for byte in body {
            match byte {
                b'\t' => line.push(b'\t'),
                0..0x20 | 0x7f => write!(line, "\\x{byte:02x}")?,
                _ => line.push(*byte),
            }
        }
        line.extend_from_slice(end);
        match &self.sink {
            Sink::Stderr => io::stderr().write_all(&line)?,
            Sink::File(file) => (&**file).write_all(&line)?,
        }
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
