//! Somebody who wants to know what an agent is asked, for instance to show where the time of a login went.

use std::fmt;
use std::time::Instant;

/// Told about every answer as it is given. Must not wait.
pub trait Watcher: fmt::Debug + Send + Sync {
    /// The keys were asked for at `began`; the answer offers so many.
    fn listed(&self, began: Instant, keys: usize);
    /// A login was signed that was asked for at `began`.
    fn signed(&self, began: Instant);
    /// A signature that was asked for at `began` was refused; `reason` as the log has it.
    fn refused(&self, began: Instant, reason: &str);
}
