//! What rules are expected to decide, written down beside them: `epithet policy test`.

use crate::decision::{Allowed, Decision, Login, Person, Question};
use crate::document::{DocumentError, Lifetime, Span};
use crate::rules::Rules;
use epithet_wire::{HostName, Principal, format_duration};
use serde::de::value::SeqAccessDeserializer;
use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_saphyr::Spanned;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::marker::PhantomData;
use std::path::PathBuf;

/// The most logins that one entry may stand for: of lists, every combination is one.
const LOGINS_MAX: usize = 10_000;

/// A file of expected decisions.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Expectations {
    /// The files with the rules, from the folder of this file; later ones over earlier ones.
    pub rules: OneOrMany<PathBuf>,
    /// What is expected.
    pub decisions: Vec<Spanned<Expectation>>,
}

/// One expected decision, or of lists every combination.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Expectation {
    user: OneOrMany<String>,
    #[serde(rename = "as")]
    login: OneOrMany<Principal>,
    host: OneOrMany<HostName>,
    expect: Verdict,
    #[serde(default)]
    groups: OneOrMany<String>,
    acr: Option<String>,
    #[serde(default)]
    amr: OneOrMany<String>,
    /// How long ago the person logged in.
    logged_in: Option<Span>,
    rule: Option<String>,
    ttl: Option<Lifetime>,
    principals: Option<BTreeSet<String>>,
    extensions: Option<BTreeSet<String>>,
    options: Option<BTreeMap<String, String>>,
    because: Option<String>,
}

/// Yes or no.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Yes.
    Allow,
    /// No.
    Deny,
}

/// A list, or its only entry alone.
#[derive(Debug, Clone)]
pub struct OneOrMany<T>(pub Vec<T>);

impl<T> Default for OneOrMany<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for OneOrMany<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Forms<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Forms<T> {
            type Value = OneOrMany<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("one, or a list")
            }
            fn visit_str<E: serde::de::Error>(self, one: &str) -> Result<OneOrMany<T>, E> {
                T::deserialize(serde::de::value::StrDeserializer::new(one)).map(|one| OneOrMany(vec![one]))
            }
            fn visit_u64<E: serde::de::Error>(self, one: u64) -> Result<OneOrMany<T>, E> {
                self.visit_str(&one.to_string())
            }
            fn visit_unit<E: serde::de::Error>(self) -> Result<OneOrMany<T>, E> {
                Ok(OneOrMany::default())
            }
            fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<OneOrMany<T>, A::Error> {
                Vec::deserialize(SeqAccessDeserializer::new(list)).map(OneOrMany)
            }
        }
        deserializer.deserialize_any(Forms(PhantomData))
    }
}

/// A decision that is not the expected one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unexpected {
    /// Line and column of the entry.
    pub place: (u64, u64),
    /// Which login it is about.
    pub login: String,
    /// What was expected and what is.
    pub problem: String,
}

impl Expectations {
    /// Reads a file's text. `file` is only used to name it in errors.
    ///
    /// # Errors
    /// [`DocumentError`] for the first thing that is wrong.
    pub fn from_yaml(file: &str, text: &str) -> Result<Self, DocumentError> {
        let read = serde_saphyr::from_str::<Option<Self>>(text);
        let expectations = read
            .map_err(|error| DocumentError::new(file, &error))?
            .unwrap_or_default();
        for entry in &expectations.decisions {
            if let Some(problem) = entry.value.problem() {
                return Err(DocumentError {
                    file: file.to_owned(),
                    place: Some((entry.referenced.line(), entry.referenced.column())),
                    problem,
                });
            }
        }
        Ok(expectations)
    }

    /// How many logins are asked about.
    pub fn logins(&self) -> usize {
        self.decisions.iter().map(|entry| entry.value.count()).sum()
    }

    /// Asks the rules about every login, at `now` in seconds since 1970.
    pub fn check(&self, rules: &Rules, now: u64) -> Vec<Unexpected> {
        let mut unexpected = Vec::new();
        for entry in &self.decisions {
            let place = (entry.referenced.line(), entry.referenced.column());
            entry.value.check(rules, now, &mut |login, problem| {
                unexpected.push(Unexpected {
                    place,
                    login,
                    problem,
                });
            });
        }
        unexpected
    }
}

impl Expectation {
    fn count(&self) -> usize {
        let lists = [self.user.0.len(), self.login.0.len(), self.host.0.len()];
        lists.into_iter().fold(1, usize::saturating_mul)
    }

    /// Why this entry asks nothing, or something that cannot be.
    fn problem(&self) -> Option<String> {
        let terms = [
            ("ttl", self.ttl.is_some()),
            ("principals", self.principals.is_some()),
            ("extensions", self.extensions.is_some()),
            ("options", self.options.is_some()),
        ];
        let of_a_yes = terms.iter().find(|(_, is_given)| *is_given);
        match self.count() {
            0 => return Some("user, as and host must name at least one each".to_owned()),
            1..=LOGINS_MAX => {}
            count => {
                return Some(format!(
                    "this stands for {count} logins; at most {LOGINS_MAX} are asked about"
                ));
            }
        }
        match (self.expect, of_a_yes, &self.because) {
            (Verdict::Deny, Some((key, _)), _) => Some(format!("`{key}` belongs to `expect: allow`")),
            (Verdict::Allow, _, Some(_)) => Some("`because` belongs to `expect: deny`".to_owned()),
            _ => None,
        }
    }

