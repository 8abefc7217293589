//! The plugin's side: six functions and a question.

use crate::directive::{self, CAN_LOG_OUT, PASTE};
use crate::fd;
use crate::invocation::Invocation;
use crate::secret_buffer::SecretBuffer;
use crate::{STATE_MAX, TOKEN_MAX};
use std::fs::File;
use std::io::{self, IsTerminal, Read, Write};
use std::os::fd::AsFd;
use std::sync::{Mutex, OnceLock, PoisonError};
use zeroize::Zeroizing;

/// Descriptors 3 and 4, if this process was given them.
struct Streams {
    /// Taken, and with it closed, by [`finish`].
    state: Mutex<Option<File>>,
    progress: Option<File>,
}

/// Adopts the streams the first time any function of the plugin's side is called.
fn streams() -> &'static Streams {
    static STREAMS: OnceLock<Streams> = OnceLock::new();
    STREAMS.get_or_init(|| {
        let (state, progress) = fd::adopt_streams();
        Streams {
            state: Mutex::new(state.map(File::from)),
            progress: progress.map(File::from),
        }
    })
}

/// Whether this process was started as a plugin: descriptor 3 is a pipe, a socket or a file open for writing.
///
/// Ask before the program opens anything, an asynchronous runtime included: what is given the number 3 later is not
/// the broker's.
pub fn is_plugin() -> bool {
    streams()
        .state
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .is_some()
}

/// What the last successful run gave to [`finish`], byte for byte; empty the first time.
///
/// Reads stdin to its end. Empty as well when stdin is a terminal, so that a plugin can be tried by hand.
///
/// # Errors
/// When stdin cannot be read, or holds more than [`STATE_MAX`] bytes (no broker sends that).
pub fn read_state() -> io::Result<Zeroizing<Vec<u8>>> {
    streams();
    let stdin = io::stdin();
    if stdin.is_terminal() {
        return Ok(Zeroizing::default());
    }
    read_all(stdin.lock())
}

