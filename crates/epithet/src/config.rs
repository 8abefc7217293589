//! Configuration files: which are read, how they are merged, and what each key may be.
//!
//! `/etc/epithet/*.{yaml,yml,json}` come first, then `~/.epithet/*.{yaml,yml,json}`, then `--config`. They are merged
//! key by key, maps too; the last file that has a key wins. A flag beats an environment variable, which beats a file,
//! which beats the default. A file that others can write is refused, and so is a key that nobody knows.

mod changes;
mod files;
mod sections;

pub(crate) use changes::Files;
#[doc(hidden)]
pub use files::understand;
pub(crate) use files::{home, load, with_suggestion};
pub(crate) use sections::{
    AgentSection, Common, Config, Forwarding, IssuingSection, OidcSection, OneOrMany, split_outside_braces,
};
