//! The evaluator against a model that is too slow and too plain to be wrong in the same way.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use epithet_policy::{
    Allowed, CaLimits, Decision, Denial, Document, HostRule, Lifetime, Login, Person, Principals, Question,
    Requirement, Rules, Span,
};
use epithet_wire::HostPattern;
use epithet_wire::{HostName, Principal};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use std::cell::Cell;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// Every way to write a pattern without its braces.
fn spelled_out(pattern: &str) -> Vec<String> {
    let Some(open) = pattern.find('{') else {
        return vec![pattern.to_owned()];
    };
    let close = open + pattern[open..].find('}').unwrap();
    let alternatives = pattern[open + 1..close].split(',');
    alternatives
        .flat_map(|one| spelled_out(&format!("{}{one}{}", &pattern[..open], &pattern[close + 1..])))
        .collect()
}

fn covers(pattern: &[u8], host: &[u8]) -> bool {
    match (pattern, host) {
        ([], _) => host.is_empty(),
        ([b'*', rest @ ..], _) => (0..=host.len()).any(|taken| covers(rest, &host[taken..])),
        ([b'?', rest @ ..], [_, others @ ..]) => covers(rest, others),
        ([one, rest @ ..], [first, others @ ..]) => one == first && covers(rest, others),
        _ => false,
    }
}

/// Exact names first, then fewest wildcards, then most plain characters, then fewest `*`, then by text.
fn precedence(pattern: &str) -> impl Ord + use<> {
    // `**` is one wildcard.
    let single = (0..3).fold(pattern.to_owned(), |text, _| text.replace("**", "*"));
    let ways = spelled_out(&single);
    let most = |wild: &[char]| ways.iter().map(|way| way.matches(wild).count()).max().unwrap();
    let plain = ways
        .iter()
        .map(|way| way.len() - way.matches(['*', '?']).count())
        .min()
        .unwrap();
    let exact = !pattern.contains(['*', '?', '{']);
    (
        !exact,
        most(&['*', '?']),
        Reverse(plain),
        most(&['*']),
        pattern.to_owned(),
    )
}

/// The time of every question.
const NOW: u64 = 1000;

/// The rule, the life and the principals of a yes.
type Yes = (String, Duration, Vec<String>);

/// Whether a login is what a requirement asks for.
fn is_enough(requirement: &Requirement, login: &Login) -> bool {
    let acr = requirement.acr.is_empty() || login.acr.iter().any(|acr| requirement.acr.contains(acr));
    let amr = requirement.amr.is_empty() || login.amr.iter().any(|means| requirement.amr.contains(means));
    let age = |most: Span| {
        login
            .at
            .is_some_and(|at| at + most.0.as_secs() >= NOW && at <= NOW + 60)
    };
    acr && amr && requirement.max_age.is_none_or(age)
}

