//! On what terms a rule lets somebody in.

use crate::document::{Document, HostRule, Lifetime, Principals, Requirement};
use epithet_wire::limits::CERTIFICATE_TTL;
use epithet_wire::{NameError, Principal};
use std::collections::BTreeMap;
use std::time::Duration;

/// The extensions of a certificate for which no rule names any.
pub const DEFAULT_EXTENSIONS: [&str; 3] = ["permit-pty", "permit-agent-forwarding", "permit-user-rc"];

/// What a certificate granted by one rule may do, for how long, and who may have it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    /// How long the certificate is valid.
    pub expiration: Duration,
    /// Its extensions.
    pub extensions: BTreeMap<String, String>,
    /// Its critical options.
    pub critical_options: BTreeMap<String, String>,
    /// What the login must have been like.
    pub requirement: Requirement,
    /// What it carries beside the user.
    pub principals: Option<Principals>,
}

impl Terms {
    /// Those of one rule: its own, and those of the defaults where it says nothing.
    pub(crate) fn new(rule: &HostRule, document: &Document) -> Self {
        let defaults = &document.defaults;
        let life = document.default_expiration.or(defaults.expiration);
        let extensions = rule.extensions.as_ref().or(defaults.extensions.as_ref());
        let mut critical_options = BTreeMap::new();
        let networks = if rule.source_address.is_empty() {
            &defaults.source_address
        } else {
            &rule.source_address
        };
        if !networks.is_empty() {
            critical_options.insert("source-address".to_owned(), networks.join(","));
        }
        if let Some(command) = rule.force_command.as_ref().or(defaults.force_command.as_ref()) {
            critical_options.insert("force-command".to_owned(), command.clone());
        }
        Self {
            expiration: rule.expiration.or(life).map_or(CERTIFICATE_TTL, Lifetime::get),
            extensions: extensions.cloned().unwrap_or_else(|| {
                DEFAULT_EXTENSIONS
                    .iter()
                    .map(|name| ((*name).to_owned(), String::new()))
                    .collect()
            }),
            critical_options,
            requirement: rule
                .require
                .clone()
                .or_else(|| defaults.require.clone())
                .unwrap_or_default(),
            principals: rule.principals.clone().or_else(|| defaults.principals.clone()),
        }
    }

    /// The user, and what is added to them, no name twice.
    ///
    /// # Errors
    /// When a template makes no principal of this host.
    pub(crate) fn principals_for(&self, user: &Principal, host: &str) -> Result<Vec<Principal>, NameError> {
        let mut principals = vec![user.clone()];
        for template in self.principals.as_ref().map_or(&[][..], |these| these.of(user)) {
            let principal = template.fill(user.as_str(), host)?;
            if !principals.contains(&principal) {
                principals.push(principal);
            }
        }
        Ok(principals)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_sets_is_five_minutes_and_three_extensions() {
        let terms = |text: &str| {
            let document = Document::from_yaml("p", text).unwrap();
            Terms::new(document.hosts.values().next().unwrap(), &document)
        };
        let plain = terms("hosts: {h: }");
        assert_eq!((plain.expiration.as_secs(), plain.extensions.len()), (300, 3));
        assert!(plain.critical_options.is_empty() && plain.requirement.is_empty());
        for (text, seconds) in [
            ("{defaults: {ttl: 9s}, hosts: {h: }}", 9),
            ("{defaults: {ttl: 9s}, default-expiration: 7s, hosts: {h: }}", 7),
            (
                "{defaults: {ttl: 9s}, default-expiration: 7s, hosts: {h: {ttl: 5s}}}",
                5,
            ),
            ("{defaults: {ttl: 9s}, hosts: {h: {expiration: 5s}}}", 5),
        ] {
            assert_eq!(terms(text).expiration.as_secs(), seconds, "{text}");
        }
    }

    #[test]
    fn a_rule_replaces_what_the_defaults_say_whole() {
        let text = "defaults: {source-address: [10.0.0.0/8], require: {amr: hwk, max-age: 5m}, principals: [a]}\n\
                    hosts: {h: {source-address: [192.0.2.1], require: {acr: x}, principals: []}, i: }";
        let document = Document::from_yaml("p", text).unwrap();
        let all: Vec<Terms> = document
            .hosts
            .values()
            .map(|rule| Terms::new(rule, &document))
            .collect();
        assert_eq!(all[0].critical_options["source-address"], "192.0.2.1");
        assert_eq!(all[0].requirement.acr, ["x"]);
        assert!(all[0].requirement.amr.is_empty() && all[0].requirement.max_age.is_none());
        let user = "root".parse().unwrap();
        assert_eq!(all[0].principals_for(&user, "h").unwrap().len(), 1);
        assert_eq!(all[1].critical_options["source-address"], "10.0.0.0/8");
        assert_eq!(all[1].principals_for(&user, "h").unwrap().len(), 2);
    }
}
