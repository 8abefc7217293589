//! What a document says that its author can hardly mean.

use crate::document::{CommandSection, Document, HostRule, IntrospectionSection, Lifetime, TokenKind};
use crate::places::{Place, Places};
use crate::shadow;
use epithet_wire::{Principal, format_duration};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

/// Something that is allowed and looks wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// Line and column, both from 1, of what it is about, where that is known.
    pub place: Option<(u64, u64)>,
    /// What it is, in a sentence that begins with the key.
    pub problem: String,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.problem)
    }
}

/// What the CA will do with what these rules say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaLimits {
    /// Its longest life of a certificate (`--max-ttl`).
    pub max_ttl: Duration,
    /// The extensions that it signs (`--allow-extension`).
    pub extensions: BTreeSet<String>,
}

impl Document {
    /// Things that are allowed and look wrong, in the order in which they stand in `text`, which this was read from.
    pub fn warnings(&self, text: &str, limits: &CaLimits) -> Vec<Warning> {
        let mut look = Look {
            document: self,
            places: Places::of(text),
            warnings: Vec::new(),
        };
        look.emptiness();
        look.people();
        look.issuers();
        look.token();
        look.tags();
        look.lives(limits);
        look.extensions(limits);
        look.patterns();
        look.reach();
        let mut warnings = look.warnings;
        warnings.sort_by_key(|warning| warning.place.unwrap_or_default());
        warnings
    }
}

struct Look<'d> {
    document: &'d Document,
    places: Places,
    warnings: Vec<Warning>,
}

impl<'d> Look<'d> {
    fn warn(&mut self, path: &[&str], problem: String) {
        let place = self.place(path);
        self.warnings.push(Warning { place, problem });
    }

    /// Where a key stands, at the top or under `policy:`.
    fn place(&self, path: &[&str]) -> Option<Place> {
        let below: Vec<&str> = [&["policy"], path].concat();
        self.places.find(&below).or_else(|| self.places.find(path))
    }

    /// The rules, defaults first, with the path to each and what it is called.
    fn rules(&self) -> Vec<(Vec<&'d str>, String, &'d HostRule)> {
        let defaults = (vec!["defaults"], "defaults".to_owned(), &self.document.defaults);
        let hosts = self.document.hosts.iter().map(|(pattern, rule)| {
            let path = vec!["hosts", pattern.as_str()];
            (path, format!("hosts.{pattern}"), rule)
        });
        std::iter::once(defaults).chain(hosts).collect()
    }

    fn emptiness(&mut self) {
        if self.document.users.is_empty() && self.document.groups.is_empty() {
            self.warn(&["users"], "users is empty: everybody is denied".to_owned());
        }
        if self.document.hosts.is_empty() {
            let problem = "hosts is empty: defaults alone grant nothing, so everybody is denied";
            self.warn(&["hosts"], problem.to_owned());
        }
    }

    fn people(&mut self) {
        let document = self.document;
        for (list, people) in [("users", &document.users), ("groups", &document.groups)] {
            let mut spelled: BTreeMap<String, &str> = BTreeMap::new();
            for (name, tags) in people {
                if tags.is_empty() && list == "users" {
                    self.warn(
                        &[list, name],
                        format!("{list}: {name} has no tags and gets in nowhere"),
                    );
                }
                if name.contains(['*', '?', '{']) {
                    let problem =
                        format!("{list}: {name} is compared as it is written: names are no patterns");
                    self.warn(&[list, name], problem);
                }
                if let Some(other) = spelled.insert(name.to_lowercase(), name) {
                    let problem =
                        format!("{list}: {name} and {other} differ in case only, which counts here");
                    self.warn(&[list, name], problem);
                }
            }
        }
        let claim = match document.token_kind() {
            TokenKind::Oidc if document.oidc.all().all(|oidc| oidc.groups_claim.is_none()) => {
                "oidc.groups-claim"
            }
            TokenKind::Introspection if document.introspection.groups_claim.is_none() => {
                "introspection.groups-claim"
            }
            _ => return,
        };
        if !document.groups.is_empty() {
            let problem = format!("groups are named, but {claim} does not say where a token lists them");
            self.warn(&["groups"], problem);
        }
    }

    fn issuers(&mut self) {
        let mut open = Vec::new();
        for (index, oidc) in self.document.oidc.all().enumerate() {
            if oidc.identity_prefix.as_deref().unwrap_or_default().is_empty() {
                open.push((index, oidc.issuer.as_deref().unwrap_or_default()));
            }
        }
        if let [(_, first), .., (index, last)] = open[..] {
            let problem =
                format!("oidc: {last} and {first} name the same people, so each can log in as the other's");
            self.warn(&["oidc", &index.to_string()], problem);
        }
    }

