//! A browser that does not come back: the provider shows an error page of its own, or somebody closed the tab.

use crate::support::person::fetch;
use crate::support::provider::Instead;
use crate::support::{Person, Provider, options, state, visit};
use epithet_oidc::{Flow, FlowChoice, How, LoginError, LoginOptions, Notice, login};
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use url::Url;

/// A person whose browser shows an error and stays where it is.
fn with_an_error_page() -> Person {
    Person::browsing(|_| async {})
}

fn soon(provider: &Provider) -> LoginOptions {
    LoginOptions {
        other_way_after: Duration::from_millis(50),
        ..options(provider)
    }
}

fn pending(times: usize) -> VecDeque<&'static str> {
    vec!["authorization_pending"; times].into()
}

#[tokio::test]
async fn a_browser_that_never_comes_back_leads_to_a_code_and_that_is_remembered() {
    let provider = Provider::start().await;
    let mut person = with_an_error_page();
    let outcome = login(&soon(&provider), b"", &mut person).await.unwrap();
    assert_eq!(outcome.how, How::LoggedIn(Flow::Device));
    let terminal = person.terminal();
    for words in [
        "If its page shows an error, wait",
        "The browser has not come back yet",
        "/callback\nRegister that at the provider",
        "WDJB-MJHT",
    ] {
        assert!(terminal.contains(words), "{words} in {terminal}");
    }
    assert_eq!(state(&outcome)["epithet"]["in_vain"], json!(["browser"]));

    // A refresh forgets nothing of it.
    let next = login(&soon(&provider), outcome.state.expose(), &mut person)
        .await
        .unwrap();
    assert_eq!(next.how, How::Refreshed);
    assert_eq!(state(&next)["epithet"]["in_vain"], json!(["browser"]));

    // And when that is over, nobody waits for the browser any more.
    provider.end_sessions();
    let mut person = with_an_error_page();
    let again = login(&soon(&provider), next.state.expose(), &mut person)
        .await
        .unwrap();
    assert_eq!(again.how, How::LoggedIn(Flow::Device));
    assert!(person.visits.is_empty(), "{}", person.terminal());

    // Whoever mends it and says so is believed.
    let only_browser = LoginOptions {
        flow: FlowChoice::Only(Flow::Browser),
        ..soon(&provider)
    };
    provider.end_sessions();
    let mended = login(&only_browser, again.state.expose(), &mut Person::with_browser())
        .await
        .unwrap();
    assert_eq!(mended.how, How::LoggedIn(Flow::Browser));
    assert_eq!(state(&mended)["epithet"].get("in_vain"), None);
}

#[tokio::test]
async fn a_browser_that_comes_late_is_as_good_as_the_code() {
    let provider = Provider::start().await;
    provider.settings().polls = pending(100);
    let offered = Arc::new(Notify::new());
    struct Patient(Person, Arc<Notify>);
    impl epithet_oidc::LoginUi for Patient {
        fn show(&mut self, notice: &Notice) {
            if matches!(notice, Notice::DeviceCode { .. }) {
                self.1.notify_one();
            }
            self.0.show(notice);
        }
        fn open_browser(&mut self, url: &Url) -> Result<(), epithet_oidc::browser::BrowserError> {
            self.0.open_browser(url)
        }
    }
    let wait = offered.clone();
    let person = Person::browsing(move |url| {
        let wait = wait.clone();
        async move {
            wait.notified().await;
            visit(&url).await;
        }
    });
    let outcome = login(&soon(&provider), b"", &mut Patient(person, offered))
        .await
        .unwrap();
    assert_eq!(outcome.how, How::LoggedIn(Flow::Browser));
    assert_eq!(state(&outcome)["epithet"].get("in_vain"), None);
}

