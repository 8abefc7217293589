//! Repeating a fault, and saying how often it held.

use std::any::Any;
use std::fs::OpenOptions;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

/// What an ordinary run of the tests repeats.
const FEW: usize = 2;

/// How often each fault is repeated: `EPITHET_FAULTS`, which `scripts/faults` sets.
pub(crate) fn count() -> usize {
    let asked = std::env::var("EPITHET_FAULTS").ok();
    asked.and_then(|text| text.parse().ok()).unwrap_or(FEW)
}

/// Plays `round` again and again, each with its number, and fails with what went wrong in any of them. A round may say
/// how long something took; the longest is reported.
pub(crate) fn repeat(name: &str, mut round: impl FnMut(usize) -> Option<Duration>) {
    let (all, mut failures, mut longest) = (count(), Vec::new(), Duration::ZERO);
    for number in 0..all {
        match catch_unwind(AssertUnwindSafe(|| round(number))) {
            Ok(took) => longest = longest.max(took.unwrap_or_default()),
            Err(panic) => failures.push(format!("round {number}: {}", words(panic.as_ref()))),
        }
    }
    let held = all - failures.len();
    report(&format!("{held:>4} of {all}  {name}{}\n", duration(longest)));
    assert!(
        failures.is_empty(),
        "{name} held {held} times of {all}:\n{}",
        failures.join("\n")
    );
}

fn duration(longest: Duration) -> String {
    match longest {
        Duration::ZERO => String::new(),
        longest => format!(" (at most {:.2} s)", longest.as_secs_f64()),
    }
}

fn words(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("a panic without words")
        .to_owned()
}

/// Adds a line to the file that `EPITHET_FAULTS_REPORT` names.
fn report(line: &str) {
    if let Some(path) = std::env::var_os("EPITHET_FAULTS_REPORT") {
        let file = OpenOptions::new().create(true).append(true).open(path);
        file.and_then(|mut file| file.write_all(line.as_bytes()))
            .expect("the report can be written");
    }
}
