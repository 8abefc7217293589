//! What a broker with a thousand live agents keeps resident.

use crate::house::House;
use crate::mib;
use crate::minting::{ask, list};

const AGENTS: usize = 1000;

pub(crate) fn run(house: &House) {
    let mut broker = house.another_broker("memory", house.server.url(), &["--match", "*.example.com"]);
    let before = broker.daemon().resident_bytes();
    for number in 0..AGENTS {
        ask(broker.socket(), number);
        list(&broker.run_dir().join("agent").join(crate::house::hash(number)));
    }
    let after = broker.daemon().resident_bytes();
    println!("\nbroker, resident:");
    println!("  at its start         {}", mib(before));
    println!("  {AGENTS} live agents     {}   (goal: 16 MiB)", mib(after));
}
