//! Configuration files, and which of flag, environment and file wins.

use crate::{epithet, run};
use epithet_testkit::{Broker, DEADLINE, Finished, Home, KeyPair, Server};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What `inspect --json` says about a broker that is started for it.
fn inspected(home: &Home, command: Command) -> Value {
    let broker = Broker::try_start(command).unwrap_or_else(|error| panic!("{error}"));
    let socket = broker.socket().display().to_string();
    let finished = run(home, ["inspect", "--json", "--broker", &socket]).success();
    broker.stop(DEADLINE);
    serde_json::from_str(&finished.stdout).unwrap()
}

/// A broker's CAs, by their ports.
fn ca_ports(inspection: &Value) -> Vec<u16> {
    let endpoints = inspection["caEndpoints"].as_array().unwrap();
    let url = |endpoint: &Value| url::Url::parse(endpoint["url"].as_str().unwrap()).unwrap();
    endpoints
        .iter()
        .map(|endpoint| url(endpoint).port().unwrap())
        .collect()
}

fn agent(home: &Home) -> Command {
    epithet(home, ["agent", "--match", "x.example.com", "--auth", "true"])
}

#[test]
fn a_flag_beats_the_environment_which_beats_a_file() {
    let home = Home::new();
    home.write(
        ".epithet/config.yaml",
        "agent: {ca-url: 'http://127.0.0.1:1', name: from-file, token-reuse: 30s}\n",
    );
    let from_file = inspected(&home, agent(&home));
    assert_eq!(
        (ca_ports(&from_file), &from_file["profile"]),
        (vec![1], &"from-file".into())
    );

    let mut command = agent(&home);
    command
        .env("EPITHET_CA_URL", "http://127.0.0.1:2,http://127.0.0.1:3")
        .env("EPITHET_NAME", "from-environment");
    let from_environment = inspected(&home, command);
    assert_eq!(
        (ca_ports(&from_environment), &from_environment["profile"]),
        (vec![2, 3], &"from-environment".into())
    );

    let mut command = agent(&home);
    command
        .env("EPITHET_CA_URL", "http://127.0.0.1:2")
        .env("EPITHET_NAME", "from-environment");
    command.args([
        "--ca-url",
        "http://127.0.0.1:4",
        "-c",
        "http://127.0.0.1:5",
        "--name",
        "from-flag",
    ]);
    let from_flag = inspected(&home, command);
    assert_eq!(
        (ca_ports(&from_flag), &from_flag["profile"]),
        (vec![4, 5], &"from-flag".into())
    );
}

#[test]
fn files_are_read_in_order_and_merged_key_by_key() {
    let home = Home::new();
    let file =
        |name: &str, port: u16| home.write(name, format!("agent: {{ca-url: 'http://127.0.0.1:{port}'}}\n"));
    let mut expected = Vec::new();
    for (name, port) in [
        (".epithet/a.yaml", 1),
        (".epithet/z.yaml", 2),
        (".epithet/a.yml", 3),
        (".epithet/a.json", 4),
    ] {
        file(name, port);
        // JSON is YAML too.
        expected.push(ca_ports(&inspected(&home, agent(&home))));
    }
    assert_eq!(expected, [[1], [2], [3], [4]]);
    // What another file says about another key stays.
    home.write(".epithet/zz.yaml", "agent: {name: other-key}\n");
    let named = file("elsewhere/named.yaml", 5);
    let mut command = agent(&home);
    command.arg("--config").arg(&named);
    let inspection = inspected(&home, command);
    assert_eq!(
        (ca_ports(&inspection), &inspection["profile"]),
        (vec![5], &"other-key".into())
    );
    let mut command = agent(&home);
    command.env("EPITHET_CONFIG", &named);
    assert_eq!(ca_ports(&inspected(&home, command)), [5]);
}

#[test]
fn a_policy_may_be_spread_over_files() {
    let home = Home::new();
    let key = KeyPair::generate(home.path(), "ca.key");
    home.write(
        ".epithet/a.yaml",
        "policy: {users: {alice@example.com: [admin]}, hosts: {a.example.com: {}}}\n",
    );
    home.write(
        ".epithet/b.yaml",
        "policy: {oidc: {issuer: 'http://127.0.0.1:1', client-id: x}, hosts: {b.example.com: {}}}\n",
    );
    let key = key.path().display().to_string();
    let server = Server::start(
        Path::new(crate::EPITHET),
        &home,
        ["server", "--listen=127.0.0.1:0", "--ca-key", &key],
    );
    let discovery = Finished::of(fetch(&format!("{}/discovery", server.url())), DEADLINE)
        .success()
        .stdout;
    for part in ["a.example.com", "b.example.com", "http://127.0.0.1:1"] {
        assert!(discovery.contains(part), "{discovery}");
    }
    assert!(
        !server.log().text().contains("users is empty"),
        "{}",
        server.log()
    );
}

fn fetch(url: &str) -> Command {
    let mut command = Command::new("curl");
    command.args(["--silent", "--show-error", "--fail", "--noproxy", "*", url]);
    command
}

