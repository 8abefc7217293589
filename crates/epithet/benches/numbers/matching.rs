//! `epithet match` with its agent alive, beside the same shell line running `/bin/true`.

use crate::house::{EPITHET, House, MATCH, hash, text};
use crate::{ms, quantile};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const PAIRS: usize = 200;

pub(crate) fn run(house: &House) {
    let socket = text(house.broker.socket()).to_owned();
    let rest = format!(
        "--host 'web.example.com' --port '22' --user 'root' --hash '{}' --broker '{socket}'",
        hash(1)
    );
    let small = format!("exec '{MATCH}' {rest}");
    let whole = format!("exec '{EPITHET}' match {rest}");
    let nothing = format!("exec /bin/true {rest}");
    // The first one makes the agent.
    shell(&small);
    let lines = [&nothing, &small, &whole];
    let mut times: [Vec<Duration>; 3] = Default::default();
    for _ in 0..PAIRS {
        for (line, times) in lines.iter().zip(&mut times) {
            times.push(shell(line));
        }
    }
    let median = |times: &mut Vec<Duration>| {
        times.sort();
        quantile(times, 0.5)
    };
    let [nothing, small, whole] = &mut times;
    let (nothing, small, whole) = (median(nothing), median(small), median(whole));
    println!("\nmatch, agent alive, median of {PAIRS} (sh -c, exec):");
    println!("  /bin/true       {}", ms(nothing));
    println!(
        "  epithet-match   {}   (+{}; goal: +1 ms)",
        ms(small),
        ms(small.saturating_sub(nothing))
    );
    println!(
        "  epithet match   {}   (+{})",
        ms(whole),
        ms(whole.saturating_sub(nothing))
    );
}

/// Runs a line as ssh runs it, and says how long that took.
fn shell(line: &str) -> Duration {
    let begun = Instant::now();
    let status = Command::new("/bin/sh")
        .arg("-c")
        .arg(line)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status();
    let elapsed = begun.elapsed();
    assert!(status.is_ok_and(|status| status.success()), "{line} failed");
    elapsed
}
