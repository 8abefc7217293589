//! `epithet trace last`: the picture of a real login, under the name that it has in the CA's audit log.

use crate::support::Story;
use epithet_testkit::{DEADLINE, wait_until};
use serde_json::Value;

fn traces(story: &Story, words: &[&str]) -> Vec<Value> {
    let words = ["trace", "last", "--json"].iter().chain(words).copied();
    let said = story.epithet(words).success().stdout;
    serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}"))
}

#[test]
fn the_phases_of_a_login_are_drawn_under_the_request_id_of_the_audit_log() {
    let story = Story::begin();
    story.in_background();
    let nobody = story.epithet(["trace", "last"]);
    assert_eq!(nobody.code(), Some(1));
    assert!(nobody.stderr.contains("ssh HOST"), "{}", nobody.stderr);
    assert!(traces(&story, &[]).is_empty());

    story.laptop.log_in("127.0.0.1");
    story.laptop.log_in("127.0.0.2");

    let audited: Vec<String> = (story.site.decisions().iter())
        .map(|decision| decision["request_id"].as_str().expect("an id").to_owned())
        .collect();
    // The signature is written down when it is made, which is a moment before ssh is in.
    let is_whole = |trace: &Value| {
        trace["phases"]
            .as_array()
            .is_some_and(|phases| phases.iter().any(|phase| phase["name"] == "sign"))
    };
    let both = wait_until(DEADLINE, || {
        Some(traces(&story, &["-n", "9"])).filter(|both| both.len() == 2 && both.iter().all(is_whole))
    });
    let ids: Vec<_> = both
        .expect("two logins")
        .iter()
        .map(|trace| trace["requestId"].clone())
        .collect();
    assert_eq!(ids, audited);
    assert_eq!(
        traces(&story, &[])[0]["requestId"],
        audited[1].as_str(),
        "the last one is the default"
    );
    assert_eq!(
        traces(&story, &["--request-id", &audited[0]])[0]["host"],
        "127.0.0.1"
    );

    let picture = story
        .epithet(["trace", "last", "--request-id", &audited[0]])
        .success()
        .stdout;
    let user = story.laptop.home.user().name();
    let port = story.sshd.port();
    assert!(
        picture.starts_with(&format!(
            "{user}@127.0.0.1:{port}  certificate\nrequest {}",
            audited[0]
        )),
        "{picture}"
    );
    for phase in ["match", "gate", "login", "ca", "list", "sign", "in all"] {
        assert!(picture.contains(phase), "{phase} is not in:\n{picture}");
    }
    assert!(
        picture.contains('\u{2588}') && !picture.contains('\x1b'),
        "{picture}"
    );
    assert!(
        picture.lines().all(|line| line.chars().count() <= 80),
        "{picture}"
    );

    let mut ascii = story.laptop.epithet();
    ascii.args(["trace", "last"]).env("LANG", "C");
    let picture = epithet_testkit::Finished::of(ascii, DEADLINE).success().stdout;
    assert!(picture.is_ascii() && picture.contains('#'), "{picture}");

    let unknown = story.epithet(["trace", "last", "--request-id", "ffff"]);
    assert_eq!(unknown.code(), Some(1));
    assert!(unknown.stderr.contains("no request ffff"), "{}", unknown.stderr);
}