    fn check(&self, rules: &Rules, now: u64, report: &mut dyn FnMut(String, String)) {
        for identity in &self.user.0 {
            let person = Person {
                identity: identity.clone(),
                groups: self.groups.0.clone(),
                login: Login {
                    acr: self.acr.clone(),
                    amr: self.amr.0.clone(),
                    at: self.logged_in.map(|ago| now.saturating_sub(ago.0.as_secs())),
                },
                ..Person::default()
            };
            for (user, host) in self
                .login
                .0
                .iter()
                .flat_map(|user| self.host.0.iter().map(move |host| (user, host)))
            {
                let question = Question {
                    person: &person,
                    host,
                    user,
                    now,
                };
                if let Some(problem) = self.compare(&rules.evaluate(&question)) {
                    report(format!("{identity} as {user}@{host}"), problem);
                }
            }
        }
    }

    fn compare(&self, decision: &Decision<'_>) -> Option<String> {
        match (self.expect, decision) {
            (Verdict::Allow, Decision::Denied(denial)) => {
                Some(format!("expected to be allowed, is denied: {denial}"))
            }
            (Verdict::Deny, Decision::Allowed(allowed)) => Some(format!(
                "expected to be denied, is allowed by the rule for {}",
                allowed.rule
            )),
            (Verdict::Deny, Decision::Denied(denial)) => {
                let (said, rule) = (denial.to_string(), denial.rule().map(ToString::to_string));
                let because = self
                    .because
                    .as_ref()
                    .filter(|because| !said.contains(because.as_str()));
                because
                    .map(|because| format!("is denied as expected, but because: {said}; expected: {because}"))
                    .or_else(|| {
                        differs(
                            "by the rule for",
                            self.rule.as_ref(),
                            &rule.unwrap_or_else(|| "none".to_owned()),
                        )
                    })
            }
            (Verdict::Allow, Decision::Allowed(allowed)) => self.compare_terms(allowed),
        }
    }

    fn compare_terms(&self, allowed: &Allowed<'_>) -> Option<String> {
        let terms = allowed.terms;
        let list = |names: &BTreeSet<String>| names.iter().cloned().collect::<Vec<_>>().join(", ");
        let options = |options: &BTreeMap<String, String>| {
            let shown = options.iter().map(|(name, value)| format!("{name}={value}"));
            shown.collect::<Vec<_>>().join(", ")
        };
        let ttl = self.ttl.map(|life| format_duration(life.get()));
        let principals = allowed.principals.iter().map(ToString::to_string).collect();
        let extensions = terms.extensions.keys().cloned().collect();
        differs("by the rule for", self.rule.as_ref(), allowed.rule.as_str())
            .or_else(|| differs("with the ttl", ttl.as_ref(), &format_duration(terms.expiration)))
            .or_else(|| {
                differs(
                    "with the principals",
                    self.principals.as_ref().map(list).as_ref(),
                    &list(&principals),
                )
            })
            .or_else(|| {
                differs(
                    "with the extensions",
                    self.extensions.as_ref().map(list).as_ref(),
                    &list(&extensions),
                )
            })
            .or_else(|| {
                let expected = self.options.as_ref().map(options);
                differs(
                    "with the options",
                    expected.as_ref(),
                    &options(&terms.critical_options),
                )
            })
    }
}

