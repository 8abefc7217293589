//! What becomes of a login when the CA says something else than yes.

use crate::support::{FakeCa, Plugin, Stage, certificate, output, refusal};
use epithet_testkit::{DEADLINE, Finished, wait_until};
use std::sync::Mutex;
use std::sync::mpsc::channel;

/// Asserts that ssh was let down by Epithet, which gave its reason first, and had no other key.
#[track_caller]
fn locked_out(finished: &Finished) {
    assert_eq!(finished.code(), Some(255), "{finished:?}");
    let (reason, end) = (
        finished.stderr.find("epithet: "),
        finished.stderr.find("Permission denied"),
    );
    assert!(reason.is_some() && reason < end, "{finished:?}");
}

/// Asserts that all of these were said.
#[track_caller]
fn said(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in:\n{text}");
    }
}

#[test]
fn after_a_401_the_token_is_dropped_and_a_run_with_the_state_pays_for_another_try() {
    let ca = FakeCa::start(|asked| match asked.number {
        2 => refusal(401, "token expired"),
        _ => certificate(),
    });
    let stage = Stage::new(&ca.public_line());
    let plugin = Plugin::counting(&stage.home);
    let broker = stage.broker(&ca.url(), plugin.command(), []);
    output(stage.log_in("127.0.0.1"));

    // The token is held and young, so it is tried first.
    output(stage.log_in("127.0.0.2"));

    assert_eq!(ca.tokens(), ["token-1", "token-1", "token-2"]);
    assert_eq!(plugin.runs(), 2);
    assert_eq!(plugin.stdin_of(2), b"state-1");
    broker.wait_for_log("the CA did not accept the token");
}

#[test]
fn three_401s_for_three_tokens_end_it_with_a_sentence_about_them() {
    let ca = FakeCa::start(|asked| refusal(401, &format!("no good, number {}", asked.number)));
    let stage = Stage::new(&ca.public_line());
    let plugin = Plugin::counting(&stage.home);
    let _broker = stage.broker(&ca.url(), plugin.command(), []);

    let finished = stage.log_in("127.0.0.1");

    locked_out(&finished);
    said(
        &finished.stderr,
        &[
            "the CA did not accept the token of 3 logins in a row",
            "no good, number 3",
            "ask whoever runs the CA",
        ],
    );
    assert_eq!(ca.tokens(), ["token-1", "token-2", "token-3"]);
    assert_eq!(plugin.runs(), 3);
    assert_eq!(plugin.stdin_of(3), b"state-2");
}

#[test]
fn the_same_token_again_after_a_401_ends_it_at_once() {
    let ca = FakeCa::start(|_| refusal(401, "no good"));
    let stage = Stage::new(&ca.public_line());
    let plugin = Plugin::write(&stage.home, "printf always-the-same");
    let _broker = stage.broker(&ca.url(), plugin.command(), []);

    let finished = stage.log_in("127.0.0.1");

    locked_out(&finished);
    said(
        &finished.stderr,
        &[
            "(no good)",
            "the auth plugin gave the same token again",
            "fresh token",
        ],
    );
    assert_eq!(ca.asked().len(), 1, "a token that was refused is not sent again");
    assert_eq!(plugin.runs(), 2);
}

#[test]
fn a_late_401_for_an_old_token_never_discards_the_newer_one() {
    let (answer_late, wait) = channel::<()>();
    let wait = Mutex::new(wait);
    // The first request is answered when the second host has logged in with a newer token.
    let ca = FakeCa::start(move |asked| match (asked.number, asked.token.as_slice()) {
        (1, _) => {
            wait.lock().unwrap().recv_timeout(DEADLINE).unwrap();
            refusal(401, "too old")
        }
        (_, b"token-1") => refusal(401, "too old"),
        _ => certificate(),
    });
    let stage = Stage::new(&ca.public_line());
    let plugin = Plugin::counting(&stage.home);
    let broker = stage.broker(&ca.url(), plugin.command(), []);
    let mut late = stage.begin("127.0.0.1");
    wait_until(DEADLINE, || (ca.asked().len() == 1).then_some(())).expect("the CA is asked");
    output(stage.log_in("127.0.0.2"));
    assert_eq!(ca.tokens(), ["token-1", "token-1", "token-2"]);

    answer_late.send(()).unwrap();

    assert!(late.wait(DEADLINE).unwrap().success(), "{}", late.stderr());
    assert_eq!(ca.tokens()[3..], ["token-2"], "the newer token was still there");
    assert_eq!(plugin.runs(), 2);
    assert_eq!(stage.inspect(&broker)["login"]["token"], true);
}

