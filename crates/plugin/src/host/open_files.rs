//! The limit of open files: as high as it goes for this process, which may hold thousands of sockets, and as it was found for
//! the programs that it starts. A program that uses `select(2)` breaks on a descriptor from 1024 on, and some loop over all
//! that there could be.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::io;
use std::sync::OnceLock;

/// The limit that this process was started with; none as long as it has not been changed.
static FOUND: OnceLock<Rlimit> = OnceLock::new();

/// Raises the limit of open files to the highest that this process may have. The plugins that it starts from now on get the
/// limit that was there before.
///
/// # Errors
/// When the system refuses; the limit stays as it is.
pub fn raise_open_files() -> io::Result<()> {
    let found = FOUND.get_or_init(|| getrlimit(Resource::Nofile));
    let raised = Rlimit {
        current: found.maximum,
        maximum: found.maximum,
    };
    Ok(setrlimit(Resource::Nofile, raised)?)
}

/// What a new process does between fork and exec to have the limit that was found: at most one system call.
pub(crate) fn restoration() -> impl Fn() -> io::Result<()> + Send + Sync {
    let found = FOUND.get().copied();
    move || match found {
        Some(found) => Ok(setrlimit(Resource::Nofile, found)?),
        None => Ok(()),
    }
}
