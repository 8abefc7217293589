//! Staying logged in: refresh, rotation, revocation, and a provider that comes and goes.

use crate::support::provider::{CLIENT, Instead};
use crate::support::{Person, Provider, log_in, options, other_rsa, rsa, run_again, state};
use epithet_oidc::{Flow, How, LoginError, LoginOptions, Secret, TokenKind, login};
use serde_json::json;
use std::time::Duration;

#[tokio::test]
async fn with_a_state_the_token_is_always_a_new_one_and_nobody_has_to_act() {
    let provider = Provider::start().await;
    let first = log_in(&provider).await;
    provider.forget_requests();
    let mut person = Person::without_browser();
    let second = login(&options(&provider), first.state.expose(), &mut person)
        .await
        .unwrap();
    assert_eq!(second.how, How::Refreshed);
    assert!(person.shown.is_empty());
    assert_eq!(
        state(&second)["refresh_token"],
        state(&first)["refresh_token"],
        "none came back, the old one is kept"
    );
    assert_ne!(state(&second)["access_token"], state(&first)["access_token"]);
    // Discovery and keys are in the state: one request does it.
    assert_eq!(provider.count("POST /token"), 1);
    assert_eq!(
        provider.count("GET /keys") + provider.count("GET /.well-known/openid-configuration"),
        0
    );
    let form = provider.world.forms.lock().unwrap().last().unwrap().clone();
    assert_eq!(
        (form["client_id"].as_str(), form["grant_type"].as_str()),
        (CLIENT, "refresh_token")
    );
    assert!(!form.contains_key("client_secret"), "a public client has none");
}

#[tokio::test]
async fn a_rotated_refresh_token_replaces_the_old_one() {
    let provider = Provider::start().await;
    provider.settings().rotates = true;
    let mut outcome = log_in(&provider).await;
    for _ in 0..3 {
        let next = run_again(&provider, &outcome).await.unwrap();
        assert_eq!(next.how, How::Refreshed);
        assert_ne!(state(&next)["refresh_token"], state(&outcome)["refresh_token"]);
        outcome = next;
    }
}

#[tokio::test]
async fn a_reused_refresh_token_ends_the_session_and_leads_to_one_login() {
    let provider = Provider::start().await;
    provider.settings().rotates = true;
    let first = log_in(&provider).await;
    run_again(&provider, &first).await.unwrap();
    // The same state again, as if the last run had been lost.
    let mut person = Person::with_browser();
    let again = login(&options(&provider), first.state.expose(), &mut person)
        .await
        .unwrap();
    assert_eq!(again.how, How::LoggedIn(Flow::Browser));
    let terminal = person.terminal();
    assert!(
        terminal.contains("ended the session (invalid_grant: words about invalid_grant)"),
        "{terminal}"
    );
    assert_eq!(person.shown.len(), 2, "one line and the address: {terminal}");
}

#[tokio::test]
async fn a_revoked_session_leads_to_a_login_by_somebody_perhaps_else() {
    let provider = Provider::start().await;
    let first = log_in(&provider).await;
    provider.end_sessions();
    provider.settings().claims = Box::new(|claims| claims["sub"] = "bob-2".into());
    let second = run_again(&provider, &first).await.unwrap();
    assert_eq!(second.how, How::LoggedIn(Flow::Browser));
    assert_eq!(state(&second)["epithet"]["subject"], "bob-2");
}

#[tokio::test]
async fn a_refresh_for_somebody_else_is_not_given_out_and_leads_to_a_login() {
    let provider = Provider::start().await;
    let first = log_in(&provider).await;
    provider.settings().claims = Box::new(|claims| claims["sub"] = "mallory".into());
    let mut person = Person::browsing(|_| async {});
    let options = LoginOptions {
        timeout: Duration::from_secs(2),
        ..options(&provider)
    };
    let error = login(&options, first.state.expose(), &mut person)
        .await
        .unwrap_err();
    assert!(
        matches!(error, LoginError::TimedOut { .. }),
        "nobody logged in: {error}"
    );
    let terminal = person.terminal();
    assert!(
        terminal.contains("its \"sub\" is not that of the token before it; please log in again"),
        "{terminal}"
    );
}

