//! Who is asking: is a person at a terminal, are they themselves here by ssh, and which command was it.

use epithet_wire::broker::Asker;
use epithet_wire::display::sanitize_line;
use std::io::IsTerminal;

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
        stderr: true,
        paste: false,
    }
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
