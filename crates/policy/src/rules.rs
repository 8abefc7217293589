//! The rules in the form that decides, and the decision. Pure: values in, a value out.
//!
//! A person may log in as a user of a host when a rule whose pattern covers the host, or the defaults, opens that user
//! to one of the person's tags, and no such rule closes it to one of them; nor, beside the user, any principal that the
//! certificate would have. The most specific rule that opens it says
//! for how long and with which options, and what the login must have been like; a rule that grants this person nothing
//! here says nothing.

use crate::decision::{Allowed, Decision, Denial, Person, Question};
use crate::document::Document;
use crate::terms::Terms;
use epithet_wire::{HostPattern, HostSketch, PatternSketch, Principal};
use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};

/// A [`Document`]'s users, groups, defaults and hosts, ready to decide.
#[derive(Debug)]
pub struct Rules {
    users: HashMap<Box<str>, Tags>,
    groups: HashMap<Box<str>, Tags>,
    default_allow: Access,
    default_deny: Access,
    /// Most specific first.
    rules: Vec<Rule>,
    /// Which rules are for one name, and which have wildcards and have to be tried; both in the order of `rules`.
    exact: HashMap<Box<str>, Vec<usize>>,
    wild: Vec<(PatternSketch, usize)>,
    any_deny: bool,
    /// What the numbers of tags stand for.
    names: Vec<String>,
}

/// Tags as small numbers, sorted.
type Tags = Box<[u32]>;
type Access = HashMap<Principal, Tags>;

#[derive(Debug)]
pub(crate) struct Rule {
    pub(crate) pattern: HostPattern,
    allow: Access,
    deny: Access,
    terms: Terms,
}

impl Rule {
    pub(crate) fn allows(&self, user: &Principal, tags: &[u32]) -> bool {
        holds(&self.allow, user, tags)
    }

    pub(crate) fn denies(&self, user: &Principal, tags: &[u32]) -> bool {
        holds(&self.deny, user, tags)
    }

    /// What this rule says of a login that it opens to this person.
    fn decide(&self, question: &Question<'_>, host: &str) -> Decision<'_> {
        let (rule, terms) = (&self.pattern, &self.terms);
        if let Some(lacking) = terms.requirement.lacking(&question.person.login, question.now) {
            return Decision::Denied(Denial::Insufficient { rule, lacking });
        }
        match terms.principals_for(question.user, host) {
            Ok(principals) => Decision::Allowed(Allowed {
                rule,
                terms,
                principals,
            }),
            Err(_) => Decision::Denied(Denial::NoPrincipal(rule)),
        }
    }
}

impl Rules {
    /// Prepares a document's rules.
    pub fn new(document: &Document) -> Self {
        let mut names = HashMap::new();
        let mut tags = |list: &Vec<String>| -> Tags {
            let mut tags: Vec<u32> = list
                .iter()
                .map(|tag| {
                    let next = u32::try_from(names.len()).unwrap_or(u32::MAX);
                    *names.entry(tag.clone()).or_insert(next)
                })
                .collect();
            tags.sort_unstable();
            tags.dedup();
            tags.into()
        };
        let mut people = |map: &BTreeMap<String, Vec<String>>| -> HashMap<Box<str>, Tags> {
            map.iter()
                .map(|(name, list)| (name.as_str().into(), tags(list)))
                .collect()
        };
        let (users, groups) = (people(&document.users), people(&document.groups));
        let mut access = |map: &BTreeMap<Principal, Vec<String>>| -> Access {
            map.iter()
                .map(|(principal, list)| (principal.clone(), tags(list)))
                .collect()
        };
        let defaults = &document.defaults;
        let (default_allow, default_deny) = (access(&defaults.allow), access(&defaults.deny));
        let rules: Vec<Rule> = document
            .hosts
            .iter()
            .map(|(pattern, rule)| Rule {
                pattern: pattern.clone(),
                allow: access(&rule.allow),
                deny: access(&rule.deny),
                terms: Terms::new(rule, document),
            })
            .collect();
        let mut exact: HashMap<Box<str>, Vec<usize>> = HashMap::new();
        let mut wild = Vec::new();
        for (index, rule) in rules.iter().enumerate() {
            match rule.pattern.exact_name() {
                Some(name) => exact.entry(name.into()).or_default().push(index),
                None => wild.push((rule.pattern.sketch(), index)),
            }
        }
        let mut numbered: Vec<(String, u32)> = names.into_iter().collect();
        numbered.sort_unstable_by_key(|(_, number)| *number);
        let names = numbered.into_iter().map(|(name, _)| name).collect();
        let any_deny = !default_deny.is_empty() || rules.iter().any(|rule| !rule.deny.is_empty());
        Self {
            users,
            groups,
            default_allow,
            default_deny,
            rules,
            exact,
            wild,
            any_deny,
            names,
        }
    }

