//! What other rules would have said of past decisions: `epithet policy replay`.

use crate::decision::{Decision, Denial, Person, Question};
use crate::rules::Rules;
use epithet_wire::display::sanitize_line;
use epithet_wire::{HostName, Principal};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::io::{self, BufRead, Read};

/// The longest line that is read; an audit line has a few KiB at most.
const LINE_MAX: u64 = 1024 * 1024;
/// Different changes that are kept; more are only counted.
const CHANGES_MAX: usize = 10_000;

/// What a line of the CA's audit log says that rules decide about.
#[derive(Debug, Deserialize)]
struct Line {
    decision: String,
    status: u16,
    #[serde(default)]
    time: String,
    identity: Option<String>,
    #[serde(default)]
    groups: Vec<String>,
    host: String,
    user: String,
    rule: Option<String>,
    #[serde(default)]
    principals: Vec<String>,
}

/// A log of decisions, and what the rules would have said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Replay {
    /// Decisions that rules made.
    pub decisions: u64,
    /// Those that would be the same, by the same rule.
    pub same: u64,
    /// Those that would be others, each with how often it was made.
    pub changes: BTreeMap<Change, Times>,
    /// Others that were too many different ones to be kept.
    pub not_kept: u64,
    /// Lines about which rules had no say: tokens that were no good, outages, what the CA refused itself.
    pub without_rules: u64,
    /// Lines that are no audit lines.
    pub unreadable: u64,
}

/// How often, and when last.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Times {
    /// How often.
    pub count: u64,
    /// The last line's time, as it stands there.
    pub last: String,
}

/// A decision that would be another one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Change {
    /// What becomes of it.
    pub kind: Kind,
    /// Who.
    pub identity: String,
    /// Their groups that the rules knew.
    pub groups: Vec<String>,
    /// The user on the host.
    pub user: String,
    /// The host.
    pub host: String,
    /// What was decided, and by which rule.
    pub was: String,
    /// What would be decided, and why.
    pub becomes: String,
}

/// What becomes of a past decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// It was a no, and would be a yes.
    Allowed,
    /// It was a yes, and would be a no.
    Denied,
    /// It was a yes, and would depend on how the person logged in, which the log does not say.
    Depends,
    /// It would be the same, with other principals.
    OtherPrincipals,
    /// It would be the same, by another rule and on its terms.
    OtherRule,
}

impl Kind {
    /// Whether somebody gets in who did not, or may not who did.
    pub fn is_another_verdict(self) -> bool {
        !matches!(self, Self::OtherPrincipals | Self::OtherRule)
    }
}

impl Replay {
    /// Reads a log, line by line, and asks the rules about every decision in it.
    ///
    /// # Errors
    /// The log cannot be read.
    pub fn of(rules: &Rules, mut log: impl BufRead) -> io::Result<Self> {
        let (mut replay, mut line) = (Self::default(), Vec::new());
        loop {
            line.clear();
            if log.by_ref().take(LINE_MAX).read_until(b'\n', &mut line)? == 0 {
                return Ok(replay);
            }
            // The rest of a line that is too long is another one that is none.
            replay.add(rules, &line);
        }
    }

