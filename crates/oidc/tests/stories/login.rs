//! Logging in and staying logged in, as the person and the provider see it.

use crate::support::person::{browser, fetch, redirect_of};
use crate::support::provider::{CLIENT, Instead};
use crate::support::{Person, Provider, other_rsa, visit};
use epithet_oidc::{
    ClientAuthChoice, Flow, FlowChoice, How, LoginError, LoginOptions, Notice, Outcome, RedirectHost, Secret,
    Surroundings, TokenKind, login,
};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use url::Url;

fn options(provider: &Provider) -> LoginOptions {
    LoginOptions {
        timeout: Duration::from_secs(20),
        ..LoginOptions::new(provider.http(), provider.issuer(), CLIENT)
    }
}

async fn log_in(provider: &Provider) -> Outcome {
    login(&options(provider), b"", &mut Person::with_browser())
        .await
        .unwrap()
}

async fn run_again(provider: &Provider, before: &Outcome) -> Result<Outcome, LoginError> {
    login(
        &options(provider),
        before.state.expose(),
        &mut Person::with_browser(),
    )
    .await
}

fn state(outcome: &Outcome) -> Value {
    serde_json::from_slice(outcome.state.expose()).unwrap()
}

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
async fn with_a_state_the_token_is_always_a_new_one_and_nobody_has_to_act() {
    let provider = Provider::start().await;
    let first = log_in(&provider).await;
    provider.forget_requests();
    let mut person = Person::without_browser();
    let second = login(&options(&provider), first.state.expose(), &mut person)
        .await
        .unwrap();
    assert_eq!(second.how, How::Refreshed);
    assert!(person.shown.is_empty());
    assert_eq!(
        state(&second)["refresh_token"],
        state(&first)["refresh_token"],
        "none came back, the old one is kept"
    );
    assert_ne!(state(&second)["access_token"], state(&first)["access_token"]);
    // Discovery and keys are in the state: one request does it.
    assert_eq!(provider.count("POST /token"), 1);
    assert_eq!(
        provider.count("GET /keys") + provider.count("GET /.well-known/openid-configuration"),
        0
    );
    let form = provider.world.forms.lock().unwrap().last().unwrap().clone();
    assert_eq!(
        (form["client_id"].as_str(), form["grant_type"].as_str()),
        (CLIENT, "refresh_token")
    );
    assert!(!form.contains_key("client_secret"), "a public client has none");
}

#[tokio::test]
async fn a_rotated_refresh_token_replaces_the_old_one() {
    let provider = Provider::start().await;
    provider.settings().rotates = true;
    let mut outcome = log_in(&provider).await;
    for _ in 0..3 {
        let next = run_again(&provider, &outcome).await.unwrap();
        assert_eq!(next.how, How::Refreshed);
        assert_ne!(state(&next)["refresh_token"], state(&outcome)["refresh_token"]);
        outcome = next;
    }
}

#[tokio::test]
async fn a_reused_refresh_token_ends_the_session_and_leads_to_one_login() {
    let provider = Provider::start().await;
    provider.settings().rotates = true;
    let first = log_in(&provider).await;
    run_again(&provider, &first).await.unwrap();
    // The same state again, as if the last run had been lost.
    let mut person = Person::with_browser();
    let again = login(&options(&provider), first.state.expose(), &mut person)
        .await
        .unwrap();
    assert_eq!(again.how, How::LoggedIn(Flow::Browser));
    let terminal = person.terminal();
    assert!(
        terminal.contains("ended the session (invalid_grant: words about invalid_grant)"),
        "{terminal}"
    );
    assert_eq!(person.shown.len(), 2, "one line and the address: {terminal}");
}

#[tokio::test]
async fn a_revoked_session_leads_to_a_login_by_somebody_perhaps_else() {
    let provider = Provider::start().await;
    let first = log_in(&provider).await;
    provider.end_sessions();
    provider.settings().claims = Box::new(|claims| claims["sub"] = "bob-2".into());
    let second = run_again(&provider, &first).await.unwrap();
    assert_eq!(second.how, How::LoggedIn(Flow::Browser));
    assert_eq!(state(&second)["epithet"]["subject"], "bob-2");
}