    /// Decides whether a person may log in to a host as a user.
    pub fn evaluate(&self, question: &Question<'_>) -> Decision<'_> {
        let Some(tags) = self.tags_of(question.person) else {
            return Decision::Denied(Denial::UnknownUser);
        };
        let (host, user) = (question.host.canonical(), question.user);
        if self.any_deny
            && let Some(by) = self.forbidden(&tags, &host, user)
        {
            return Decision::Denied(Denial::Forbidden(by));
        }
        let by_default = self.default_allows(user, &tags);
        let mut covered = false;
        for rule in self.covering(&host) {
            covered = true;
            if by_default || rule.allows(user, &tags) {
                return match rule.decide(question, &host) {
                    Decision::Allowed(allowed) if self.any_deny => {
                        self.without_forbidden(allowed, &tags, &host)
                    }
                    decision => decision,
                };
            }
        }
        Decision::Denied(if covered {
            Denial::NotAllowed
        } else {
            Denial::NoRule
        })
    }

    /// Those of a person's groups that have tags here.
    pub fn known_groups<'p>(&self, person: &'p Person) -> impl Iterator<Item = &'p str> {
        let groups = person.groups.iter().map(String::as_str);
        groups.filter(|group| self.groups.contains_key(*group))
    }

    /// Whether any group has an entry here.
    pub fn have_groups(&self) -> bool {
        !self.groups.is_empty()
    }

    /// The groups that have an entry here.
    pub fn groups(&self) -> impl Iterator<Item = &str> {
        self.groups.keys().map(|group| &**group)
    }

    /// The patterns, most specific first.
    pub fn patterns(&self) -> impl Iterator<Item = &HostPattern> {
        self.rules.iter().map(|rule| &rule.pattern)
    }

    /// Every rule, in the order in which they are tried.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Rule> {
        self.rules.iter()
    }

    pub(crate) fn default_allows(&self, user: &Principal, tags: &[u32]) -> bool {
        holds(&self.default_allow, user, tags)
    }

    pub(crate) fn tag_name(&self, tag: u32) -> &str {
        usize::try_from(tag)
            .ok()
            .and_then(|tag| self.names.get(tag))
            .map_or("", String::as_str)
    }

    /// The rules that cover a host, most specific first: names without wildcards come before all others.
    fn covering<'a, 'h>(&'a self, host: &'h str) -> impl Iterator<Item = &'a Rule> + use<'a, 'h> {
        let sketch = HostSketch::of(host);
        let exact = self.exact.get(host).into_iter().flatten();
        let exact = exact.map(|index| &self.rules[*index]);
        // Most patterns are left without a look at the rule itself.
        let wild = self
            .wild
            .iter()
            .filter(move |(pattern, _)| pattern.admits(&sketch));
        let wild = wild.map(|(_, index)| &self.rules[*index]);
        exact.chain(wild.filter(move |rule| rule.pattern.matches(host)))
    }

    /// Whether a principal is closed to these tags on a host: by the defaults (`Some(None)`) or by a rule.
    fn forbidden(&self, tags: &[u32], host: &str, principal: &Principal) -> Option<Option<&HostPattern>> {
        if holds(&self.default_deny, principal, tags) {
            return Some(None);
        }
        self.covering(host)
            .find(|rule| rule.denies(principal, tags))
            .map(|rule| Some(&rule.pattern))
    }

    /// A yes whose principals are all open to these tags: a host may let somebody in as any of them, not only as the user
    /// who was asked for.
    fn without_forbidden<'a>(&'a self, allowed: Allowed<'a>, tags: &[u32], host: &str) -> Decision<'a> {
        // The first is the user.
        for principal in allowed.principals.iter().skip(1) {
            if let Some(by) = self.forbidden(tags, host, principal) {
                return Decision::Denied(Denial::ForbiddenPrincipal {
                    rule: allowed.rule,
                    principal: principal.clone(),
                    by,
                });
            }
        }
        Decision::Allowed(allowed)
    }

    /// A person's tags: their own and their groups'; `None` for somebody who is in neither list.
    pub(crate) fn tags_of(&self, person: &Person) -> Option<Cow<'_, [u32]>> {
        let own = self.users.get(person.identity.as_str());
        let groups = person
            .groups
            .iter()
            .filter_map(|group| self.groups.get(group.as_str()));
        let mut all: Option<Cow<'_, [u32]>> = own.map(|tags| (&**tags).into());
        for tags in groups {
            match &mut all {
                None => all = Some((&**tags).into()),
                Some(all) => all.to_mut().extend_from_slice(tags),
            }
        }
        all
    }
}

