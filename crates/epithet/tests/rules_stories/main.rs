//! Stories of whoever writes rules: what looks wrong is shown with its line, tables say what is expected, a past log says
//! what would change, and a running server takes up what was written.

#![cfg(test)]

#[path = "../shared/operated.rs"]
mod operated;

mod mistakes;
mod replayed;
mod served;

use epithet_testkit::{DEADLINE, Home, wait_until};
use operated::{Operated, epithet, rules};
use serde_json::Value;
use std::path::Path;

impl Operated {
    /// Puts another file in the place of the rules, as careful tools do.
    fn replace_rules(&self, rules: &str) {
        let new = self.home.write("server.yaml.new", rules);
        std::fs::rename(new, &self.rules).unwrap();
    }
}

#[test]
fn new_rules_apply_when_their_file_changes_and_bad_ones_leave_the_old_in_force() {
    let operated = Operated::begin();
    assert_eq!((operated.ask("alice"), operated.ask("bob")), (200, 403));
    let becomes = |who: &str, status: u16| {
        let changed = wait_until(DEADLINE, || (operated.ask(who) == status).then_some(()));
        changed.unwrap_or_else(|| panic!("{who} is not {status}:\n{}", operated.server.log()));
    };
    // Written over, and then another file under the same name.
    std::fs::write(&operated.rules, rules("bob")).unwrap();
    becomes("bob", 200);
    assert_eq!(operated.ask("alice"), 403);
    operated.replace_rules(&rules("carol"));
    becomes("carol", 200);
    assert_eq!(operated.ask("bob"), 403);

    operated.replace_rules(&rules("dave").replace("hosts:", "hosts: {a: {ttl: soon}}\n  hosts:"));
    let ready = || operated.http("GET", "/readyz", &[], "");
    let said = wait_until(DEADLINE, || Some(ready()).filter(|(_, text)| text != "ready\n"));
    let (status, text) = said.expect("/readyz tells");
    assert_eq!(status, 200, "the old rules serve");
    assert!(
        text.contains("server.yaml:6:20)"),
        "the place and nothing more: {text}"
    );
    assert_eq!((operated.ask("dave"), operated.ask("carol")), (403, 200));
    operated.replace_rules(&rules("dave"));
    becomes("dave", 200);
    assert_eq!(ready().1, "ready\n");
}

#[test]
fn what_is_wrong_or_looks_so_is_shown_with_its_line() {
    let home = Home::new();
    let check = |text: &str, more: &[&str]| {
        let file = home.write("policy.yaml", text).display().to_string();
        epithet(&home, &[&["policy", "check"], more, &[&file]].concat())
    };
    let wrong = check(
        "users:\n  alice: [admin]\nhosts:\n  web:\n    experation: 5m\n",
        &[],
    );
    assert_eq!(wrong.code(), Some(1));
    for words in [
        "policy.yaml:5:5: error: unknown field `experation`",
        "did you mean `expiration`?",
        "5 |     experation: 5m\n",
        "|     ^",
    ] {
        assert!(wrong.stdout.contains(words), "{words}: {}", wrong.stdout);
    }
    assert!(
        wrong.stderr.contains("policy.yaml cannot be used: 1 error, "),
        "{}",
        wrong.stderr
    );
    let odd = "users: {alice: [admin, old]}\nhosts:\n  \"*.lan\": {allow: {root: [admin]}}\n  \"*.*.lan\": {allow: {root: [admin]}, ttl: 1h}\n";
    let warned = check(odd, &["--max-ttl", "30m"]).success().stdout;
    for words in [
        "policy.yaml:1:24: warning: the tag old is used by no rule",
        "1 | users: {alice: [admin, old]}\n    |                        ^",
        "policy.yaml:4:3: warning: hosts.*.*.lan: never decides, because *.lan comes first",
        "policy.yaml:4:39: warning: hosts.*.*.lan.ttl: the CA cuts 1h to its own limit of 30m",
    ] {
        assert!(warned.contains(words), "{words}: {warned}");
    }
    assert_eq!(check(odd, &["--strict"]).code(), Some(1));
    assert_eq!(
        epithet(&home, &["policy", "check", "/no/such/file"]).code(),
        Some(1)
    );
}

