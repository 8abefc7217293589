//! Clients that the certified provider demands a proof of: a secret, or a signature of the client's key.

use crate::laptop::start;
use crate::support::{Provider, Story};
use epithet_testkit::{CertifiedProvider, DEADLINE, Finished, Home};
use serde_json::json;
use std::process::Command;

/// Logs in, refreshes and logs out with these flags, all of which the provider must agree to.
fn every_request_is_authenticated(story: &Story, flags: &str) {
    let auth = format!(
        "{} {flags}",
        story.auth(&story.browser.program().display().to_string())
    );
    let mut command = story.laptop.agent(story.site.url(), &auth);
    command.args(["--match", "127.0.0.*", "--token-reuse", "0s"]);
    let broker = start(command);
    story.laptop.log_in("127.0.0.1");
    story.laptop.log_in("127.0.0.2");
    let counts = story.provider.counts();
    assert_eq!((counts.logins, counts.refreshes), (1, 1));
    let mut logout = story.laptop.epithet();
    logout.args(["logout", "--broker"]).arg(broker.socket());
    let finished = Finished::of(logout, DEADLINE).success();
    assert!(
        finished.stderr.contains("revoked the refresh token"),
        "{}",
        finished.stderr
    );
}

fn openssl(arguments: &[&str]) {
    let mut command = Command::new("openssl");
    command.args(arguments);
    Finished::of(command, DEADLINE).success();
}

#[test]
fn a_client_signs_with_its_key_for_the_certified_provider() {
    let keys = Home::new();
    let (private, public) = (keys.join("client.pem"), keys.join("client.pub"));
    let (private, public) = (private.display().to_string(), public.display().to_string());
    openssl(&[
        "genpkey",
        "-algorithm",
        "EC",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-out",
        &private,
    ]);
    openssl(&["pkey", "-in", &private, "-pubout", "-out", &public]);
    let provider = CertifiedProvider::start(&json!({"clientKey": public, "clientKeyId": "laptop"}));
    let story = Story::at(Provider::Certified(provider));
    every_request_is_authenticated(
        &story,
        &format!("--client-auth private-key-jwt --client-key-file '{private}' --client-key-id laptop"),
    );
}

#[test]
fn a_client_gives_its_secret_to_the_certified_provider() {
    let provider = CertifiedProvider::start(&json!({"clientSecret": "a secret: with %+ in it"}));
    let story = Story::at(Provider::Certified(provider));
    let file = story.laptop.home.write("secret", "a secret: with %+ in it\n");
    every_request_is_authenticated(
        &story,
        &format!("--client-auth basic --client-secret-file '{}'", file.display()),
    );
}
