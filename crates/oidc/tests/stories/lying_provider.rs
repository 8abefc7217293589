//! A login at a provider that lies, one lie at a time: no token, one reason, and a page that says so.

use crate::support::provider::Instead;
use crate::support::{Person, Provider, options, visit};
use epithet_oidc::login;
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};

/// Logs in with a provider that has been told to lie, and says how that ended.
async fn lied_to(settle: impl FnOnce(&Provider)) -> String {
    let provider = Provider::start().await;
    settle(&provider);
    let pages = Arc::new(Mutex::new(Vec::new()));
    let mut person = Person::browsing({
        let pages = pages.clone();
        move |url| {
            let pages = pages.clone();
            async move {
                let page = visit(&url).await;
                pages.lock().unwrap().push(page);
            }
        }
    });
    let error = login(&options(&provider), b"", &mut person)
        .await
        .unwrap_err()
        .to_string();
    for visit in person.visits {
        visit.await.unwrap();
    }
    if let Some((status, page)) = pages.lock().unwrap().first() {
        assert_eq!(*status, 200);
        assert!(
            page.contains("The login did not work"),
            "the person is told in the browser too: {page}"
        );
    }
    error
}

#[tokio::test]
async fn every_lie_of_the_provider_is_refused_by_its_own_reason_and_shown_in_the_browser() {
    type Change = fn(&mut Value);
    let claims: [(Change, &str); 9] = [
        (
            |claims| claims["iss"] = "https://evil.example".into(),
            "issuer is \"https://evil.example\"",
        ),
        (|claims| claims["aud"] = "other".into(), "is for \"other\""),
        (|claims| claims["azp"] = "other".into(), "(\"azp\")"),
        (|claims| claims["nonce"] = "other".into(), "nonce"),
        (
            |claims| drop(claims.as_object_mut().unwrap().remove("nonce")),
            "nonce",
        ),
        (|claims| claims["at_hash"] = "x".into(), "(\"at_hash\")"),
        (|claims| claims["exp"] = 1_000_000.into(), "has expired"),
        (
            |claims| claims["iat"] = (crate::support::now() + 120).into(),
            "in the future",
        ),
        (
            |claims| claims["iat"] = (crate::support::now() - 700).into(),
            "not this login",
        ),
    ];
    for (lie, reason) in claims {
        let error = lied_to(|provider| provider.settings().claims = Box::new(lie)).await;
        assert!(error.contains(reason), "{error}");
    }
    let headers: [(Change, &str); 4] = [
        (|header| header["alg"] = "none".into(), "not signed"),
        (|header| header["alg"] = "HS256".into(), "shared secret"),
        (
            |header| header["kid"] = "unknown".into(),
            "no key with the id \"unknown\"",
        ),
        (|header| header["crit"] = json!(["x"]), "critical"),
    ];
    for (lie, reason) in headers {
        let error = lied_to(|provider| provider.settings().header = Box::new(lie)).await;
        assert!(error.contains(reason), "{error}");
    }
    let replies: [(Change, &str); 4] = [
        (
            |reply| drop(reply.as_object_mut().unwrap().remove("id_token")),
            "sent no ID token",
        ),
        (|reply| reply["id_token"] = json!({}), "\"id_token\""),
        (|reply| reply["id_token"] = "x".into(), "parts"),
        (|reply| reply["access_token"] = 7.into(), "\"access_token\""),
    ];
    for (lie, reason) in replies {
        let error = lied_to(|provider| provider.settings().token_reply = Box::new(lie)).await;
        assert!(error.contains(reason), "{error}");
    }
    let instead = [
        (
            Instead::Reply(200, "text/html", "<p>hello</p>".into()),
            "instead of JSON",
        ),
        (
            Instead::Reply(200, "application/x-www-form-urlencoded", "id_token=x".into()),
            "instead of JSON",
        ),
        (
            Instead::Reply(200, "application/json", "[]".into()),
            "not a JSON object",
        ),
        (
            Instead::Redirect("https://evil.example/token".into()),
            "redirects to https://evil.example/token",
        ),
        (Instead::Endless, "larger than 256 KiB"),
        (Instead::Status(500), "status 500"),
        (
            Instead::Reply(
                400,
                "application/json",
                r#"{"error":"invalid_grant","error_description":"code \u001b[2J was used"}"#.into(),
            ),
            "invalid_grant: code  [2J was used",
        ),
    ];
    for (instead, reason) in instead {
        let error = lied_to(|provider| drop(provider.settings().instead.insert("/token", instead))).await;
        assert!(error.contains(reason), "{error}");
    }
    let responses: [(Change, &str); 4] = [
        (
            |response| response["iss"] = "https://evil.example".into(),
            "from the issuer \"https://evil.example\"",
        ),
        (
            |response| *response = json!({"state": response["state"]}),
            "neither a code nor an error",
        ),
        (
            |response| *response = json!({"state": response["state"], "error": "access_denied", "error_description": "<b>no</b>"}),
            "refused: access_denied: <b>no</b>",
        ),
        (
            |response| *response = json!({"state": response["state"], "error": "temporarily_unavailable"}),
            "temporarily_unavailable",
        ),
    ];
    for (lie, reason) in responses {
        let error = lied_to(|provider| provider.settings().response = Box::new(lie)).await;
        assert!(error.contains(reason), "{error}");
    }
    let error = lied_to(|provider| {
        provider.settings().discovery =
            Box::new(|document| document["authorization_response_iss_parameter_supported"] = true.into());
    })
    .await;
    assert!(error.contains("does not say which provider"), "{error}");
}