    fn add(&mut self, rules: &Rules, line: &[u8]) {
        if line.iter().all(u8::is_ascii_whitespace) {
            return;
        }
        let Ok(line) = serde_json::from_slice::<Line>(line) else {
            self.unreadable += 1;
            return;
        };
        let was_allowed = line.decision == "issued";
        let (Some(identity), true) = (&line.identity, was_allowed || line.status == 403) else {
            self.without_rules += 1;
            return;
        };
        self.decisions += 1;
        let person = Person {
            identity: identity.clone(),
            groups: line.groups.clone(),
            ..Person::default()
        };
        let Some((kind, becomes)) = would_be(rules, &person, &line, was_allowed) else {
            self.same += 1;
            return;
        };
        let rule = line.rule.as_deref().unwrap_or("no rule");
        let shown = |text: &str| sanitize_line(text, 300);
        let change = Change {
            kind,
            identity: shown(identity),
            groups: line.groups.iter().map(|group| shown(group)).collect(),
            user: shown(&line.user),
            host: shown(&line.host),
            was: match was_allowed {
                true => format!("allowed by {}", shown(rule)),
                false => format!("denied by {}", shown(rule)),
            },
            becomes,
        };
        if self.changes.len() >= CHANGES_MAX && !self.changes.contains_key(&change) {
            self.not_kept += 1;
            return;
        }
        let times = self.changes.entry(change).or_default();
        times.count += 1;
        times.last = shown(&line.time);
    }

    /// Whether any past decision would be the opposite.
    pub fn has_another_verdict(&self) -> bool {
        self.not_kept > 0 || self.changes.keys().any(|change| change.kind.is_another_verdict())
    }
}

