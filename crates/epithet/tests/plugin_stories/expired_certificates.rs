//! The life of state and token: the first run, an ended certificate, and what is reused in between.

use crate::support::{FakeCa, Plugin, Stage, certificate, certificate_for, output};
use std::time::Duration;

/// A life of a certificate that ssh can use at once, and whose end a test can wait for.
const SHORT: Duration = Duration::from_secs(10);

#[test]
fn the_first_connection_runs_the_plugin_with_nothing_on_stdin_and_sshd_names_the_certificate() {
    let ca = FakeCa::start(|_| certificate());
    let stage = Stage::new(&ca.public_line());
    let plugin = Plugin::counting(&stage.home);
    let broker = stage.broker(&ca.url(), plugin.command(), []);
    assert_eq!(stage.inspect(&broker)["login"]["token"], false);

    output(stage.log_in("127.0.0.1"));

    assert_eq!(plugin.runs(), 1);
    assert_eq!(plugin.stdin_of(1), b"");
    assert_eq!(ca.tokens(), ["token-1"]);
    let accepted = stage.sshd.wait_for_log("Accepted publickey");
    for part in ["ID story (serial 1)", &ca.fingerprint()] {
        assert!(accepted.contains(part), "{part} is not in: {accepted}");
    }
    let login = &stage.inspect(&broker)["login"];
    assert_eq!((&login["token"], &login["logins"]), (&true.into(), &1.into()));
    assert_eq!(login["stateBytes"], "state-1".len());
    for (name, value) in [
        ("EPITHET_PROTOCOL", "1"),
        ("EPITHET_HOST", "127.0.0.1"),
        ("EPITHET_USER", stage.home.user().name()),
        ("EPITHET_PORT", &stage.sshd.port().to_string()),
        ("EPITHET_INTERACTIVE", "0"),
        ("EPITHET_REMOTE_SESSION", "0"),
    ] {
        assert_eq!(plugin.variable_of(1, name).as_deref(), Some(value), "{name}");
    }
}

#[test]
fn a_live_certificate_serves_the_same_connection_without_asking_anybody() {
    let ca = FakeCa::start(|_| certificate());
    let stage = Stage::new(&ca.public_line());
    let plugin = Plugin::counting(&stage.home);
    let _broker = stage.broker(&ca.url(), plugin.command(), ["--token-reuse", "0s"]);
    for _ in 0..3 {
        output(stage.log_in("127.0.0.1"));
    }
    assert_eq!((plugin.runs(), ca.asked().len()), (1, 1));
}

#[test]
fn an_ended_certificate_is_paid_for_by_a_new_run_that_gets_the_last_state_byte_for_byte() {
    let ca = FakeCa::start(|asked| match asked.number {
        1 => certificate_for(SHORT),
        _ => certificate(),
    });
    let stage = Stage::new(&ca.public_line());
    // All values a byte can have, and 0 at the beginning and at the end.
    let state: Vec<u8> = (0..=255).chain((0..=255).rev()).collect();
    let kept = stage.home.write("state", &state);
    let plugin = Plugin::write(
        &stage.home,
        &format!("printf 'token-%s' \"$run\"; cat '{}' >&3", kept.display()),
    );
    let broker = stage.broker(&ca.url(), plugin.command(), []);
    output(stage.log_in("127.0.0.1"));
    stage.wait_for_expiry(&broker);

    // The token is younger than --token-reuse, and still the end of a certificate asks for a new one.
    output(stage.log_in("127.0.0.1"));

    assert_eq!(plugin.runs(), 2);
    assert!(plugin.stdin_of(2) == state, "the state came back changed");
    assert_eq!(ca.tokens(), ["token-1", "token-2"]);
}

#[test]
fn one_login_serves_other_hosts_while_its_token_is_young() {
    let ca = FakeCa::start(|_| certificate());
    let stage = Stage::new(&ca.public_line());
    let plugin = Plugin::counting(&stage.home);
    let _broker = stage.broker(&ca.url(), plugin.command(), []);
    for host in ["127.0.0.1", "127.0.0.2", "127.0.0.3"] {
        output(stage.log_in(host));
    }
    assert_eq!(plugin.runs(), 1);
    assert_eq!(ca.tokens(), ["token-1"; 3]);
    let hosts: Vec<String> = ca.asked().into_iter().map(|asked| asked.host).collect();
    assert_eq!(hosts, ["127.0.0.1", "127.0.0.2", "127.0.0.3"]);
}

#[test]
fn without_token_reuse_every_new_connection_is_a_run_of_its_own() {
    let ca = FakeCa::start(|_| certificate());
    let stage = Stage::new(&ca.public_line());
    let plugin = Plugin::counting(&stage.home);
    let _broker = stage.broker(&ca.url(), plugin.command(), ["--token-reuse", "0s"]);
    for host in ["127.0.0.1", "127.0.0.2", "127.0.0.3"] {
        output(stage.log_in(host));
    }
    assert_eq!(ca.tokens(), ["token-1", "token-2", "token-3"]);
    assert_eq!(plugin.stdin_of(2), b"state-1");
    assert_eq!(plugin.stdin_of(3), b"state-2");
}

#[test]
fn an_empty_state_replaces_the_one_before() {
    let ca = FakeCa::start(|_| certificate());
    let stage = Stage::new(&ca.public_line());
    let plugin = Plugin::write(
        &stage.home,
        r#"printf 'token-%s' "$run"; [ "$run" = 2 ] || printf 'state-%s' "$run" >&3"#,
    );
    let _broker = stage.broker(&ca.url(), plugin.command(), ["--token-reuse", "0s"]);
    for host in ["127.0.0.1", "127.0.0.2", "127.0.0.3"] {
        output(stage.log_in(host));
    }
    assert_eq!(plugin.stdin_of(2), b"state-1");
    assert_eq!(plugin.stdin_of(3), b"");
}

#[test]
fn a_logout_forgets_the_state_and_the_next_login_begins_from_nothing() {
    let ca = FakeCa::start(|_| certificate());
    let stage = Stage::new(&ca.public_line());
    let plugin = Plugin::counting(&stage.home);
    let broker = stage.broker(&ca.url(), plugin.command(), []);
    output(stage.log_in("127.0.0.1"));
    let socket = broker.socket().display().to_string();
    epithet_testkit::Finished::of(
        stage.epithet(["logout", "--broker", &socket]),
        epithet_testkit::DEADLINE,
    )
    .success();
    assert_eq!(stage.inspect(&broker)["login"]["stateBytes"], 0);
    output(stage.log_in("127.0.0.1"));
    assert_eq!(plugin.stdin_of(2), b"");
}
