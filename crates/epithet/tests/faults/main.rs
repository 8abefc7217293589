//! What a laptop's broker meets in its life, again and again: it is killed, its CA dies in the middle of a word, the
//! network goes, the disk fills up, descriptors run out, clocks jump, signals storm. After each fault everybody is served again.
//!
//! An ordinary run of the tests repeats each a few times. `scripts/faults 100` repeats each a hundred times and says how
//! often it held.

#![cfg(test)]

#[path = "../shared/laptop.rs"]
#[expect(dead_code, reason = "shared with other stories")]
mod laptop;
#[path = "../shared/site.rs"]
#[expect(dead_code, reason = "shared with other stories")]
mod site;
#[path = "../ssh_stories/support.rs"]
#[expect(dead_code, reason = "shared with other stories")]
mod support;

mod broken_ca;
mod clocks;
mod crowds;
mod disks;
mod far_networks;
mod killed;
mod memory;
mod names_and_proxies;
mod namespaces;
mod networks;
mod other_versions;
mod relay;
mod rounds;
mod scarcity;
mod set_clock;
mod signals;