#[test]
fn a_table_says_what_is_expected_and_what_is_otherwise() {
    let home = Home::new();
    home.write("policy.yaml", rules("alice"));
    let test = |table: &str, more: &[&str]| {
        let file = home.write("tests.yaml", table).display().to_string();
        epithet(&home, &[&["policy", "test", &file], more].concat())
    };
    let good = "rules: policy.yaml\ndecisions:\n  - {user: alice, as: root, host: [a.example.com, b.example.com], expect: allow, ttl: 2m}\n  - {user: bob, as: root, host: a.example.com, expect: deny, because: not in users}\n";
    assert!(
        test(good, &[])
            .success()
            .stdout
            .ends_with("tests.yaml: 3 decisions, all as expected\n")
    );
    let other = home.write("other.yaml", rules("bob")).display().to_string();
    let failed = test(good, &["--rules", &other]);
    assert_eq!(failed.code(), Some(1));
    for words in [
        "tests.yaml:3:5: alice as root@a.example.com: expected to be allowed, is denied: not in users",
        "3 |   - {user: alice,",
        "tests.yaml:4:5: bob as root@a.example.com: expected to be denied, is allowed by the rule for *.example.com",
        "tests.yaml: 3 decisions, 3 not as expected",
    ] {
        assert!(failed.stdout.contains(words), "{words}: {}", failed.stdout);
    }
    for (table, words) in [
        (
            "decisions: [{user: a, as: r, host: h, expect: deny}]\n",
            "--rules",
        ),
        ("rules: policy.yaml\n", "expects nothing"),
        (
            "rules: missing.yaml\ndecisions: [{user: a, as: r, host: h, expect: deny}]\n",
            "missing.yaml",
        ),
        (
            "rules: policy.yaml\ndecisions:\n  - {user: a, as: r, host: h, expects: deny}\n",
            "tests.yaml:3:31: unknown field `expects`",
        ),
    ] {
        let refused = test(table, &[]);
        assert_eq!(refused.code(), Some(1), "{table}");
        assert!(refused.stderr.contains(words), "{words}: {}", refused.stderr);
    }
}

#[test]
fn a_real_audit_log_says_what_new_rules_would_change() {
    let operated = Operated::begin();
    assert_eq!(
        (
            operated.ask("alice"),
            operated.ask("alice"),
            operated.ask("mallory")
        ),
        (200, 200, 403)
    );
    let log = operated.audit.display().to_string();
    let replay = |rules: &str| {
        let file = operated.home.write("new.yaml", rules).display().to_string();
        epithet(&operated.home, &["policy", "replay", "--audit", &log, &file])
    };
    let same = replay(&rules("alice")).success().stdout;
    assert!(same.contains("3 decisions asked again under"), "{same}");
    assert!(same.contains("3 the same, 0 changed"), "{same}");

    let other_rule = replay(&rules("alice").replace("hosts:", "hosts:\n    web.example.com: {}"))
        .success()
        .stdout;
    assert!(other_rule.contains("alice as root@web.example.com\n      was allowed by *.example.com; allowed by web.example.com\n      2 times"), "{other_rule}");

    let changed = replay(&rules("mallory"));
    assert_eq!(changed.code(), Some(1));
    for words in [
        "would be allowed:\n  mallory as root@web.example.com\n      was denied by no rule; allowed by the rule for *.example.com",
        "would be denied:\n  alice as root@web.example.com",
        "0 the same, 3 changed",
    ] {
        assert!(changed.stdout.contains(words), "{words}: {}", changed.stdout);
    }
    let not_a_log = operated.rules.display().to_string();
    let refused = epithet(
        &operated.home,
        &["policy", "replay", "--audit", &not_a_log, &not_a_log],
    );
    assert_eq!(refused.code(), Some(1));
    assert!(refused.stderr.contains("is no audit log"), "{}", refused.stderr);
}

#[test]
fn a_refusal_is_in_the_audit_log_with_the_person_and_the_rule() {
    let operated = Operated::with_rules(&rules("alice").replace("{}", "{deny: {root: [admin]}}"), &[]);
    assert_eq!(operated.ask("alice"), 403);
    let text = std::fs::read_to_string(&operated.audit).unwrap();
    let line: Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    assert_eq!(
        (&line["decision"], &line["identity"], &line["rule"]),
        (&"refused".into(), &"alice".into(), &"*.example.com".into())
    );
}

#[test]
fn principals_are_added_only_by_a_ca_that_was_told_to_expect_them() {
    let adding = rules("alice").replace("{}", "{principals: [prod-root]}");
    for (flags, status) in [
        (&["--allow-principal=prod-*"][..], 200),
        (&["--allow-principal=stage-*", "--allow-principal=prod-root"], 200),
        (&["--allow-principal=stage-*"], 502),
        (&[], 502),
    ] {
        let operated = Operated::with_rules(&adding, flags);
        assert_eq!(operated.ask("alice"), status, "{flags:?}");
        let text = std::fs::read_to_string(&operated.audit).unwrap();
        let line: Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
        match status {
            200 => assert_eq!(line["principals"], serde_json::json!(["root", "prod-root"])),
            _ => assert!(
                line["reason"].as_str().unwrap().contains("--allow-principal"),
                "{line}"
            ),
        }
    }
    let home = Home::new();
    let refused = epithet(&home, &["ca", "--allow-principal", "*", "--key", "/nonexistent"]);
    assert_eq!(refused.code(), Some(80));
    assert!(refused.stderr.contains("root among them"), "{}", refused.stderr);
    assert!(!Path::new("/nonexistent").exists());
}
