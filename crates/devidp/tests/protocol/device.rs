//! Logins of a device without a browser (RFC 8628).

use crate::app::{App, claims, error, start};
use epithet_devidp::{Person, sign_in};
use reqwest::StatusCode;
use serde_json::Value;
use std::time::Duration;

#[tokio::test]
async fn a_device_logs_in_while_a_person_answers_elsewhere() {
    let provider = start(|settings| settings.device_interval = Duration::ZERO);
    let app = App::of(&provider).await;
    let begin = || {
        app.post(
            "/device_authorization",
            &[("client_id", "epithet"), ("scope", "openid")],
        )
    };
    let grant = "urn:ietf:params:oauth:grant-type:device_code";
    let poll = async |device: &Value| {
        let code = device["device_code"].as_str().unwrap();
        app.post(
            "/token",
            &[
                ("grant_type", grant),
                ("client_id", "epithet"),
                ("device_code", code),
            ],
        )
        .await
    };
    let (_, device) = begin().await;
    assert_eq!(error(&poll(&device).await), "authorization_pending");
    let url = device["verification_uri_complete"].as_str().unwrap();
    let page = sign_in(url, &Person::named("carol")).await.unwrap();
    assert!(
        page.text.contains("logged in as <strong>carol</strong>"),
        "{}",
        page.text
    );
    let (status, tokens) = poll(&device).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(claims(&tokens)["sub"], "carol");
    assert!(tokens["refresh_token"].is_string());
    assert_eq!(error(&poll(&device).await), "invalid_grant");

    let (_, device) = begin().await;
    let url = device["verification_uri_complete"].as_str().unwrap();
    sign_in(url, &Person::default().who_refuses()).await.unwrap();
    assert_eq!(error(&poll(&device).await), "access_denied");
    let (_, device) = begin().await;
    provider.set_clock_offset(3600);
    assert_eq!(error(&poll(&device).await), "expired_token");
    let elsewhere = [("page", "guessed"), ("user_code", "X"), ("name", "mallory")];
    assert_eq!(app.post("/device", &elsewhere).await.0, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn a_device_that_asks_too_often_is_slowed_down() {
    let provider = start(|settings| settings.device_interval = Duration::from_secs(3600));
    let app = App::of(&provider).await;
    let (_, device) = app
        .post(
            "/device_authorization",
            &[("client_id", "epithet"), ("scope", "openid")],
        )
        .await;
    assert_eq!(device["interval"], 3600);
    let code = device["device_code"].as_str().unwrap();
    let form = [
        ("grant_type", "urn:ietf:params:oauth:grant-type:device_code"),
        ("client_id", "epithet"),
        ("device_code", code),
    ];
    assert_eq!(error(&app.post("/token", &form).await), "authorization_pending");
    assert_eq!(error(&app.post("/token", &form).await), "slow_down");
}
