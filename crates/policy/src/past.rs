//! What other rules would have said of past decisions: `epithet policy replay`.

use crate::decision::{Allowed, Decision, Denial, Login, Person, Question};
use crate::rules::Rules;
use epithet_wire::display::sanitize_line;
use epithet_wire::policy::LoginFacts;
use epithet_wire::{HostName, HostPattern, Principal, format_duration};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, BufRead, Read};
use std::time::Duration;

/// The longest line that is read; an audit line has a few KiB at most.
const LINE_MAX: u64 = 1024 * 1024;
/// Different changes that are kept; more are only counted.
const CHANGES_MAX: usize = 10_000;

/// A moment for questions about how long ago somebody logged in.
const NOW: u64 = 1 << 40;

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
    #[serde(default)]
    groups_left_out: u32,
    login: Option<LoginFacts>,
    host: String,
    user: String,
    rule: Option<String>,
    #[serde(default)]
    principals: Vec<String>,
    ttl: Option<u64>,
    extensions: Option<BTreeMap<String, String>>,
    #[serde(default)]
    critical_options: BTreeMap<String, String>,
}

/// A log of decisions, and what the rules would have said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Replay {
    /// Decisions that rules made.
    pub decisions: u64,
    /// Those that would be the same, by the same rule and on the same terms.
    pub same: u64,
    /// Of these, those whose line does not say what life policy asked for, so that it could not be compared.
    pub without_ttl: u64,
    /// Those that would be others, each with how often it was made.
    pub changes: BTreeMap<Change, Times>,
    /// Others that were too many different ones to be kept.
    pub not_kept: u64,
    /// Those of which nobody can tell, by what their line does not say.
    pub unknown: BTreeMap<Unknown, u64>,
    /// Groups of the rules that no line has. A line only has groups that the rules of its time knew, so who is in these is
    /// not known.
    pub unseen_groups: BTreeSet<String>,
    /// Lines about which rules had no say: tokens that were no good, outages, what the CA refused itself.
    pub without_rules: u64,
    /// Lines that are no audit lines.
    pub unreadable: u64,
}

/// What a line does not say, so that nobody can tell what would have been decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Unknown {
    /// How the person logged in, which the rule asks for.
    Login,
    /// All groups of the person: there were too many.
    Groups,
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
    /// It would still be a yes, for a certificate that may do other things, or for another time.
    OtherTerms,
    /// It would still be a yes for the same certificate, by another rule.
    OtherRule,
    /// It would still be a no, by another rule.
    OtherDenial,
}

impl Kind {
    /// Whether somebody gets in who did not, or may not who did.
    pub fn is_another_verdict(self) -> bool {
        matches!(self, Self::Allowed | Self::Denied)
    }
}

/// What becomes of one decision.
enum Becomes {
    Same,
    /// The same, as far as a line without the life that policy asked for tells.
    SameButForTtl,
    Other(Kind, String),
    Unknown(Unknown),
}

