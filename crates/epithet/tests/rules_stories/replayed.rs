//! What a log says that a real CA wrote, and what it cannot say.

use crate::operated::{Operated, epithet, rules};
use serde_json::Value;

/// Rules whose tokens are JSON: whatever the token says of a person.
fn told_by_the_token(hosts: &str) -> String {
    rules("alice")
        .replace(r#"'printf "{{\"identity\": \"%s\"}}" "$(cat)"'"#, "cat")
        .replace(r#"'printf "{\"identity\": \"%s\"}" "$(cat)"'"#, "cat")
        .replace(r#""*.example.com": {}"#, hosts)
}

#[test]
fn a_log_says_how_people_logged_in_and_what_they_were_granted() {
    let operated = Operated::with_rules(&told_by_the_token(r#""*.example.com": {}"#), &[]);
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_secs();
    let strong = format!(
        r#"{{"identity": "alice", "acr": "phr", "amr": ["pwd", "hwk"], "auth_time": {}}}"#,
        now - 100
    );
    let weak = r#"{"identity": "alice", "amr": ["pwd"]}"#;
    assert_eq!((operated.ask(&strong), operated.ask(weak)), (200, 200));
    assert_eq!(operated.ask(r#"{"identity": "bob", "acr": "phr"}"#), 403);
    let text = std::fs::read_to_string(&operated.audit).unwrap();
    let lines: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(
        (&lines[0]["login"]["acr"], &lines[0]["ttl"]),
        (&"phr".into(), &120.into())
    );
    assert_eq!(lines[0]["login"]["amr"], serde_json::json!(["pwd", "hwk"]));
    assert!(
        (100..200).contains(&lines[0]["login"]["age"].as_i64().unwrap()),
        "{}",
        lines[0]
    );
    assert_eq!(lines[1]["login"], serde_json::json!({"amr": ["pwd"]}));
    assert_eq!(lines[2]["login"], serde_json::json!({"acr": "phr"}));

    let replay = |log: &str, rules: &str, more: &[&str]| {
        let file = operated.home.write("new.yaml", rules).display().to_string();
        epithet(
            &operated.home,
            &[&["policy", "replay", "--audit", log], more, &[&file]].concat(),
        )
    };
    let log = operated.audit.display().to_string();
    let same = told_by_the_token(r#""*.example.com": {}"#);
    let strict = replay(&log, &same, &["--strict"]).success().stdout;
    assert!(
        strict.contains("3 the same, 0 changed, 0 cannot be judged"),
        "{strict}"
    );

    // A rule that asks for a hardware key keeps out who had none.
    let asking = told_by_the_token(r#""*.example.com": {require: {amr: hwk, max-age: 1h}}"#);
    let asked = replay(&log, &asking, &[]);
    assert_eq!(asked.code(), Some(1));
    for words in [
        "alice as root@web.example.com\n      was allowed by *.example.com; the rule for *.example.com requires a login with amr hwk\n      1 times",
        "2 the same, 1 changed, 0 cannot be judged",
        "1 would be denied",
    ] {
        assert!(asked.stdout.contains(words), "{words}: {}", asked.stdout);
    }
    // What is granted is compared, under the same rule too; it is no other verdict.
    let granting = told_by_the_token(r#""*.example.com": {ttl: 1m, force-command: uptime, extensions: {}}"#);
    let granted = replay(&log, &granting, &[]).success().stdout;
    for words in [
        "would be granted something else:\n  alice as root@web.example.com\n",
        "allowed by the same, ttl 1m instead of 2m, extensions none instead of permit-agent-forwarding",
        "force-command uptime instead of none",
        "2 would be granted something else",
    ] {
        assert!(granted.contains(words), "{words}: {granted}");
    }
    assert_eq!(replay(&log, &granting, &["--strict"]).code(), Some(1));

    // An older log does not say how people logged in, nor what life was asked for.
    let old: String = lines
        .into_iter()
        .map(|mut line| {
            let fields = line.as_object_mut().unwrap();
            fields.remove("login");
            fields.remove("ttl");
            format!("{line}\n")
        })
        .collect();
    let old = operated.home.write("old.jsonl", old).display().to_string();
    let unknown = replay(&old, &asking, &[]).success().stdout;
    assert!(
        unknown.contains("1 the same, 0 changed, 2 cannot be judged"),
        "{unknown}"
    );
    assert!(
        unknown.contains("2 cannot be judged: a rule asks how they logged in"),
        "{unknown}"
    );
    assert_eq!(replay(&old, &asking, &["--strict"]).code(), Some(1));
    let unknown = replay(&old, &same, &[]).success().stdout;
    assert!(unknown.contains("2 are the same but for their ttl"), "{unknown}");
}
