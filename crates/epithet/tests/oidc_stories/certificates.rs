//! No certificate outlives the token that paid for it.

use crate::support::{Provider, Story};
use jiff::Timestamp;

/// Less than policy's five minutes.
const TOKEN_LIFE: u64 = 60;

#[test]
fn a_certificate_ends_with_the_token_of_the_certified_provider() {
    a_certificate_ends_with_its_token(Provider::certified_with_token_life(TOKEN_LIFE));
}

#[test]
fn a_certificate_ends_with_the_token_of_the_development_provider() {
    a_certificate_ends_with_its_token(Provider::development_with_token_life(TOKEN_LIFE));
}

fn a_certificate_ends_with_its_token(provider: Provider) {
    let story = Story::at(provider);
    let broker = story.broker();
    let seconds = || u64::try_from(Timestamp::now().as_second()).unwrap();
    let before = seconds();

    story.laptop.log_in("127.0.0.1");

    let after = seconds();
    let inspection = story.laptop.inspect(&broker);
    let line = inspection["agents"][0]["certificate"].as_str().unwrap();
    let certificate = epithet_ssh::UserCertificate::parse(line.trim_end()).unwrap();
    let ends = certificate.valid_before();
    assert!(
        (before + TOKEN_LIFE..=after + TOKEN_LIFE).contains(&ends),
        "a token of {TOKEN_LIFE} s that was made between {before} and {after} paid for a certificate until {ends}"
    );
    // OpenSSH reads the same, and so does the audit log.
    let shown = Timestamp::from_second(i64::try_from(ends).unwrap()).unwrap();
    let shown = shown.to_string();
    let printed = &story.laptop.certificates(&broker)[0];
    let valid = printed.lines().find(|line| line.contains("Valid: ")).unwrap();
    assert!(
        valid.ends_with(&format!(" to {}", shown.trim_end_matches('Z'))),
        "{valid} is not until {shown}"
    );
    assert_eq!(story.site.decisions()[0]["valid_before"], shown);
    assert_eq!(inspection["agents"][0]["expiresAt"], shown);
}