#[tokio::test]
async fn a_refresh_for_somebody_else_is_not_given_out_and_leads_to_a_login() {
    let provider = Provider::start().await;
    let first = log_in(&provider).await;
    provider.settings().claims = Box::new(|claims| claims["sub"] = "mallory".into());
    let mut person = Person::browsing(|_| async {});
    let options = LoginOptions { timeout: Duration::from_secs(2), ..options(&provider) };
    let error = login(&options, first.state.expose(), &mut person).await.unwrap_err();
    assert!(matches!(error, LoginError::TimedOut { .. }), "nobody logged in: {error}");
    let terminal = person.terminal();
    assert!(terminal.contains("its \"sub\" is not that of the token before it; please log in again"), "{terminal}");
}

#[tokio::test]
async fn a_token_endpoint_that_moved_is_found_again() {
    let provider = Provider::start().await;
    let first = log_in(&provider).await;
    let moved = format!("{}/moved", provider.world.issuer);
    provider.settings().instead.insert("/token", Instead::Status(404));
    provider.settings().discovery = Box::new(move |document| document["token_endpoint"] = moved.clone().into());
    let second = run_again(&provider, &first).await.unwrap();
    assert_eq!((second.how, provider.count("POST /moved")), (How::Refreshed, 1));
}

#[tokio::test]
async fn a_refresh_without_an_id_token_leads_to_a_login() {
    let provider = Provider::start().await;
    let first = log_in(&provider).await;
    provider.settings().refresh_without_id_token = true;
    let mut person = Person::with_browser();
    let second = login(&options(&provider), first.state.expose(), &mut person)
        .await
        .unwrap();
    assert_eq!(second.how, How::LoggedIn(Flow::Browser));
    assert!(
        person.terminal().contains("without an ID token"),
        "{}",
        person.terminal()
    );
    // Where the access token is what counts, nothing is missing.
    let options = LoginOptions {
        token: TokenKind::Access,
        ..options(&provider)
    };
    let third = login(&options, second.state.expose(), &mut Person::without_browser())
        .await
        .unwrap();
    assert_eq!((third.how, third.claims.is_none()), (How::Refreshed, true));
    assert!(third.token.expose().starts_with(b"access-"));
    assert_eq!(
        state(&third)["epithet"]["subject"],
        "alice-1",
        "who it was is not forgotten"
    );
}

#[tokio::test]
async fn a_provider_that_is_down_is_an_error_and_no_reason_for_a_browser() {
    let mut provider = Provider::start().await;
    let first = log_in(&provider).await;
    let attempt = |provider: &Provider| {
        let options = options(provider);
        let state = first.state.clone();
        async move {
            let mut person = Person::with_browser();
            let error = login(&options, state.expose(), &mut person).await.unwrap_err();
            assert!(person.shown.is_empty() && person.visits.is_empty(), "{error}");
            error.to_string()
        }
    };
    for status in [500, 503, 429] {
        provider
            .settings()
            .instead
            .insert("/token", Instead::Status(status));
        assert!(attempt(&provider).await.contains(&format!("status {status}")));
    }
    provider.settings().instead.clear();
    provider.stop().await;
    assert!(attempt(&provider).await.contains("cannot reach"));
    provider.start_again().await;
    assert_eq!(
        run_again(&provider, &first).await.unwrap().how,
        How::Refreshed,
        "the state is as good as before"
    );
}

