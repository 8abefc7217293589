//! The policy server's view: keys that change, a provider that comes and goes, and lies about both.

use crate::support::provider::{CLIENT, Instead};
use crate::support::{Provider, SigningKey, now, other_rsa, rsa};
use epithet_oidc::{FetchError, Http, Issuer, ProviderError, Verifier, VerifyError};
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;

fn verifier(provider: &Provider) -> Verifier {
    Verifier::new(provider.issuer(), CLIENT, provider.http()).unwrap()
}

fn code(error: &VerifyError) -> &'static str {
    match error {
        VerifyError::Token(error) => error.code(),
        VerifyError::Provider(_) => "unavailable",
    }
}

#[tokio::test]
async fn many_tokens_cost_one_look_at_the_provider() {
    let provider = Provider::start().await;
    let verifier = verifier(&provider);
    let token = provider.token();
    for _ in 0..50 {
        let claims = verifier.verify(token.as_bytes()).await.unwrap();
        assert_eq!(claims.verified_email(), Some("alice@example.com"));
    }
    assert_eq!(
        (
            provider.count("GET /keys"),
            provider.count("GET /.well-known/openid-configuration")
        ),
        (1, 1)
    );
}

#[tokio::test]
async fn a_crowd_at_the_start_waits_for_one_fetch() {
    let provider = Provider::start().await;
    let verifier = verifier(&provider);
    let token = provider.token();
    let crowd: Vec<_> = (0..100)
        .map(|_| {
            let (verifier, token) = (verifier.clone(), token.clone());
            tokio::spawn(async move { verifier.verify(token.as_bytes()).await })
        })
        .collect();
    for one in crowd {
        one.await.unwrap().unwrap();
    }
    assert_eq!(provider.count("GET /keys"), 1);
}

#[test]
fn an_empty_client_id_is_a_mistake_at_start() {
    let issuer = Issuer::parse("https://idp.example").unwrap();
    for empty in ["", "  "] {
        assert!(Verifier::new(issuer.clone(), empty, Arc::default()).is_err());
    }
}

#[tokio::test]
async fn a_provider_that_is_down_at_the_start_is_waited_for() {
    let mut provider = Provider::start().await;
    let verifier = verifier(&provider);
    let token = provider.token();
    provider.stop().await;
    let start = now();
    let error = verifier.verify_at(token.as_bytes(), start).await.unwrap_err();
    assert!(
        matches!(
            error,
            VerifyError::Provider(ProviderError::Fetch(FetchError::Unreachable { .. }))
        ),
        "{error}"
    );
    provider.start_again().await;
    // It is not asked again with every token.
    assert!(verifier.verify_at(token.as_bytes(), start + 1).await.is_err());
    verifier.verify_at(token.as_bytes(), start + 5).await.unwrap();
}

#[tokio::test]
async fn known_keys_serve_for_a_day_without_the_provider() {
    let mut provider = Provider::start().await;
    let verifier = verifier(&provider);
    let start = now();
    provider.settings().claims = Box::new(|claims| claims["exp"] = json!(now() + 200_000));
    let token = provider.token();
    verifier.verify_at(token.as_bytes(), start).await.unwrap();
    provider.stop().await;
    for later in [3599, 3600, 40_000, 86_399] {
        verifier
            .verify_at(token.as_bytes(), start + later)
            .await
            .unwrap_or_else(|error| panic!("{later}: {error}"));
    }
    let error = verifier
        .verify_at(token.as_bytes(), start + 86_401)
        .await
        .unwrap_err();
    assert_eq!(code(&error), "unavailable");
}

