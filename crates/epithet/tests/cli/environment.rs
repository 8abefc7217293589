//! Environment variables that are there and empty, as in a file with one line for each, and ones with a wrong value.

use crate::{epithet, run};
use epithet_testkit::{DEADLINE, Finished, Home, KeyPair};
use std::collections::{BTreeMap, BTreeSet};

/// The variables of every command, by its words, as its help names them.
fn variables(home: &Home) -> BTreeMap<Vec<String>, BTreeSet<String>> {
    let folder = home.join("man");
    run(home, ["man", folder.to_str().unwrap()]).success();
    let pages = std::fs::read_dir(folder).unwrap().map(|page| {
        let name = page.unwrap().file_name().into_string().unwrap();
        name.trim_end_matches(".1")
            .split('-')
            .skip(1)
            .map(str::to_owned)
            .collect()
    });
    let with_variables = |words: Vec<String>| {
        let help = run(home, words.iter().map(String::as_str).chain(["--help"]))
            .success()
            .stdout;
        // However it is wrapped.
        let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
        let named = help
            .split("[env: ")
            .skip(1)
            .filter_map(|rest| rest.split_once(['=', ']']));
        let names = named.map(|(name, _)| name.to_owned()).collect();
        (words, names)
    };
    pages
        .map(with_variables)
        .filter(|(_, names): &(_, BTreeSet<_>)| !names.is_empty())
        .collect()
}

#[test]
fn an_empty_variable_is_as_if_it_were_not_set_whichever_it_is() {
    let home = Home::new();
    let commands = variables(&home);
    let all: BTreeSet<&String> = commands.values().flatten().collect();
    assert!(all.len() > 50, "{all:?}");
    for known in [
        "EPITHET_CONFIG",
        "EPITHET_CA_URL",
        "EPITHET_MAX_TTL",
        "EPITHET_ISSUER",
        "EPITHET_CLIENT_SECRET",
        "PORT",
    ] {
        assert!(all.contains(&known.to_owned()), "{known}: {all:?}");
    }
    for (words, of_command) in commands.iter().filter(|(words, _)| !words.is_empty()) {
        // Variables are read in the order of the help, the global ones last: one of these is wrong, and what stands before it is
        // not, so nothing is done.
        let mut command = epithet(&home, words.iter().map(String::as_str));
        command.envs(of_command.iter().map(|name| (name, "")));
        command.env("EPITHET_LOG_FORMAT", "xml");
        let finished = Finished::of(command, DEADLINE);
        assert_eq!(finished.code(), Some(80), "{words:?}: {finished:?}");
        if finished.stderr.contains("Usage: ") && !finished.stderr.contains("xml") {
            // Commands that only have further commands.
            continue;
        }
        for part in ["'xml'", "--log-format", "environment variable EPITHET_LOG_FORMAT"] {
            assert!(
                finished.stderr.contains(part),
                "{words:?}: {part}: {}",
                finished.stderr
            );
        }
    }
}

#[test]
fn a_flag_is_enough_where_its_variable_is_empty() {
    let home = Home::new();
    let rules = home.write("policy.yaml", "policy: {command: 'echo {}'}\n");
    let empty = [
        "EPITHET_CONFIG",
        "EPITHET_TLS_CA_CERT",
        "EPITHET_LOG_FILE",
        "EPITHET_LOG_FORMAT",
        "EPITHET_CA_URL",
        "PORT",
    ];
    let said = |given: &[&str]| {
        let mut command = epithet(
            &home,
            [
                "--config",
                rules.to_str().unwrap(),
                "policy",
                "check",
                rules.to_str().unwrap(),
            ],
        );
        command.envs(given.iter().map(|name| (name, "")));
        let finished = Finished::of(command, DEADLINE);
        (finished.code(), finished.stdout, finished.stderr)
    };
    let plain = said(&[]);
    assert_ne!(plain.0, Some(80), "{plain:?}");
    for name in empty {
        assert_eq!(said(&[name]), plain, "{name}");
    }
    assert_eq!(said(&empty), plain);

    // The help still names it.
    let mut command = epithet(&home, ["ca", "--help"]);
    command.env("EPITHET_MAX_TTL", "");
    let help = Finished::of(command, DEADLINE).success().stdout;
    assert!(help.contains("[env: EPITHET_MAX_TTL=]"), "{help}");
}

#[test]
fn an_empty_name_of_a_file_with_passphrases_is_none() {
    let home = Home::new();
    let key = KeyPair::generate(home.path(), "ca.key")
        .path()
        .display()
        .to_string();
    let mut command = epithet(&home, ["ca", "--key", &key, "--policy", "http://127.0.0.1:1"]);
    command.env("EPITHET_CA_PASSPHRASE_FILE", "");
    // The next thing that is wrong.
    command.env("EPITHET_LISTEN", "").args(["--listen", "nowhere"]);
    let finished = Finished::of(command, DEADLINE);
    assert_eq!(finished.code(), Some(1), "{finished:?}");
    assert!(!finished.stderr.contains("PASSPHRASE"), "{}", finished.stderr);
    assert!(finished.stderr.contains("--listen"), "{}", finished.stderr);
}

#[test]
fn a_wrong_value_from_the_environment_is_said_to_be_from_there() {
    let home = Home::new();
    let says = |words: &[&str], name: &str, value: &str, code: i32| {
        let mut command = epithet(&home, words.iter().copied());
        command.env(name, value);
        let finished = Finished::of(command, DEADLINE);
        assert_eq!(finished.code(), Some(code), "{name}: {finished:?}");
        finished.stderr
    };
    // What the command line itself refuses, and what is refused later.
    for (words, name, value, code, flag) in [
        (&["ca"][..], "EPITHET_MAX_TTL", "soon", 80, "--max-ttl"),
        (
            &["agent"],
            "EPITHET_CA_URL",
            "https://ca.example.com,ftp://x",
            80,
            "--ca-url",
        ),
        (
            &["agent", "--ca-url", "https://ca.example.com"],
            "EPITHET_CA_TIMEOUT",
            "0s",
            1,
            "--ca-timeout",
        ),
        (
            &["agent", "--ca-url", "https://ca.example.com"],
            "EPITHET_MATCH",
            "a[",
            1,
            "--match",
        ),
        (
            &["agent", "inspect"],
            "EPITHET_CONFIG",
            "/no/such.yaml",
            1,
            "--config",
        ),
    ] {
        let stderr = says(words, name, value, code);
        if name != "EPITHET_CONFIG" {
            assert!(stderr.contains(flag), "{name}: {stderr}");
            assert!(stderr.contains(name), "{name}: {stderr}");
        }
    }
    // A flag that was typed is not from there.
    let typed = says(&["ca", "--max-ttl", "soon"], "EPITHET_MAX_TTL", "soon", 80);
    assert!(!typed.contains("EPITHET_MAX_TTL"), "{typed}");
    let typed = says(&["ca", "--max-ttl=later"], "EPITHET_MAX_TTL", "5m", 80);
    assert!(!typed.contains("EPITHET_MAX_TTL"), "{typed}");
}
