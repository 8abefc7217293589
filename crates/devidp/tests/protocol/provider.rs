//! The provider as a server: discovery, keys, pages, trouble, start and stop.

use crate::app::{App, start};
use epithet_devidp::{DevProvider, Settings, StartError};
use reqwest::StatusCode;
use serde_json::Value;

#[tokio::test]
async fn discovery_and_keys_can_be_cached_and_follow_a_rotation() {
    let provider = start(|_| {});
    let app = App::of(&provider).await;
    let document = app.get("/.well-known/openid-configuration").await;
    assert_eq!(document["issuer"], provider.issuer());
    for endpoint in [
        "authorization_endpoint",
        "token_endpoint",
        "jwks_uri",
        "device_authorization_endpoint",
    ] {
        assert!(
            document[endpoint]
                .as_str()
                .unwrap()
                .starts_with(provider.issuer()),
            "{endpoint}"
        );
    }
    let keys_url = document["jwks_uri"].as_str().unwrap();
    let fetch = async |tag: &str| {
        let response = app
            .http
            .get(keys_url)
            .header("if-none-match", tag)
            .send()
            .await
            .unwrap();
        let tag = response.headers()["etag"].to_str().unwrap().to_owned();
        assert!(
            response.headers()["cache-control"]
                .to_str()
                .unwrap()
                .contains("max-age=")
        );
        (
            response.status(),
            tag,
            response.json::<Value>().await.unwrap_or_default(),
        )
    };
    let (status, tag, keys) = fetch("\"other\"").await;
    assert_eq!(
        (status, keys["keys"].as_array().unwrap().len()),
        (StatusCode::OK, 1)
    );
    assert_eq!(fetch(&tag).await.0, StatusCode::NOT_MODIFIED);
    provider.rotate_keys().unwrap();
    let (status, _, keys) = fetch(&tag).await;
    assert_eq!(
        (status, keys["keys"].as_array().unwrap().len()),
        (StatusCode::OK, 2)
    );
    assert_eq!(keys["keys"][0]["kid"], provider.key_id().as_str());
    provider.retire_old_keys();
    assert_eq!(fetch(&tag).await.2["keys"].as_array().unwrap().len(), 1);
    assert_eq!(provider.requests().key_sets, 4);
}

#[tokio::test]
async fn a_provider_that_is_down_forgets_nothing() {
    let provider = start(|_| {});
    let app = App::of(&provider).await;
    let tokens = app.log_in().await;
    provider.set_down(true);
    assert_eq!(app.refresh(&tokens).await.0, StatusCode::SERVICE_UNAVAILABLE);
    provider.set_down(false);
    assert_eq!(app.refresh(&tokens).await.0, StatusCode::OK);
}

#[tokio::test]
async fn a_held_token_endpoint_answers_when_it_is_let_go() {
    let provider = start(|_| {});
    let app = App::of(&provider).await;
    let tokens = app.log_in().await;
    let hold = provider.hold_tokens();
    let released = async {
        while provider.requests().tokens < 2 {
            tokio::task::yield_now().await;
        }
        assert_eq!(provider.requests().refreshes, 0);
        drop(hold);
    };
    let (answer, ()) = tokio::join!(app.refresh(&tokens), released);
    assert_eq!(answer.0, StatusCode::OK);
}

#[tokio::test]
async fn every_page_says_what_this_is_and_admits_nothing_from_outside() {
    let provider = start(|_| {});
    let app = App::of(&provider).await;
    let login = app.authorization_url(&[("login_hint", "erin")]);
    for url in ["/", "/device", "/nothing", "/authorize?client_id=%3Cscript%3E"]
        .map(|path| format!("{}{path}", app.issuer))
        .iter()
        .map(String::as_str)
        .chain([login.as_str()])
    {
        let response = app.http.get(url).send().await.unwrap();
        let policy = response.headers()["content-security-policy"]
            .to_str()
            .unwrap()
            .to_owned();
        assert!(
            policy.starts_with("default-src 'none'; style-src 'sha256-"),
            "{policy}"
        );
        let text = response.text().await.unwrap();
        assert!(
            text.contains(
                "Development identity provider: for trying Epithet on this machine, never for real logins"
            ),
            "{url}"
        );
        assert!(!text.contains("<script"), "{url}");
        if url == login.as_str() {
            assert!(text.contains("value=\"erin\""));
            assert!(
                policy.contains(&app.redirect_uri().replace("/callback", "")),
                "{policy}"
            );
        }
    }
}

#[tokio::test]
async fn a_request_under_a_foreign_name_is_turned_away() {
    let provider = start(|_| {});
    let app = App::of(&provider).await;
    let response = app
        .http
        .get(format!("{}/jwks", app.issuer))
        .header("host", "evil.example")
        .send()
        .await
        .unwrap();
    assert_eq!(response.status(), StatusCode::MISDIRECTED_REQUEST);
    let port = provider.port();
    let response = app
        .http
        .get(format!("http://localhost:{port}/jwks"))
        .send()
        .await
        .unwrap();
    assert_eq!(response.status(), StatusCode::OK);
}

#[test]
fn only_loopback_addresses_are_listened_on() {
    let settings = Settings {
        listen: "0.0.0.0:0".parse().unwrap(),
        ..Settings::default()
    };
    let error = DevProvider::start(settings).unwrap_err();
    assert!(matches!(error, StartError::NotLoopback(_)));
    assert!(error.to_string().contains("127.0.0.1:0"), "{error}");
}

#[test]
fn a_stopped_provider_can_be_followed_by_another_on_its_port() {
    let provider = start(|_| {});
    let port = provider.port();
    provider.stop();
    let listen = std::net::SocketAddr::from(([127, 0, 0, 1], port));
    let second = DevProvider::start(Settings {
        listen,
        ..Settings::default()
    })
    .unwrap();
    let error = DevProvider::start(Settings {
        listen,
        ..Settings::default()
    })
    .unwrap_err();
    assert!(matches!(error, StartError::Listen(_)), "{error}");
    assert_eq!(second.port(), port);
}

#[tokio::test]
async fn a_provider_that_stops_leaves_nobody_waiting() {
    let provider = start(|_| {});
    let app = App::of(&provider).await;
    let tokens = app.log_in().await;
    let _hold = provider.hold_tokens();
    let form = [
        ("grant_type", "refresh_token"),
        ("client_id", "epithet"),
        ("refresh_token", tokens["refresh_token"].as_str().unwrap()),
    ];
    let request = app.http.post(format!("{}/token", app.issuer)).form(&form).send();
    let stopped = async {
        while provider.requests().tokens < 2 {
            tokio::task::yield_now().await;
        }
        provider.stop();
    };
    let (answer, ()) = tokio::join!(request, stopped);
    assert!(answer.is_err(), "{answer:?}");
}