    fn token(&mut self) {
        let document = self.document;
        let introspection = document.introspection != IntrospectionSection::default();
        let command = document.command != CommandSection::default();
        for (key, kind, is_given) in [
            ("introspection", TokenKind::Introspection, introspection),
            ("command", TokenKind::Command, command),
        ] {
            if is_given && document.token_kind() != kind {
                self.warn(&[key], format!("{key} is not used; it needs `token: {key}`"));
            }
        }
    }

    fn tags(&mut self) {
        let document = self.document;
        let people = [("users", &document.users), ("groups", &document.groups)];
        let mut held = BTreeMap::new();
        for (list, names) in people {
            for (name, tags) in names {
                for (index, tag) in tags.iter().enumerate() {
                    held.entry(tag.as_str()).or_insert((list, name, index));
                }
            }
        }
        let mut used = BTreeSet::new();
        for (path, name, rule) in self.rules() {
            for (key, access) in [("allow", &rule.allow), ("deny", &rule.deny)] {
                for (principal, tag, index) in entries(access) {
                    used.insert(tag);
                    if !held.contains_key(tag) {
                        let path = [&path[..], &[key, principal.as_str(), &index]].concat();
                        self.warn(
                            &path,
                            format!("{name}.{key}.{principal}: nobody has the tag {tag}"),
                        );
                    }
                }
            }
            for (principal, tag, index) in entries(&rule.allow) {
                if rule
                    .deny
                    .get(principal)
                    .is_some_and(|denied| denied.iter().any(|one| one == tag))
                {
                    let path = [&path[..], &["allow", principal.as_str(), &index]].concat();
                    self.warn(
                        &path,
                        format!("{name}: {principal} is allowed and denied to {tag}; the denial wins"),
                    );
                }
            }
        }
        for (tag, (list, name, index)) in held {
            if !used.contains(tag) {
                self.warn(
                    &[list, name, &index.to_string()],
                    format!("the tag {tag} is used by no rule"),
                );
            }
        }
    }

    fn lives(&mut self, limits: &CaLimits) {
        let cut = |key: &str, life: Option<Lifetime>| {
            let life = life.map(Lifetime::get).filter(|life| *life > limits.max_ttl)?;
            let (life, ceiling) = (format_duration(life), format_duration(limits.max_ttl));
            Some(format!(
                "{key}: the CA cuts {life} to its own limit of {ceiling} (--max-ttl)"
            ))
        };
        if let Some(problem) = cut("default-expiration", self.document.default_expiration) {
            self.warn(&["default-expiration"], problem);
        }
        for (path, name, rule) in self.rules() {
            let ttl = [&path[..], &["ttl"]].concat();
            // A key that is not there has the place of the rule.
            let is_ttl = self.place(&ttl) != self.place(&path);
            let key = if is_ttl { "ttl" } else { "expiration" };
            if let Some(problem) = cut(&format!("{name}.{key}"), rule.expiration) {
                self.warn(&[&path[..], &[key]].concat(), problem);
            }
        }
    }

    fn extensions(&mut self, limits: &CaLimits) {
        for (path, name, rule) in self.rules() {
            for (extension, value) in rule.extensions.iter().flatten() {
                let path = [&path[..], &["extensions", extension]].concat();
                if !limits.extensions.contains(extension) {
                    let problem =
                        format!("{name}.extensions: the CA refuses {extension} (--allow-extension)");
                    self.warn(&path, problem);
                } else if !value.is_empty() && !extension.contains('@') {
                    let problem = format!("{name}.extensions: the CA refuses {extension} with a value");
                    self.warn(&path, problem);
                }
            }
        }
    }

    fn patterns(&mut self) {
        let mut names = BTreeMap::new();
        for (pattern, rule) in &self.document.hosts {
            let path = ["hosts", pattern.as_str()];
            if let Some(first) = pattern.exact_name().and_then(|name| names.insert(name, pattern)) {
                self.warn(&path, format!("hosts.{pattern}: the same host as {first}"));
            }
            if pattern.as_str().contains('@') {
                self.warn(
                    &path,
                    format!("hosts.{pattern}: users are named in `allow`, not before the host"),
                );
            }
            let grants = |rule: &HostRule| rule.allow.values().any(|tags| !tags.is_empty());
            if !grants(rule) && !grants(&self.document.defaults) && rule.deny.is_empty() {
                let problem = format!("hosts.{pattern}: allows nobody anything, and neither do the defaults");
                self.warn(&path, problem);
            }
        }
    }

    fn reach(&mut self) {
        for (pattern, first) in shadow::unreachable(self.document) {
            let problem = format!(
                "hosts.{pattern}: never decides, because {first} comes first (fewer wildcards, or more plain \
                 characters) and covers and allows all of it"
            );
            self.warn(&["hosts", pattern.as_str()], problem);
        }
    }
}

