//! What a broker with a thousand live agents keeps resident.

use crate::house::House;
use crate::mib;
use crate::minting::{ask, list};
use std::path::Path;

const AGENTS: usize = 1000;

pub(crate) fn run(house: &House) {
    let arguments = [
        "--name",
        "memory",
        "--ca-url",
        house.server.url(),
        "--match",
        "*.example.com",
        "--token-reuse",
        "1h",
        "--auth",
    ];
    let plugin = house.home.join("plugin");
    let arguments = arguments.into_iter().chain([crate::house::text(&plugin)]);
    let mut broker = epithet_testkit::Broker::start(Path::new(crate::house::EPITHET), &house.home, arguments);
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
