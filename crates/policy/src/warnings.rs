//! What a document says that its author can hardly mean.

use crate::document::{
    CommandSection, Document, HostRule, IntrospectionSection, Lifetime, Principals, TokenKind,
};
use crate::places::{Place, Places};
use crate::shadow::{self, Unreachable};
use epithet_wire::limits::CERTIFICATE_EXPIRY_BUFFER;
use epithet_wire::{HostPattern, Principal, format_duration};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
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
#[derive(Clone)]
pub struct CaLimits {
    /// Its longest life of a certificate (`--max-ttl`).
    pub max_ttl: Duration,
    /// The extensions that it signs (`--allow-extension`).
    pub extensions: BTreeSet<String>,
    /// Whether it signs a principal beside the user (`--allow-principal`).
    pub allows_principal: Arc<dyn Fn(&Principal) -> bool + Send + Sync>,
}

impl fmt::Debug for CaLimits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "CaLimits {{ max_ttl: {:?}, extensions: {:?}, .. }}",
            self.max_ttl, self.extensions
        )
    }
}

/// What is not known of a document, because something of it could not be read: what depends on that is not said.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Doubtful {
    people: bool,
    rules: bool,
    everything: bool,
}

impl Doubtful {
    /// Something could not be read in this section, or nobody knows where.
    pub(crate) fn note(&mut self, section: Option<&str>) {
        match section {
            Some("users" | "groups") => self.people = true,
            Some("defaults" | "hosts") => self.rules = true,
            Some("oidc" | "token" | "introspection" | "command" | "default-expiration") => {}
            Some(_) | None => self.everything = true,
        }
    }
}

impl Document {
    /// Things that are allowed and look wrong, in the order in which they stand in `text`, which this was read from.
    pub fn warnings(&self, text: &str, limits: &CaLimits) -> Vec<Warning> {
        self.warnings_but(Places::of(text), limits, Doubtful::default())
    }

    /// The same, but for what would be false of a document of which something could not be read.
    pub(crate) fn warnings_but(&self, places: Places, limits: &CaLimits, doubtful: Doubtful) -> Vec<Warning> {
        if doubtful.everything {
            return Vec::new();
        }
        let mut look = Look {
            document: self,
            places,
            doubtful,
            warnings: Vec::new(),
        };
        look.emptiness();
        look.people();
        look.issuers();
        look.token();
        look.tags();
        look.lives(limits);
        look.extensions(limits);
        look.principals(limits);
        look.patterns();
        if !doubtful.rules {
            look.reach();
        }
        let mut warnings = look.warnings;
        warnings.sort_by_key(|warning| warning.place.unwrap_or_default());
        warnings
    }
}

struct Look<'d> {
    document: &'d Document,
    places: Places,
    doubtful: Doubtful,
    warnings: Vec<Warning>,
}

impl<'d> Look<'d> {
    fn warn(&mut self, path: &[&str], problem: String) {
        let place = self.place(path);
        self.warnings.push(Warning { place, problem });
    }

    /// Where a key stands, at the top or under `policy:`.
    fn place(&self, path: &[&str]) -> Option<Place> {
        self.places.find_section(path)
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
        let Doubtful { people, rules, .. } = self.doubtful;
        if self.document.users.is_empty() && self.document.groups.is_empty() && !people {
            self.warn(&["users"], "users is empty: everybody is denied".to_owned());
        }
        if self.document.hosts.is_empty() && !rules {
            let problem = "hosts is empty: defaults alone grant nothing, so everybody is denied";
            self.warn(&["hosts"], problem.to_owned());
        }
    }

