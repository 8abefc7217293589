//! The numbers of the main job, side by side in one run: `scripts/bench`, or `cargo bench -p epithet --bench numbers`.
//!
//! Real processes of the release build on this machine, everything on loopback. Prints; judges nothing.

#![expect(clippy::print_stdout, reason = "prints its figures")]

mod black_hole;
mod crowd;
mod distance;
mod first_connection;
mod house;
mod load;
mod many_agents;
mod matching;
mod memory;
mod minting;
mod signatures;
mod signing;

use house::House;
use std::time::Duration;

/// A name to ask for it by, and what measures it.
type Part = (&'static str, fn(&mut House));

fn main() {
    // `cargo test --benches` runs benches too, as a test that they start; the numbers would mean nothing there.
    if std::env::args().any(|argument| argument == "--test") {
        return;
    }
    println!("machine: {} cores, {}", cores(), kernel());
    let mut house = House::build();
    let parts: [Part; 10] = [
        ("signing", |_| signing::run()),
        ("matching", |house| matching::run(house)),
        ("minting", |house| minting::run(house)),
        ("first_connection", |house| first_connection::run(house)),
        ("crowd", |house| crowd::run(house)),
        ("signatures", |house| signatures::run(house)),
        ("load", |house| load::run(house)),
        ("black_hole", |house| black_hole::run(house)),
        ("memory", |house| memory::run(house)),
        ("many_agents", |house| many_agents::run(house)),
    ];
    // `scripts/bench first_connection crowd` measures these only. cargo adds flags of its own.
    let asked: Vec<_> = std::env::args()
        .skip(1)
        .filter(|word| !word.starts_with('-'))
        .collect();
    for unknown in asked
        .iter()
        .filter(|word| parts.iter().all(|(name, _)| name != word))
    {
        println!(
            "there is no part {unknown}; there are: {}",
            parts.map(|(name, _)| name).join(", ")
        );
    }
    for (name, run) in parts {
        if asked.is_empty() || asked.iter().any(|word| word == name) {
            run(&mut house);
        }
    }
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
