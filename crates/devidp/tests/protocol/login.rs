//! Logins in a browser, and the client that asks for them.

use crate::app::{App, VERIFIER, claims, error, part, start};
use epithet_devidp::{Person, sign_in};
use epithet_wire::SecretBytes;
use reqwest::StatusCode;
use serde_json::{Value, json};
use std::time::Duration;

#[tokio::test]
async fn a_login_with_pkce_ends_with_tokens_for_the_name_that_was_typed() {
    let provider = start(|settings| {
        settings.id_token_life = Duration::from_secs(123);
        settings.extra_claims.insert("groups".into(), json!(["admin"]));
    });
    let app = App::of(&provider).await;
    let (page, parameters) = app.authorize(&Person::named("bob"), &[]).await;
    assert_eq!((page.status, page.text.as_str()), (200, "done!"));
    let get = |name: &str| {
        parameters
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    };
    assert_eq!(get("state"), Some("the state"));
    assert_eq!(get("iss"), Some(provider.issuer()));

    let (status, tokens) = app.exchange(get("code").unwrap(), &[]).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(tokens["token_type"], "Bearer");
    let header = part(tokens["id_token"].as_str().unwrap(), 0);
    assert_eq!(header, json!({ "alg": "RS256", "kid": provider.key_id() }));
    let said = claims(&tokens);
    let now = jiff::Timestamp::now().as_second();
    for (name, value) in [
        ("iss", json!(provider.issuer())),
        ("sub", json!("bob")),
        ("aud", json!("epithet")),
        ("nonce", json!("the nonce")),
        ("email", json!("bob@example.com")),
        ("email_verified", json!(true)),
        ("groups", json!(["admin"])),
    ] {
        assert_eq!(said[name], value, "{name}");
    }
    assert!((now - said["iat"].as_i64().unwrap()).abs() <= 5);
    assert_eq!(said["exp"].as_i64().unwrap() - said["iat"].as_i64().unwrap(), 123);
    assert!(said["auth_time"].is_i64() && said["at_hash"].is_string());

    let access = tokens["access_token"].as_str().unwrap();
    let userinfo = app
        .http
        .get(format!("{}/userinfo", app.issuer))
        .bearer_auth(access)
        .send()
        .await
        .unwrap();
    assert_eq!(
        userinfo.json::<Value>().await.unwrap()["email"],
        "bob@example.com"
    );
    let nobody = app
        .http
        .get(format!("{}/userinfo", app.issuer))
        .bearer_auth("x")
        .send()
        .await
        .unwrap();
    assert_eq!(nobody.status(), StatusCode::UNAUTHORIZED);

    let requests = provider.requests();
    assert_eq!(
        (
            requests.authorizations,
            requests.logins,
            requests.tokens,
            requests.codes
        ),
        (1, 1, 1, 1)
    );
}

#[tokio::test]
async fn a_person_who_refuses_sends_the_client_access_denied() {
    let provider = start(|_| {});
    let app = App::of(&provider).await;
    let (_, parameters) = app.authorize(&Person::default().who_refuses(), &[]).await;
    assert!(parameters.contains(&("error".into(), "access_denied".into())));
    assert!(parameters.contains(&("state".into(), "the state".into())));
    assert_eq!(provider.requests().refusals, 1);
}

#[tokio::test]
async fn a_request_without_pkce_goes_back_as_an_error_and_a_foreign_redirect_goes_nowhere() {
    let provider = start(|_| {});
    let app = App::of(&provider).await;
    let (_, parameters) = app
        .authorize(&Person::default(), &[("code_challenge_method", "plain")])
        .await;
    assert!(parameters.contains(&("error".into(), "invalid_request".into())));
    let url = app.authorization_url(&[("redirect_uri", "http://evil.example/callback")]);
    let page = sign_in(url.as_str(), &Person::default()).await.unwrap();
    assert_eq!(page.status, 400);
    assert!(page.text.contains("redirect_uri"));
}

#[tokio::test]
async fn a_code_needs_its_verifier_its_address_and_its_client_and_is_good_once() {
    let provider = start(|_| {});
    let app = App::of(&provider).await;
    let code = app.code().await;
    let refused = app.exchange(&code, &[("code_verifier", &"a".repeat(43))]).await;
    assert_eq!(
        (refused.0, error(&refused)),
        (StatusCode::BAD_REQUEST, "invalid_grant")
    );
    let refused = app.exchange(&code, &[("code_verifier", "")]).await;
    assert_eq!(error(&refused), "invalid_request");
    let refused = app
        .exchange(&code, &[("redirect_uri", "http://127.0.0.1:9/callback")])
        .await;
    assert_eq!(error(&refused), "invalid_grant");
    let refused = app.exchange(&code, &[("client_id", "other")]).await;
    assert_eq!(
        (refused.0, error(&refused)),
        (StatusCode::UNAUTHORIZED, "invalid_client")
    );
    let refused = app.exchange(&code, &[("client_secret", "s")]).await;
    assert_eq!(error(&refused), "invalid_client");
    let (status, tokens) = app.exchange(&code, &[]).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(error(&app.exchange(&code, &[]).await), "invalid_grant");
    assert_eq!(
        error(&app.refresh(&tokens).await),
        "invalid_grant",
        "the replay revoked what the code had paid for"
    );
}

#[tokio::test]
async fn a_confidential_client_proves_itself_in_the_header_or_in_the_body() {
    let provider = start(|settings| settings.client_secret = Some(SecretBytes::new(b"s3cret/+".to_vec())));
    let app = App::of(&provider).await;
    assert_eq!(
        error(&app.exchange(&app.code().await, &[]).await),
        "invalid_client"
    );
    assert_eq!(
        error(
            &app.exchange(&app.code().await, &[("client_secret", "wrong")])
                .await
        ),
        "invalid_client"
    );
    assert_eq!(
        app.exchange(&app.code().await, &[("client_secret", "s3cret/+")])
            .await
            .0,
        StatusCode::OK
    );
    let code = app.code().await;
    let response = app
        .http
        .post(format!("{}/token", app.issuer))
        .basic_auth("epithet", Some("s3cret%2F%2B"))
        .form(&[
            ("grant_type", "authorization_code"),
            ("code", &code),
            ("redirect_uri", &app.redirect_uri()),
            ("code_verifier", VERIFIER),
        ])
        .send()
        .await
        .unwrap();
    assert_eq!(response.status(), StatusCode::OK);
}
