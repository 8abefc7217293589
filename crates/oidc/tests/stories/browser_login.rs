//! Logging in with the browser on this machine, as the person, the provider and strangers see it.

use crate::support::person::{browser, fetch, redirect_of};
use crate::support::{Person, Provider, options, state, visit};
use epithet_oidc::{Flow, FlowChoice, How, LoginError, LoginOptions, Notice, RedirectHost, login};
use serde_json::json;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use url::Url;

#[tokio::test]
async fn a_browser_login_gives_the_verified_id_token_and_a_state() {
    let provider = Provider::start().await;
    let page = Arc::new(Mutex::new(String::new()));
    let mut person = Person::browsing({
        let page = page.clone();
        move |url| {
            let page = page.clone();
            async move {
                let (status, text) = visit(&url).await;
                assert_eq!(status, 200);
                *page.lock().unwrap() = text;
            }
        }
    });
    let outcome = login(&options(&provider), b"", &mut person).await.unwrap();
    for visit in person.visits {
        visit.await.unwrap();
    }
    assert_eq!(outcome.how, How::LoggedIn(Flow::Browser));
    assert_eq!(
        outcome
            .token
            .expose()
            .iter()
            .filter(|byte| **byte == b'.')
            .count(),
        2
    );
    let claims = outcome.claims.as_ref().unwrap();
    assert_eq!(
        (claims.subject.as_str(), claims.verified_email()),
        ("alice-1", Some("alice@example.com"))
    );
    let state = state(&outcome);
    assert_eq!(
        (&state["refresh_token"], &state["access_token"]),
        (&json!("refresh-3"), &json!("access-2"))
    );
    assert_eq!(state["epithet"]["subject"], "alice-1");
    assert!(
        page.lock()
            .unwrap()
            .contains("You are logged in as alice@example.com")
    );
    assert!(
        !String::from_utf8_lossy(outcome.state.expose())
            .contains(std::str::from_utf8(outcome.token.expose()).unwrap())
    );
    assert!(
        matches!(&person.shown[..], [Notice::Browser { is_open: true, .. }]),
        "{:?}",
        person.shown
    );
}

#[tokio::test]
async fn the_authorization_request_is_what_was_asked_for() {
    let provider = Provider::start().await;
    let seen = Arc::new(Mutex::new(None));
    let mut person = Person::browsing({
        let seen = seen.clone();
        move |url: Url| {
            *seen.lock().unwrap() = Some(url.clone());
            async move {
                visit(&url).await;
            }
        }
    });
    let options = LoginOptions {
        redirect_host: RedirectHost::Localhost,
        redirect_path: String::new(),
        scopes: vec!["groups".into()],
        prompt: Some("login".into()),
        login_hint: Some("alice@example.com".into()),
        acr_values: Some("mfa".into()),
        audience: Some("api".into()),
        resources: vec!["https://one.example".into(), "https://two.example".into()],
        extra_parameters: vec![("tenant".into(), "a&b".into())],
        ..options(&provider)
    };
    login(&options, b"", &mut person).await.unwrap();
    let url = seen.lock().unwrap().take().unwrap();
    let query: Vec<(String, String)> = url.query_pairs().into_owned().collect();
    for (name, value) in [
        ("scope", "openid groups offline_access"),
        ("prompt", "login"),
        ("login_hint", "alice@example.com"),
        ("acr_values", "mfa"),
        ("audience", "api"),
        ("resource", "https://one.example"),
        ("resource", "https://two.example"),
        ("tenant", "a&b"),
    ] {
        assert!(
            query.contains(&(name.into(), value.into())),
            "{name}={value} in {url}"
        );
    }
    let redirect = &query.iter().find(|(name, _)| name == "redirect_uri").unwrap().1;
    assert!(
        redirect.starts_with("http://localhost:") && !redirect.ends_with('/'),
        "{redirect}"
    );
}