fn model(document: &Document, person: &Person, host: &str, user: &Principal) -> Option<Yes> {
    let host = host.to_lowercase();
    let own = document.users.get(&person.identity);
    let groups = person
        .groups
        .iter()
        .filter_map(|group| document.groups.get(group));
    let tags: Vec<&String> = own.into_iter().chain(groups).flatten().collect();
    let opens_to = |map: &BTreeMap<Principal, Vec<String>>, name: &str| {
        map.get(&name.parse::<Principal>().unwrap())
            .is_some_and(|needed| needed.iter().any(|tag| tags.contains(&tag)))
    };
    let opens = |map: &BTreeMap<Principal, Vec<String>>| opens_to(map, user.as_str());
    let mut rules: Vec<(&str, &HostRule)> = document
        .hosts
        .iter()
        .map(|(pattern, rule)| (pattern.as_str(), rule))
        .collect();
    rules.retain(|(pattern, _)| {
        spelled_out(pattern)
            .iter()
            .any(|way| covers(way.as_bytes(), host.as_bytes()))
    });
    rules.sort_by_key(|(pattern, _)| precedence(pattern));
    let defaults = &document.defaults;
    if opens(&defaults.deny) || rules.iter().any(|(_, rule)| opens(&rule.deny)) {
        return None;
    }
    let (pattern, rule) = rules
        .iter()
        .copied()
        .find(|(_, rule)| opens(&rule.allow) || opens(&defaults.allow))?;
    if let Some(requirement) = rule.require.as_ref().or(defaults.require.as_ref())
        && !is_enough(requirement, &person.login)
    {
        return None;
    }
    let life = rule.expiration.or(defaults.expiration);
    let mut names = vec![user.to_string()];
    for template in rule
        .principals
        .iter()
        .chain(&defaults.principals)
        .take(1)
        .flat_map(|these| these.of(user))
    {
        let name = template
            .as_str()
            .replace("{user}", user.as_str())
            .replace("{host}", &host);
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let closed = |name: &String| {
        opens_to(&defaults.deny, name) || rules.iter().any(|(_, rule)| opens_to(&rule.deny, name))
    };
    if names.iter().any(closed) {
        return None;
    }
    Some((
        pattern.to_owned(),
        life.map_or(Duration::from_secs(300), Lifetime::get),
        names,
    ))
}

fn tags() -> impl Strategy<Value = Vec<String>> {
    proptest::collection::vec("[xyz]", 0..3)
}

fn people(names: &'static str) -> impl Strategy<Value = BTreeMap<String, Vec<String>>> {
    proptest::collection::btree_map(names, tags(), 0..3)
}

fn access() -> impl Strategy<Value = BTreeMap<Principal, Vec<String>>> {
    proptest::collection::btree_map("[rs]".prop_map(|name| name.parse().unwrap()), tags(), 0..3)
}

fn rule() -> impl Strategy<Value = HostRule> {
    let deny = prop_oneof![4 => Just(BTreeMap::new()), 1 => access()];
    let life = proptest::option::of(1_u64..600)
        .prop_map(|life| life.and_then(|seconds| Lifetime::new(Duration::from_secs(seconds))));
    let require = prop_oneof![3 => Just(None), 1 => requirement().prop_map(Some)];
    let principals = prop_oneof![3 => Just(None), 1 => principals().prop_map(Some)];
    (access(), deny, life, require, principals).prop_map(|(allow, deny, expiration, require, principals)| {
        HostRule {
            allow,
            deny,
            expiration,
            require,
            principals,
            ..HostRule::default()
        }
    })
}

fn words() -> impl Strategy<Value = Vec<String>> {
    proptest::collection::vec("[mn]", 0..2)
}

fn requirement() -> impl Strategy<Value = Requirement> {
    (words(), words(), proptest::option::of(0_u64..100)).prop_map(|(acr, amr, age)| Requirement {
        acr,
        amr,
        max_age: age.map(|seconds| Span(Duration::from_secs(seconds))),
    })
}

fn principals() -> impl Strategy<Value = Principals> {
    let template = prop_oneof![
        Just("p"),
        Just("s"),
        Just("{user}"),
        Just("{user}@{host}"),
        Just("x@{host}")
    ]
    .prop_map(|text| epithet_policy::PrincipalTemplate::parse(text).unwrap());
    let list = proptest::collection::vec(template, 0..3);
    prop_oneof![
        list.clone().prop_map(Principals::Everybody),
        list.prop_map(|list| Principals::ByUser([("r".parse().unwrap(), list)].into())),
    ]
}

fn document() -> impl Strategy<Value = Document> {
    let part = prop_oneof![3 => "[ab]", 2 => Just("*".to_owned()), 1 => Just("?".to_owned()), 1 => "\\{[ab]?,[ab*]\\}"];
    let pattern = proptest::collection::vec(part, 1..4)
        .prop_map(|parts| parts.concat())
        .prop_map(|text| HostPattern::parse(&text).unwrap());
    let hosts = proptest::collection::btree_map(pattern, rule(), 0..6);
    (people("[ABC]"), people("[gh]"), rule(), hosts).prop_map(|(users, groups, defaults, hosts)| Document {
        users,
        groups,
        defaults,
        hosts,
        ..Document::default()
    })
}

fn person() -> impl Strategy<Value = Person> {
    let login = (
        proptest::option::of("[mn]"),
        words(),
        proptest::option::of(850_u64..1100),
    )
        .prop_map(|(acr, amr, at)| Login { acr, amr, at });
    ("[ABC]", proptest::collection::vec("[gh]", 0..2), login).prop_map(|(identity, groups, login)| Person {
        identity,
        groups,
        login,
        ..Person::default()
    })
}

fn agree(document: &Document, questions: &[(Person, String, String)]) -> Result<(), TestCaseError> {
    let rules = Rules::new(document);
    for (person, host, user) in questions {
        let (name, user): (HostName, Principal) = (host.parse().unwrap(), user.parse().unwrap());
        let question = Question {
            person,
            host: &name,
            user: &user,
            now: NOW,
        };
        let decided = match rules.evaluate(&question) {
            Decision::Allowed(Allowed {
                rule,
                terms,
                principals,
                ..
            }) => Some((
                rule.as_str().to_owned(),
                terms.expiration,
                principals.iter().map(ToString::to_string).collect(),
            )),
            Decision::Denied(_) => None,
        };
        // What explains a decision makes the same one.
        let explained = matches!(rules.explain(&question).decision, Decision::Allowed(_));
        prop_assert_eq!(explained, decided.is_some());
        prop_assert_eq!(decided, model(document, person, host, &user));
    }
    Ok(())
}

/// Files of rules that one test draws; ten times as many when optimized. `EPITHET_MODEL_CASES` names another number.
fn cases() -> u32 {
    let asked = std::env::var("EPITHET_MODEL_CASES");
    let usual = if cfg!(debug_assertions) { 12_500 } else { 125_000 };
    asked.ok().and_then(|cases| cases.parse().ok()).unwrap_or(usual)
}

/// Draws files of rules and questions, and counts the rules.
fn agree_on_many() {
    let config = ProptestConfig {
        cases: cases(),
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    let drawn = (
        document(),
        proptest::collection::vec((person(), "[abAB]{1,4}", "[rs]"), 1..8),
    );
    let rules = Cell::new(0);
    let agreed = TestRunner::new(config).run(&drawn, |(document, questions)| {
        rules.set(rules.get() + document.hosts.len());
        agree(&document, &questions)
    });
    agreed.unwrap();
    let least = usize::try_from(cases()).unwrap() * 2;
    assert!(rules.get() >= least, "{} rules, not {least}", rules.get());
}

/// Four times the same, so that the machine's cores share it: a hundred thousand rules in all, a million when optimized.
macro_rules! agreement {
    ($($name:ident)*) => {
        $(#[test]
        fn $name() {
            agree_on_many();
        })*
    };
}

agreement! {
    the_evaluator_agrees_with_the_model
    the_evaluator_agrees_with_the_model_again
    the_evaluator_agrees_with_the_model_a_third_time
    the_evaluator_agrees_with_the_model_a_fourth_time
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_rule_that_is_said_never_to_decide_never_does(
        document in document(),
        questions in proptest::collection::vec((person(), "[ab]{0,4}", "[rs]"), 20..40),
    ) {
        let limits = CaLimits {
            max_ttl: Duration::from_secs(600),
            extensions: BTreeSet::new(),
            allows_principal: Arc::new(|_| true),
        };
        let warnings = document.warnings("", &limits);
        let named: Vec<&str> = warnings
            .iter()
            .filter_map(|warning| warning.problem.split_once(": never decides"))
            .filter_map(|(rule, _)| rule.strip_prefix("hosts."))
            .collect();
        let rules = Rules::new(&document);
        for (person, host, user) in questions.iter().filter(|(_, host, _)| !host.is_empty()) {
            let (host, user): (HostName, Principal) = (host.parse().unwrap(), user.parse().unwrap());
            let question = Question { person, host: &host, user: &user, now: NOW };
            let decider = match rules.evaluate(&question) {
                Decision::Allowed(allowed) => Some(allowed.rule),
                Decision::Denied(
                    Denial::Insufficient { rule, .. }
                    | Denial::NoPrincipal(rule)
                    | Denial::ForbiddenPrincipal { rule, .. },
                ) => Some(rule),
                Decision::Denied(_) => None,
            };
            prop_assert!(decider.is_none_or(|rule| !named.contains(&rule.as_str())), "{decider:?}");
        }
    }
}