#[tokio::test]
async fn a_new_key_is_found_at_once_and_the_old_one_forgotten() {
    let provider = Provider::start().await;
    let verifier = verifier(&provider);
    let start = now();
    let old = provider.token();
    verifier.verify_at(old.as_bytes(), start).await.unwrap();
    // Before: the new key is published, the old one still signs.
    provider.settings().published = vec![rsa().jwk(), other_rsa().jwk()];
    verifier.verify_at(old.as_bytes(), start + 1).await.unwrap();
    // During: the new one signs.
    provider.settings().signer = other_rsa();
    let new = provider.token();
    verifier.verify_at(new.as_bytes(), start + 2).await.unwrap();
    verifier.verify_at(old.as_bytes(), start + 2).await.unwrap();
    // After: the old one is gone, and noticed with the next key that is not known.
    provider.settings().published = vec![other_rsa().jwk()];
    verifier.verify_at(new.as_bytes(), start + 3).await.unwrap();
    assert_eq!(provider.count("GET /keys"), 2);
    let unknown = SigningKey::ed25519("made-up").token(&json!({}));
    assert_eq!(
        code(
            &verifier
                .verify_at(unknown.as_bytes(), start + 100)
                .await
                .unwrap_err()
        ),
        "unknown_key"
    );
    assert_eq!(
        code(&verifier.verify_at(old.as_bytes(), start + 100).await.unwrap_err()),
        "unknown_key"
    );
}

#[tokio::test]
async fn another_key_under_the_same_id_is_noticed() {
    let provider = Provider::start().await;
    let verifier = verifier(&provider);
    verifier.verify(provider.token().as_bytes()).await.unwrap();
    let mut jwk = other_rsa().jwk();
    jwk["kid"] = rsa().id().into();
    {
        let mut settings = provider.settings();
        settings.published = vec![jwk];
        settings.signer = other_rsa();
        settings.header = Box::new(|header| header["kid"] = rsa().id().into());
    }
    verifier.verify(provider.token().as_bytes()).await.unwrap();
}

#[tokio::test]
async fn made_up_key_ids_do_not_turn_us_against_the_provider() {
    let provider = Provider::start().await;
    let verifier = verifier(&provider);
    let start = now();
    verifier
        .verify_at(provider.token().as_bytes(), start)
        .await
        .unwrap();
    provider.forget_requests();
    let tokens: Vec<String> = (0..1000)
        .map(|n| rsa().token_with(&json!({"alg": "RS256", "kid": format!("k{n}")}).to_string(), "{}"))
        .collect();
    for token in &tokens {
        assert_eq!(
            code(
                &verifier
                    .verify_at(token.as_bytes(), start + 59)
                    .await
                    .unwrap_err()
            ),
            "unknown_key"
        );
    }
    assert_eq!(provider.count("GET /keys"), 1);
    verifier
        .verify_at(tokens[0].as_bytes(), start + 118)
        .await
        .unwrap_err();
    assert_eq!(provider.count("GET /keys"), 1);
    verifier
        .verify_at(tokens[0].as_bytes(), start + 119)
        .await
        .unwrap_err();
    assert_eq!(provider.count("GET /keys"), 2);
    assert_eq!(provider.count("GET /.well-known/openid-configuration"), 0);
}

#[tokio::test]
async fn an_unknown_key_while_the_provider_is_down_is_not_the_tokens_fault() {
    let mut provider = Provider::start().await;
    let verifier = verifier(&provider);
    let start = now();
    verifier
        .verify_at(provider.token().as_bytes(), start)
        .await
        .unwrap();
    provider.settings().signer = other_rsa();
    let new = provider.token();
    provider.stop().await;
    for later in [1, 2, 59] {
        let error = verifier
            .verify_at(new.as_bytes(), start + later)
            .await
            .unwrap_err();
        assert_eq!(code(&error), "unavailable", "after {later} s: {error}");
    }
}

#[tokio::test]
async fn stale_keys_are_confirmed_in_the_background_without_being_sent_again() {
    let provider = Provider::start().await;
    let verifier = verifier(&provider);
    let start = now();
    let token = provider.token();
    verifier.verify_at(token.as_bytes(), start).await.unwrap();
    let before = verifier.keys().current().unwrap();
    provider.settings().claims = Box::new(|claims| claims["exp"] = json!(now() + 200_000));
    let token = provider.token();
    verifier.verify_at(token.as_bytes(), start + 3601).await.unwrap();
    while Arc::ptr_eq(&before, &verifier.keys().current().unwrap()) {
        tokio::task::yield_now().await;
    }
    assert_eq!(
        verifier.keys().current().unwrap().key_document.fresh_until,
        start + 3601 + 3600
    );
    assert_eq!(provider.count("GET /keys"), 2);
}

