//! Who is asking: is a person at a terminal, are they themselves here by ssh, and which command was it.

use epithet_wire::broker::Asker;
use epithet_wire::display::sanitize_line;
use rustix::fs::FileType;
use std::io::IsTerminal;
use std::os::fd::AsFd;

/// How much of the asking command line is shown to the person.
const COMMAND_SHOWN: usize = 120;

/// Looks at this process's terminal, environment and parent.
pub(crate) fn asker() -> Asker {
    let terminal = std::io::stderr().is_terminal() || std::fs::File::open("/dev/tty").is_ok();
    let remote_session = ["SSH_CONNECTION", "SSH_TTY"]
        .iter()
        .any(|name| std::env::var_os(name).is_some());
    let parent = rustix::process::getppid()
        .and_then(|parent| u32::try_from(parent.as_raw_nonzero().get()).ok())
        .unwrap_or(0);
    Asker {
        terminal,
        remote_session,
        command: asking_command(parent),
        process: parent,
        stderr: can_be_lent(std::io::stderr()),
        flow: String::new(),
    }
}

/// Whether stderr can be in the broker's hands after this process has ended.
///
/// Not a pipe or a socket: whoever reads those to their end (`$(ssh ... 2>&1)`, a program that runs ssh) would wait until the
/// broker lets go of them. Without it the broker answers when the certificate has come or been refused, and says why here.
fn can_be_lent(stderr: impl AsFd) -> bool {
    rustix::fs::fstat(stderr).is_ok_and(|status| {
        !matches!(
            FileType::from_raw_mode(status.st_mode),
            FileType::Fifo | FileType::Socket
        )
    })
}

/// The command line of the parent: the ssh that runs us (the shell between has replaced itself). Empty where unknown.
fn asking_command(parent: u32) -> String {
    let line = std::fs::read(format!("/proc/{parent}/cmdline")).unwrap_or_default();
    let words: Vec<_> = line
        .split(|byte| *byte == 0)
        .map(String::from_utf8_lossy)
        .collect();
    sanitize_line(&words.join(" "), COMMAND_SHOWN)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::OpenOptions;

    #[test]
    fn a_stderr_that_somebody_may_read_to_its_end_is_not_lent() {
        let (_reader, pipe) = std::io::pipe().unwrap();
        let (socket, _peer) = std::os::unix::net::UnixStream::pair().unwrap();
        let null = OpenOptions::new().write(true).open("/dev/null").unwrap();
        assert!(!can_be_lent(pipe));
        assert!(!can_be_lent(socket));
        assert!(can_be_lent(null));
        // Both ends of a terminal are one.
        if let Ok(terminal) = OpenOptions::new().read(true).write(true).open("/dev/ptmx") {
            assert!(can_be_lent(terminal));
        }
    }
}