#[tokio::test]
async fn keys_may_change_between_before_and_during_logins() {
    let provider = Provider::start().await;
    let first = log_in(&provider).await;
    {
        let mut settings = provider.settings();
        settings.signer = other_rsa();
        settings.published = vec![other_rsa().jwk()];
    }
    provider.forget_requests();
    let second = run_again(&provider, &first).await.unwrap();
    assert_eq!(second.how, How::Refreshed);
    assert_eq!(provider.count("GET /keys"), 1);
    provider.forget_requests();
    run_again(&provider, &second).await.unwrap();
    assert_eq!(provider.count("GET /keys"), 0, "the new keys are in the state");
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

const REMOTE: Surroundings = Surroundings {
    has_display: false,
    is_remote_session: true,
};

#[tokio::test]
async fn over_ssh_a_code_is_shown_and_waited_for() {
    let provider = Provider::start().await;
    provider.settings().polls = ["authorization_pending", "503"].into();
    let mut person = Person::without_browser();
    let options = LoginOptions {
        surroundings: REMOTE,
        ..options(&provider)
    };
    let outcome = login(&options, b"", &mut person).await.unwrap();
    assert_eq!(outcome.how, How::LoggedIn(Flow::Device));
    let terminal = person.terminal();
    assert!(
        terminal.contains("WDJB-MJHT") && terminal.contains("/enter?user_code=WDJB-MJHT"),
        "{terminal}"
    );
    assert_eq!(provider.count("POST /token"), 3);
    assert_eq!(
        state(&outcome)["epithet"]["flow"],
        "device",
        "what worked is remembered"
    );
    let form = provider.world.forms.lock().unwrap().last().unwrap().clone();
    assert_eq!(form["code_verifier"].len(), 43);
    // And the next run is a refresh like any other.
    let next = login(&options, outcome.state.expose(), &mut person)
        .await
        .unwrap();
    assert_eq!(
        (next.how, &state(&next)["epithet"]["flow"]),
        (How::Refreshed, &json!("device"))
    );
}

#[tokio::test]
async fn slow_down_is_obeyed() {
    let provider = Provider::start().await;
    provider.settings().polls = ["slow_down"].into();
    let options = LoginOptions {
        surroundings: REMOTE,
        ..options(&provider)
    };
    let start = std::time::Instant::now();
    login(&options, b"", &mut Person::without_browser())
        .await
        .unwrap();
    assert!(
        start.elapsed() >= Duration::from_secs(7),
        "1 s, then 1 s and 5 more: {:?}",
        start.elapsed()
    );
}

#[tokio::test]
async fn a_code_that_is_refused_or_forgotten_ends_the_login() {
    for (poll, reason) in [
        ("access_denied", "access_denied"),
        ("expired_token", "not entered in time"),
        ("invalid_grant", "invalid_grant"),
    ] {
        let provider = Provider::start().await;
        provider.settings().polls = [poll].into();
        let options = LoginOptions {
            surroundings: REMOTE,
            ..options(&provider)
        };
        let mut person = Person::without_browser();
        let error = login(&options, b"", &mut person).await.unwrap_err().to_string();
        assert!(error.contains(reason), "{error}");
        assert_eq!(
            person.shown.len(),
            1,
            "no other flow is started: {}",
            person.terminal()
        );
    }
    let provider = Provider::start().await;
    provider.settings().device_reply = Box::new(|reply| reply["expires_in"] = 1.into());
    provider.settings().polls = ["authorization_pending", "authorization_pending"].into();
    let options = LoginOptions {
        surroundings: REMOTE,
        ..options(&provider)
    };
    let error = login(&options, b"", &mut Person::without_browser())
        .await
        .unwrap_err();
    assert!(matches!(error, LoginError::CodeExpired), "{error}");
}

#[tokio::test]
async fn googles_name_for_the_address_is_understood_and_unsafe_ones_are_not() {
    let provider = Provider::start().await;
    provider.settings().device_reply = Box::new(|reply| {
        let reply = reply.as_object_mut().unwrap();
        let address = reply.remove("verification_uri").unwrap();
        reply.insert("verification_url".into(), address);
        reply.remove("verification_uri_complete");
    });
    let options = LoginOptions {
        surroundings: REMOTE,
        ..options(&provider)
    };
    let mut person = Person::without_browser();
    login(&options, b"", &mut person).await.unwrap();
    assert!(
        person.terminal().contains("/enter on any device"),
        "{}",
        person.terminal()
    );

    type Change = fn(&mut Value);
    let lies: [(Change, &str); 5] = [
        (
            |reply| reply["verification_uri"] = "javascript:alert(1)".into(),
            "\"verification_uri\"",
        ),
        (
            |reply| reply["verification_uri"] = "http://evil.example/".into(),
            "\"verification_uri\"",
        ),
        (|reply| reply["user_code"] = Value::Null, "\"user_code\""),
        (|reply| reply["expires_in"] = Value::Null, "\"expires_in\""),
        (|reply| reply["device_code"] = 7.into(), "\"device_code\""),
    ];
    for (lie, reason) in lies {
        provider.settings().device_reply = Box::new(lie);
        let error = login(&options, b"", &mut Person::without_browser())
            .await
            .unwrap_err()
            .to_string();
        assert!(error.contains(reason), "{error}");
    }
}

#[tokio::test]
async fn where_codes_are_forbidden_the_address_is_pasted_and_that_is_remembered() {
    let provider = Provider::start().await;
    let refusal =
        json!({"error": "unauthorized_client", "error_description": "device grant is off"}).to_string();
    provider
        .settings()
        .instead
        .insert("/device", Instead::Reply(400, "application/json", refusal));
    let mut person = Person::pasting(|url| async move {
        let redirect = redirect_of(&url).await;
        vec![
            "what?".to_owned(),
            redirect.as_str().replace("state=", "state=x"),
            format!("  {redirect}\n"),
        ]
    });
    let options = LoginOptions {
        surroundings: REMOTE,
        ..options(&provider)
    };
    let outcome = login(&options, b"", &mut person).await.unwrap();
    assert_eq!(outcome.how, How::LoggedIn(Flow::Paste));
    let terminal = person.terminal();
    assert!(
        terminal.contains("device login is not possible: unauthorized_client: device grant is off"),
        "{terminal}"
    );
    assert!(terminal.contains("ssh -N -L "), "{terminal}");
    assert_eq!(terminal.matches("That is not it").count(), 2, "{terminal}");
    assert_eq!(state(&outcome)["epithet"]["flow"], "paste");
    // Next time that is where it begins.
    provider.end_sessions();
    provider.forget_requests();
    let mut person = Person::pasting(|url| async move { vec![redirect_of(&url).await.to_string()] });
    login(&options, outcome.state.expose(), &mut person)
        .await
        .unwrap();
    assert_eq!(provider.count("POST /device"), 0);
}

#[tokio::test]
async fn whoever_holds_the_address_can_deliver_it_to_the_listener() {
    let provider = Provider::start().await;
    let elsewhere = Url::parse("https://ssh.example/done").unwrap();
    let mut person = Person::without_browser();
    let options = LoginOptions {
        flow: FlowChoice::Only(Flow::Paste),
        redirect_uri: Some(elsewhere.clone()),
        surroundings: REMOTE,
        ..options(&provider)
    };
    struct Deliverer<'p>(&'p mut Person);
    impl epithet_oidc::LoginUi for Deliverer<'_> {
        fn show(&mut self, notice: &Notice) {
            if let Notice::Paste {
                url,
                deliver_to,
                is_loopback,
            } = notice
            {
                assert!(!is_loopback);
                let (url, mut deliver_to) = (url.clone(), deliver_to.clone());
                tokio::spawn(async move {
                    deliver_to.set_query(redirect_of(&url).await.query());
                    assert_eq!(fetch(deliver_to).await.0, 200);
                });
            }
            self.0.show(notice);
        }
        fn open_browser(&mut self, url: &Url) -> Result<(), epithet_oidc::browser::BrowserError> {
            self.0.open_browser(url)
        }
    }
    let outcome = login(&options, b"", &mut Deliverer(&mut person)).await.unwrap();
    assert_eq!(outcome.how, How::LoggedIn(Flow::Paste));
    let form = provider.world.forms.lock().unwrap().last().unwrap().clone();
    assert_eq!(form["redirect_uri"], elsewhere.as_str());
}

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

