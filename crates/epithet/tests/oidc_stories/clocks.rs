//! A provider whose clock is two minutes off.

use crate::support::{Provider, Story};

#[test]
fn a_certified_provider_that_is_two_minutes_behind_serves_as_well() {
    let provider = Provider::certified();
    provider.set_clock_offset(-120);
    let story = Story::at(provider);
    let _broker = story.broker_without_reuse();
    story.laptop.log_in("127.0.0.1");
    story.laptop.log_in("127.0.0.2");
    assert_eq!((story.opened(), story.provider.counts().refreshes), (1, 1));
}

#[test]
fn a_certified_provider_that_is_two_minutes_ahead_is_told_by_both_clocks_names() {
    let provider = Provider::certified();
    provider.set_clock_offset(120);
    let story = Story::at(provider);
    let _broker = story.broker();
    let finished = story.laptop.run_ssh(["127.0.0.1", "true"]);
    assert_eq!(finished.code(), Some(255));
    let words = "s in the future; check the clocks of this machine and the provider";
    assert!(finished.stderr.contains(words), "{}", finished.stderr);
}
