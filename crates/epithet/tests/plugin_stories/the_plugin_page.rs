//! The two plugins that the documentation of epithet shows, as a person types them from that page, against the real
//! server: they have to work as they stand there.

use crate::support::{FakeAuth, RealServer, Stage, output, program_on_path, refresh_token_number, start};
use epithet_testkit::{Broker, TestUser, plugin_script};
use std::ffi::OsString;

const BASH: &str = include_str!("page/plugin.sh");
const PYTHON: &str = include_str!("page/plugin.py");
/// What the page leaves to the reader.
const DO_INITIAL_AUTH: &str = include_str!("page/do_initial_auth.py");
/// Stands in for the module, which is not part of Python.
const REQUESTS: &str = include_str!("page/requests.py");

/// Starts the broker of a person who has put something into `~/bin` and, for Python, beside the plugin.
fn broker(stage: &Stage, server: &RealServer, plugin: &str) -> Broker {
    let mut path = OsString::from(stage.home.join("bin"));
    path.push(":");
    path.push(std::env::var_os("PATH").unwrap_or_else(|| "/usr/bin:/bin".into()));
    let mut command = stage.agent(server.url(), plugin, []);
    command.env("PATH", path).env("PYTHONPATH", stage.home.path());
    // Python would leave compiled files in the home.
    command.env("PYTHONDONTWRITEBYTECODE", "1");
    start(command)
}

/// Logs in with the Bash plugin: at first, when the certificate has ended, and when the CA answers 401.
fn the_bash_plugin_logs_in(user: &TestUser) {
    let server = RealServer::start(user, "10s");
    let stage = Stage::of(user, server.public_line());
    // Prints the next of some tokens, as a company's own command might.
    program_on_path(
        &stage.home,
        "my-auth-command",
        "#!/bin/sh\nhead -n 1 ~/tokens\nsed -i 1d ~/tokens\necho ran >> ~/ran\n",
    );
    let tokens = [
        server.id_token(),
        server.id_token(),
        server.stale_id_token(),
        server.id_token(),
    ];
    stage.home.write("tokens", tokens.join("\n") + "\n");
    let plugin = plugin_script(stage.home.path(), "plugin.sh", BASH);
    let broker = broker(&stage, &server, plugin.to_str().unwrap());
    let runs = || std::fs::read_to_string(stage.home.join("ran")).map_or(0, |text| text.lines().count());

    let first = stage.log_in("127.0.0.1");
    output(first);
    assert_eq!(runs(), 1);
    let accepted = stage.sshd.wait_for_log("Accepted publickey");
    assert!(accepted.contains("ID alice@example.com"), "{accepted}");

    stage.wait_for_expiry(&broker);
    output(stage.log_in("127.0.0.1"));
    assert_eq!(runs(), 2);

    stage.wait_for_expiry(&broker);
    output(stage.log_in("127.0.0.1"));
    assert_eq!(
        runs(),
        4,
        "the third token had ended, and the plugin was run once more"
    );
    broker.wait_for_log("the CA did not accept the token");
}

#[test]
fn the_bash_plugin_of_the_page_logs_in_again_and_again() {
    the_bash_plugin_logs_in(&TestUser::current());
}

#[test]
fn the_bash_plugin_of_the_page_logs_in_an_ordinary_user() {
    // Tests that run as an ordinary user have had this very story already; for them it is told twice.
    the_bash_plugin_logs_in(&TestUser::ordinary().unwrap_or_else(TestUser::current));
}

#[test]
fn the_python_plugin_of_the_page_lives_on_its_refresh_token() {
    let user = TestUser::current();
    let server = RealServer::start(&user, "10s");
    let stage = Stage::new(server.public_line());
    let auth = FakeAuth::start(server.provider.clone());
    stage.home.write("requests.py", REQUESTS);
    let text = PYTHON
        .replace(
            "\n# Read state from stdin",
            &format!("\n{DO_INITIAL_AUTH}\n# Read state from stdin"),
        )
        .replace("https://auth.example.com/token", &auth.token_endpoint());
    assert!(text.contains("def do_initial_auth") && !text.contains("example.com"));
    let plugin = plugin_script(stage.home.path(), "plugin.py", &text);
    let broker = broker(&stage, &server, plugin.to_str().unwrap());
    let (code, refresh) = (("authorization_code".to_owned(), None), |number| {
        ("refresh_token".to_owned(), Some(refresh_token_number(number)))
    });

    output(stage.log_in("127.0.0.1"));
    assert_eq!(
        auth.grants(),
        std::slice::from_ref(&code),
        "the first stdin was empty"
    );

    stage.wait_for_expiry(&broker);
    output(stage.log_in("127.0.0.1"));
    assert_eq!(auth.grants(), [code.clone(), refresh(1)], "the state came back");

    stage.wait_for_expiry(&broker);
    auth.let_the_next_token_be_stale();
    output(stage.log_in("127.0.0.1"));
    assert_eq!(
        auth.grants(),
        [code, refresh(1), refresh(2), refresh(3)],
        "after the CA's 401 the plugin was run with its newest state"
    );
    broker.wait_for_log("the CA did not accept the token");
    assert_eq!(stage.inspect(&broker)["login"]["logins"], 4);
}