#[tokio::test]
async fn a_code_that_cannot_be_had_or_is_not_entered_does_not_end_the_waiting() {
    type Change = fn(&Provider);
    let cases: [(Change, &str); 3] = [
        (
            |provider| {
                let refusal = json!({"error": "unauthorized_client"}).to_string();
                let instead = Instead::Reply(400, "application/json", refusal);
                provider.settings().instead.insert("/device", instead);
            },
            "cannot be had: the provider refused: unauthorized_client",
        ),
        (
            |provider| provider.settings().polls = ["expired_token"].into(),
            "was not entered in time. Still waiting for the browser",
        ),
        (
            |provider| provider.settings().polls = ["unauthorized_client"].into(),
            "unauthorized_client",
        ),
    ];
    for (change, words) in cases {
        let provider = Provider::start().await;
        change(&provider);
        let options = LoginOptions {
            timeout: Duration::from_secs(3),
            ..soon(&provider)
        };
        let mut person = with_an_error_page();
        let error = login(&options, b"", &mut person).await.unwrap_err();
        assert!(matches!(error, LoginError::TimedOut { .. }), "{error}");
        assert!(
            person.terminal().contains(words),
            "{words} in {}",
            person.terminal()
        );
    }
}

#[tokio::test]
async fn who_refuses_on_the_other_device_has_refused() {
    for word in ["access_denied", "authorization_declined"] {
        let provider = Provider::start().await;
        provider.settings().polls = [word].into();
        let error = login(&soon(&provider), b"", &mut with_an_error_page())
            .await
            .unwrap_err();
        assert!(matches!(error, LoginError::Refused(_)), "{error}");
        assert!(error.to_string().contains(word), "{error}");
    }
}

#[tokio::test]
async fn a_fixed_flow_stays_and_a_provider_without_codes_is_explained() {
    let without_codes: fn(&mut Value) = |document| {
        let document = document.as_object_mut().unwrap();
        document.remove("device_authorization_endpoint");
    };
    for (flow, is_without) in [(FlowChoice::Only(Flow::Browser), false), (FlowChoice::Auto, true)] {
        let provider = Provider::start().await;
        if is_without {
            provider.settings().discovery = Box::new(without_codes);
        }
        let options = LoginOptions {
            flow,
            timeout: Duration::from_secs(1),
            ..soon(&provider)
        };
        let mut person = with_an_error_page();
        login(&options, b"", &mut person).await.unwrap_err();
        let terminal = person.terminal();
        assert!(
            terminal.contains("--redirect-host, --redirect-path, --port"),
            "{terminal}"
        );
        assert!(!terminal.contains("code for another device"), "{terminal}");
        assert_eq!(provider.count("POST /device"), 0);
    }
}

#[tokio::test]
async fn an_answer_to_another_login_is_told_once_and_not_taken() {
    let provider = Provider::start().await;
    provider.settings().response = Box::new(|response| response["state"] = "mixed-up".into());
    let mut person = Person::browsing(|url| async move {
        for _ in 0..5 {
            let (status, page) = visit(&url).await;
            assert_eq!(status, 400);
            assert!(page.contains("does not belong to the login"), "{page}");
        }
    });
    let options = LoginOptions {
        timeout: Duration::from_secs(2),
        ..options(&provider)
    };
    let error = login(&options, b"", &mut person).await.unwrap_err();
    assert!(matches!(error, LoginError::TimedOut { .. }), "{error}");
    let terminal = person.terminal();
    assert_eq!(terminal.matches("(wrong state)").count(), 1, "{terminal}");
    assert_eq!(provider.count("POST /token"), 0, "the code went nowhere");
}

#[tokio::test]
async fn a_request_of_the_listener_is_bounded_to_the_byte() {
    use epithet_wire::limits::LOGIN_REQUEST_MAX;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let provider = Provider::start().await;
    let mut person = Person::browsing(|url| async move {
        let right = crate::support::person::redirect_of(&url).await;
        let authority = format!("127.0.0.1:{}", right.port().unwrap());
        for (size, expected) in [(LOGIN_REQUEST_MAX, "404"), (LOGIN_REQUEST_MAX + 1, "400")] {
            let head = |padding: &str| format!("GET /x?{padding} HTTP/1.1\r\nHost: {authority}\r\n\r\n");
            let request = head(&"y".repeat(size - head("").len()));
            assert_eq!(request.len(), size);
            let mut stream = tokio::net::TcpStream::connect(&authority).await.unwrap();
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            assert!(
                answer.starts_with(&format!("HTTP/1.1 {expected}")),
                "{size}: {answer}"
            );
        }
        fetch(right).await;
    });
    login(&options(&provider), b"", &mut person).await.unwrap();
    for visit in person.visits {
        visit.await.unwrap();
    }
}