#[tokio::test]
async fn keys_are_fetched_ahead_of_time_once_somebody_needed_them() {
    let mut provider = Provider::start().await;
    let verifier = verifier(&provider);
    let start = now();
    // Nobody has needed any: a server starts, and stays, without its provider.
    verifier.keys().refresh_ahead(start).await;
    assert_eq!(provider.count("GET /keys"), 0);
    verifier
        .verify_at(provider.token().as_bytes(), start)
        .await
        .unwrap();
    // Their life is an hour. A look every ten seconds, and a fetch between 45 and 54 minutes.
    let mut fetched = Vec::new();
    for later in (0..3 * 3600).step_by(10) {
        let before = provider.count("GET /keys");
        verifier.keys().refresh_ahead(start + later).await;
        if provider.count("GET /keys") > before {
            fetched.push(later);
        }
    }
    assert_eq!(fetched.len(), 3, "{fetched:?}");
    for pair in [0, fetched[0], fetched[1], fetched[2]].windows(2) {
        assert!((2700..=3250).contains(&(pair[1] - pair[0])), "{fetched:?}");
    }
    let newest = verifier.keys().current().unwrap().key_document.fetched_at;
    assert_eq!(newest, start + fetched[2]);

    // The provider goes away: the keys stay, and it is asked with growing pauses.
    provider.stop().await;
    let mut asked = Vec::new();
    for later in (0..2 * 3600).step_by(10) {
        let now = newest + 3300 + later;
        let began = verifier.keys().failures();
        verifier.keys().refresh_ahead(now).await;
        if verifier.keys().failures() > began {
            asked.push(later);
        }
    }
    let pauses: Vec<u64> = asked.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(pauses.len() >= 7, "{pauses:?}");
    for (pause, least) in pauses.iter().zip([60, 120, 240, 480, 900, 900, 900]) {
        assert!((least..=least + least / 4 + 10).contains(pause), "{pauses:?}");
    }
    assert_eq!(verifier.keys().current().unwrap().key_document.fetched_at, newest);
}

#[tokio::test]
async fn a_bad_token_is_refused_before_the_provider_is_asked() {
    let provider = Provider::start().await;
    let verifier = verifier(&provider);
    for (bad, reason) in [
        ("", "malformed"),
        ("a.b.c", "malformed"),
        ("e30.e30.", "bad_header"),
        ("a.b.c.d.e", "encrypted"),
    ] {
        assert_eq!(
            code(&verifier.verify(bad.as_bytes()).await.unwrap_err()),
            reason,
            "{bad}"
        );
    }
    assert_eq!(provider.count("GET /keys"), 0);
}

#[tokio::test]
async fn another_clients_token_is_refused_for_good_and_not_for_now() {
    let provider = Provider::start().await;
    let other = Verifier::new(provider.issuer(), "another-client", provider.http()).unwrap();
    assert_eq!(
        code(&other.verify(provider.token().as_bytes()).await.unwrap_err()),
        "wrong_audience"
    );
}

#[tokio::test]
async fn a_provider_that_lies_about_itself_is_not_used() {
    type Lie = fn(&mut serde_json::Value);
    let lies: [(Lie, &str); 6] = [
        (
            |document| document["issuer"] = "https://evil.example".into(),
            "is for the issuer",
        ),
        (
            |document| drop(document.as_object_mut().unwrap().remove("issuer")),
            "\"issuer\"",
        ),
        (
            |document| drop(document.as_object_mut().unwrap().remove("jwks_uri")),
            "\"jwks_uri\"",
        ),
        (
            |document| document["jwks_uri"] = "http://192.0.2.1/keys".into(),
            "unsafe \"jwks_uri\"",
        ),
        (
            |document| document["jwks_uri"] = "file:///etc/passwd".into(),
            "unsafe \"jwks_uri\"",
        ),
        (
            |document| document["token_endpoint"] = json!(["x"]),
            "\"token_endpoint\"",
        ),
    ];
    for (lie, reason) in lies {
        let provider = Provider::start().await;
        provider.settings().discovery = Box::new(lie);
        let error = verifier(&provider)
            .verify(provider.token().as_bytes())
            .await
            .unwrap_err();
        assert!(
            matches!(error, VerifyError::Provider(_)) && error.to_string().contains(reason),
            "{error}"
        );
    }
}