#[tokio::test]
async fn another_providers_state_is_not_shown_to_this_one() {
    let (one, other) = (Provider::start().await, Provider::start().await);
    let outcome = log_in(&one).await;
    let second = run_again(&other, &outcome).await.unwrap();
    assert_eq!(second.how, How::LoggedIn(Flow::Browser));
    assert!(
        other
            .world
            .forms
            .lock()
            .unwrap()
            .iter()
            .all(|form| !form.contains_key("refresh_token"))
    );
}

#[tokio::test]
async fn a_state_of_epithet_0_17_saves_a_login() {
    let provider = Provider::start().await;
    let refresh_token = state(&log_in(&provider).await)["refresh_token"].clone();
    let old = json!({"access_token": "a", "token_type": "Bearer", "refresh_token": refresh_token, "expiry": "2026-08-13T18:30:00.1+02:00"});
    let outcome = login(
        &options(&provider),
        old.to_string().as_bytes(),
        &mut Person::without_browser(),
    )
    .await
    .unwrap();
    assert_eq!(outcome.how, How::Refreshed);
}

#[tokio::test]
async fn no_secret_is_in_any_debug_output_or_error() {
    let provider = Provider::start().await;
    let outcome = log_in(&provider).await;
    let options = LoginOptions {
        client_secret: Some(Secret::new("canary".into())),
        ..options(&provider)
    };
    let shown = format!("{outcome:?} {options:?}");
    for secret in ["refresh-", "access-", "canary"] {
        assert!(!shown.contains(secret), "{secret} in {shown}");
    }
}
