//! The auth plugin protocol, both ends.
//!
//! An auth plugin is any program that logs a person in. The broker runs it when it needs a token and knows nothing
//! about identity but what the plugin says:
//!
//! | fd | direction | content | rule |
//! |---|---|---|---|
//! | 0 | in | the state of the last successful run, byte for byte; empty at first | may be left unread |
//! | 1 | out | the token, raw bytes, 1 to [`TOKEN_MAX`] | nothing else may be printed there |
//! | 2 | out | messages and errors for a person | part of the error when the run fails |
//! | 3 | out | new state, 0 to [`STATE_MAX`] bytes | replaces the old state when the run succeeds, also when empty |
//! | 4 | out | optional: progress for the person who waits | shown live |
//!
//! Exit status 0 is success; anything else is failure and changes nothing. What the login is for is in the
//! environment: see [`Invocation`].
//!
//! # Writing a plugin
//!
//! ```no_run
//! fn main() -> std::io::Result<()> {
//!     let state = epithet_plugin::read_state()?;
//!     epithet_plugin::progress(if state.is_empty() { "logging in" } else { "refreshing the login" });
//!     // ... ask whoever knows the person ...
//!     epithet_plugin::finish(b"the token", b"what the next run wants to know")
//! }
//! ```
//!
//! Call one of this crate's functions (or [`is_plugin`]) first thing in `main`: descriptors 3 and 4 are adopted
//! then, before anything else in the program can be given those numbers.
//!
//! # Directives
//!
//! A line on fd 4 that begins with [`#epithet: `](DIRECTIVE_PREFIX) is for the broker and never shown; an unknown one is
//! ignored. There are two, written only when `EPITHET_PROTOCOL` is set:
//!
//! | line | meaning | function |
//! |---|---|---|
//! | `#epithet: can-log-out` | this plugin understands `EPITHET_ACTION=logout` | [`offer_log_out`] |
//! | `#epithet: paste URL` | a pasted address may be delivered to this loopback URL | [`offer_paste`] |
//!
//! A plugin that offered to log out is run by `epithet logout` with `EPITHET_ACTION=logout` ([`Action`]) and its state on
//! stdin: it revokes what the state stands for, says on fd 4 or stderr what came of it, and exits 0 or not. No token.
//!
//! # Running a plugin
//!
//! With the feature `host`: `Runner` runs a plugin so that nothing it does can hang, flood or outlive its caller,
//! `Guard` ends plugins when the broker is killed, and `check` tells a plugin's author what is wrong with it.

mod directive;
mod fd;
mod guest;
mod invocation;
mod locked;
mod secret_buffer;

pub use directive::{Action, DIRECTIVE_PREFIX};
pub use fd::close_inherited_on_exec;
#[cfg(feature = "host")]
pub use fd::{ignores, inherited_listener, return_large_allocations};
pub use guest::{
    finish, is_plugin, keep_streams_from_children, offer_log_out, offer_paste, progress, read_state,
};
pub use invocation::Invocation;
#[cfg(feature = "host")]
pub use locked::lock_process_memory;
pub use locked::{LockedMemory, locked_memory};

#[cfg(feature = "host")]
pub mod check;
#[cfg(feature = "host")]
mod host;
#[cfg(feature = "host")]
pub use host::*;

/// The protocol's version, as plugins find it in `EPITHET_PROTOCOL`.
pub const PROTOCOL: &str = "1";
/// The most bytes of state that a run may leave on fd 3: 10 MiB, inclusive.
pub const STATE_MAX: usize = 10 * 1024 * 1024;
/// The most bytes of a token on stdout: 64 KiB, inclusive.
pub const TOKEN_MAX: usize = 64 * 1024;
/// Where a plugin writes its new state.
pub const STATE_FD: i32 = 3;
/// Where a plugin writes progress.
pub const PROGRESS_FD: i32 = 4;
