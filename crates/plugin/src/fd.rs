//! Descriptors by number, what a new process inherits, and what the system is told about memory: the workspace's
//! `unsafe` code.
//!
//! Plugins are *given* descriptors by number, which Rust's ownership of descriptors cannot express: somebody has to say
//! that number 3 is ours now. The other half, for those who run plugins, is what happens between fork and exec.
#![expect(
    unsafe_code,
    reason = "descriptors are inherited by number, nothing but a pre-exec hook runs between fork and exec, and memory is \
              locked by address"
)]

use crate::{PROGRESS_FD, STATE_FD};
use rustix::fs::{FileType, OFlags};
use rustix::io::FdFlags;
use std::io;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

/// Takes descriptors 3 and 4 over, each if it is what a broker gives, and keeps them from this process's children.
///
/// The second call gives nothing: a descriptor has one owner.
pub(crate) fn adopt_streams() -> (Option<OwnedFd>, Option<OwnedFd>) {
    static ADOPTED: AtomicBool = AtomicBool::new(false);
    if ADOPTED.swap(true, Ordering::SeqCst) {
        return (None, None);
    }
    (adopt(STATE_FD), adopt(PROGRESS_FD))
}

fn adopt(number: RawFd) -> Option<OwnedFd> {
    // SAFETY: the borrow ends with this block. The number may name nothing, which every call below answers with EBADF.
    let given = unsafe { BorrowedFd::borrow_raw(number) };
    if !is_a_stream(given) {
        return None;
    }
    rustix::io::fcntl_setfd(given, FdFlags::CLOEXEC).ok()?;
    // SAFETY: the number is open (it was just examined), `adopt_streams` passes here once per number and process, and it
    // is a pipe, socket or file open for writing: not something the runtime of this process opened for itself.
    Some(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Whether a descriptor is a pipe, a socket or a file, open for writing. An epoll or event descriptor is none of these.
fn is_a_stream(given: BorrowedFd<'_>) -> bool {
    let (Ok(status), Ok(flags)) = (rustix::fs::fstat(given), rustix::fs::fcntl_getfl(given)) else {
        return false;
    };
    let kind = FileType::from_raw_mode(status.st_mode);
    matches!(kind, FileType::Fifo | FileType::Socket | FileType::RegularFile)
        && matches!(flags & OFlags::ACCMODE, OFlags::WRONLY | OFlags::RDWR)
}

/// Takes over the listening Unix socket that a service manager opened for this process, as `sd_listen_fds(3)` tells.
///
/// To be called before this process opens anything itself. The second call gives nothing.
#[cfg(feature = "host")]
pub fn inherited_listener() -> Option<std::os::unix::net::UnixListener> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    let number = |name| std::env::var(name).ok()?.parse::<u32>().ok();
    // The variables go on to children, for whom they are not meant: the process id says for whom.
    let is_for_us = number("LISTEN_PID") == Some(std::process::id()) && number("LISTEN_FDS")? > 0;
    if !is_for_us || TAKEN.swap(true, Ordering::SeqCst) {
        return None;
    }
    // SAFETY: the borrow ends with this block. The number may name nothing, which the calls below answer with EBADF.
    let given = unsafe { BorrowedFd::borrow_raw(FIRST_INHERITED) };
    if !rustix::net::sockopt::socket_acceptconn(given).ok()? {
        return None;
    }
    rustix::io::fcntl_setfd(given, FdFlags::CLOEXEC).ok()?;
    // SAFETY: the number is an open listening socket (it was just asked), whoever started this process says that it is
    // this process's own, and the flag above lets nobody pass here twice.
    let socket = unsafe { OwnedFd::from_raw_fd(FIRST_INHERITED) };
    Some(socket.into())
}

/// The first descriptor that a service manager passes on (`SD_LISTEN_FDS_START`).
#[cfg(feature = "host")]
const FIRST_INHERITED: RawFd = 3;

/// Marks every descriptor from 3 on as not for children: whoever started this process may have left some open.
///
/// For the start of a program that runs others and is not itself a plugin. Standard streams stay as they are.
///
/// # Errors
/// When the list of open descriptors cannot be read.
pub fn close_inherited_on_exec() -> io::Result<()> {
    for entry in std::fs::read_dir("/dev/fd")? {
        let Some(number) = entry?
            .file_name()
            .to_str()
            .and_then(|name| name.parse::<RawFd>().ok())
        else {
            continue;
        };
        if number > 2 {
            // SAFETY: the borrow ends with this statement, and changing a flag of a number that was closed meanwhile
            // fails with EBADF. Nothing in Rust relies on a descriptor surviving exec.
            let _ = rustix::io::fcntl_setfd(unsafe { BorrowedFd::borrow_raw(number) }, FdFlags::CLOEXEC);
        }
    }
    Ok(())
}

/// Has large allocations go back to the system when they are freed. For the start of a program that runs plugins.
///
/// Once glibc has freed a large block it keeps ever larger ones for reuse, and a broker that met one state of 10 MiB stays
/// at many times that for the rest of its life. This pins the threshold at 256 KiB. Elsewhere it does nothing.
#[cfg(feature = "host")]
pub fn return_large_allocations() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: mallopt may be called at any time and touches no memory of ours.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, 256 * 1024);
    }
}

