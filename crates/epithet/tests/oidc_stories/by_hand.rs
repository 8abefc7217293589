//! The plugin run by hand: a check of a provider before there is any broker.

use crate::site::EPITHET;
use epithet_testkit::devidp::Person;
use epithet_testkit::{CertifiedProvider, DEADLINE, FakeBrowser, Finished, Home};
use serde_json::json;
use std::process::{Command, Stdio};

fn auth_oidc(home: &Home, more: &[&str]) -> Command {
    let mut command = home.command(EPITHET);
    command.args(["auth", "oidc"]).args(more).stdin(Stdio::null());
    command
}

#[test]
fn a_login_by_hand_says_who_you_are_what_the_token_says_and_until_when_but_not_the_token() {
    let provider = CertifiedProvider::start(&json!({}));
    let home = Home::new();
    let browser = FakeBrowser::with_person(home.path(), Person::named("alice"));
    let program = browser.program().display().to_string();
    let command = auth_oidc(
        &home,
        &[
            "--issuer",
            provider.issuer(),
            "--client-id",
            "epithet",
            "--browser",
            &program,
        ],
    );

    let finished = Finished::of(command, DEADLINE).success();

    for words in [
        "logged in in the browser\n",
        "you are     alice@example.com\n",
        "until       20",
        " from now)\n",
        "the token says\n",
        "aud         epithet\n",
        "email_verified true\n",
        "nothing was given to a broker",
    ] {
        assert!(
            finished.stdout.contains(words),
            "{words} is not in:\n{}",
            finished.stdout
        );
    }
    let all = format!("{}{}", finished.stdout, finished.stderr);
    assert!(!all.contains("eyJ"), "the token itself is shown nowhere:\n{all}");
    assert_eq!(browser.opened().len(), 1, "a named browser needs no display");
}

#[test]
fn a_login_by_hand_that_fails_prints_nothing_and_says_why() {
    let provider = CertifiedProvider::start(&json!({}));
    let home = Home::new();
    let browser = FakeBrowser::with_person(home.path(), Person::named("alice").who_refuses());
    let program = browser.program().display().to_string();
    let command = auth_oidc(
        &home,
        &[
            "--issuer",
            provider.issuer(),
            "--client-id",
            "epithet",
            "--browser",
            &program,
        ],
    );
    let finished = Finished::of(command, DEADLINE);
    assert_eq!((finished.code(), finished.stdout.as_str()), (Some(1), ""));
    assert!(
        finished.stderr.contains("the login was refused: access_denied"),
        "{}",
        finished.stderr
    );
}

#[test]
fn a_probe_prints_what_the_provider_can_do_and_which_flags_to_use() {
    let home = Home::new();
    let provider = CertifiedProvider::start(&json!({}));
    let command = auth_oidc(&home, &["probe", "--issuer", provider.issuer()]);
    let finished = Finished::of(command, DEADLINE).success();
    for words in [
        "browser ",
        "device code ",
        "revocation ",
        "S256",
        "signs with",
        "RS256",
        "Use: epithet auth oidc --issuer http://127.0.0.1",
    ] {
        assert!(
            finished.stdout.contains(words),
            "{words} is not in:\n{}",
            finished.stdout
        );
    }

    let without_codes = CertifiedProvider::start(&json!({"deviceFlow": false}));
    let command = auth_oidc(&home, &["probe", "--issuer", without_codes.issuer()]);
    let finished = Finished::of(command, DEADLINE).success();
    assert!(
        finished.stdout.contains("Will not work: device codes"),
        "{}",
        finished.stdout
    );

    let command = auth_oidc(&home, &["probe", "--issuer", "http://127.0.0.1:1"]);
    let finished = Finished::of(command, DEADLINE);
    assert_eq!((finished.code(), finished.stdout.as_str()), (Some(1), ""));
    assert!(
        finished.stderr.contains("cannot reach http://127.0.0.1:1"),
        "{}",
        finished.stderr
    );
}