#[tokio::test]
async fn a_token_endpoint_that_moved_is_found_again() {
    let provider = Provider::start().await;
    let first = log_in(&provider).await;
    let moved = format!("{}/moved", provider.world.issuer);
    provider.settings().instead.insert("/token", Instead::Status(404));
    provider.settings().discovery =
        Box::new(move |document| document["token_endpoint"] = moved.clone().into());
    let second = run_again(&provider, &first).await.unwrap();
    assert_eq!((second.how, provider.count("POST /moved")), (How::Refreshed, 1));
}

#[tokio::test]
async fn a_refresh_without_an_id_token_leads_to_a_login() {
    let provider = Provider::start().await;
    let first = log_in(&provider).await;
    provider.settings().refresh_without_id_token = true;
    let mut person = Person::with_browser();
    let second = login(&options(&provider), first.state.expose(), &mut person)
        .await
        .unwrap();
    assert_eq!(second.how, How::LoggedIn(Flow::Browser));
    assert!(
        person.terminal().contains("without an ID token"),
        "{}",
        person.terminal()
    );
    // Where the access token is what counts, nothing is missing.
    let options = LoginOptions {
        token: TokenKind::Access,
        ..options(&provider)
    };
    let third = login(&options, second.state.expose(), &mut Person::without_browser())
        .await
        .unwrap();
    assert_eq!((third.how, third.claims.is_none()), (How::Refreshed, true));
    assert!(third.token.expose().starts_with(b"access-"));
    assert_eq!(
        state(&third)["epithet"]["subject"],
        "alice-1",
        "who it was is not forgotten"
    );
}

#[tokio::test]
async fn a_provider_that_is_down_is_an_error_and_no_reason_for_a_browser() {
    let mut provider = Provider::start().await;
    let first = log_in(&provider).await;
    let attempt = |provider: &Provider| {
        let options = options(provider);
        let state = first.state.clone();
        async move {
            let mut person = Person::with_browser();
            let error = login(&options, state.expose(), &mut person).await.unwrap_err();
            assert!(person.shown.is_empty() && person.visits.is_empty(), "{error}");
            error.to_string()
        }
    };
    for status in [500, 503, 429] {
        provider
            .settings()
            .instead
            .insert("/token", Instead::Status(status));
        assert!(attempt(&provider).await.contains(&format!("status {status}")));
    }
    provider.settings().instead.clear();
    provider.stop().await;
    assert!(attempt(&provider).await.contains("cannot reach"));
    provider.start_again().await;
    assert_eq!(
        run_again(&provider, &first).await.unwrap().how,
        How::Refreshed,
        "the state is as good as before"
    );
}

#[tokio::test]
async fn keys_may_change_between_before_and_during_logins() {
    let provider = Provider::start().await;
    let first = log_in(&provider).await;
    {
        let mut settings = provider.settings();
        settings.signer = other_rsa();
        settings.published = vec![other_rsa().jwk()];
    }
    provider.forget_requests();
    let second = run_again(&provider, &first).await.unwrap();
    assert_eq!(second.how, How::Refreshed);
    assert_eq!(provider.count("GET /keys"), 1);
    provider.forget_requests();
    run_again(&provider, &second).await.unwrap();
    assert_eq!(provider.count("GET /keys"), 0, "the new keys are in the state");
}

#[tokio::test]
async fn keys_that_are_announced_before_and_withdrawn_after_cost_no_extra_request() {
    let provider = Provider::start().await;
    provider.settings().published = vec![rsa().jwk(), other_rsa().jwk()];
    let first = log_in(&provider).await;
    provider.forget_requests();
    provider.settings().signer = other_rsa();
    let second = run_again(&provider, &first).await.unwrap();
    provider.settings().published = vec![other_rsa().jwk()];
    let third = run_again(&provider, &second).await.unwrap();
    assert_eq!((second.how, third.how), (How::Refreshed, How::Refreshed));
    assert_eq!(provider.count("GET /keys"), 0);
}

#[tokio::test]
async fn a_key_that_is_not_published_is_looked_for_once_and_refused() {
    let provider = Provider::start().await;
    let first = log_in(&provider).await;
    provider.settings().signer = other_rsa();
    provider.forget_requests();
    let error = run_again(&provider, &first).await.unwrap_err().to_string();
    assert!(error.contains("publishes no key with the id"), "{error}");
    assert_eq!(provider.count("GET /keys"), 1);
}

