//! Refresh tokens, revocation, lives, and tokens that lie.

use crate::app::{App, claims, error, part, start};
use epithet_devidp::{Person, RefreshTokens};
use reqwest::StatusCode;
use serde_json::json;
use std::time::Duration;

#[tokio::test]
async fn refresh_tokens_rotate_and_reuse_ends_the_login() {
    let provider = start(|_| {});
    let app = App::of(&provider).await;
    let first = app.log_in().await;
    let (status, second) = app.refresh(&first).await;
    assert_eq!(status, StatusCode::OK);
    assert_ne!(first["refresh_token"], second["refresh_token"]);
    assert_eq!(claims(&second)["sub"], "alice");
    assert_eq!(claims(&second)["auth_time"], claims(&first)["auth_time"]);
    assert!(claims(&second).get("nonce").is_none());
    assert_eq!(error(&app.refresh(&first).await), "invalid_grant");
    assert_eq!(error(&app.refresh(&second).await), "invalid_grant");
    let requests = provider.requests();
    assert_eq!((requests.refreshes, requests.refused_refreshes), (1, 2));
}

#[tokio::test]
async fn a_provider_can_keep_refresh_tokens_leave_out_id_tokens_or_give_none() {
    let provider = start(|settings| {
        settings.rotate_refresh_tokens = false;
        settings.id_token_on_refresh = false;
        settings.refresh_tokens = RefreshTokens::OfflineAccess;
    });
    let app = App::of(&provider).await;
    let tokens = app.log_in().await;
    for _ in 0..2 {
        let (status, refreshed) = app.refresh(&tokens).await;
        assert_eq!(status, StatusCode::OK);
        assert!(refreshed.get("refresh_token").is_none() && refreshed.get("id_token").is_none());
    }
    let (_, parameters) = app.authorize(&Person::default(), &[("scope", "openid")]).await;
    let code = &parameters.iter().find(|(name, _)| name == "code").unwrap().1;
    assert!(app.exchange(code, &[]).await.1.get("refresh_token").is_none());

    let provider = start(|settings| settings.refresh_tokens = RefreshTokens::Never);
    let app = App::of(&provider).await;
    assert!(app.log_in().await.get("refresh_token").is_none());
    let scopes = app.get("/.well-known/openid-configuration").await["scopes_supported"].clone();
    assert!(!scopes.as_array().unwrap().contains(&json!("offline_access")));
}

#[tokio::test]
async fn revocation_ends_one_login_or_all() {
    let provider = start(|_| {});
    let app = App::of(&provider).await;
    let (one, other) = (app.log_in().await, app.log_in().await);
    let token = one["refresh_token"].as_str().unwrap();
    let (status, _) = app
        .post("/revoke", &[("client_id", "epithet"), ("token", token)])
        .await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(
        app.post("/revoke", &[("client_id", "epithet"), ("token", "unknown")])
            .await
            .0,
        StatusCode::OK
    );
    assert_eq!(
        error(&app.post("/revoke", &[("client_id", "epithet")]).await),
        "invalid_request"
    );
    assert_eq!(error(&app.refresh(&one).await), "invalid_grant");
    let (_, other) = app.refresh(&other).await;
    provider.revoke_all();
    assert_eq!(error(&app.refresh(&other).await), "invalid_grant");
}

#[tokio::test]
async fn lives_follow_the_provider_s_clock() {
    let provider = start(|settings| settings.refresh_token_life = Duration::from_secs(60));
    let app = App::of(&provider).await;
    let tokens = app.log_in().await;
    provider.set_clock_offset(120);
    assert_eq!(error(&app.refresh(&tokens).await), "invalid_grant");
    let ahead = part(&provider.mint_id_token("alice", &json!({})), 1)["iat"]
        .as_i64()
        .unwrap();
    assert!(ahead - jiff::Timestamp::now().as_second() >= 119);
    provider.set_clock_offset(0);
    assert_eq!(app.refresh(&tokens).await.0, StatusCode::OK);
}

#[tokio::test]
async fn tokens_can_be_made_directly_and_made_to_lie() {
    let provider = start(|_| {});
    let app = App::of(&provider).await;
    let token = provider.mint_id_token("dave", &json!({ "aud": "somebody else", "email": null }));
    let said = part(&token, 1);
    assert_eq!(
        (&said["sub"], &said["aud"]),
        (&json!("dave"), &json!("somebody else"))
    );
    assert!(said.get("email").is_none());
    provider.lie_in_id_tokens(
        &json!({ "alg": "none" }),
        &json!({ "iss": "http://evil.example" }),
    );
    let tokens = app.log_in().await;
    assert_eq!(claims(&tokens)["iss"], "http://evil.example");
    assert_eq!(part(tokens["id_token"].as_str().unwrap(), 0)["alg"], "none");
    provider.lie_in_id_tokens(&json!({}), &json!({}));
    assert_eq!(claims(&app.log_in().await)["iss"], provider.issuer());
}