fn read_all(mut input: impl Read) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut buffer = SecretBuffer::new(STATE_MAX);
    loop {
        match input.read(buffer.room()) {
            Ok(0) => return Ok(Zeroizing::new(buffer.to_exact())),
            Ok(read) => buffer.filled(read).map_err(|_| {
                io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!("the state on stdin is larger than {STATE_MAX} bytes"),
                )
            })?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Tells the person who waits what is going on: one line, shown live on their terminal.
///
/// Best effort: a line that nobody can read is not an error. Without a broker that shows progress it goes to stderr.
pub fn progress(line: &str) {
    let line = format!("{}\n", line.trim_end_matches('\n'));
    // Nothing can be done about a person who cannot be told.
    let _ = match streams().progress.as_ref() {
        Some(mut stream) => stream.write_all(line.as_bytes()),
        None => io::stderr().write_all(line.as_bytes()),
    };
}

/// Tells the broker that this plugin understands `EPITHET_ACTION=logout`: see [`Action`](crate::Action).
///
/// `epithet logout` then runs it once more with the state of this run. Without a broker that understands, it does nothing.
pub fn offer_log_out() {
    direct(CAN_LOG_OUT, None);
}

/// Tells the broker that an address which the person pastes may be delivered to `url`: `http://127.0.0.1:PORT/path`, or
/// the same with `[::1]` or `localhost`.
///
/// Whoever waits at a terminal can then paste the address on which their browser ended, wherever that runs. It comes as a
/// GET for `url` with the query of the pasted address, which has `state` and one of `code` and `error`; trust it no more
/// than a request of a browser. A later offer takes the place of an earlier one. Does nothing without a broker that
/// understands, or when `url` is no such address (the broker checks).
pub fn offer_paste(url: &str) {
    direct(PASTE, Some(url));
}

/// Writes a directive, where somebody understands it and does not show it.
fn direct(name: &str, argument: Option<&str>) {
    if Invocation::from_env().is_none() {
        return;
    }
    if let (Some(mut stream), Some(line)) = (streams().progress.as_ref(), directive::line(name, argument)) {
        // Best effort, as all progress.
        let _ = stream.write_all(line.as_bytes());
    }
}

/// Hands token and new state to the broker. Return from `main` with success right after.
///
/// The state replaces the old one, also when it is empty. Call it once; print nothing else to stdout.
///
/// # Errors
/// - [`InvalidInput`](io::ErrorKind::InvalidInput) when the token is empty or larger than [`TOKEN_MAX`], or the state is
///   larger than [`STATE_MAX`]; nothing was written then;
/// - [`NotConnected`](io::ErrorKind::NotConnected) when there is state but no descriptor 3 to write it to;
/// - whatever writing to the broker's pipes says. Exit with a failure then: half a token must not count.
pub fn finish(token: &[u8], state: &[u8]) -> io::Result<()> {
    let stream = streams()
        .state
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .take();
    deliver(token, state, stream, io::stdout())
}

fn deliver(
    token: &[u8],
    state: &[u8],
    state_stream: Option<impl Write>,
    mut token_stream: impl Write,
) -> io::Result<()> {
    let refuse = |why: String| Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    if token.is_empty() {
        return refuse("the token is empty".to_owned());
    }
    if token.len() > TOKEN_MAX {
        return refuse(format!("the token is larger than {TOKEN_MAX} bytes"));
    }
    if state.len() > STATE_MAX {
        return refuse(format!("the state is larger than {STATE_MAX} bytes"));
    }
    match state_stream {
        Some(mut stream) => {
            stream.write_all(state)?;
            stream.flush()?;
        }
        None if state.is_empty() => {}
        None => {
            return Err(io::Error::new(
                io::ErrorKind::NotConnected,
                "descriptor 3 is not open for the new state; try the plugin with: epithet plugin run -- COMMAND",
            ));
        }
    }
    token_stream.write_all(token)?;
    token_stream.flush()
}

/// Keeps stdout and descriptors 3 and 4 out of the programs this plugin starts from now on.
///
/// A browser that inherits them holds the login open until it is closed, and what it prints becomes part of the token.
/// Give such a program its own streams (`Stdio::null()`): its stdout is closed otherwise.
///
/// # Errors
/// When the descriptors cannot be changed, which does not happen to open ones.
pub fn keep_streams_from_children() -> io::Result<()> {
    // Descriptors 3 and 4 were marked when they were adopted.
    streams();
    let stdout = io::stdout();
    rustix::io::fcntl_setfd(stdout.as_fd(), rustix::io::FdFlags::CLOEXEC)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delivered(token: &[u8], state: &[u8]) -> io::Result<(Vec<u8>, Vec<u8>)> {
        let (mut to_stdout, mut to_state) = (Vec::new(), Vec::new());
        deliver(token, state, Some(&mut to_state), &mut to_stdout)?;
        Ok((to_stdout, to_state))
    }

    #[test]
    fn token_and_state_are_delivered_byte_for_byte_up_to_their_limits() {
        let every_byte: Vec<u8> = (0..=255).collect();
        assert_eq!(
            delivered(&every_byte, &every_byte).unwrap(),
            (every_byte.clone(), every_byte)
        );
        assert_eq!(delivered(b"t", b"").unwrap(), (b"t".to_vec(), vec![]));
        let largest = (vec![b't'; TOKEN_MAX], vec![b's'; STATE_MAX]);
        assert!(delivered(&largest.0, &largest.1).is_ok());
    }

    #[test]
    fn what_the_broker_would_refuse_is_not_written_at_all() {
        let (token, state) = (vec![b't'; TOKEN_MAX + 1], vec![b's'; STATE_MAX + 1]);
        for (token, state) in [
            (&b""[..], &b"state"[..]),
            (&token[..], b"state"),
            (b"token", &state[..]),
        ] {
            let (mut to_stdout, mut to_state) = (Vec::new(), Vec::new());
            let error = deliver(token, state, Some(&mut to_state), &mut to_stdout).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
            assert_eq!((to_stdout.len(), to_state.len()), (0, 0));
        }
    }

    #[test]
    fn state_without_descriptor_3_is_an_error_and_no_state_is_not() {
        let mut stdout = Vec::new();
        let error = deliver(b"token", b"state", None::<Vec<u8>>, &mut stdout).unwrap_err();
        assert_eq!((error.kind(), stdout.len()), (io::ErrorKind::NotConnected, 0));
        deliver(b"token", b"", None::<Vec<u8>>, &mut stdout).unwrap();
        assert_eq!(stdout, b"token");
    }

    #[test]
    fn state_is_read_whole_up_to_the_limit_and_not_a_byte_more() {
        let largest = vec![0xff; STATE_MAX + 1];
        assert_eq!(read_all(&largest[..STATE_MAX]).unwrap().len(), STATE_MAX);
        assert_eq!(
            read_all(&largest[..]).unwrap_err().kind(),
            io::ErrorKind::InvalidData
        );
    }
}
