//! What somebody meets who asks about rules for the first time, and gets something wrong.

use crate::operated::{epithet, rules};
use epithet_testkit::Home;

#[test]
fn every_error_of_a_file_is_told_at_once_with_the_warnings() {
    let home = Home::new();
    let text = "users:\n  alice: [admin]\n  bob: []\n  carol: eng\nhosts:\n  web: {allow: {root: [admin]}, ttl: soon}\n  \"[z-a]\": {}\n  db: {experation: 5m}\n";
    let file = home.write("policy.yaml", text).display().to_string();
    let checked = epithet(&home, &["policy", "check", &file]);
    assert_eq!(checked.code(), Some(1));
    let found: Vec<&str> = checked
        .stdout
        .lines()
        .filter(|line| line.starts_with(&file))
        .collect();
    for (found, words) in found.iter().zip([
        ":3:3: warning: users: bob has no tags",
        ":4:10: error: ",
        ":6:38: error: `soon` is not a duration",
        ":7:3: error: the host pattern \"[z-a]\" has a range",
        ":8:8: error: unknown field `experation`",
    ]) {
        assert!(
            found[file.len()..].starts_with(words),
            "{words}: {}",
            checked.stdout
        );
    }
    assert_eq!(found.len(), 5, "{}", checked.stdout);
    assert!(
        checked.stdout.contains("did you mean `expiration`?"),
        "{}",
        checked.stdout
    );
    assert!(
        checked.stderr.contains("cannot be used: 4 errors, 1 warning"),
        "{}",
        checked.stderr
    );
}

#[test]
fn principals_that_the_ca_would_refuse_are_warned_about_until_it_is_said_that_it_allows_them() {
    let home = Home::new();
    let text = rules("alice").replace("{}", "{principals: [prod-root]}");
    let file = home.write("policy.yaml", text).display().to_string();
    let check = |more: &[&str]| {
        epithet(
            &home,
            &[&["policy", "check", "--strict"], more, &[&file]].concat(),
        )
    };
    let warned = check(&[]);
    assert_eq!(warned.code(), Some(1));
    assert!(
        warned
            .stdout
            .contains("the CA refuses every login that adds prod-root (--allow-principal)"),
        "{}",
        warned.stdout
    );
    check(&["--allow-principal", "prod-*"]).success();
}

#[test]
fn files_that_are_no_rules_are_refused_in_words_that_help() {
    let home = Home::new();
    std::fs::create_dir(home.join("folder")).unwrap();
    std::fs::write(home.join("latin.yaml"), b"users:\n  j\xf6rg: [admin]\n").unwrap();
    std::fs::write(home.join("large.yaml"), vec![b'#'; 50_000_000]).unwrap();
    home.write("tabs.yaml", "users:\n\talice: [admin]\n");
    home.write(
        "rules.yaml",
        "users: {alice: [admin]}\nhosts: {web: {allow: {root: [admin]}}}\n",
    );
    home.write(
        "table.yaml",
        "decisions: [{user: a, as: r, host: h, expect: deny}]\n",
    );
    let asked = |command: &[&str], file: &str| {
        let file = home.join(file).display().to_string();
        let answer = epithet(&home, &[command, &[&file]].concat());
        assert_eq!(answer.code(), Some(1), "{command:?} {file}");
        format!("{}{}", answer.stdout, answer.stderr)
    };
    let explain = ["policy", "explain", "--user=alice", "--host=web", "--as=root"];
    for (file, words) in [
        ("nothing.yaml", "nothing.yaml: No such file"),
        ("folder", "folder is a directory; name the file in it"),
        ("latin.yaml", "latin.yaml is no text in UTF-8: see line 2"),
        ("large.yaml", "large.yaml is larger than 16 MiB"),
    ] {
        for command in [&explain[..], &["policy", "test"], &["policy", "check"]] {
            let said = asked(command, file);
            assert!(said.contains(words), "{command:?} {file}: {said}");
        }
    }
    for command in [&explain[..], &["policy", "check"]] {
        let said = asked(command, "tabs.yaml");
        assert!(
            said.contains("tabs.yaml:2:2: ") && said.contains("a tab stands where YAML indents with blanks"),
            "{said}"
        );
    }
    let said = asked(&["policy", "test"], "rules.yaml");
    assert!(said.contains("rules.yaml: these are rules"), "{said}");
    let said = asked(&explain, "table.yaml");
    assert!(
        said.contains("table.yaml: this is a table of expected decisions"),
        "{said}"
    );
}

#[test]
fn whoever_asks_why_is_told_what_they_may_have_meant() {
    let home = Home::new();
    home.write(
        "policy.yaml",
        "users: {alice@example.com: [admin]}\ngroups: {sre: [admin]}\ndefaults: {allow: {root: [admin]}}\n\
         hosts: {\"*.example.com\": {allow: {deploy: [admin]}}}\n",
    );
    home.write("empty.yaml", "");
    let explain = |file: &str, user: &str, more: &[&str]| {
        let file = home.join(file).display().to_string();
        let user = format!("--user={user}");
        let asked = ["policy", "explain", &user, "--host=web.example.com"];
        epithet(&home, &[&asked[..], more, &[&file]].concat())
    };
    for (file, user, more, words) in [
        (
            "policy.yaml",
            "Alice@example.com",
            &["--as=root"][..],
            "users has alice@example.com; names are compared",
        ),
        (
            "policy.yaml",
            "alcie@example.com",
            &["--as=root"],
            "users has alice@example.com",
        ),
        (
            "policy.yaml",
            "alice",
            &["--as=root"],
            "users has alice@example.com",
        ),
        ("policy.yaml", "bob", &["--as=root"], "are given with --group"),
        (
            "policy.yaml",
            "bob",
            &["--as=root", "--group=SRE"],
            "groups has no SRE",
        ),
        (
            "policy.yaml",
            "alice@example.com",
            &["--as=postgres"],
            "on this host they may be: deploy, root",
        ),
        ("empty.yaml", "alice", &["--as=root"], "no users, groups or hosts"),
    ] {
        let denied = explain(file, user, more);
        assert_eq!(denied.code(), Some(1), "{user} {more:?}");
        assert!(denied.stdout.contains(words), "{words}: {}", denied.stdout);
    }
    assert!(
        !explain("policy.yaml", "somebody-else", &["--as=root"])
            .stdout
            .contains("users has")
    );
    assert_eq!(explain("policy.yaml", "", &["--as=root"]).code(), Some(80));
}