#[test]
fn a_403_is_told_and_ssh_goes_on_to_the_persons_other_keys() {
    let ca = FakeCa::start(|_| refusal(403, "not on a \x1b[31mFriday"));
    let stage = Stage::new(&ca.public_line());
    stage.give_another_key();
    let plugin = Plugin::counting(&stage.home);
    let _broker = stage.broker(&ca.url(), plugin.command(), []);

    let said_so = output(stage.log_in("127.0.0.1"));

    said(
        &said_so,
        &[
            "access denied by policy",
            "Friday",
            "ask whoever runs the policy server",
        ],
    );
    assert!(
        !said_so.contains('\x1b'),
        "the CA's words reach the terminal unarmed: {said_so:?}"
    );
    assert_eq!((plugin.runs(), ca.asked().len()), (1, 1));
    // No is no for this connection only, and says nothing about the token.
    said(&output(stage.log_in("127.0.0.1")), &["access denied by policy"]);
    assert_eq!(ca.tokens(), ["token-1"; 2]);
    assert_eq!(plugin.runs(), 1);
}

#[test]
fn a_host_that_was_answered_422_is_left_alone_afterwards() {
    let ca = FakeCa::start(|asked| match asked.host.as_str() {
        "127.0.0.1" => refusal(422, "no host of mine"),
        _ => certificate(),
    });
    let stage = Stage::new(&ca.public_line());
    stage.give_another_key();
    let plugin = Plugin::counting(&stage.home);
    // Every connection would be a run of its own.
    let _broker = stage.broker(&ca.url(), plugin.command(), ["--token-reuse", "0s"]);

    let first = output(stage.log_in("127.0.0.1"));

    said(&first, &["connection not handled: no host of mine"]);
    assert_eq!((plugin.runs(), ca.asked().len()), (1, 1));
    for _ in 0..2 {
        let again = output(stage.log_in("127.0.0.1"));
        assert!(!again.contains("epithet"), "it is not even mentioned: {again}");
    }
    assert_eq!((plugin.runs(), ca.asked().len()), (1, 1));
    output(stage.log_in("127.0.0.2"));
    assert_eq!(
        (plugin.runs(), ca.asked().len()),
        (2, 2),
        "other hosts are not meant"
    );
}

#[test]
fn a_ca_that_fails_is_named_and_the_token_stays_good_for_the_next_try() {
    let ca = FakeCa::start(|asked| match asked.number {
        1 => refusal(503, "out of ink"),
        _ => certificate(),
    });
    let stage = Stage::new(&ca.public_line());
    let plugin = Plugin::counting(&stage.home);
    let broker = stage.broker(&ca.url(), plugin.command(), []);

    let finished = stage.log_in("127.0.0.1");

    locked_out(&finished);
    said(
        &finished.stderr,
        &[
            "no CA is available",
            &ca.url(),
            "503",
            "out of ink",
            "epithet inspect",
        ],
    );
    let endpoint = &stage.inspect(&broker)["caEndpoints"][0];
    assert!(
        endpoint["lastError"].as_str().unwrap().contains("out of ink"),
        "{endpoint}"
    );
    output(stage.log_in("127.0.0.1"));
    assert_eq!(
        (plugin.runs(), ca.asked().len()),
        (1, 2),
        "a failing CA says nothing about the token"
    );
}

#[test]
fn of_two_cas_the_second_is_asked_when_the_first_fails() {
    let failing = FakeCa::start(|_| refusal(500, "out of ink"));
    let well = FakeCa::beside(&failing, |_| certificate());
    let stage = Stage::new(&failing.public_line());
    let plugin = Plugin::counting(&stage.home);
    let second = format!("priority=50:{}", well.url());
    let broker = stage.broker(&failing.url(), plugin.command(), ["--ca-url", &second]);

    let quiet = output(stage.log_in("127.0.0.1"));

    assert!(
        !quiet.contains("out of ink"),
        "nothing went wrong for the person: {quiet}"
    );
    assert_eq!(failing.tokens(), ["token-1"]);
    assert_eq!(well.tokens(), ["token-1"], "the same login serves both");
    assert_eq!(plugin.runs(), 1);
    broker.wait_for_log("CA unavailable");
}

#[test]
fn a_no_of_the_first_of_two_cas_is_not_taken_to_the_second() {
    let strict = FakeCa::start(|_| refusal(403, "no"));
    let generous = FakeCa::beside(&strict, |_| certificate());
    let stage = Stage::new(&strict.public_line());
    let plugin = Plugin::counting(&stage.home);
    let second = format!("priority=50:{}", generous.url());
    let _broker = stage.broker(&strict.url(), plugin.command(), ["--ca-url", &second]);

    locked_out(&stage.log_in("127.0.0.1"));

    assert_eq!((strict.asked().len(), generous.asked().len()), (1, 0));
}
