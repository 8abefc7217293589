//! What a document says that its author can hardly mean.

use crate::document::{CommandSection, Document, HostRule, IntrospectionSection, Lifetime, TokenKind};
use epithet_wire::{Principal, format_duration};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

impl Document {
    /// Things that are allowed and look wrong, one sentence each. `ceiling` is the CA's longest life (`--max-ttl`).
    pub fn warnings(&self, ceiling: Duration) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.users.is_empty() && self.groups.is_empty() {
            warnings.push("users is empty: everybody is denied".to_owned());
        }
        if self.hosts.is_empty() {
            warnings.push("hosts is empty: defaults alone grant nothing, so everybody is denied".to_owned());
        }
        self.people(&mut warnings);
        self.token(&mut warnings);
        self.tags(&mut warnings);
        self.lives(ceiling, &mut warnings);
        self.patterns(&mut warnings);
        warnings
    }

    fn people(&self, warnings: &mut Vec<String>) {
        let untagged = self.users.iter().filter(|(_, tags)| tags.is_empty());
        warnings.extend(untagged.map(|(user, _)| format!("users: {user} has no tags and gets in nowhere")));
        let claim = match self.token_kind() {
            TokenKind::Oidc if self.oidc.all().all(|oidc| oidc.groups_claim.is_none()) => "oidc.groups-claim",
            TokenKind::Introspection if self.introspection.groups_claim.is_none() => {
                "introspection.groups-claim"
            }
            _ => return,
        };
        if !self.groups.is_empty() {
            warnings.push(format!(
                "groups are named, but {claim} does not say where a token lists them"
            ));
        }
    }

    fn token(&self, warnings: &mut Vec<String>) {
        let unused = [
            (
                "introspection",
                TokenKind::Introspection,
                self.introspection != IntrospectionSection::default(),
            ),
            (
                "command",
                TokenKind::Command,
                self.command != CommandSection::default(),
            ),
        ];
        for (key, kind, given) in unused {
            if given && self.token_kind() != kind {
                warnings.push(format!("{key} is not used; it needs `token: {key}`"));
            }
        }
    }

    fn tags(&self, warnings: &mut Vec<String>) {
        let held: BTreeSet<&String> = self
            .users
            .values()
            .chain(self.groups.values())
            .flatten()
            .collect();
        let mut used = BTreeSet::new();
        let mut look = |at: &str, access: &BTreeMap<Principal, Vec<String>>| {
            for (principal, tags) in access {
                for tag in tags {
                    if !held.contains(tag) {
                        warnings.push(format!("{at}.{principal}: nobody has the tag {tag}"));
                    }
                    used.insert(tag.clone());
                }
            }
        };
        look("defaults.allow", &self.defaults.allow);
        look("defaults.deny", &self.defaults.deny);
        for (pattern, rule) in &self.hosts {
            look(&format!("hosts.{pattern}.allow"), &rule.allow);
            look(&format!("hosts.{pattern}.deny"), &rule.deny);
        }
        let unused = held.into_iter().filter(|tag| !used.contains(*tag));
        warnings.extend(unused.map(|tag| format!("the tag {tag} is used by no rule")));
    }

    fn lives(&self, ceiling: Duration, warnings: &mut Vec<String>) {
        let mut look = |at: &str, life: Option<Lifetime>| {
            if let Some(life) = life.map(Lifetime::get).filter(|life| *life > ceiling) {
                let (life, ceiling) = (format_duration(life), format_duration(ceiling));
                warnings.push(format!(
                    "{at}: the CA cuts {life} to its own limit of {ceiling} (--max-ttl)"
                ));
            }
        };
        look("default-expiration", self.default_expiration);
        look("defaults.expiration", self.defaults.expiration);
        for (pattern, rule) in &self.hosts {
            look(&format!("hosts.{pattern}.expiration"), rule.expiration);
        }
    }

    fn patterns(&self, warnings: &mut Vec<String>) {
        let mut names = BTreeMap::new();
        for (pattern, rule) in &self.hosts {
            if let Some(first) = pattern.exact_name().and_then(|name| names.insert(name, pattern)) {
                warnings.push(format!("hosts.{pattern}: the same host as {first}"));
            }
            let grants = |rule: &HostRule| rule.allow.values().any(|tags| !tags.is_empty());
            if !grants(rule) && !grants(&self.defaults) && rule.deny.is_empty() {
                warnings.push(format!(
                    "hosts.{pattern}: allows nobody anything, and neither do the defaults"
                ));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn warnings(text: &str) -> Vec<String> {
        Document::from_yaml("p", text)
            .unwrap()
            .warnings(Duration::from_secs(600))
    }

    #[test]
    fn every_oddity_is_named() {
        let text = r#"
users: {alice: [admin, unused], bob: []}
groups: {g: [admin]}
defaults: {expiration: 1h}
hosts:
  "A.example.com": {allow: {root: [admin]}}
  "a.example.com": {allow: {root: [admin, nobody]}}
  "*": {}
"#;
        let found = warnings(text);
        for expected in [
            "users: bob has no tags",
            "oidc.groups-claim",
            "hosts.a.example.com.allow.root: nobody has the tag nobody",
            "the tag unused is used by no rule",
            "defaults.expiration: the CA cuts 1h to its own limit of 10m",
            "hosts.a.example.com: the same host as A.example.com",
            "hosts.*: allows nobody anything",
        ] {
            assert!(
                found.iter().any(|warning| warning.contains(expected)),
                "{expected}: {found:#?}"
            );
        }
        assert_eq!(found.len(), 7, "{found:#?}");
        let unused = warnings("users: {a: [t]}\nhosts: {h: {allow: {root: [t]}}}\ncommand: ./verify\n");
        assert_eq!(unused, ["command is not used; it needs `token: command`"]);
        assert_eq!(warnings("{}").len(), 2);
        assert!(warnings("users: {a: [t]}\nhosts: {h: {allow: {root: [t]}}}").is_empty());
    }
}
