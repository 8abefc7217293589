//! Logging in without a browser here: with a code, or with an address that is carried over.

use crate::support::person::{fetch, redirect_of};
use crate::support::provider::Instead;
use crate::support::{Person, Provider, options, state};
use epithet_oidc::{Flow, FlowChoice, How, LoginError, LoginOptions, Notice, Surroundings, login};
use serde_json::{Value, json};
use std::time::Duration;
use url::Url;

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
