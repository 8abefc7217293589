//! How long a decision takes with the rules of a large company: `cargo bench -p epithet-policy`.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a program that measures and prints"
)]

use epithet_policy::{Decision, Document, Person, Question, Rules};
use std::hint::black_box;
use std::time::Instant;

const USERS: usize = 10_000;
const PATTERNS: usize = 1_000;

/// Rules for ten thousand people and a thousand patterns, of which the last kind is the slowest there is: nothing but
/// wildcards, each different, none of which can be left out at a glance.
fn document(kind: &str, deny: bool) -> Document {
    let users = (0..USERS).map(|n| format!("  user{n}@example.com: [t{}, t{}, all]\n", n % 100, n % 77));
    // Somebody whom no rule allows anything, so that every pattern is looked at.
    let users = users.chain(["  guest@example.com: [guest]\n".to_owned()]);
    let hosts = (0..PATTERNS).map(|n| {
        let pattern = match kind {
            "names" => format!("h{n}.example.com"),
            "one star" => format!("h{n}-*.example.com"),
            "several" => format!("*{{a,b}}*-[0-9]?h{n}*.example.com"),
            _ => wildcards_alone(n),
        };
        let denied = if deny { ", deny: {root: [nobody]}" } else { "" };
        format!("  \"{pattern}\": {{allow: {{root: [t{}]}}{denied}}}\n", n % 100)
    });
    let text = format!(
        "users:\n{}hosts:\n{}",
        users.collect::<String>(),
        hosts.collect::<String>()
    );
    let begun = Instant::now();
    let document = Document::from_yaml("bench", &text).unwrap();
    println!(
        "{kind:>12}: {} KiB of YAML read in {:.0?}",
        text.len() / 1024,
        begun.elapsed()
    );
    document
}

/// One of as many patterns as one likes, all of `*`, `?` and sets, with no plain character.
fn wildcards_alone(n: usize) -> String {
    let sets: String = (0..10)
        .map(|bit| {
            if n >> bit & 1 == 1 {
                "*[a-m0-9]"
            } else {
                "?[n-z.-]"
            }
        })
        .collect();
    format!("*{sets}*")
}

fn measure(rules: &Rules, who: &str, host: &str, expected: bool) {
    let person = Person {
        identity: who.to_owned(),
        ..Person::default()
    };
    let question = Question {
        person: &person,
        host: &host.parse().unwrap(),
        user: &"root".parse().unwrap(),
        now: 0,
    };
    let is_allowed = matches!(rules.evaluate(&question), Decision::Allowed(_));
    assert_eq!(is_allowed, expected, "{who} {host}");
    const TIMES: u32 = 2_000;
    let mut each: Vec<u128> = (0..TIMES)
        .map(|_| {
            let begun = Instant::now();
            let _ = black_box(rules.evaluate(black_box(&question)));
            begun.elapsed().as_nanos()
        })
        .collect();
    each.sort_unstable();
    let at = |part: usize| each[each.len() * part / 100] as f64 / 1000.0;
    let answer = if expected { "allowed" } else { "denied" };
    println!(
        "              {answer:>8}  median {:>8.2} us  p99 {:>8.2} us  {who} at {host}",
        at(50),
        at(99)
    );
}

fn main() {
    for (kind, host, other) in [
        ("names", "h999.example.com", "elsewhere.example.org"),
        ("one star", "h999-web.example.com", "elsewhere.example.com"),
        (
            "several",
            "aaaabbbb-77h999xx.example.com",
            "aaaabbbb-77hxx.example.com",
        ),
    ] {
        for deny in [false, true] {
            let rules = Rules::new(&document(kind, deny));
            println!(
                "              {PATTERNS} patterns, {USERS} users{}",
                if deny { ", each rule with a denial" } else { "" }
            );
            measure(&rules, "user99@example.com", host, true);
            measure(&rules, "user99@example.com", other, false);
            measure(&rules, "mallory@example.com", host, false);
        }
    }
    let rules = Rules::new(&document("no plain", false));
    println!("              {PATTERNS} patterns, {USERS} users");
    measure(&rules, "guest@example.com", "aaaabbbb-77hxx.example.com", false);
    println!("resident: {} KiB", resident());
}

/// What this process has in memory, in KiB.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok())
        .unwrap_or(0)
}
