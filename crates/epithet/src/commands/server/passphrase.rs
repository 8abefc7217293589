//! Passphrases of encrypted CA keys: from a descriptor, from a file, or from whoever is at the terminal.

use anyhow::Context;
use epithet_wire::SecretBytes;
use epithet_wire::limits::PASSPHRASES_MAX;
use std::fs::File;
use std::io::{IsTerminal, Read, Write};
use std::path::Path;
use tokio_util::sync::CancellationToken;

/// The environment variable that names a file with passphrases, where nobody is at a terminal.
const FILE: &str = "EPITHET_CA_PASSPHRASE_FILE";

/// Where passphrases come from, for one key after the other.
pub(super) struct Passphrases {
    descriptor: Option<u32>,
    /// Ends a question at the terminal: the signals of Ctrl-C are caught by then.
    ending: CancellationToken,
    /// Once read: a line for each key in turn, the last one for all that follow.
    lines: Option<std::collections::VecDeque<SecretBytes>>,
}

/// Where the passphrase of one key comes from.
pub(super) enum Source {
    Given(SecretBytes),
    Terminal(CancellationToken),
}

impl Passphrases {
    /// `descriptor` is that of `--key-passphrase-fd`.
    pub(super) fn new(descriptor: Option<u32>, ending: &CancellationToken) -> Self {
        Self {
            descriptor,
            ending: ending.clone(),
            lines: None,
        }
    }

    /// The source for the next key. What was named is read at once, so that a mistake shows even if no key needs it.
    pub(super) fn next(&mut self) -> anyhow::Result<Source> {
        if self.lines.is_none() {
            self.lines = Some(match (self.descriptor, std::env::var_os(FILE)) {
                (Some(number), _) => {
                    read_descriptor(number).with_context(|| format!("--key-passphrase-fd {number}"))?
                }
                (None, Some(file)) if !file.is_empty() => read(Path::new(&file))
                    .with_context(|| format!("{FILE}: {}", Path::new(&file).display()))?,
                (None, _) => std::collections::VecDeque::new(),
            });
        }
        let lines = self.lines.get_or_insert_default();
        let next = match lines.len() {
            0 => None,
            1 => lines.front().cloned(),
            _ => lines.pop_front(),
        };
        let terminal = || Source::Terminal(self.ending.clone());
        Ok(next.map_or_else(terminal, Source::Given))
    }
}

fn read_descriptor(number: u32) -> anyhow::Result<std::collections::VecDeque<SecretBytes>> {
    let path = format!("/dev/fd/{number}");
    // What is no open descriptor is not there on Linux, and a bad descriptor elsewhere.
    if rustix::fs::stat(&path).is_err() {
        anyhow::bail!(
            "descriptor {number} is not open; open it where the command is started, with {number}<FILE in a shell"
        );
    }
    read(Path::new(&path))
}

fn read(path: &Path) -> anyhow::Result<std::collections::VecDeque<SecretBytes>> {
    let mut text = zeroize::Zeroizing::new(Vec::with_capacity(PASSPHRASES_MAX + 1));
    let limit = u64::try_from(PASSPHRASES_MAX + 1).unwrap_or(u64::MAX);
    File::open(path)?.take(limit).read_to_end(&mut text)?;
    if text.len() > PASSPHRASES_MAX {
        anyhow::bail!("more than {PASSPHRASES_MAX} bytes; write one passphrase a line");
    }
    let text = text.strip_suffix(b"\n").unwrap_or(&text);
    Ok(text.split(|byte| *byte == b'\n').map(without_return).collect())
}

fn without_return(line: &[u8]) -> SecretBytes {
    SecretBytes::new(line.strip_suffix(b"\r").unwrap_or(line).to_vec())
}

impl Source {
    /// Whether asking again may give another answer.
    pub(super) fn is_a_person(&self) -> bool {
        matches!(self, Self::Terminal(_))
    }

    /// The passphrase for the key at `path`; none when there is nobody to ask. Why asking failed goes to `problem`.
    pub(super) fn get(&self, path: &Path, problem: &mut Option<anyhow::Error>) -> Option<SecretBytes> {
        match self {
            Self::Given(passphrase) => Some(passphrase.clone()),
            Self::Terminal(ending) => ask(path, ending).unwrap_or_else(|error| {
                *problem = Some(error);
                None
            }),
        }
    }
}

/// Asks at the terminal, without showing what is typed, until the line is there or the command is to end.
fn ask(path: &Path, ending: &CancellationToken) -> anyhow::Result<Option<SecretBytes>> {
    use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        return Ok(None);
    }
    let shown = tcgetattr(&stdin)?;
    let mut hidden = shown.clone();
    hidden.local_modes.remove(LocalModes::ECHO);
    // First, so that nothing is shown of what is typed as soon as the question is there.
    tcsetattr(&stdin, OptionalActions::Flush, &hidden)?;
    let _ = write!(std::io::stderr(), "Passphrase of the CA key {}: ", path.display());
    let mut text = zeroize::Zeroizing::new(String::with_capacity(1024));
    let read =
        typed(&stdin, ending).and_then(|()| stdin.read_line(&mut text).context("cannot read the passphrase"));
    let _ = tcsetattr(&stdin, OptionalActions::Flush, &shown);
    let _ = writeln!(std::io::stderr());
    read?;
    Ok(Some(without_return(text.trim_end_matches('\n').as_bytes())))
}

/// Waits until a line was typed.
fn typed(terminal: &std::io::Stdin, ending: &CancellationToken) -> anyhow::Result<()> {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let often = Timespec {
        tv_sec: 0,
        tv_nsec: 100_000_000,
    };
    loop {
        if ending.is_cancelled() {
            anyhow::bail!("stopped at the question for the passphrase");
        }
        match poll(&mut [PollFd::new(terminal, PollFlags::IN)], Some(&often)) {
            Ok(0) | Err(rustix::io::Errno::INTR) => {}
            Ok(_) => return Ok(()),
            Err(error) => return Err(error).context("cannot read the passphrase"),
        }
    }
}