/// Keeps whole pages out of swap. They become resident as they are touched, not before. False when the system refuses,
/// mostly because of the limit of locked memory.
pub(crate) fn lock_pages(pages: &[u8]) -> bool {
    let start = pages.as_ptr().cast_mut().cast();
    // SAFETY: the address and length are those of a borrowed slice, and locking changes neither its content nor who may
    // access it. The same holds for the three functions below.
    #[cfg(target_os = "linux")]
    let locked = unsafe { rustix::mm::mlock_with(start, pages.len(), rustix::mm::MlockFlags::ONFAULT) };
    #[cfg(not(target_os = "linux"))]
    let locked = unsafe { rustix::mm::mlock(start, pages.len()) };
    locked.is_ok()
}

/// Undoes [`lock_pages`].
pub(crate) fn unlock_pages(pages: &[u8]) {
    // SAFETY: see `lock_pages`.
    let _ = unsafe { rustix::mm::munlock(pages.as_ptr().cast_mut().cast(), pages.len()) };
}

/// Keeps whole pages out of core dumps, where the system can.
pub(crate) fn keep_out_of_dumps(pages: &[u8]) {
    #[cfg(target_os = "linux")]
    // SAFETY: see `lock_pages`; this advice is about core dumps only.
    let _ = unsafe {
        rustix::mm::madvise(
            pages.as_ptr().cast_mut().cast(),
            pages.len(),
            rustix::mm::Advice::LinuxDontDump,
        )
    };
    #[cfg(not(target_os = "linux"))]
    let _ = pages;
}

/// Undoes [`keep_out_of_dumps`].
pub(crate) fn let_into_dumps(pages: &[u8]) {
    #[cfg(target_os = "linux")]
    // SAFETY: see `lock_pages`; this advice is about core dumps only.
    let _ = unsafe {
        rustix::mm::madvise(
            pages.as_ptr().cast_mut().cast(),
            pages.len(),
            rustix::mm::Advice::LinuxDoDump,
        )
    };
    #[cfg(not(target_os = "linux"))]
    let _ = pages;
}

/// Whether this process ignores a signal: whoever started it (`nohup`) wants it to go on.
///
/// To be asked before anything listens for that signal.
#[cfg(feature = "host")]
pub fn ignores(signal: rustix::process::Signal) -> bool {
    let mut now = std::mem::MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: with no new disposition, `sigaction` only writes the present one to `now`, which is large enough; all zero
    // is a valid `sigaction`, so it is initialised also when the call fails.
    let now = unsafe {
        libc::sigaction(signal.as_raw(), std::ptr::null(), now.as_mut_ptr());
        now.assume_init()
    };
    now.sa_sigaction == libc::SIG_IGN
}

/// Makes a command start as if from nothing: in a session of its own, with default signals, with the limit of open files that
/// this process was started with, and with no descriptor from `first_closed` on. `announce` runs in the new process just before its program does.
///
/// `announce` must be fit for a forked child of a threaded process: system calls only, no allocation, no lock.
#[cfg(feature = "host")]
pub(crate) fn start_clean(
    command: &mut std::process::Command,
    first_closed: libc::c_uint,
    announce: impl Fn() + Send + Sync + 'static,
) {
    use std::os::unix::process::CommandExt;
    let restore_open_files = crate::host::restoration();
    let hook = move || {
        // Its own session, and with it its own process group: Ctrl-C in the broker's terminal is not for it, and a
        // program that asks a terminal it does not have is told so at once instead of being stopped.
        rustix::process::setsid()?;
        reset_signals();
        restore_open_files()?;
        close_on_exec_from(first_closed);
        announce();
        Ok(())
    };
    // SAFETY: the hook makes system calls only; it neither allocates nor locks. `rustix` and `libc` do not either.
    unsafe {
        command.pre_exec(hook);
    }
}