fn holds(access: &Access, user: &Principal, tags: &[u32]) -> bool {
    access
        .get(user)
        .is_some_and(|needed| tags.iter().any(|tag| needed.binary_search(tag).is_ok()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decision::Login;

    const RULES: &str = r#"
users:
  alice@example.com: [admin, eng]
  bob@example.com: [eng]
  carol@example.com: [dba]
  dave@example.com: []
groups:
  oncall: [admin]
  contractors: [contractor]
defaults:
  allow: {root: [admin]}
  deny: {root: [contractor]}
  expiration: 10m
  extensions: {permit-pty: ""}
hosts:
  "*.prod.example.com": {expiration: 2m, allow: {deploy: [eng]}, deny: {deploy: [contractor]}}
  "db-1.prod.example.com": {allow: {postgres: [dba]}, expiration: 1m, force-command: psql, source-address: [10.0.0.0/8]}
  "dev-*{,.example.com}": {allow: {ubuntu: [eng, dba]}, extensions: {}}
  "{prod,dev,stage,qa}-*.example.com": {allow: {qa: [eng]}, expiration: 9m}
  "prod-1.example.com": {allow: {qa: [eng]}, expiration: 3m}
"#;

    fn decide(who: &str, groups: &[&str], target: &str) -> String {
        let rules = Rules::new(&Document::from_yaml("rules", RULES).unwrap());
        let (user, host) = target.split_once('@').unwrap();
        let person = Person {
            identity: who.into(),
            groups: groups.iter().map(|group| (*group).to_owned()).collect(),
            ..Person::default()
        };
        let (host, user) = (host.parse().unwrap(), user.parse().unwrap());
        let question = Question {
            person: &person,
            host: &host,
            user: &user,
            now: 0,
        };
        match rules.evaluate(&question) {
            Decision::Allowed(Allowed { rule, terms, .. }) => {
                let options: String = terms
                    .critical_options
                    .iter()
                    .map(|(k, v)| format!(" {k}={v}"))
                    .collect();
                let extensions: Vec<_> = terms.extensions.keys().map(String::as_str).collect();
                format!(
                    "{rule} {}s [{}]{options}",
                    terms.expiration.as_secs(),
                    extensions.join(",")
                )
            }
            Decision::Denied(denial) => denial.to_string(),
        }
    }

    #[test]
    fn decisions_are_those_of_the_table() {
        let (alice, bob, carol) = ("alice@example.com", "bob@example.com", "carol@example.com");
        let none: &[&str] = &[];
        for (who, groups, target, expected) in [
            (
                alice,
                none,
                "root@web.prod.example.com",
                "*.prod.example.com 120s [permit-pty]",
            ),
            (
                bob,
                none,
                "deploy@web.prod.example.com",
                "*.prod.example.com 120s [permit-pty]",
            ),
            (
                bob,
                none,
                "root@web.prod.example.com",
                "no rule for this host allows",
            ),
            (bob, none, "ubuntu@dev-7", "dev-*{,.example.com} 600s []"),
            (
                bob,
                none,
                "ubuntu@DEV-7.Example.COM.",
                "dev-*{,.example.com} 600s []",
            ),
            // The narrowest rule covers the host and grants bob nothing, so its terms are not his.
            (
                bob,
                none,
                "deploy@db-1.prod.example.com",
                "*.prod.example.com 120s [permit-pty]",
            ),
            (
                carol,
                none,
                "postgres@db-1.prod.example.com",
                "db-1.prod.example.com 60s [permit-pty] force-command=psql source-address=10.0.0.0/8",
            ),
            (
                alice,
                none,
                "root@db-1.prod.example.com",
                "db-1.prod.example.com 60s [permit-pty] force-command=psql",
            ),
            (
                carol,
                none,
                "postgres@db-2.prod.example.com",
                "no rule for this host allows",
            ),
            // The long pattern says less than the plain name.
            (bob, none, "qa@prod-1.example.com", "prod-1.example.com 180s"),
            (
                bob,
                none,
                "qa@prod-2.example.com",
                "{prod,dev,stage,qa}-*.example.com 540s",
            ),
            // Defaults alone grant nothing.
            (alice, none, "root@github.com", "no host pattern covers this host"),
            (
                "mallory@example.com",
                none,
                "root@web.prod.example.com",
                "not in users",
            ),
            (
                "Alice@example.com",
                none,
                "root@web.prod.example.com",
                "not in users",
            ),
            (
                "dave@example.com",
                none,
                "root@web.prod.example.com",
                "no rule for this host allows",
            ),
            (
                "dave@example.com",
                &["oncall"],
                "root@web.prod.example.com",
                "*.prod.example.com 120s",
            ),
            (
                "erin@example.com",
                &["oncall"],
                "root@web.prod.example.com",
                "*.prod.example.com 120s",
            ),
            (
                "erin@example.com",
                &["others"],
                "root@web.prod.example.com",
                "not in users",
            ),
            (
                alice,
                &["contractors"],
                "root@web.prod.example.com",
                "denied by the defaults",
            ),
            (
                bob,
                &["contractors"],
                "deploy@web.prod.example.com",
                "denied by the rule for *.prod.example.com",
            ),
            (
                bob,
                &["contractors"],
                "ubuntu@dev-1",
                "dev-*{,.example.com} 600s []",
            ),
        ] {
            let decision = decide(who, groups, target);
            assert!(
                decision.starts_with(expected),
                "{who} {groups:?} {target}: {decision}"
            );
        }
    }

    /// Rules that ask how somebody logged in, and that name principals.
    const DEMANDING: &str = r#"
users: {alice: [admin]}
defaults: {allow: {root: [admin]}, principals: [everywhere]}
hosts:
  "*": {}
  "*.prod": {require: {amr: [hwk]}, principals: {root: [prod-root, root, prod-root]}}
  "vault.prod": {require: {max-age: 5m, acr: phr}, principals: ["{user}@{host}"]}
  "open.prod": {require: {}, principals: []}
"#;

    #[test]
    fn the_rule_that_opens_a_login_says_what_it_must_be_like_and_no_broader_one_is_asked() {
        let rules = Rules::new(&Document::from_yaml("rules", DEMANDING).unwrap());
        let decide = |login: &Login, host: &str| {
            let person = Person {
                identity: "alice".into(),
                login: login.clone(),
                ..Person::default()
            };
            let (host, user) = (host.parse().unwrap(), "root".parse().unwrap());
            let question = Question {
                person: &person,
                host: &host,
                user: &user,
                now: 1000,
            };
            match rules.evaluate(&question) {
                Decision::Allowed(allowed) => {
                    let names: Vec<_> = allowed.principals.iter().map(Principal::as_str).collect();
                    format!("{}: {}", allowed.rule, names.join(","))
                }
                Decision::Denied(denial) => denial.to_string(),
            }
        };
        let nothing = Login::default();
        let key = Login {
            amr: vec!["pwd".into(), "hwk".into()],
            ..Login::default()
        };
        let fresh = Login {
            acr: Some("phr".into()),
            at: Some(900),
            ..Login::default()
        };
        for (login, host, expected) in [
            (&nothing, "web", "*: root,everywhere"),
            (
                &nothing,
                "web.prod",
                "the rule for *.prod requires a login with amr hwk",
            ),
            (&key, "web.prod", "*.prod: root,prod-root"),
            (
                &key,
                "vault.prod",
                "the rule for vault.prod requires a login with acr phr",
            ),
            (&fresh, "VAULT.prod.", "vault.prod: root,root@vault.prod"),
            (&nothing, "open.prod", "open.prod: root"),
        ] {
            assert_eq!(decide(login, host), expected, "{host}");
        }
    }

    /// A host may let somebody in as any principal of their certificate, so a denial counts for each.
    #[test]
    fn a_denial_wins_over_principals_that_a_rule_adds() {
        let rules = r#"
users: {ivy: [intern], ann: [admin]}
defaults: {deny: {deploy: [intern]}}
hosts:
  "*.example.com": {allow: {root: [intern, admin]}, principals: {root: [deploy]}, deny: {"root@b.example.com": [admin]}}
  "b.example.com": {allow: {root: [admin]}, principals: ["{user}@{host}"]}
"#;
        let rules = Rules::new(&Document::from_yaml("rules", rules).unwrap());
        for (who, host, expected) in [
            (
                "ivy",
                "a.example.com",
                "the rule for *.example.com adds the principal deploy, which is denied by the defaults",
            ),
            ("ann", "a.example.com", "root,deploy"),
            (
                "ann",
                "b.example.com",
                "the rule for b.example.com adds the principal root@b.example.com, which is denied by the rule for *.example.com",
            ),
        ] {
            let person = Person {
                identity: who.into(),
                ..Person::default()
            };
            let question = Question {
                person: &person,
                host: &host.parse().unwrap(),
                user: &"root".parse().unwrap(),
                now: 0,
            };
            let decided = match rules.evaluate(&question) {
                Decision::Allowed(allowed) => {
                    let names: Vec<_> = allowed.principals.iter().map(Principal::as_str).collect();
                    names.join(",")
                }
                Decision::Denied(denial) => denial.to_string(),
            };
            assert_eq!(decided, expected, "{who} {host}");
        }
    }
}