    fn people(&mut self) {
        let document = self.document;
        for (list, people) in [("users", &document.users), ("groups", &document.groups)] {
            let mut spelled: BTreeMap<String, &str> = BTreeMap::new();
            for (name, tags) in people {
                if tags.is_empty() {
                    let problem = match list {
                        "users" => format!("users: {name} has no tags and gets in nowhere"),
                        _ => format!("groups: {name} has no tags, so it opens nothing to its members"),
                    };
                    self.warn(&[list, name], problem);
                }
                if name.trim() != name {
                    let problem = format!("{list}: {name:?} begins or ends with a blank, which counts");
                    self.warn(&[list, name], problem);
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
            // None at all is an error of every issuer but the first.
            if oidc.identity_prefix.as_deref() == Some("") || index == 0 && oidc.identity_prefix.is_none() {
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
                    if !held.contains_key(tag) && !self.doubtful.people {
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
            if !used.contains(tag) && !self.doubtful.rules {
                self.warn(
                    &[list, name, &index.to_string()],
                    format!("the tag {tag} is used by no rule"),
                );
            }
        }
    }

    fn lives(&mut self, limits: &CaLimits) {
        let odd = |key: &str, life: Option<Lifetime>| {
            let (life, ceiling) = (life?.get(), limits.max_ttl);
            let shown = format_duration(life);
            if life > ceiling {
                let ceiling = format_duration(ceiling);
                return Some(format!(
                    "{key}: the CA cuts {shown} to its own limit of {ceiling} (--max-ttl)"
                ));
            }
            (life <= CERTIFICATE_EXPIRY_BUFFER).then(|| {
                let buffer = format_duration(CERTIFICATE_EXPIRY_BUFFER);
                format!("{key}: a certificate of {shown} is never used: its last {buffer} count as ended")
            })
        };
        if let Some(problem) = odd("default-expiration", self.document.default_expiration) {
            self.warn(&["default-expiration"], problem);
        }
        if self.document.default_expiration.is_some() && self.document.defaults.expiration.is_some() {
            let problem = "default-expiration: wins over the life in defaults, which is not used; keep one";
            self.warn(&["default-expiration"], problem.to_owned());
        }
        for (path, name, rule) in self.rules() {
            let ttl = [&path[..], &["ttl"]].concat();
            // A key that is not there has the place of the rule.
            let is_ttl = self.place(&ttl) != self.place(&path);
            let key = if is_ttl { "ttl" } else { "expiration" };
            if let Some(problem) = odd(&format!("{name}.{key}"), rule.expiration) {
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

    /// Principals that no login gets, or that make the CA refuse the login.
    fn principals(&mut self, limits: &CaLimits) {
        let document = self.document;
        let defaults = &document.defaults;
        for (path, name, rule) in self.rules() {
            let Some(Principals::ByUser(lists)) = &rule.principals else {
                continue;
            };
            for user in lists.keys() {
                let is_open = |rule: &HostRule| rule.allow.contains_key(user);
                let is_of_defaults = path.len() == 1;
                let opened = is_open(rule) || is_open(defaults);
                let is_useful = opened || is_of_defaults && document.hosts.values().any(is_open);
                if !is_useful && !self.doubtful.rules {
                    let path = [&path[..], &["principals", user.as_str()]].concat();
                    self.warn(&path, format!("{name}.principals: nobody is allowed as {user}"));
                }
            }
        }
        let mut told = BTreeSet::new();
        for (pattern, rule) in &document.hosts {
            let (path, principals) = match (&rule.principals, &defaults.principals) {
                (Some(own), _) => (vec!["hosts", pattern.as_str()], own),
                (None, Some(theirs)) => (vec!["defaults"], theirs),
                (None, None) => continue,
            };
            let by_user = matches!(principals, Principals::ByUser(_));
            for user in rule.allow.keys().chain(defaults.allow.keys()) {
                for (index, template) in principals.of(user).iter().enumerate() {
                    let made = pattern.examples();
                    let mut made = made
                        .iter()
                        .filter_map(|host| template.fill(user.as_str(), host).ok());
                    let is_refused = |name: &Principal| name != user && !(limits.allows_principal)(name);
                    let Some(refused) = made.rfind(is_refused) else {
                        continue;
                    };
                    let index = index.to_string();
                    let user = by_user.then(|| user.as_str());
                    let path: Vec<&str> = path
                        .iter()
                        .copied()
                        .chain(["principals"])
                        .chain(user)
                        .chain([index.as_str()])
                        .collect();
                    if told.insert(path.iter().map(|key| (*key).to_owned()).collect::<Vec<_>>()) {
                        let name = path[..path.len() - 1].join(".");
                        let problem = format!(
                            "{name}: the CA refuses every login that adds {refused} (--allow-principal)"
                        );
                        self.warn(&path, problem);
                    }
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
            let grants_nothing = !grants(rule) && !grants(&self.document.defaults) && rule.deny.is_empty();
            if grants_nothing && !self.doubtful.rules {
                let problem = format!("hosts.{pattern}: allows nobody anything, and neither do the defaults");
                self.warn(&path, problem);
            }
        }
    }

    fn reach(&mut self) {
        for Unreachable { pattern, instead } in shadow::unreachable(self.document) {
            let problem = match instead.as_slice() {
                [first] => format!(
                    "hosts.{pattern}: never decides, because {first} comes first (fewer wildcards, or more plain \
                     characters) and covers and allows all of it"
                ),
                several => format!(
                    "hosts.{pattern}: never decides, because {} come first (fewer wildcards, or more plain \
                     characters) and together cover and allow all of it",
                    named(several)
                ),
            };
            self.warn(&["hosts", pattern.as_str()], problem);
        }
    }
}

/// Some patterns for people: a few by name.
fn named(patterns: &[&HostPattern]) -> String {
    const NAMED: usize = 3;
    let names: Vec<&str> = patterns.iter().map(|pattern| pattern.as_str()).collect();
    match names.as_slice() {
        [first @ .., last] if names.len() <= NAMED => format!("{} and {last}", first.join(", ")),
        _ => format!("{} and {} more", names[..NAMED].join(", "), names.len() - NAMED),
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
            allows_principal: Arc::new(|name| name.as_str().starts_with("prod-")),
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
    fn principals_that_the_ca_refuses_and_lives_that_help_nobody_are_named() {
        let text = r#"
users: {a: [t]}
groups: {" g": []}
oidc: {groups-claim: groups}
default-expiration: 4s
defaults: {ttl: 5s, allow: {root: [t]}, principals: ["{user}@{host}", prod-x]}
hosts:
  "*.lan": {}
  "*.corp": {ttl: 6s, principals: {root: [prod-root, stage-root], rot: [prod-root]}}
"#;
        let expected = [
            "3:10: groups:  g has no tags",
            "3:10: groups: \" g\" begins or ends with a blank",
            "5:1: default-expiration: a certificate of 4s is never used",
            "5:1: default-expiration: wins over",
            "6:12: defaults.ttl: a certificate of 5s is never used",
            "6:54: defaults.principals: the CA refuses every login that adds root@x7.lan",
            "9:54: hosts.*.corp.principals.root: the CA refuses every login that adds stage-root",
            "9:67: hosts.*.corp.principals: nobody is allowed as rot",
        ];
        let mut found = warnings(text);
        found.sort();
        assert_eq!(found.len(), expected.len(), "{found:#?}");
        for (found, expected) in found.iter().zip(expected) {
            assert!(found.starts_with(expected), "{found}\n{expected}");
        }
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
