//! Policy.
mod pattern;
mod document;
pub use pattern::{HostPattern, PatternError, canonical_host};
pub use document::*;