/// Undoes what exec keeps: ignored signals (a broker started by `nohup`) and blocked ones.
#[cfg(feature = "host")]
fn reset_signals() {
    #[cfg(target_os = "linux")]
    for signal in 1..=64 {
        /// Larger than the kernel's `sigaction` on any architecture; all zero is the default disposition, no flags.
        const DEFAULT: [u64; 8] = [0; 8];
        // SAFETY: reads `DEFAULT` and writes nothing; a default disposition runs no code of ours. By number, because
        // glibc keeps 32 and 33 to itself, and a service manager may leave those ignored. SIGKILL refuses with EINVAL.
        unsafe {
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                DEFAULT.as_ptr(),
                std::ptr::null_mut::<u64>(),
                size_of::<u64>(),
            );
        }
    }
    #[cfg(not(target_os = "linux"))]
    for signal in 1..=31 {
        // SAFETY: a default disposition runs no code of ours. SIGKILL and SIGSTOP refuse with EINVAL.
        unsafe {
            libc::signal(signal, libc::SIG_DFL);
        }
    }
    // SAFETY: `set` is initialised by sigemptyset before sigprocmask reads it, and this process has one thread.
    unsafe {
        let mut set = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
        libc::sigemptyset(set.as_mut_ptr());
        libc::sigprocmask(libc::SIG_SETMASK, set.as_ptr(), std::ptr::null_mut());
    }
}

/// Belt to the braces of every descriptor of ours being close-on-exec: those of libraries and of our own parent.
#[cfg(feature = "host")]
fn close_on_exec_from(first: libc::c_uint) {
    #[cfg(target_os = "linux")]
    // SAFETY: sets a flag on numbers and touches no memory. Kernels before 5.11 refuse, and the braces hold alone.
    unsafe {
        libc::syscall(
            libc::SYS_close_range,
            first,
            libc::c_uint::MAX,
            libc::CLOSE_RANGE_CLOEXEC,
        );
    }
    #[cfg(not(target_os = "linux"))]
    let _ = first;
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn only_a_writable_pipe_socket_or_file_is_a_stream() {
        let (reader, writer) = io::pipe().unwrap();
        let (socket, _peer) = std::os::unix::net::UnixStream::pair().unwrap();
        let file = tempfile::tempfile().unwrap();
        for (is_stream, given) in [
            (true, writer.as_fd()),
            (false, reader.as_fd()),
            (true, socket.as_fd()),
            (true, file.as_fd()),
        ] {
            assert_eq!(is_a_stream(given), is_stream, "{given:?}");
        }
        let null = std::fs::File::create("/dev/null").unwrap();
        assert!(!is_a_stream(null.as_fd()));
        #[cfg(target_os = "linux")]
        {
            use rustix::event::{EventfdFlags, epoll, eventfd};
            assert!(!is_a_stream(
                epoll::create(epoll::CreateFlags::CLOEXEC).unwrap().as_fd()
            ));
            assert!(!is_a_stream(eventfd(0, EventfdFlags::CLOEXEC).unwrap().as_fd()));
        }
    }

    #[test]
    fn a_number_that_names_nothing_is_no_stream() {
        // SAFETY: as in `adopt`; no process has this many descriptors.
        assert!(!is_a_stream(unsafe { BorrowedFd::borrow_raw(1_000_000_000) }));
    }

    #[test]
    fn inherited_descriptors_are_closed_on_exec() {
        let (_reader, writer) = io::pipe().unwrap();
        rustix::io::fcntl_setfd(&writer, FdFlags::empty()).unwrap();
        close_inherited_on_exec().unwrap();
        assert_eq!(rustix::io::fcntl_getfd(&writer).unwrap(), FdFlags::CLOEXEC);
    }
}
