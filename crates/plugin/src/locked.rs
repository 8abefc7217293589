//! Memory for secrets: wiped when it is given back, kept out of swap as far as the limit of locked memory allows
//! (`ulimit -l`, usually 8 MiB), and kept out of core dumps.
//!
//! Every buffer has pages of its own, so that locking and unlocking one never concerns another. What cannot be locked is
//! used all the same; [`locked_memory`] tells how much that is.

use crate::fd;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use zeroize::Zeroize;

/// When a whole buffer is over the limit, it is locked piece by piece up to the limit.
const PIECE: usize = 64 * 1024;

/// Bytes in buffers, and those of them that are locked.
static HELD: AtomicUsize = AtomicUsize::new(0);
static LOCKED: AtomicUsize = AtomicUsize::new(0);
/// Whether everything in this process is locked anyway. Unlocking a buffer would then open a hole.
static WHOLE_PROCESS: AtomicBool = AtomicBool::new(false);

/// How much of what this process keeps for plugins (state, tokens, and either while it is read) is locked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LockedMemory {
    /// Bytes of buffers in use.
    pub held: usize,
    /// How many of them are kept out of swap.
    pub locked: usize,
}

/// How much is held and locked right now.
pub fn locked_memory() -> LockedMemory {
    let held = HELD.load(Ordering::Relaxed);
    let locked = match WHOLE_PROCESS.load(Ordering::Relaxed) {
        true => held,
        false => LOCKED.load(Ordering::Relaxed).min(held),
    };
    LockedMemory { held, locked }
}

/// Keeps everything in memory out of swap, where there is no limit of locked memory. For the start of a process, before
/// it has any secret. With a limit, a later allocation would fail, so nothing is done: buffers are then locked one by one.
///
/// # Errors
/// When the system refuses although there is no limit.
#[cfg(feature = "host")]
pub fn lock_process_memory() -> std::io::Result<()> {
    #[cfg(target_os = "linux")]
    if rustix::process::getrlimit(rustix::process::Resource::Memlock)
        .current
        .is_none()
    {
        use rustix::mm::{MlockAllFlags, mlockall};
        // Pages are locked as they are touched: nothing is made resident that would not be.
        mlockall(MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT)?;
        WHOLE_PROCESS.store(true, Ordering::Relaxed);
    }
    Ok(())
}

/// A number of bytes, zero at first, on pages of their own.
pub(crate) struct LockedBuffer {
    /// The pages, with room in front of them up to the first page's beginning.
    allocation: Vec<u8>,
    bytes: Range<usize>,
    pages: Range<usize>,
    locked: usize,
}

impl LockedBuffer {
    pub(crate) fn zeroed(size: usize) -> Self {
        let mut buffer = Self {
            allocation: Vec::new(),
            bytes: 0..0,
            pages: 0..0,
            locked: 0,
        };
        if size == 0 {
            return buffer;
        }
        let page = rustix::param::page_size();
        let whole = size.next_multiple_of(page);
        buffer.allocation = vec![0; whole + page];
        let address = buffer.allocation.as_ptr().addr();
        let start = address.next_multiple_of(page) - address;
        buffer.bytes = start..start + size;
        buffer.pages = start..start + whole;
        HELD.fetch_add(size, Ordering::Relaxed);
        buffer.lock();
        buffer
    }

    fn lock(&mut self) {
        let pages = &self.allocation[self.pages.clone()];
        fd::keep_out_of_dumps(pages);
        if WHOLE_PROCESS.load(Ordering::Relaxed) {
            return;
        }
        self.locked = match fd::lock_pages(pages) {
            true => pages.len(),
            false => {
                let pieces = pages.chunks(PIECE).take_while(|piece| fd::lock_pages(piece));
                pieces.map(<[u8]>::len).sum()
            }
        };
        LOCKED.fetch_add(self.locked_bytes(), Ordering::Relaxed);
    }

    /// How many of the bytes, not of the pages, are locked.
    fn locked_bytes(&self) -> usize {
        self.locked.min(self.bytes.len())
    }

    pub(crate) fn as_slice(&self) -> &[u8] {
        &self.allocation[self.bytes.clone()]
    }

    pub(crate) fn as_mut_slice(&mut self) -> &mut [u8] {
        &mut self.allocation[self.bytes.clone()]
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }
}

impl Drop for LockedBuffer {
    fn drop(&mut self) {
        self.as_mut_slice().zeroize();
        if self.bytes.is_empty() {
            return;
        }
        let pages = &self.allocation[self.pages.clone()];
        if self.locked > 0 {
            fd::unlock_pages(&pages[..self.locked]);
        }
        fd::let_into_dumps(pages);
        LOCKED.fetch_sub(self.locked_bytes(), Ordering::Relaxed);
        HELD.fetch_sub(self.bytes.len(), Ordering::Relaxed);
    }
}

#[cfg(feature = "host")]
impl epithet_wire::SecretStorage for LockedBuffer {
    fn bytes(&self) -> &[u8] {
        self.as_slice()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_has_pages_of_its_own_and_exactly_its_size() {
        let page = rustix::param::page_size();
        for size in [0, 1, page - 1, page, page + 1, 3 * page] {
            let mut buffer = LockedBuffer::zeroed(size);
            assert_eq!((buffer.len(), buffer.as_slice().len()), (size, size));
            assert!(buffer.as_slice().iter().all(|byte| *byte == 0));
            buffer.as_mut_slice().fill(7);
            if size > 0 {
                assert_eq!(buffer.as_slice().as_ptr().addr() % page, 0);
                assert!(buffer.pages.end <= buffer.allocation.len());
                assert_eq!(buffer.pages.len() % page, 0);
            }
        }
    }

    /// Reads how much this process has locked, in bytes.
    #[cfg(target_os = "linux")]
    fn system_says() -> usize {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmLck:"))
            .unwrap();
        let kibibytes: usize = line.trim().trim_end_matches(" kB").parse().unwrap();
        kibibytes * 1024
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn what_is_held_is_locked_up_to_the_limit_and_unlocked_when_it_goes() {
        // A process of its own (nextest), so that the figures are this test's; elsewhere others only add to them.
        let limit = rustix::process::getrlimit(rustix::process::Resource::Memlock);
        let small = LockedBuffer::zeroed(100_000);
        let limit = limit
            .current
            .map_or(usize::MAX, |bytes| usize::try_from(bytes).unwrap());
        if limit < 1024 * 1024 {
            return;
        }
        assert!(locked_memory().locked >= 100_000);
        assert!(system_says() >= 100_000);
        drop(small);
        if limit < 64 * 1024 * 1024 {
            let large = LockedBuffer::zeroed(limit + 1024 * 1024);
            // The limit does not hold for the superuser (CAP_IPC_LOCK): there, all of it may be locked.
            let is_root = rustix::process::geteuid().is_root();
            if !(is_root && large.locked == large.pages.len()) {
                assert!(
                    large.locked > 0 && large.locked < large.len(),
                    "partly: {}",
                    large.locked
                );
                assert!(locked_memory().locked < locked_memory().held);
            }
            drop(large);
        }
        let again = LockedBuffer::zeroed(100_000);
        assert_eq!(again.locked_bytes(), 100_000, "what went has been unlocked");
    }
}