#[tokio::test]
async fn strangers_at_the_door_change_nothing() {
    let provider = Provider::start().await;
    let seen = Arc::new(Mutex::new(Vec::new()));
    let mut person = Person::browsing({
        let seen = seen.clone();
        move |url| {
            let seen = seen.clone();
            async move {
                let right = redirect_of(&url).await;
                let port = right.port().unwrap();
                let at = |path: &str| Url::parse(&format!("http://127.0.0.1:{port}{path}")).unwrap();
                let client = browser();
                let status = |response: reqwest::Response| response.status().as_u16();
                let mut answers = Vec::new();
                for path in ["/", "/favicon.ico", "/callback/", "/Callback?code=x"] {
                    answers.push((path.to_owned(), fetch(at(path)).await.0));
                }
                for query in [
                    "",
                    "?code=x",
                    "?code=x&state=y",
                    "?error=access_denied&error_description=%3Cb%3E",
                    "?state=a&state=b",
                ] {
                    let (code, page) = fetch(at(&format!("/callback{query}"))).await;
                    assert!(
                        !page.contains("access_denied"),
                        "nothing of a stranger's is shown: {page}"
                    );
                    answers.push((query.to_owned(), code));
                }
                let post = client.post(right.clone()).body("x").send().await.unwrap();
                answers.push(("POST".into(), status(post)));
                for host in [
                    format!("localhost:{port}"),
                    "evil.example".into(),
                    format!("127.0.0.1.evil.example:{port}"),
                    "127.0.0.1".into(),
                ] {
                    let response = client
                        .get(right.clone())
                        .header("host", &host)
                        .send()
                        .await
                        .unwrap();
                    answers.push((host, status(response)));
                }
                let long = client
                    .get(at(&format!("/callback?x={}", "y".repeat(9000))))
                    .send()
                    .await
                    .unwrap();
                answers.push(("long".into(), status(long)));
                for _ in 0..200 {
                    assert_eq!(fetch(at("/callback?code=x&state=wrong")).await.0, 400);
                }
                // The right one, twice at the same time.
                let (one, two) = tokio::join!(fetch(right.clone()), fetch(right));
                let mut last = [one.0, two.0];
                last.sort_unstable();
                answers.push((format!("{last:?}"), 0));
                seen.lock().unwrap().extend(answers);
            }
        }
    });
    let outcome = login(&options(&provider), b"", &mut person).await.unwrap();
    assert_eq!(outcome.claims.unwrap().subject, "alice-1");
    for visit in person.visits {
        visit.await.unwrap();
    }
    let seen = std::mem::take(&mut *seen.lock().unwrap());
    let codes: Vec<u16> = seen.iter().map(|(_, code)| *code).collect();
    assert_eq!(
        codes,
        [
            404, 404, 404, 404, 400, 400, 400, 400, 400, 405, 421, 421, 421, 421, 400, 0
        ],
        "{seen:?}"
    );
    assert_eq!(provider.count("POST /token"), 1);
}

#[tokio::test]
async fn the_port_is_closed_after_the_login_and_only_loopback_before() {
    let provider = Provider::start().await;
    let port = Arc::new(Mutex::new(0));
    let mut person = Person::browsing({
        let port = port.clone();
        move |url| {
            let port = port.clone();
            async move {
                let right = redirect_of(&url).await;
                *port.lock().unwrap() = right.port().unwrap();
                fetch(right).await;
            }
        }
    });
    login(&options(&provider), b"", &mut person).await.unwrap();
    let port = *port.lock().unwrap();
    assert!(std::net::TcpStream::connect(("127.0.0.1", port)).is_err());
}

#[tokio::test]
async fn the_first_free_port_of_the_list_is_taken() {
    let provider = Provider::start().await;
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let free = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let ports = vec![taken.local_addr().unwrap().port(), free];
    let mut person = Person::with_browser();
    let options = LoginOptions {
        ports: ports.clone(),
        ..options(&provider)
    };
    login(&options, b"", &mut person).await.unwrap();
    let terminal = person.terminal();
    assert!(
        terminal.contains(&format!("127.0.0.1%3A{free}%2Fcallback")),
        "{terminal}"
    );

    let all_taken = LoginOptions {
        ports: vec![ports[0]],
        flow: FlowChoice::Only(Flow::Browser),
        ..options
    };
    let error = login(&all_taken, b"", &mut Person::with_browser())
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains(&format!("[{}]", ports[0])), "{error}");
}

#[tokio::test]
async fn nobody_at_the_browser_is_an_error_in_time() {
    let provider = Provider::start().await;
    let options = LoginOptions {
        timeout: Duration::from_millis(300),
        ..options(&provider)
    };
    let mut person = Person::browsing(|_| async {});
    let error = login(&options, b"", &mut person).await.unwrap_err();
    assert!(matches!(error, LoginError::TimedOut { .. }), "{error}");
}

#[tokio::test]
async fn without_a_browser_the_address_is_shown_and_does() {
    let provider = Provider::start().await;
    let mut person = Person::without_browser();
    let options = LoginOptions {
        timeout: Duration::from_millis(300),
        ..options(&provider)
    };
    login(&options, b"", &mut person).await.unwrap_err();
    assert!(matches!(
        &person.shown[..],
        [Notice::Browser { is_open: false, .. }]
    ));
    assert!(
        person
            .terminal()
            .contains(&format!("{}/authorize?", provider.world.issuer))
    );
}