#[tokio::test]
async fn a_provider_that_answers_badly_is_not_used() {
    const DISCOVERY: &str = "/.well-known/openid-configuration";
    let html = |path| {
        (
            path,
            Instead::Reply(200, "text/html; charset=utf-8", "<p>Sign on to WiFi</p>".into()),
        )
    };
    let big = format!("{{\"keys\":[],\"x\":\"{}\"}}", "x".repeat(256 * 1024));
    let deep = format!("{}{}", "{\"a\":".repeat(10_000), "}".repeat(10_000));
    let cases: Vec<((&'static str, Instead), &str)> = vec![
        ((DISCOVERY, Instead::Status(404)), "status 404"),
        ((DISCOVERY, Instead::Status(503)), "status 503"),
        (html(DISCOVERY), "instead of JSON"),
        ((DISCOVERY, Instead::Endless), "larger than 256 KiB"),
        ((DISCOVERY, Instead::Drip), "did not answer in time"),
        (
            (DISCOVERY, Instead::Redirect("https://evil.example/".into())),
            "redirects to https://evil.example",
        ),
        ((DISCOVERY, Instead::Redirect(DISCOVERY.into())), "without end"),
        (
            (DISCOVERY, Instead::Reply(200, "application/json", deep)),
            "nests deeper",
        ),
        (
            (
                DISCOVERY,
                Instead::Reply(
                    200,
                    "application/json",
                    "{\"issuer\":\"a\",\"issuer\":\"b\"}".into(),
                ),
            ),
            "twice",
        ),
        (html("/keys"), "instead of JSON"),
        (
            ("/keys", Instead::Reply(200, "application/json", big)),
            "larger than 256 KiB",
        ),
        (
            ("/keys", Instead::Reply(200, "application/json", "{}".into())),
            "no \"keys\"",
        ),
        (
            ("/keys", Instead::Redirect("/other".into())),
            "redirects to /other",
        ),
        (("/keys", Instead::Endless), "larger than 256 KiB"),
    ];
    for ((path, instead), reason) in cases {
        let provider = Provider::start().await;
        provider.settings().instead.insert(path, instead);
        let http = Http::default().with_deadline(Duration::from_millis(500));
        let verifier = Verifier::new(provider.issuer(), CLIENT, Arc::new(http)).unwrap();
        let error = verifier.verify(provider.token().as_bytes()).await.unwrap_err();
        assert!(
            matches!(error, VerifyError::Provider(_)) && error.to_string().contains(reason),
            "{path}: {error}"
        );
        assert!(
            error.to_string().contains(&provider.world.issuer),
            "the address is in the message: {error}"
        );
    }
}

#[tokio::test]
async fn a_document_may_move_within_its_own_server() {
    let provider = Provider::start().await;
    let document =
        json!({"issuer": provider.world.issuer, "jwks_uri": format!("{}/keys", provider.world.issuer)});
    {
        let mut settings = provider.settings();
        settings.instead.insert(
            "/.well-known/openid-configuration",
            Instead::Redirect("/one".into()),
        );
        settings.instead.insert("/one", Instead::Redirect("/two".into()));
        settings
            .instead
            .insert("/two", Instead::Redirect("/three".into()));
        settings.instead.insert(
            "/three",
            Instead::Reply(200, "application/json", document.to_string()),
        );
    }
    verifier(&provider)
        .verify(provider.token().as_bytes())
        .await
        .unwrap();
}

#[tokio::test]
async fn clocks_two_minutes_apart_are_told_apart() {
    let provider = Provider::start().await;
    let verifier = verifier(&provider);
    for (clock, life, expected) in [
        (-50, 300, None),
        (50, 300, None),
        (120, 300, Some("issued_in_future")),
        (-120, 30, Some("expired")),
    ] {
        {
            let mut settings = provider.settings();
            settings.clock = clock;
            settings.claims =
                Box::new(move |claims| claims["exp"] = json!(claims["iat"].as_u64().unwrap() + life));
        }
        let result = verifier.verify(provider.token().as_bytes()).await;
        assert_eq!(result.as_ref().err().map(code), expected, "{clock}");
        if let Err(error) = result {
            assert!(error.to_string().contains("clocks"), "{error}");
        }
    }
}
