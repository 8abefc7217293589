//! What a process that holds keys and tokens does before it gets any: no core, no other process looking in, no
//! descriptor of somebody else's, files for its owner only.

use rustix::process::{
    DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit, umask,
};

/// Closes the doors. Failures are logged and not fatal: a container may forbid a step that it has done itself.
pub fn harden() {
    umask(rustix::fs::Mode::from_raw_mode(0o077));
    if let Err(error) = setrlimit(
        Resource::Core,
        Rlimit {
            current: Some(0),
            maximum: Some(0),
        },
    ) {
        tracing::warn!(%error, "core dumps cannot be turned off");
    }
    #[cfg(target_os = "linux")]
    if let Err(error) = set_dumpable_behavior(DumpableBehavior::NotDumpable) {
        tracing::warn!(%error, "other processes of yours can read this one's memory");
    }
    lock_memory();
    // A plugin's large state goes back to the system when it is freed.
    epithet_plugin::return_large_allocations();
    if let Err(error) = epithet_plugin::close_inherited_on_exec() {
        tracing::warn!(%error, "files that were open when this process started may be seen by auth plugins");
    }
}

/// Keeps everything in memory out of swap, where the limit of locked memory allows that for a whole process.
///
/// With a smaller limit, locking what is there would make a later allocation fail, so nothing is locked.
fn lock_memory() {
    #[cfg(target_os = "linux")]
    if getrlimit(Resource::Memlock).current.is_none() {
        use rustix::mm::{MlockAllFlags, mlockall};
        // Pages are locked as they are touched: nothing is made resident that would not be.
        let flags = MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT;
        if let Err(error) = mlockall(flags) {
            tracing::debug!(%error, "memory is not locked");
        }
    }
}

/// Raises the limit of open files to what the system allows, because every live connection's agent is one.
pub fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(
        Resource::Nofile,
        Rlimit {
            current: limit.maximum,
            maximum: limit.maximum,
        },
    ) {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
}
