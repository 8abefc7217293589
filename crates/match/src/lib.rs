//! `epithet match`: the question ssh asks before every connection, and the client side of the broker's socket.
//!
//! ssh waits for this program on every invocation, so it starts no runtime and no thread and reads no configuration.
//! ssh aborts when the program it runs here dies by a signal, so this one never panics outwards, never dies of a closed
//! stderr, and turns every catchable signal into an ordinary "no".

mod arguments;
mod asker;
mod client;
mod follow;
mod paste;
mod purpose;
mod question;
mod terminal;

pub use arguments::{HELP, Options, UsageError, Wanted};
pub use client::{BrokerClient, ClientError};
pub use follow::follow;
pub use question::ask;

use std::ffi::OsString;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// ssh may use the agent: it is listening.
pub const EXIT_ALLOW: u8 = 0;
/// ssh goes on as if Epithet were not there.
pub const EXIT_DENY: u8 = 1;
/// The command line is wrong; for ssh the same as [`EXIT_DENY`].
pub const EXIT_USAGE: u8 = 80;

/// Runs `epithet match` with the arguments that follow the command's name, and says the exit code.
///
/// Everything for the person goes to stderr as it comes. Nothing else is written anywhere.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> u8 {
    turn_signals_into_denials();
    std::panic::set_hook(Box::new(|_| {}));
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let answer = std::panic::catch_unwind(move || match Options::parse(arguments) {
        Ok(Wanted::Answer(options)) => ask(&options),
        Ok(Wanted::Help) => print(HELP),
        Ok(Wanted::Version) => print(concat!("epithet-match ", env!("CARGO_PKG_VERSION"), "\n")),
        Err(error) => {
            say(&format!("epithet match: {error}\ntry: epithet match --help\n"));
            EXIT_USAGE
        }
    });
    answer.unwrap_or_else(|_| {
        say("epithet match: internal error; ssh goes on without Epithet\n");
        EXIT_DENY
    })
}

/// Writes to stdout; a closed one is no error.
fn print(text: &str) -> u8 {
    let _ = std::io::stdout().write_all(text.as_bytes());
    EXIT_ALLOW
}

/// Makes every signal that would end the process end it with [`EXIT_DENY`] instead.
fn turn_signals_into_denials() {
    use signal_hook::consts::{SIGALRM, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};
    let always = Arc::new(AtomicBool::new(true));
    for signal in [SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGALRM, SIGUSR1, SIGUSR2] {
        // A signal that cannot be caught keeps its default; there is nobody to tell.
        let _ =
            signal_hook::flag::register_conditional_shutdown(signal, EXIT_DENY.into(), Arc::clone(&always));
    }
}

/// Writes to stderr, whatever became of it: a closed terminal is not an error here.
pub(crate) fn say(text: &str) {
    let _ = std::io::stderr().write_all(text.as_bytes());
}
