//! What a process that holds keys and tokens does before it gets any: no core, no other process looking in, no
//! descriptor of somebody else's, files for its owner only.

use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit, umask};

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
    if let Err(error) = epithet_plugin::lock_process_memory() {
        tracing::debug!(%error, "memory is not locked as a whole");
    }
    // A plugin's large state goes back to the system when it is freed.
    epithet_plugin::return_large_allocations();
    if let Err(error) = epithet_plugin::close_inherited_on_exec() {
        tracing::warn!(%error, "files that were open when this process started may be seen by auth plugins");
    }
}

/// Raises the limit of open files to what the system allows, because every live connection's agent is one. Plugins get the
/// limit that was found.
pub fn raise_open_files() {
    if let Err(error) = epithet_plugin::raise_open_files() {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
}