/// The error that a file is.
#[track_caller]
fn wrong(home: &Home, path: &Path) -> String {
    let finished = run(home, ["agent", "--ca-url", "http://127.0.0.1:1"]);
    assert_eq!(finished.code(), Some(1), "{}", finished.stderr);
    assert!(
        finished.stderr.starts_with("epithet: error: "),
        "{}",
        finished.stderr
    );
    assert!(
        finished.stderr.contains(&path.display().to_string()),
        "the file is named: {}",
        finished.stderr
    );
    finished.stderr
}

#[test]
fn an_unknown_key_is_refused_with_its_place_and_the_nearest_known_one() {
    let home = Home::new();
    let cases = [
        ("agent:\n  ca-urls: x\n", ":2:3: ", "did you mean `ca-url`?"),
        ("agnet: {}\n", ":1:1: ", "did you mean `agent`?"),
        (
            "auth: {oidc: {client_id: x}}\n",
            ":1:15: ",
            "did you mean `client-id`?",
        ),
        ("policy:\n  user: {}\n", ":2:3: ", "did you mean `users`?"),
        ("\n\nserver: {listn: ':1'}\n", ":3:10: ", "did you mean `listen`?"),
    ];
    for (text, place, suggestion) in cases {
        let path = home.write(".epithet/config.yaml", text);
        let told = wrong(&home, &path);
        assert!(
            told.contains(place) && told.contains(suggestion),
            "{text}: {told}"
        );
    }
}

#[test]
fn a_wrong_value_is_refused_with_its_place_and_what_would_be_right() {
    let home = Home::new();
    let cases = [
        (
            "agent: {ca-url: 'http://ca.example.com'}\n",
            ":1:17: ",
            "https://",
        ),
        ("agent:\n  ca-timeout: soon\n", ":2:15: ", "5m"),
        ("agent: {match: ['a[']}\n", "", "`[`"),
        ("agent: [\n", "", ""),
        ("agent: {name: x, name: y}\n", "", "name"),
        (
            "policy: {hosts: {'*': {expiration: 0s}}}\n",
            "",
            "a second or more",
        ),
        ("just text\n", "", ""),
        ("\u{7}\n", "", ""),
    ];
    for (text, place, words) in cases {
        let path = home.write(".epithet/config.yaml", text);
        let told = wrong(&home, &path);
        assert!(told.contains(place) && told.contains(words), "{text}: {told}");
        assert!(!told.contains('\u{7}'), "{told:?}");
    }
}

#[test]
fn a_file_that_others_can_write_is_refused_with_the_remedy() {
    let home = Home::new();
    let path = home.write(".epithet/config.yaml", "verbose: 1\n");
    for mode in [0o620, 0o602, 0o666] {
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
        let told = wrong(&home, &path);
        assert!(
            told.contains(&format!("{mode:04o}")) && told.contains("chmod go-w"),
            "{told}"
        );
    }
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    inspected(&home, {
        let mut command = agent(&home);
        command.args(["--ca-url", "http://127.0.0.1:1"]);
        command
    });
}

#[test]
fn a_file_of_somebody_else_is_refused() {
    let Some(other) = epithet_testkit::TestUser::ordinary() else {
        return;
    };
    let home = Home::new();
    let path = home.write(".epithet/config.yaml", "verbose: 1\n");
    std::os::unix::fs::chown(&path, Some(other.uid()), None).unwrap();
    assert!(wrong(&home, &path).contains("belongs to user id"));
}

#[test]
fn a_file_with_a_mistake_does_not_touch_match() {
    let home = Home::new();
    home.write(".epithet/config.yaml", "nonsense: [\n");
    let nobody: PathBuf = home.join("nobody.sock");
    let hash = "a".repeat(40);
    let finished = run(
        &home,
        [
            "match",
            "--host",
            "h",
            "--port",
            "22",
            "--user",
            "u",
            "--hash",
            &hash,
            "--broker",
            nobody.to_str().unwrap(),
        ],
    );
    assert_eq!((finished.code(), finished.stderr.as_str()), (Some(1), ""));
}

#[test]
fn every_flag_of_the_login_plugin_has_a_key_of_its_name_in_a_file() {
    let home = Home::new();
    let help = run(&home, ["auth", "oidc", "--help"]).success().stdout;
    let flags: Vec<&str> = help
        .lines()
        .filter_map(|line| line.trim().strip_prefix("--"))
        .filter_map(|line| line.split(' ').next())
        .collect();
    // Those of every command have their keys at the top of a file.
    let (common, own): (Vec<&str>, Vec<&str>) = flags.into_iter().partition(|flag| {
        [
            "config",
            "log-file",
            "log-format",
            "tls-ca-cert",
            "verbose",
            "help",
            "version",
        ]
        .contains(flag)
    });
    assert!(
        common.contains(&"tls-ca-cert") && own.len() > 20,
        "{common:?} {own:?}"
    );
    for flag in own {
        let path = home.write(
            ".epithet/config.yaml",
            format!("auth: {{oidc: {{{flag}: {{}}}}}}\n"),
        );
        let told = wrong(&home, &path);
        assert!(!told.contains("unknown"), "{flag}: {told}");
    }
}
