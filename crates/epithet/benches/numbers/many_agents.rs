//! Ten thousand live agents in one broker: what they cost while nobody uses them, and what one more connection waits.

use crate::house::{House, hash};
use crate::minting::{ask, list};
use crate::{mib, ms, quantile};
use std::thread;
use std::time::{Duration, Instant};

const AGENTS: usize = 10_000;
/// Connections that come while all those are live, and matches of connections whose agent is live.
const MORE: usize = 500;
const IDLE: Duration = Duration::from_secs(20);

pub(crate) fn run(house: &House) {
    let all = (AGENTS + MORE).to_string();
    let more = ["--match", "*.example.com", "--max-agents", &all];
    let mut broker = house.another_broker("many", house.server.url(), &more);
    let begun = Instant::now();
    for number in 0..AGENTS {
        ask(broker.socket(), number);
        list(&broker.run_dir().join("agent").join(hash(number)));
    }
    println!(
        "\n{AGENTS} live agents in one broker (made in {:.0} s):",
        begun.elapsed().as_secs_f64()
    );
    println!(
        "  resident             {}   (goal: 64 MiB)",
        mib(broker.daemon().resident_bytes())
    );
    let pid = broker.daemon().pid();
    let before = cpu(pid);
    thread::sleep(IDLE);
    let used = cpu(pid).saturating_sub(before);
    println!(
        "  idle, {} s            {:.2} % of a core   (goal: 0.5 %)",
        IDLE.as_secs(),
        100.0 * used.as_secs_f64() / IDLE.as_secs_f64()
    );
    let timed = |numbers: std::ops::Range<usize>| {
        let mut times: Vec<_> = numbers
            .map(|number| {
                let begun = Instant::now();
                ask(broker.socket(), number);
                begun.elapsed()
            })
            .collect();
        times.sort();
        format!(
            "median {}, p99 {}",
            ms(quantile(&times, 0.5)),
            ms(quantile(&times, 0.99))
        )
    };
    println!(
        "  match, agent alive   {}   (goal: p99 10 ms)",
        timed(AGENTS / 2..AGENTS / 2 + MORE)
    );
    println!(
        "  match, a new one     {}   (goal: p99 10 ms)",
        timed(AGENTS..AGENTS + MORE)
    );
}

/// The processor time that a process has used (Linux, where a tick is 10 ms).
fn cpu(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // proc(5): utime and stime are the 14th and 15th fields, the name in parentheses being the second.
    let after = stat.rsplit_once(") ").map_or("", |(_, after)| after);
    let ticks: u64 = after
        .split(' ')
        .skip(11)
        .take(2)
        .filter_map(|field| field.parse::<u64>().ok())
        .sum();
    Duration::from_millis(ticks * 10)
}
