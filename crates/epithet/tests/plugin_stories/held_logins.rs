//! What is held stays good until something better has come: a login that fails and a logout that comes in between change
//! nothing that they should not.

use crate::support::{FakeCa, Gate, Plugin, Stage, certificate, output};
use epithet_testkit::{Broker, DEADLINE, Finished};

fn log_out(stage: &Stage, broker: &Broker) -> Finished {
    let socket = broker.socket().display().to_string();
    Finished::of(stage.epithet(["logout", "--broker", &socket]), DEADLINE).success()
}

#[test]
fn an_epithet_login_that_fails_leaves_token_and_state_as_they_were() {
    let ca = FakeCa::start(|_| certificate());
    let stage = Stage::new(&ca.public_line());
    let plugin = Plugin::write(
        &stage.home,
        "[ \"$run\" != 2 ] || { echo 'not now' >&2; exit 3; }; printf 'token-%s' \"$run\"; printf 'state-%s' \"$run\" >&3",
    );
    let broker = stage.broker(&ca.url(), plugin.command(), ["--token-reuse", "10m"]);
    output(stage.log_in("127.0.0.1"));

    let failed = stage.epithet_login_from_terminal(&broker);
    assert!(
        !failed.status.success() && failed.stdout.contains("not now"),
        "{failed:?}"
    );

    let login = &stage.inspect(&broker)["login"];
    assert_eq!(
        (login["token"].as_bool(), login["stateBytes"].as_u64()),
        (Some(true), Some(7))
    );
    output(stage.log_in("127.0.0.2"));
    assert_eq!(plugin.runs(), 2, "the held token served");
    assert_eq!(ca.asked().last().unwrap().token, b"token-1");

    let again = stage.epithet_login_from_terminal(&broker);
    assert!(again.status.success(), "{again:?}");
    assert_eq!(plugin.stdin_of(3), b"state-1");
    output(stage.log_in("127.0.0.3"));
    assert_eq!(ca.asked().last().unwrap().token, b"token-3");
}

#[test]
fn while_an_epithet_login_waits_for_its_person_the_held_token_serves_everybody_else() {
    let ca = FakeCa::start(|_| certificate());
    let stage = Stage::new(&ca.public_line());
    let plugin = Plugin::write(
        &stage.home,
        "[ \"$run\" = 1 ] || { echo 'please wait' >&4; read -r _ < \"$folder/gate\"; }; printf 'token-%s' \"$run\"",
    );
    let mut gate = Gate::of(&plugin);
    let broker = stage.broker(&ca.url(), plugin.command(), ["--token-reuse", "10m"]);
    output(stage.log_in("127.0.0.1"));
    let socket = broker.socket().display().to_string();
    let login = stage.epithet(["login", "--broker", &socket]);
    let mut login = epithet_testkit::Daemon::start("epithet login", login, None);
    login.expect_line("please wait", DEADLINE);

    output(stage.log_in("127.0.0.2"));

    gate.open();
    assert!(
        login.wait(DEADLINE).expect("it ends").success(),
        "{}",
        login.stderr()
    );
    assert_eq!(ca.asked().last().unwrap().token, b"token-1");
}

#[test]
fn a_logout_while_a_plugin_runs_is_not_a_login_that_nobody_completed() {
    let ca = FakeCa::start(|_| certificate());
    let stage = Stage::new(&ca.public_line());
    let plugin = Plugin::write(
        &stage.home,
        "[ \"$run\" != 1 ] || { echo 'please wait' >&4; read -r _ < \"$folder/gate\"; }; printf 'token-%s' \"$run\"",
    );
    let _gate = Gate::of(&plugin);
    let broker = stage.broker(&ca.url(), plugin.command(), []);
    let mut waiting = stage.begin("127.0.0.1");
    waiting.expect_line("please wait", DEADLINE);

    log_out(&stage, &broker);

    assert!(!waiting.wait(DEADLINE).expect("ssh ends").success());
    assert!(
        waiting.stderr().text().contains("you logged out meanwhile"),
        "{}",
        waiting.stderr()
    );
    assert_eq!(stage.inspect(&broker)["login"]["failures"], 0);
    // A program in the background is served at once: no pause was begun.
    output(stage.log_in("127.0.0.2"));
    assert_eq!(plugin.stdin_of(2), b"");
}
