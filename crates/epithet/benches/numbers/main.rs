//! The numbers of the main job, side by side in one run: `scripts/bench`, or `cargo bench -p epithet --bench numbers`.
//!
//! Real processes of the release build on this machine, everything on loopback. Prints; judges nothing.

#![expect(clippy::print_stdout, reason = "prints its figures")]

mod house;
mod load;
mod matching;
mod memory;
mod minting;
mod signing;

use house::House;
use std::time::Duration;

fn main() {
    // `cargo test --benches` runs benches too, as a test that they start; the numbers would mean nothing there.
    if std::env::args().any(|argument| argument == "--test") {
        return;
    }
    println!("machine: {} cores, {}", cores(), kernel());
    signing::run();
    let mut house = House::build();
    matching::run(&house);
    minting::run(&house);
    load::run(&mut house);
    memory::run(&house);
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(0, usize::from)
}

fn kernel() -> String {
    std::fs::read_to_string("/proc/sys/kernel/osrelease")
        .unwrap_or_default()
        .trim()
        .to_owned()
}

/// The value below which a share of the sorted values lies.
pub(crate) fn quantile(sorted: &[Duration], share: f64) -> Duration {
    let last = sorted.len().saturating_sub(1);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "an index"
    )]
    let index = (last as f64 * share).round() as usize;
    sorted.get(index).copied().unwrap_or_default()
}

/// A duration in milliseconds.
pub(crate) fn ms(duration: Duration) -> String {
    format!("{:.2} ms", duration.as_secs_f64() * 1000.0)
}

/// A size in memory.
#[expect(clippy::cast_precision_loss, reason = "a size to show")]
pub(crate) fn mib(bytes: Option<u64>) -> String {
    bytes.map_or("unknown".to_owned(), |bytes| {
        format!("{:.1} MiB", bytes as f64 / 1024.0 / 1024.0)
    })
}
