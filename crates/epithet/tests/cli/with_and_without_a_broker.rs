//! The commands that speak to a running broker.

use crate::{epithet, run};
use epithet_testkit::{Broker, DEADLINE, Finished, Home};

#[test]
fn without_a_broker_each_of_them_names_its_socket_and_the_remedy() {
    let home = Home::new();
    let default = "~/.epithet/run/default/broker.sock";
    let work = "~/.epithet/run/work/broker.sock";
    let cases: [(&[&str], &str); 7] = [
        (&["inspect"], default),
        (&["agent", "inspect"], default),
        (&["inspect", "--json"], default),
        (&["inspect", "--name", "work"], work),
        (&["inspect", "--broker", "/no/such.sock"], "/no/such.sock"),
        (&["login"], default),
        (&["logout"], default),
    ];
    for (words, socket) in cases {
        let finished = run(&home, words.iter().copied());
        assert_eq!(finished.code(), Some(1), "{words:?}");
        assert_eq!(finished.stdout, "", "{words:?}");
        for part in [
            "epithet: error: ",
            socket,
            "no broker is running",
            "epithet agent --background",
        ] {
            assert!(finished.stderr.contains(part), "{words:?}: {}", finished.stderr);
        }
    }
}

#[test]
fn a_broker_is_inspected_logged_in_and_logged_out() {
    let home = Home::new();
    let mut command = epithet(
        &home,
        [
            "agent",
            "--ca-url",
            "http://127.0.0.1:1",
            "--match",
            "*.example.com",
        ],
    );
    command.args([
        "--auth",
        "echo hello >&4; printf a-secret-token; printf a-secret-state >&3",
    ]);
    let broker = Broker::try_start(command).unwrap_or_else(|error| panic!("{error}"));
    let page = |words: &[&str]| run(&home, words.iter().copied()).success().stdout;

    let before = page(&["inspect"]);
    for part in [
        "Profile: default",
        "Hosts: *.example.com (from the configuration)",
        "Token: none",
        "Agents (0)",
        "CA Endpoints (1)",
    ] {
        assert!(before.contains(part), "{part} is not in:\n{before}");
    }
    let login = run(&home, ["login"]).success();
    assert!(
        login.stderr.contains("hello") && login.stderr.contains("logged in"),
        "{}",
        login.stderr
    );
    let json: serde_json::Value = serde_json::from_str(&page(&["inspect", "--json"])).unwrap();
    assert_eq!(json["login"]["token"], true);
    assert_eq!(json["login"]["stateBytes"], "a-secret-state".len());
    assert_eq!(json["socketPath"], broker.socket().display().to_string());
    for text in [
        page(&["inspect"]),
        page(&["agent", "inspect"]),
        json.to_string(),
        broker.log().text(),
    ] {
        // The command line that was configured is shown; what came out of it is not.
        let text = text.replace("printf a-secret-token; printf a-secret-state", "");
        assert!(!text.contains("a-secret"), "{text}");
    }
    run(&home, ["logout"]).success();
    let after: serde_json::Value = serde_json::from_str(&page(&["inspect", "--json"])).unwrap();
    assert_eq!(
        (&after["login"]["token"], &after["login"]["stateBytes"]),
        (&false.into(), &0.into())
    );
}

#[test]
fn a_login_that_fails_says_why_and_exits_1() {
    let home = Home::new();
    let mut command = epithet(&home, ["agent", "--ca-url", "http://127.0.0.1:1", "--match", "x"]);
    command.args(["--auth", "echo no network >&2; exit 3"]);
    let _broker = Broker::try_start(command).unwrap_or_else(|error| panic!("{error}"));
    let finished = Finished::of(epithet(&home, ["login"]), DEADLINE);
    assert_eq!(finished.code(), Some(1));
    for part in ["authentication failed", "exited with status 3", "no network"] {
        assert!(
            finished.stderr.contains(part),
            "{part} is not in: {}",
            finished.stderr
        );
    }
}
