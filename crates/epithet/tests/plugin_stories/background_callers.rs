//! An editor that polls a host all night must not open a hundred browser windows. A person may always try again.

use crate::support::{FakeCa, Plugin, Stage, certificate};
use epithet_testkit::{DEADLINE, Finished, wait_until};
use epithet_wire::parse_duration;
use std::time::{Duration, Instant};

/// A login that nobody completes, until there is a file that says so.
const NOBODY_ANSWERS: &str =
    r#"if [ -e "$folder/somebody" ]; then printf token; else echo 'nobody answered' >&2; exit 1; fi"#;

/// How long the refusal of a background caller says it has to wait.
#[track_caller]
fn wait_that_was_named(refused: &Finished) -> Duration {
    assert_eq!(refused.code(), Some(1), "{refused:?}");
    for part in [
        "the last login failed: the auth plugin exited with status 1",
        "a program without a terminal",
        "to log in now, do it in a terminal",
        "it said: nobody answered",
    ] {
        assert!(
            refused.stderr.contains(part),
            "{part:?} is not in {}",
            refused.stderr
        );
    }
    let (_, rest) = refused.stderr.split_once("again only in ").expect("it says when");
    let (wait, _) = rest.split_once(';').expect("and then how");
    assert!(
        !wait.contains('.'),
        "whole seconds are what a person reads: {wait}"
    );
    parse_duration(wait).expect("a duration")
}

#[test]
fn a_hundred_background_callers_after_a_failed_login_are_two_runs_at_most() {
    let ca = FakeCa::start(|_| certificate());
    let stage = Stage::new(&ca.public_line());
    let plugin = Plugin::write(&stage.home, NOBODY_ANSWERS);
    let broker = stage.broker(&ca.url(), plugin.command(), []);
    let begun = Instant::now();
    let mut refused = 0;
    for number in 0..100 {
        let host = format!("127.0.0.{}", number % 10 + 1);
        let finished = stage.ask(&broker, &host);
        assert_eq!(finished.code(), Some(1), "{finished:?}");
        refused += usize::from(finished.stderr.contains("the last login failed"));
    }
    // The first pause is 5 s and the second 15 s, however slow this machine is.
    let allowed = if begun.elapsed() < Duration::from_secs(20) {
        2
    } else {
        3
    };
    assert!(plugin.runs() <= allowed, "{} runs", plugin.runs());
    assert_eq!(plugin.runs() + refused, 100, "each of the others is told why");
}

#[test]
fn the_pause_grows_is_named_and_ends_with_a_terminal() {
    let ca = FakeCa::start(|_| certificate());
    let stage = Stage::new(&ca.public_line());
    let plugin = Plugin::write(&stage.home, NOBODY_ANSWERS);
    let broker = stage.broker(&ca.url(), plugin.command(), []);
    let (five, fifteen) = (Duration::from_secs(5), Duration::from_secs(15));
    let first = stage.ask(&broker, "127.0.0.1");
    assert!(first.stderr.contains("it said: nobody answered"), "{first:?}");
    let pause = wait_that_was_named(&stage.ask(&broker, "127.0.0.1"));
    assert!(pause <= five, "{pause:?}");

    // Once it is over, one caller may try; then the pause is longer.
    wait_until(DEADLINE, || {
        stage.ask(&broker, "127.0.0.2");
        (plugin.runs() == 2).then_some(())
    })
    .expect("the pause ends");
    let pause = wait_that_was_named(&stage.ask(&broker, "127.0.0.3"));
    assert!(pause > five && pause <= fifteen, "{pause:?}");
    assert_eq!(plugin.runs(), 2);

    // A person does not have to wait, and begins anew for everybody.
    let person = stage.ask_from_terminal(&broker, "127.0.0.4");
    assert!(person.stdout.contains("it said: nobody answered"), "{person:?}");
    assert_eq!(plugin.variable_of(3, "EPITHET_INTERACTIVE").as_deref(), Some("1"));
    let pause = wait_that_was_named(&stage.ask(&broker, "127.0.0.5"));
    assert!(pause <= five, "{pause:?}");
    assert_eq!(plugin.runs(), 3);
}

#[test]
fn a_login_that_a_person_completes_serves_the_background_at_once() {
    let ca = FakeCa::start(|_| certificate());
    let stage = Stage::new(&ca.public_line());
    let plugin = Plugin::write(&stage.home, NOBODY_ANSWERS);
    let broker = stage.broker(&ca.url(), plugin.command(), []);
    stage.ask(&broker, "127.0.0.1");
    wait_that_was_named(&stage.ask(&broker, "127.0.0.1"));

    stage.home.write("plugin/somebody", "");
    assert_eq!(stage.ask_from_terminal(&broker, "127.0.0.2").code(), Some(0));

    assert_eq!(stage.ask(&broker, "127.0.0.1").code(), Some(0));
    assert_eq!(plugin.runs(), 2, "the background shares the person's login");
}

#[test]
fn a_person_who_comes_while_a_run_without_one_fails_gets_a_run_of_their_own() {
    let ca = FakeCa::start(|_| certificate());
    let stage = Stage::new(&ca.public_line());
    // Without somebody at a terminal it gives up, when it is told to.
    let plugin = Plugin::write(
        &stage.home,
        r#"[ "$EPITHET_INTERACTIVE" = 1 ] && { printf token; exit; }
           while ! [ -e "$folder/over" ]; do sleep 0.05; done; echo 'nobody is there' >&2; exit 1"#,
    );
    let broker = stage.broker(&ca.url(), plugin.command(), []);
    let person = std::thread::scope(|scope| {
        let background = scope.spawn(|| stage.ask(&broker, "127.0.0.1"));
        plugin.wait_for_run(1);
        let person = scope.spawn(|| stage.ask_from_terminal(&broker, "127.0.0.2"));
        // Two wait for the run that is under way.
        broker.wait_for_log("joins the login that is under way");
        stage.home.write("plugin/over", "");
        assert_eq!(background.join().unwrap().code(), Some(1));
        person.join().unwrap()
    });
    assert_eq!(person.code(), Some(0), "{person:?}");
    assert_eq!(plugin.variable_of(1, "EPITHET_INTERACTIVE").as_deref(), Some("0"));
    assert_eq!(plugin.variable_of(2, "EPITHET_INTERACTIVE").as_deref(), Some("1"));
    assert_eq!(plugin.runs(), 2);
}

#[test]
fn epithet_login_in_a_terminal_does_not_wait_either() {
    let ca = FakeCa::start(|_| certificate());
    let stage = Stage::new(&ca.public_line());
    let plugin = Plugin::write(&stage.home, NOBODY_ANSWERS);
    let broker = stage.broker(&ca.url(), plugin.command(), []);
    stage.ask(&broker, "127.0.0.1");
    wait_that_was_named(&stage.ask(&broker, "127.0.0.1"));
    stage.home.write("plugin/somebody", "");

    let login = stage.epithet_login_from_terminal(&broker).success();

    assert!(login.stdout.contains("logged in"), "{login:?}");
    assert_eq!(stage.ask(&broker, "127.0.0.1").code(), Some(0));
}
