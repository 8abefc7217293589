//! Leaving, and looking before one comes.

use crate::support::provider::{CLIENT, Instead};
use crate::support::{Person, Provider};
use epithet_oidc::revocation::{Logout, logout};
use epithet_oidc::{LoginOptions, login, probe};

#[tokio::test]
async fn a_logout_revokes_the_refresh_token_and_then_the_access_token() {
    let provider = Provider::start().await;
    let options = LoginOptions::new(provider.http(), provider.issuer(), CLIENT);
    let outcome = login(&options, b"", &mut Person::with_browser()).await.unwrap();
    let Logout::Asked(asked) = logout(&options, outcome.state.expose()).await.unwrap() else {
        panic!()
    };
    assert!(asked.iter().all(|one| one.result.is_ok()));
    let revoked = provider.revoked();
    assert_eq!(
        revoked,
        [
            ("refresh_token".into(), "refresh-3".into()),
            ("access_token".into(), "access-2".into())
        ]
    );

    provider
        .settings()
        .instead
        .insert("/revoke", Instead::Status(503));
    let Logout::Asked(asked) = logout(&options, outcome.state.expose()).await.unwrap() else {
        panic!()
    };
    assert!(
        asked[0]
            .result
            .as_ref()
            .unwrap_err()
            .to_string()
            .contains("status 503")
    );
}

#[tokio::test]
async fn a_logout_says_when_there_is_nothing_to_do_or_nobody_to_ask() {
    let provider = Provider::start().await;
    let options = LoginOptions::new(provider.http(), provider.issuer(), CLIENT);
    assert!(matches!(
        logout(&options, b"").await.unwrap(),
        Logout::NothingKept
    ));
    assert_eq!(provider.count("GET /.well-known/openid-configuration"), 0);
    provider.settings().discovery =
        Box::new(|document| drop(document.as_object_mut().unwrap().remove("revocation_endpoint")));
    let outcome = login(&options, b"", &mut Person::with_browser()).await.unwrap();
    assert!(matches!(
        logout(&options, outcome.state.expose()).await.unwrap(),
        Logout::NotSupported
    ));
}

#[tokio::test]
async fn the_fact_sheet_says_what_works_and_what_does_not() {
    let provider = Provider::start().await;
    let sheet = probe::probe(&provider.http(), &provider.issuer()).await.unwrap();
    let text = sheet.to_string();
    for fact in [
        "/device",
        "offline_access, which is added by itself",
        "S256",
        "1 (rsa-1)",
        "--client-id ID",
    ] {
        assert!(text.contains(fact), "{fact} in\n{text}");
    }
    assert!(sheet.refusals.is_empty() && sheet.notes.is_empty(), "{text}");

    provider.settings().discovery = Box::new(|document| {
        let document = document.as_object_mut().unwrap();
        for member in [
            "device_authorization_endpoint",
            "revocation_endpoint",
            "scopes_supported",
            "grant_types_supported",
        ] {
            document.remove(member);
        }
        document.insert(
            "id_token_signing_alg_values_supported".into(),
            serde_json::json!(["HS256"]),
        );
        document.insert(
            "code_challenge_methods_supported".into(),
            serde_json::json!(["plain"]),
        );
    });
    let sheet = probe::probe(&provider.http(), &provider.issuer()).await.unwrap();
    let text = sheet.to_string();
    for warning in [
        "Will not work: device codes",
        "Will not work: revocation",
        "Note: it does not say that it renews",
        "Will not work: verification: none of its signature algorithms",
        "Will not work: PKCE: it does not list S256",
    ] {
        assert!(text.contains(warning), "{warning} in\n{text}");
    }
}
