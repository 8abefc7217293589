//! A login at a provider that lies, one lie at a time: no token, one reason, and a page that says so.

use crate::support::provider::Instead;
use crate::support::{Person, Provider, options, visit};
use epithet_oidc::{Http, LoginOptions, login};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};
use std::time::Duration;

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

/// Lies that are told before the browser is opened: nobody is sent anywhere.
#[tokio::test]
async fn every_lie_about_itself_is_refused_by_its_own_reason_before_a_browser_is_opened() {
    const DISCOVERY: &str = "/.well-known/openid-configuration";
    let page = Instead::Reply(200, "text/html", "<p>Welcome to our WiFi</p>".into());
    let twice = r#"{"issuer":"a","issuer":"b"}"#.to_owned();
    let cases = [
        (page, "instead of JSON"),
        (Instead::Endless, "larger than 256 KiB"),
        (Instead::Drip, "did not answer in time"),
        (Instead::Redirect(DISCOVERY.into()), "redirects without end"),
        (
            Instead::Redirect("https://evil.example/x".into()),
            "redirects to https://evil.example/x",
        ),
        (
            Instead::Reply(200, "application/json", "[]".into()),
            "not a JSON object",
        ),
        (Instead::Reply(200, "application/json", twice), "twice"),
        (Instead::Status(404), "status 404"),
        (Instead::Status(503), "status 503"),
    ];
    for (instead, reason) in cases {
        let provider = Provider::start().await;
        provider.settings().instead.insert(DISCOVERY, instead);
        let options = LoginOptions {
            http: Arc::new(Http::default().with_deadline(Duration::from_millis(500))),
            ..options(&provider)
        };
        let mut person = Person::with_browser();
        let error = login(&options, b"", &mut person).await.unwrap_err().to_string();
        assert!(error.contains(reason), "{reason}: {error}");
        assert!(person.shown.is_empty() && person.visits.is_empty(), "{error}");
    }
    type Change = fn(&mut Value);
    let members: [(Change, &str); 6] = [
        (
            |document| drop(document.as_object_mut().unwrap().remove("token_endpoint")),
            "no usable \"token_endpoint\"",
        ),
        (
            |document| document["issuer"] = "https://evil.example".into(),
            "for the issuer \"https://evil.example\"",
        ),
        (
            |document| document["authorization_endpoint"] = "file:///etc/passwd".into(),
            "unsafe \"authorization_endpoint\"",
        ),
        (
            |document| document["token_endpoint"] = "http://evil.example/t".into(),
            "unsafe \"token_endpoint\"",
        ),
        (
            |document| document["jwks_uri"] = "https://u:p@evil.example/".into(),
            "unsafe \"jwks_uri\"",
        ),
        (
            |document| document["device_authorization_endpoint"] = "--help".into(),
            "unsafe \"device_authorization_endpoint\"",
        ),
    ];
    for (lie, reason) in members {
        let provider = Provider::start().await;
        provider.settings().discovery = Box::new(lie);
        let mut person = Person::with_browser();
        let error = login(&options(&provider), b"", &mut person)
            .await
            .unwrap_err()
            .to_string();
        assert!(error.contains(reason), "{reason}: {error}");
        assert!(person.shown.is_empty() && person.visits.is_empty(), "{error}");
    }
}

#[tokio::test]
async fn a_token_reply_that_drips_is_not_waited_for() {
    let provider = Provider::start().await;
    let options = LoginOptions {
        http: Arc::new(Http::default().with_deadline(Duration::from_millis(500))),
        ..options(&provider)
    };
    provider.settings().instead.insert("/token", Instead::Drip);
    let error = login(&options, b"", &mut Person::with_browser())
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("did not answer in time"), "{error}");
}

/// A code that the provider has given out before is refused by an honest one; the words for that are its own.
#[tokio::test]
async fn a_replayed_code_is_told_in_the_providers_words() {
    let provider = Provider::start().await;
    let first = Arc::new(Mutex::new(None::<Value>));
    let remembered = first.clone();
    provider.settings().response = Box::new(move |response| {
        let mut first = remembered.lock().unwrap();
        match first.as_ref() {
            Some(code) => response["code"] = code.clone(),
            None => *first = Some(response["code"].clone()),
        }
    });
    login(&options(&provider), b"", &mut Person::with_browser())
        .await
        .unwrap();
    let error = login(&options(&provider), b"", &mut Person::with_browser())
        .await
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("invalid_grant: words about invalid_grant"),
        "{error}"
    );
}
