//! Logs: one line an event, to stderr or a file, as text or JSON. Whatever an event carries, it stays one line.
//!
//! Commands that serve ([`serving`]) log through a queue: nobody who reads a log, and no disk that holds one, can make
//! them wait. Commands that end write at once.

mod queue;

use crate::cli::{Global, LogFormat};
use crate::config::Common;
use anyhow::Context;
use epithet_wire::limits::LOG_FAREWELL;
use queue::Queue;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::{Layer, layer::SubscriberExt, util::SubscriberInitExt};

/// The queues of this process, for the log and for what is said on stderr, when it serves.
static LOG: OnceLock<Queue> = OnceLock::new();
static STDERR: OnceLock<Queue> = OnceLock::new();

/// Sets up logging for a command that ends by itself. `least` is the level without any `-v`.
pub(crate) fn start(global: &Global, common: &Common, least: LevelFilter) -> anyhow::Result<()> {
    set_up(global, common, least, false)
}

/// Sets up logging, and [`say`], for a command that serves others meanwhile.
pub(crate) fn serving(global: &Global, common: &Common, least: LevelFilter) -> anyhow::Result<()> {
    set_up(global, common, least, true)
}

/// Says a line on stderr. A server does not wait for whoever reads it.
pub(crate) fn say(line: &str) {
    let mut line = line.as_bytes().to_vec();
    line.push(b'\n');
    match STDERR.get() {
        Some(queue) => queue.push(line),
        // Nobody listening on stderr is no reason not to go on.
        None => drop(io::stderr().write_all(&line)),
    }
}

/// Waits a moment for what was logged and said to be written: before the end, and before others write to stderr.
pub(crate) fn flush() {
    for queue in [&LOG, &STDERR].into_iter().filter_map(OnceLock::get) {
        queue.flush(LOG_FAREWELL);
    }
}

/// Logs how many lines there was no room for.
fn tell_lost(lines: u64) {
    tracing::error!(lines, "lines of the log were lost: nothing read them fast enough");
}

fn queued(output: impl Write + Send + 'static) -> anyhow::Result<Queue> {
    Queue::start(output, tell_lost).context("cannot start the thread that writes the log")
}

fn set_up(global: &Global, common: &Common, least: LevelFilter, serves: bool) -> anyhow::Result<()> {
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
    let sink = if serves { in_queue(sink)? } else { sink };
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

/// Puts queues before an output and before stderr, which may be the same.
fn in_queue(sink: Sink) -> anyhow::Result<Sink> {
    let stderr = queued(StandardError)?;
    let log = match sink {
        Sink::File(file) => queued(file)?,
        Sink::Stderr | Sink::Queue(_) => stderr.clone(),
    };
    // A process sets up logging once.
    let _ = STDERR.set(stderr);
    let _ = LOG.set(log.clone());
    Ok(Sink::Queue(log))
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
    Queue(Queue),
}

/// Standard error, taken anew for each line: a broker that goes to the background exchanges it.
struct StandardError;

impl Write for StandardError {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // Not through the standard library, whose lock others would wait for.
        Ok(rustix::io::write(io::stderr(), bytes)?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
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
            Sink::Queue(queue) => queue.push(line),
        }
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