/// What is expected of one property, if it is something else than what is.
fn differs(what: &str, expected: Option<&String>, found: &str) -> Option<String> {
    let expected = expected.filter(|expected| *expected != found)?;
    let shown = |text: &str| {
        if text.is_empty() {
            "none".to_owned()
        } else {
            text.to_owned()
        }
    };
    Some(format!(
        "is decided as expected, but {what} {}; expected: {}",
        shown(found),
        shown(expected)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Document;

    const RULES: &str = r#"
users: {alice: [admin], bob: [eng]}
groups: {out: [contractor]}
defaults: {deny: {root: [contractor]}, extensions: {permit-pty: ""}}
hosts:
  "*.example.com": {allow: {root: [admin], deploy: [eng]}, ttl: 2m, force-command: uptime, principals: [x]}
  "vault.example.com": {allow: {root: [admin]}, require: {max-age: 5m, amr: hwk}}
"#;

    fn check(entry: &str) -> Vec<String> {
        let rules = Rules::new(&Document::from_yaml("p", RULES).unwrap());
        let text = format!("rules: p.yaml\ndecisions:\n  - {{{entry}}}\n");
        let expectations = Expectations::from_yaml("t", &text).unwrap();
        let unexpected = expectations.check(&rules, 10_000);
        assert!(unexpected.iter().all(|one| one.place == (3, 5)), "{unexpected:?}");
        unexpected
            .into_iter()
            .map(|one| format!("{}: {}", one.login, one.problem))
            .collect()
    }

    #[test]
    fn a_decision_is_compared_with_everything_that_is_expected_of_it() {
        let web = "user: alice, as: root, host: web.example.com";
        let vault = "user: alice, as: root, host: vault.example.com";
        for (entry, expected) in [
            (format!("{web}, expect: allow"), None),
            (
                format!(
                    "{web}, expect: allow, rule: '*.example.com', ttl: 120s, principals: [x, root], \
                     extensions: [permit-pty], options: {{force-command: uptime}}"
                ),
                None,
            ),
            (
                format!("{web}, expect: deny"),
                Some("is allowed by the rule for *.example.com"),
            ),
            (
                format!("{web}, expect: allow, rule: '*'"),
                Some("rule for *.example.com; expected: *"),
            ),
            (
                format!("{web}, expect: allow, ttl: 3m"),
                Some("ttl 2m; expected: 3m"),
            ),
            (
                format!("{web}, expect: allow, principals: [root]"),
                Some("principals root, x; expected: root"),
            ),
            (
                format!("{web}, expect: allow, extensions: []"),
                Some("extensions permit-pty; expected: none"),
            ),
            (
                format!("{web}, expect: allow, options: {{}}"),
                Some("force-command=uptime; expected: none"),
            ),
            (
                format!("{web}, groups: out, expect: deny, because: denied by the defaults"),
                None,
            ),
            (
                format!("{web}, groups: [out], expect: deny, because: no rule"),
                Some("but because: denied by"),
            ),
            (
                format!("{web}, groups: [out], expect: allow"),
                Some("is denied: denied by the defaults"),
            ),
            (
                format!("{vault}, expect: deny, because: amr hwk, rule: vault.example.com"),
                None,
            ),
            (
                format!("{vault}, expect: deny, rule: '*'"),
                Some("rule for vault.example.com; expected: *"),
            ),
            (format!("{vault}, amr: [hwk], logged-in: 4m, expect: allow"), None),
            (
                format!("{vault}, amr: hwk, logged-in: 6m, expect: deny, because: the last 5m"),
                None,
            ),
            (
                "user: mallory, as: root, host: x, expect: deny, because: not in users".into(),
                None,
            ),
        ] {
            let found = check(&entry);
            match expected {
                None => assert_eq!(found, [""; 0], "{entry}"),
                Some(words) => {
                    assert!(found.len() == 1 && found[0].contains(words), "{entry}: {found:?}");
                }
            }
        }
    }

    #[test]
    fn lists_stand_for_every_combination() {
        let entry =
            "user: [alice, bob], as: [root, deploy], host: [a.example.com, b.example.com], expect: allow";
        assert_eq!(
            check(entry)
                .iter()
                .filter_map(|found| found.split(':').next())
                .collect::<Vec<_>>(),
            [
                "alice as deploy@a.example.com",
                "alice as deploy@b.example.com",
                "bob as root@a.example.com",
                "bob as root@b.example.com"
            ]
        );
    }

    #[test]
    fn what_is_wrong_with_a_table_is_named_with_its_line() {
        for (text, expected) in [
            (
                "decisions: [{user: a, as: r, host: h, expect: maybe}]",
                "unknown variant `maybe`",
            ),
            (
                "decisions: [{user: a, as: r, host: h}]",
                "t:1:30: missing field `expect`",
            ),
            (
                "decisions: [{user: a, as: r, host: h, expect: deny, exspect: x}]",
                "unknown field `exspect`",
            ),
            (
                "decisions: [{user: [], as: r, host: h, expect: deny}]",
                "t:1:13: user, as and host",
            ),
            (
                "decisions: [{user: a, as: 'a b', host: h, expect: deny}]",
                "the user name must begin",
            ),
            (
                "decisions: [{user: a, as: r, host: 'a b', expect: deny}]",
                "the host name has the character",
            ),
            (
                "decisions: [{user: a, as: r, host: h, expect: deny, ttl: 5m}]",
                "`ttl` belongs to `expect: allow`",
            ),
            (
                "decisions: [{user: a, as: r, host: h, expect: allow, because: x}]",
                "`because` belongs to",
            ),
            ("tests: []", "unknown field `tests`"),
        ] {
            let error = Expectations::from_yaml("t", text).unwrap_err().to_string();
            assert!(error.contains(expected) && error.starts_with("t:1:"), "{error}");
        }
        let many = |count: usize| {
            let hosts = vec!["h"; count].join(",");
            format!("decisions: [{{user: a, as: r, host: [{hosts}], expect: deny}}]")
        };
        assert_eq!(
            Expectations::from_yaml("t", &many(LOGINS_MAX)).unwrap().logins(),
            LOGINS_MAX
        );
        let error = Expectations::from_yaml("t", &many(LOGINS_MAX + 1))
            .unwrap_err()
            .to_string();
        assert!(error.contains("10001 logins"), "{error}");
        assert_eq!(Expectations::from_yaml("t", "").unwrap().logins(), 0);
    }
}