/// A refresh token that rotates is gone once it was used: what would make its successor useless is asked for before.
#[tokio::test]
async fn while_the_keys_cannot_be_had_no_refresh_token_is_used_up() {
    let provider = Provider::start().await;
    provider.settings().rotates = true;
    let first = log_in(&provider).await;
    let without_keys = {
        let mut state = state(&first);
        state["epithet"].as_object_mut().unwrap().remove("keys");
        state.to_string()
    };
    provider.settings().instead.insert("/keys", Instead::Status(503));
    let error = login(
        &options(&provider),
        without_keys.as_bytes(),
        &mut Person::with_browser(),
    )
    .await
    .unwrap_err()
    .to_string();
    assert!(error.contains("/keys answered with status 503"), "{error}");
    assert_eq!(provider.used_refresh_tokens(), 0);
    provider.settings().instead.clear();
    assert_eq!(run_again(&provider, &first).await.unwrap().how, How::Refreshed);
}

#[tokio::test]
async fn yesterdays_keys_serve_while_the_provider_does_not_give_them_out() {
    let provider = Provider::start().await;
    let first = log_in(&provider).await;
    let aged = |age: u64| {
        let mut state = state(&first);
        for document in ["keys", "discovery"] {
            state["epithet"][document]["fetched_at"] = (crate::support::now() - age).into();
            state["epithet"][document]["fresh_until"] = (crate::support::now() - age + 300).into();
        }
        state.to_string()
    };
    let refresh = async |state: String| {
        login(
            &options(&provider),
            state.as_bytes(),
            &mut Person::without_browser(),
        )
        .await
    };
    // Old ones are confirmed by their mark, not sent again.
    provider.forget_requests();
    assert_eq!(refresh(aged(3600)).await.unwrap().how, How::Refreshed);
    assert_eq!(provider.count("GET /keys"), 1);
    for path in ["/keys", "/.well-known/openid-configuration"] {
        provider.settings().instead.insert(path, Instead::Status(503));
    }
    assert_eq!(refresh(aged(23 * 3600)).await.unwrap().how, How::Refreshed);
    let error = refresh(aged(25 * 3600)).await.unwrap_err().to_string();
    assert!(error.contains("status 503"), "{error}");
}

#[tokio::test]
async fn clocks_that_are_two_minutes_apart_are_named_and_slow_ones_do_not_matter() {
    let provider = Provider::start().await;
    provider.settings().clock = -120;
    let first = log_in(&provider).await;
    assert_eq!(run_again(&provider, &first).await.unwrap().how, How::Refreshed);
    provider.settings().clock = 120;
    let error = run_again(&provider, &first).await.unwrap_err().to_string();
    assert!(error.contains("120 s in the future; check the clocks"), "{error}");
    let error = login(&options(&provider), b"", &mut Person::with_browser())
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("in the future; check the clocks"), "{error}");
}

#[tokio::test]
async fn another_providers_state_is_not_shown_to_this_one() {
    let (one, other) = (Provider::start().await, Provider::start().await);
    let outcome = log_in(&one).await;
    let second = run_again(&other, &outcome).await.unwrap();
    assert_eq!(second.how, How::LoggedIn(Flow::Browser));
    assert!(
        other
            .world
            .forms
            .lock()
            .unwrap()
            .iter()
            .all(|form| !form.contains_key("refresh_token"))
    );
}

#[tokio::test]
async fn a_state_of_epithet_0_17_saves_a_login() {
    let provider = Provider::start().await;
    let refresh_token = state(&log_in(&provider).await)["refresh_token"].clone();
    let old = json!({"access_token": "a", "token_type": "Bearer", "refresh_token": refresh_token, "expiry": "2026-08-13T18:30:00.1+02:00"});
    let outcome = login(
        &options(&provider),
        old.to_string().as_bytes(),
        &mut Person::without_browser(),
    )
    .await
    .unwrap();
    assert_eq!(outcome.how, How::Refreshed);
}

#[tokio::test]
async fn no_secret_is_in_any_debug_output_or_error() {
    let provider = Provider::start().await;
    let outcome = log_in(&provider).await;
    let options = LoginOptions {
        client_secret: Some(Secret::new("canary".into())),
        ..options(&provider)
    };
    let shown = format!("{outcome:?} {options:?}");
    for secret in ["refresh-", "access-", "canary"] {
        assert!(!shown.contains(secret), "{secret} in {shown}");
    }
}