impl Replay {
    /// Reads a log, line by line, and asks the rules about every decision in it.
    ///
    /// # Errors
    /// The log cannot be read.
    pub fn of(rules: &Rules, mut log: impl BufRead) -> io::Result<Self> {
        let (mut replay, mut line) = (Self::default(), Vec::new());
        replay.unseen_groups.extend(rules.groups().map(str::to_owned));
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
        for group in &line.groups {
            self.unseen_groups.remove(group);
        }
        let (kind, becomes) = match becomes(rules, identity, &line, was_allowed) {
            Becomes::Other(kind, becomes) => (kind, becomes),
            Becomes::Unknown(what) => return *self.unknown.entry(what).or_default() += 1,
            same => {
                self.same += 1;
                self.without_ttl += u64::from(matches!(same, Becomes::SameButForTtl));
                return;
            }
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

    /// How many decisions would be others in this way.
    pub fn count(&self, kind: Kind) -> u64 {
        let changes = self.changes.iter().filter(|(change, _)| change.kind == kind);
        changes.map(|(_, times)| times.count).sum()
    }

    /// Whether any past decision would be the opposite.
    pub fn has_another_verdict(&self) -> bool {
        self.not_kept > 0 || self.changes.keys().any(|change| change.kind.is_another_verdict())
    }

    /// Whether it is certain that every past decision would be the same in every respect.
    pub fn is_surely_the_same(&self) -> bool {
        self.same == self.decisions && self.without_ttl == 0 && self.unseen_groups.is_empty()
    }
}

/// What would become of a decision, and why.
fn becomes(rules: &Rules, identity: &str, line: &Line, was_allowed: bool) -> Becomes {
    if line.groups_left_out > 0 {
        return Becomes::Unknown(Unknown::Groups);
    }
    let (Ok(host), Ok(user)) = (HostName::parse(&line.host), Principal::parse(&line.user)) else {
        // Nobody may log in to what is no host or as what is no user, by any rules.
        return match was_allowed {
            true => Becomes::Other(Kind::Denied, "no host or user has that name".to_owned()),
            false => Becomes::Same,
        };
    };
    let person = Person {
        identity: identity.to_owned(),
        groups: line.groups.clone(),
        login: line.login.as_ref().map(login).unwrap_or_default(),
        ..Person::default()
    };
    let question = Question {
        person: &person,
        host: &host,
        user: &user,
        now: NOW,
    };
    let is_by = |rule: &HostPattern| line.rule.as_deref() == Some(rule.as_str());
    match (was_allowed, rules.evaluate(&question)) {
        (_, Decision::Denied(Denial::Insufficient { .. })) if line.login.is_none() => {
            Becomes::Unknown(Unknown::Login)
        }
        (true, Decision::Denied(denial)) => Becomes::Other(Kind::Denied, denial.to_string()),
        (false, Decision::Denied(denial))
            if denial.rule().map(HostPattern::as_str) == line.rule.as_deref() =>
        {
            Becomes::Same
        }
        (false, Decision::Denied(denial)) => Becomes::Other(Kind::OtherDenial, denial.to_string()),
        (false, Decision::Allowed(allowed)) => {
            let why = if is_by(allowed.rule) {
                "the same rule"
            } else {
                "the rule"
            };
            Becomes::Other(Kind::Allowed, format!("allowed by {why} for {}", allowed.rule))
        }
        (true, Decision::Allowed(allowed)) => {
            let differences = differences(line, &allowed);
            // A line of a policy server that does not tell its rules has none to compare.
            let by_another = line.rule.is_some() && !is_by(allowed.rule);
            match (differences.is_empty(), by_another) {
                (true, false) if line.ttl.is_none() => Becomes::SameButForTtl,
                (true, false) => Becomes::Same,
                (true, true) => Becomes::Other(Kind::OtherRule, format!("allowed by {}", allowed.rule)),
                (false, _) => {
                    let rule = if by_another {
                        allowed.rule.as_str()
                    } else {
                        "the same"
                    };
                    Becomes::Other(
                        Kind::OtherTerms,
                        format!("allowed by {rule}, {}", differences.join(", ")),
                    )
                }
            }
        }
    }
}

/// How somebody logged in, so long before [`NOW`] as before the decision.
fn login(facts: &LoginFacts) -> Login {
    Login {
        acr: facts.acr.clone(),
        amr: facts.amr.clone(),
        at: facts
            .age
            .map(|age| NOW.saturating_add_signed(age.saturating_neg())),
    }
}

/// What is granted otherwise than the line says, in words.
fn differences(line: &Line, allowed: &Allowed<'_>) -> Vec<String> {
    let mut differences = Vec::new();
    let mut compare = |what: &str, was: String, is: String| {
        if was != is {
            let shown = |text: String| match text.is_empty() {
                true => "none".to_owned(),
                false => sanitize_line(&text, 300),
            };
            differences.push(format!("{what} {} instead of {}", shown(is), shown(was)));
        }
    };
    let terms = allowed.terms;
    if let Some(ttl) = line.ttl {
        let shown = |seconds: u64| format_duration(Duration::from_secs(seconds));
        compare("ttl", shown(ttl), shown(terms.expiration.as_secs()));
    }
    if !line.principals.is_empty() {
        let principals: Vec<&str> = allowed.principals.iter().map(Principal::as_str).collect();
        compare("principals", line.principals.join(" "), principals.join(" "));
    }
    if let Some(extensions) = &line.extensions {
        compare("extensions", listed(extensions), listed(&terms.extensions));
        let names: BTreeSet<&String> = line
            .critical_options
            .keys()
            .chain(terms.critical_options.keys())
            .collect();
        for name in names {
            let value = |options: &BTreeMap<String, String>| options.get(name).cloned().unwrap_or_default();
            compare(
                name,
                value(&line.critical_options),
                value(&terms.critical_options),
            );
        }
    }
    differences
}

fn listed(options: &BTreeMap<String, String>) -> String {
    let shown = options.iter().map(|(name, value)| match value.is_empty() {
        true => name.clone(),
        false => format!("{name}={value}"),
    });
    shown.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Document;

    const RULES: &str = r#"
users: {alice: [admin], bob: [eng]}
groups: {sre: [admin]}
hosts:
  "*.example.com": {allow: {root: [admin]}, principals: [p], ttl: 2m, extensions: {permit-pty: ""}, force-command: up}
  "strong.example.com": {allow: {root: [admin]}, require: {amr: hwk, max-age: 5m}}
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
        let web = rule("*.example.com");
        let strong = rule("strong.example.com");
        let granted = r#","principals":["root","p"],"ttl":120,"extensions":{"permit-pty":""},"critical_options":{"force-command":"up"}"#;
        let other = |from: &str, to: &str| format!("{web}{}", granted.replace(from, to));
        let login = |facts: &str| format!(r#"{strong},"login":{facts}"#);
        for (line, expected) in [
            (
                line("issued", "alice", "web.example.com", &other("", "")),
                Ok(None),
            ),
            (line("issued", "alice", "web.example.com", &web), Ok(None)),
            (line("issued", "alice", "web.example.com", ""), Ok(None)),
            (
                line("issued", "alice", "web.example.com", &rule("*")),
                Ok(Some((Kind::OtherRule, "by *.example.com"))),
            ),
            (
                line(
                    "issued",
                    "alice",
                    "web.example.com",
                    &format!("{}{granted}", rule("*")),
                ),
                Ok(Some((Kind::OtherRule, "by *.example.com"))),
            ),
            (
                line("issued", "alice", "web.example.com", &other("120", "60")),
                Ok(Some((
                    Kind::OtherTerms,
                    "allowed by the same, ttl 2m instead of 1m",
                ))),
            ),
            (
                line("issued", "alice", "web.example.com", &other(r#","p""#, "")),
                Ok(Some((Kind::OtherTerms, "principals root p instead of root"))),
            ),
            (
                line(
                    "issued",
                    "alice",
                    "web.example.com",
                    &other(r#""permit-pty":"""#, ""),
                ),
                Ok(Some((Kind::OtherTerms, "extensions permit-pty instead of none"))),
            ),
            (
                line(
                    "issued",
                    "alice",
                    "web.example.com",
                    &other(r#""force-command":"up""#, r#""source-address":"::1""#),
                ),
                Ok(Some((
                    Kind::OtherTerms,
                    "force-command up instead of none, source-address none instead of ::1",
                ))),
            ),
            (
                line(
                    "issued",
                    "alice",
                    "web.example.com",
                    &other("*.example.com", "*")
                        .replace("120", "60")
                        .replace("*.example.com", "*"),
                ),
                Ok(Some((Kind::OtherTerms, "allowed by *.example.com, ttl 2m"))),
            ),
            (
                line("issued", "bob", "web.example.com", &web),
                Ok(Some((Kind::Denied, "no rule for this host"))),
            ),
            (
                line(
                    "issued",
                    "carol",
                    "web.example.com",
                    &format!(r#","groups":["sre"]{web}"#),
                ),
                Ok(None),
            ),
            (
                line(
                    "issued",
                    "carol",
                    "web.example.com",
                    &format!(r#","groups":["sre"],"groups_left_out":1{web}"#),
                ),
                Err(Unknown::Groups),
            ),
            (
                line("issued", "alice", "web.example.org", &rule("*")),
                Ok(Some((Kind::Denied, "no host pattern"))),
            ),
            (
                line("refused", "alice", "web.example.com", ""),
                Ok(Some((Kind::Allowed, "the rule for *.example.com"))),
            ),
            (
                line("refused", "alice", "web.example.com", &web),
                Ok(Some((Kind::Allowed, "the same rule"))),
            ),
            (line("refused", "bob", "web.example.com", ""), Ok(None)),
            (
                line("refused", "bob", "web.example.com", &web),
                Ok(Some((Kind::OtherDenial, "no rule for this host"))),
            ),
            (line("refused", "alice", "a b", ""), Ok(None)),
            // Rules that ask how somebody logged in.
            (
                line("issued", "alice", "strong.example.com", &strong),
                Err(Unknown::Login),
            ),
            (
                line("refused", "alice", "strong.example.com", &strong),
                Err(Unknown::Login),
            ),
            (
                line("issued", "bob", "strong.example.com", &strong),
                Ok(Some((Kind::Denied, "no rule"))),
            ),
            (
                line(
                    "issued",
                    "alice",
                    "strong.example.com",
                    &login(r#"{"amr":["pwd","hwk"],"age":300}"#),
                ),
                Ok(None),
            ),
            (
                line(
                    "issued",
                    "alice",
                    "strong.example.com",
                    &login(r#"{"amr":["hwk"],"age":-60}"#),
                ),
                Ok(None),
            ),
            (
                line(
                    "issued",
                    "alice",
                    "strong.example.com",
                    &login(r#"{"amr":["hwk"],"age":-61}"#),
                ),
                Ok(Some((Kind::Denied, "a login of the last 5m"))),
            ),
            (
                line(
                    "issued",
                    "alice",
                    "strong.example.com",
                    &login(r#"{"amr":["hwk"],"age":301}"#),
                ),
                Ok(Some((Kind::Denied, "a login of the last 5m"))),
            ),
            (
                line("issued", "alice", "strong.example.com", &login("{}")),
                Ok(Some((Kind::Denied, "amr hwk"))),
            ),
            (
                line("refused", "alice", "strong.example.com", &login("{}")),
                Ok(None),
            ),
            (
                line(
                    "refused",
                    "alice",
                    "strong.example.com",
                    &login(r#"{"amr":["hwk"],"age":1}"#),
                ),
                Ok(Some((Kind::Allowed, "the same rule"))),
            ),
        ] {
            let replay = Replay::of(&rules, line.as_bytes()).unwrap();
            assert_eq!(replay.decisions, 1);
            let change = replay.changes.keys().next();
            let unknown = replay.unknown.keys().next().copied();
            match (expected, change) {
                (Ok(None), None) => assert_eq!((replay.same, unknown), (1, None), "{line}"),
                (Ok(Some((kind, words))), Some(change)) => {
                    assert!(
                        change.kind == kind && change.becomes.contains(words),
                        "{line}: {change:?}"
                    );
                    assert_eq!((replay.same, replay.count(kind)), (0, 1), "{line}");
                }
                (Err(what), None) => assert_eq!((replay.same, unknown), (0, Some(what)), "{line}"),
                (expected, found) => panic!("{line}: {found:?}, not {expected:?}"),
            }
            let is_other = matches!(expected, Ok(Some((kind, _))) if kind.is_another_verdict());
            assert_eq!(replay.has_another_verdict(), is_other, "{line}");
        }
    }

    #[test]
    fn what_a_log_does_not_say_is_no_certainty() {
        let rules = Rules::new(&Document::from_yaml("p", RULES).unwrap());
        let of = |lines: &[String]| Replay::of(&rules, lines.join("\n").as_bytes()).unwrap();
        let rule = r#","rule":"*.example.com","principals":["root","p"],"extensions":{"permit-pty":""},"critical_options":{"force-command":"up"}"#;
        let old = line("issued", "alice", "web.example.com", rule);
        let new = line(
            "issued",
            "alice",
            "web.example.com",
            &format!(r#"{rule},"ttl":120"#),
        );
        let sre = line(
            "issued",
            "carol",
            "web.example.com",
            &format!(r#"{rule},"ttl":120,"groups":["sre"]"#),
        );
        // Nobody of the group came, or the rules of then did not know it.
        let replay = of(std::slice::from_ref(&new));
        assert_eq!(
            (
                replay.same,
                replay.unseen_groups.len(),
                replay.is_surely_the_same()
            ),
            (1, 1, false)
        );
        let replay = of(&[new, sre.clone()]);
        assert_eq!(
            (
                replay.same,
                replay.unseen_groups.len(),
                replay.is_surely_the_same()
            ),
            (2, 0, true)
        );
        let replay = of(&[old, sre]);
        assert_eq!(
            (replay.same, replay.without_ttl, replay.is_surely_the_same()),
            (2, 1, false)
        );
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
        let nothing = Replay::of(&rules, &b""[..]).unwrap();
        assert_eq!((nothing.decisions, nothing.unseen_groups.len()), (0, 1));
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