/// The users and tags of an `allow` or a `deny`, with the tag's place in its list.
fn entries(access: &BTreeMap<Principal, Vec<String>>) -> impl Iterator<Item = (&Principal, &str, String)> {
    access.iter().flat_map(|(principal, tags)| {
        let numbered = tags.iter().enumerate();
        numbered.map(move |(index, tag)| (principal, tag.as_str(), index.to_string()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn warnings(text: &str) -> Vec<String> {
        let limits = CaLimits {
            max_ttl: Duration::from_secs(600),
            extensions: [("permit-pty".to_owned())].into(),
        };
        let warnings = Document::from_yaml("p", text).unwrap().warnings(text, &limits);
        let shown = warnings.iter().map(|warning| {
            let (line, column) = warning.place.unwrap_or_default();
            format!("{line}:{column}: {warning}")
        });
        shown.collect()
    }

    #[test]
    fn every_oddity_is_named_where_it_stands() {
        let text = r#"
users: {alice: [admin, unused], bob: [], "*@example.com": [eng], Alice: [eng]}
groups: {g: [admin]}
defaults: {expiration: 1h}
hosts:
  "A.example.com": {allow: {root: [admin]}}
  "a.example.com": {allow: {root: [admin, nobody]}}
  "*": {}
  "root@web":
    allow: {root: [admin, eng]}
    deny: {root: [eng]}
    ttl: 11m
    extensions:
      permit-pty: "x"
      permit-everything: ""
"#;
        let expected = [
            "2:9: users: alice and Alice differ in case only",
            "2:24: the tag unused is used by no rule",
            "2:33: users: bob has no tags",
            "2:42: users: *@example.com is compared as it is written",
            "3:1: groups are named, but oidc.groups-claim",
            "4:12: defaults.expiration: the CA cuts 1h to its own limit of 10m",
            "7:3: hosts.a.example.com: the same host as A.example.com",
            "7:43: hosts.a.example.com.allow.root: nobody has the tag nobody",
            "8:3: hosts.*: allows nobody anything",
            "9:3: hosts.root@web: users are named in `allow`",
            "10:27: hosts.root@web: root is allowed and denied to eng",
            "12:5: hosts.root@web.ttl: the CA cuts 11m",
            "14:7: hosts.root@web.extensions: the CA refuses permit-pty with a value",
            "15:7: hosts.root@web.extensions: the CA refuses permit-everything (--allow-extension)",
        ];
        let check = |text: &str, indent: usize, lines: usize| {
            let found = warnings(text);
            assert_eq!(found.len(), expected.len(), "{found:#?}");
            for (found, expected) in found.iter().zip(expected) {
                let (place, words) = expected.split_once(": ").unwrap();
                let (line, column) = place.split_once(':').unwrap();
                let moved = |number: &str, by: usize| number.parse::<usize>().unwrap() + by;
                let expected = format!("{}:{}: {words}", moved(line, lines), moved(column, indent));
                assert!(found.starts_with(&expected), "{found}\n{expected}");
            }
        };
        check(text, 0, 0);
        // The same under `policy:`.
        check(&format!("policy:{}", text.replace('\n', "\n  ").trim_end()), 2, 0);
    }

    #[test]
    fn what_is_not_used_or_empty_is_named_and_good_rules_are_left_alone() {
        let good = "users: {a: [t]}\nhosts: {h: {allow: {root: [t]}}}\n";
        assert_eq!(
            warnings(&format!("{good}command: ./verify\n")),
            ["3:1: command is not used; it needs `token: command`"]
        );
        assert_eq!(warnings("{}").len(), 2);
        assert_eq!(warnings(good), [""; 0]);
        let open =
            "oidc: [{issuer: a}, {issuer: b, identity-prefix: 'b:'}, {issuer: c, identity-prefix: ''}]\n";
        let found = warnings(&format!("{open}{good}"));
        assert!(
            found[0].starts_with("1:57: oidc: c and a name the same people"),
            "{found:?}"
        );
    }

    #[test]
    fn a_rule_that_never_decides_is_named_with_the_one_that_does() {
        let text = r#"
users: {a: [x, y]}
hosts:
  "*.example.com": {allow: {root: [x], deploy: [y]}}
  "*.*.example.com": {allow: {root: [x]}, ttl: 1m}
  "db-*-*.example.com": {allow: {root: [y]}}
  "[ab]*.*.example.com": {allow: {deploy: [y]}, deny: {root: [y]}}
"#;
        let found = warnings(text);
        assert_eq!(found.len(), 2, "{found:#?}");
        assert!(found[0].starts_with("5:3: hosts.*.*.example.com: never decides, because *.example.com"));
        assert!(
            found[1].starts_with("7:3: hosts.[ab]*.*.example.com: never decides"),
            "{}",
            found[1]
        );
    }
}
