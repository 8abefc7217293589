//! How the token endpoint learns which client asks.

use crate::support::provider::CLIENT;
use crate::support::{Person, Provider, options};
use epithet_oidc::{ClientAuthChoice, LoginOptions, Secret, login};
use serde_json::json;

#[tokio::test]
async fn a_client_says_who_it_is_as_the_provider_wants() {
    let provider = Provider::start().await;
    provider.settings().secret = Some("s3cret");
    let with_secret = LoginOptions {
        client_secret: Some(Secret::new("s3cret".into())),
        ..options(&provider)
    };
    // It lists nothing: Basic.
    login(&with_secret, b"", &mut Person::with_browser())
        .await
        .unwrap();
    assert!(
        provider
            .world
            .authorizations
            .lock()
            .unwrap()
            .last()
            .unwrap()
            .is_some()
    );
    // It lists post.
    provider.settings().discovery = Box::new(|document| {
        document["token_endpoint_auth_methods_supported"] =
            json!(["client_secret_post", "client_secret_basic"]);
    });
    login(&with_secret, b"", &mut Person::with_browser())
        .await
        .unwrap();
    assert!(
        provider
            .world
            .authorizations
            .lock()
            .unwrap()
            .last()
            .unwrap()
            .is_none()
    );
    // The person knows better.
    let basic = LoginOptions {
        client_auth: ClientAuthChoice::Basic,
        ..with_secret.clone()
    };
    login(&basic, b"", &mut Person::with_browser()).await.unwrap();
    assert!(
        provider
            .world
            .authorizations
            .lock()
            .unwrap()
            .last()
            .unwrap()
            .is_some()
    );
    // A wrong or missing secret is told as such.
    let error = login(&options(&provider), b"", &mut Person::with_browser())
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("check --client-id and --client-secret"), "{error}");
    let missing = LoginOptions {
        client_auth: ClientAuthChoice::Post,
        ..options(&provider)
    };
    let error = login(&missing, b"", &mut Person::with_browser())
        .await
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("--client-auth post needs --client-secret"),
        "{error}"
    );
}

#[tokio::test]
async fn a_secret_with_special_characters_is_encoded_before_it_is_joined() {
    let provider = Provider::start().await;
    let options = LoginOptions {
        client_secret: Some(Secret::new("a:b %\u{e9}".into())),
        ..options(&provider)
    };
    login(&options, b"", &mut Person::with_browser()).await.unwrap();
    use base64::Engine;
    let expected = base64::engine::general_purpose::STANDARD.encode(format!("{CLIENT}:a%3Ab+%25%C3%A9"));
    let seen = provider
        .world
        .authorizations
        .lock()
        .unwrap()
        .last()
        .unwrap()
        .clone();
    assert_eq!(seen, Some(format!("Basic {expected}")));
}
