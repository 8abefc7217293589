//! Who is asking: is a person at a terminal, are they themselves here by ssh, and which command was it.

use crate::purpose::purpose;
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
    let words = command_line(parent);
    Asker {
        terminal,
        remote_session,
        command: sanitize_line(&words.join(" "), COMMAND_SHOWN),
        process: parent,
        stderr: can_be_lent(std::io::stderr()),
        flow: String::new(),
        agent_socket: own_agent(),
        purpose: purpose(&words),
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
fn command_line(parent: u32) -> Vec<String> {
    let line = std::fs::read(format!("/proc/{parent}/cmdline")).unwrap_or_default();
    let words = line.split(|byte| *byte == 0);
    let mut words: Vec<_> = words
        .map(|word| String::from_utf8_lossy(word).into_owned())
        .collect();
    // The line ends with a NUL, too.
    if words.last().is_some_and(String::is_empty) {
        words.pop();
    }
    words
}

/// The person's own agent as this ssh would use it; empty when there is none.
fn own_agent() -> String {
    let socket = std::env::var("SSH_AUTH_SOCK").unwrap_or_default();
    if socket.starts_with('/') {
        socket
    } else {
        String::new()
    }
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
