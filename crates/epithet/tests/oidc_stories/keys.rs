//! Providers that change their keys, as all of them do now and then.

use crate::support::{Provider, Story};

#[test]
fn the_certified_providers_new_keys_are_found_by_plugin_and_server() {
    new_keys_are_found_by_plugin_and_server(Provider::certified());
}

#[test]
fn the_development_providers_new_keys_are_found_by_plugin_and_server() {
    new_keys_are_found_by_plugin_and_server(Provider::development());
}

fn new_keys_are_found_by_plugin_and_server(provider: Provider) {
    let story = Story::at(provider);
    let _broker = story.broker_without_reuse();
    story.laptop.log_in("127.0.0.1");

    // The old key is gone at once: neither the plugin's state nor the server's cache has the new one.
    story.provider.replace_keys();
    let said = story.laptop.log_in("127.0.0.2");

    assert!(!said.contains("epithet: authentication failed"), "{said}");
    let decisions = story.site.decisions();
    assert_eq!(decisions.len(), 2, "{decisions:#?}");
    for decision in &decisions {
        assert_eq!(decision["decision"], "issued");
    }
    assert_eq!((story.opened(), story.provider.counts().refreshes), (1, 1));
}