/// What would become of a decision, and why; `None` for the same.
fn would_be(rules: &Rules, person: &Person, line: &Line, was_allowed: bool) -> Option<(Kind, String)> {
    let (Ok(host), Ok(user)) = (HostName::parse(&line.host), Principal::parse(&line.user)) else {
        // Nobody may log in to what is no host or as what is no user, by any rules.
        return was_allowed.then(|| (Kind::Denied, "no host or user has that name".to_owned()));
    };
    let question = Question {
        person,
        host: &host,
        user: &user,
        now: 0,
    };
    match (was_allowed, rules.evaluate(&question)) {
        (true, Decision::Denied(denial @ Denial::Insufficient { rule, .. })) => {
            // By the same rule it was enough, as far as anybody knows.
            let is_same = line.rule.as_deref() == Some(rule.as_str());
            (!is_same).then(|| (Kind::Depends, denial.to_string()))
        }
        (true, Decision::Denied(denial)) => Some((Kind::Denied, denial.to_string())),
        (false, Decision::Denied(_)) => None,
        (false, Decision::Allowed(allowed)) => {
            let by_the_same = line.rule.as_deref() == Some(allowed.rule.as_str());
            let why = if by_the_same { "the same rule" } else { "the rule" };
            Some((Kind::Allowed, format!("allowed by {why} for {}", allowed.rule)))
        }
        (true, Decision::Allowed(allowed)) => {
            let principals: Vec<&str> = allowed.principals.iter().map(Principal::as_str).collect();
            if line
                .rule
                .as_deref()
                .is_some_and(|rule| rule != allowed.rule.as_str())
            {
                Some((Kind::OtherRule, format!("allowed by {}", allowed.rule)))
            } else if !line.principals.is_empty() && line.principals != principals {
                Some((
                    Kind::OtherPrincipals,
                    format!("with the principals {}", principals.join(", ")),
                ))
            } else {
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Document;

    const RULES: &str = r#"
users: {alice: [admin], bob: [eng]}
groups: {sre: [admin]}
hosts:
  "*.example.com": {allow: {root: [admin]}, principals: [p]}
  "strong.example.com": {allow: {root: [admin]}, require: {amr: hwk}}
"#;

    fn line(decision: &str, who: &str, host: &str, more: &str) -> String {
        let status = if decision == "issued" { 200 } else { 403 };
        format!(
            r#"{{"time":"T","decision":"{decision}","status":{status},"host":"{host}","user":"root","port":22,"identity":"{who}"{more},"previous":"x"}}"#
        )
    }

    #[test]
    fn a_past_decision_is_compared_with_what_it_would_be() {
        let rules = Rules::new(&Document::from_yaml("p", RULES).unwrap());
        let rule = |rule: &str| format!(r#","rule":"{rule}""#);
        for (line, expected) in [
            (
                line("issued", "alice", "web.example.com", &rule("*.example.com")),
                None,
            ),
            (line("issued", "alice", "web.example.com", ""), None),
            (
                line("issued", "alice", "web.example.com", &rule("*")),
                Some(Kind::OtherRule),
            ),
            (
                line(
                    "issued",
                    "alice",
                    "web.example.com",
                    r#","rule":"*.example.com","principals":["root"]"#,
                ),
                Some(Kind::OtherPrincipals),
            ),
            (
                line(
                    "issued",
                    "alice",
                    "web.example.com",
                    r#","rule":"*.example.com","principals":["root","p"]"#,
                ),
                None,
            ),
            (
                line("issued", "bob", "web.example.com", &rule("*.example.com")),
                Some(Kind::Denied),
            ),
            (
                line(
                    "issued",
                    "carol",
                    "web.example.com",
                    r#","groups":["sre"],"rule":"*.example.com""#,
                ),
                None,
            ),
            (
                line("issued", "alice", "web.example.org", &rule("*")),
                Some(Kind::Denied),
            ),
            (
                line(
                    "issued",
                    "alice",
                    "strong.example.com",
                    &rule("strong.example.com"),
                ),
                None,
            ),
            (
                line("issued", "alice", "strong.example.com", &rule("*.example.com")),
                Some(Kind::Depends),
            ),
            (
                line("refused", "alice", "web.example.com", ""),
                Some(Kind::Allowed),
            ),
            (line("refused", "bob", "web.example.com", ""), None),
            (line("refused", "alice", "strong.example.com", ""), None),
            (line("refused", "alice", "a b", ""), None),
        ] {
            let replay = Replay::of(&rules, line.as_bytes()).unwrap();
            let kinds: Vec<Kind> = replay.changes.keys().map(|change| change.kind).collect();
            assert_eq!(kinds, Vec::from_iter(expected), "{line}: {replay:?}");
            assert_eq!(replay.decisions, 1);
            assert_eq!(
                replay.has_another_verdict(),
                expected.is_some_and(Kind::is_another_verdict),
                "{line}"
            );
        }
    }

    #[test]
    fn what_no_rule_decided_and_what_is_no_line_is_counted() {
        let rules = Rules::new(&Document::from_yaml("p", RULES).unwrap());
        let mut log = String::new();
        for (decision, status, more) in [
            ("refused", 401, ""),
            ("refused", 503, r#","identity":"alice""#),
            ("refused", 403, ""),
        ] {
            log += &format!(r#"{{"decision":"{decision}","status":{status},"host":"h","user":"u"{more}}}"#);
            log += "\n";
        }
        log += "\n{}\nnot json\n{\"decision\":\n";
        log += &"x".repeat(usize::try_from(LINE_MAX).unwrap() + 10);
        log += "\n";
        let denied = line("issued", "bob", "a.example.com", "");
        log += &format!("{denied}\n{denied}");
        let replay = Replay::of(&rules, log.as_bytes()).unwrap();
        assert_eq!(
            (replay.without_rules, replay.unreadable, replay.decisions),
            (3, 5, 2)
        );
        let times: Vec<&Times> = replay.changes.values().collect();
        assert_eq!(
            times,
            [&Times {
                count: 2,
                last: "T".into()
            }]
        );
        assert!(Replay::of(&rules, &b""[..]).unwrap() == Replay::default());
    }

    #[test]
    fn changes_are_kept_up_to_a_number() {
        let rules = Rules::new(&Document::from_yaml("p", RULES).unwrap());
        let mut replay = Replay::default();
        for number in 0..=CHANGES_MAX {
            replay.add(
                &rules,
                line("issued", "bob", &format!("h{number}"), "").as_bytes(),
            );
        }
        replay.add(&rules, line("issued", "bob", "h0", "").as_bytes());
        assert_eq!((replay.changes.len(), replay.not_kept), (CHANGES_MAX, 1));
        assert!(replay.changes.values().any(|times| times.count == 2));
    }
}
