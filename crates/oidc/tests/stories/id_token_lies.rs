//! Every way in which a token can lie, and the one reason it is refused for.

use crate::support::keys::{b64, key_set};
use crate::support::{SigningKey, other_rsa, rsa};
use epithet_oidc::Claims;
use epithet_oidc::id_token::{Expectation, Previous, TokenError, verify};
use epithet_oidc::jwks::KeySet;
use epithet_oidc::jws::Algorithm;
use serde_json::{Value, json};

const ISSUER: &str = "https://idp.example";
const CLIENT: &str = "ssh-login";
const NOW: u64 = 1_800_000_000;
const ACCESS_TOKEN: &str = "an access token";

fn claims() -> Value {
    json!({"iss": ISSUER, "sub": "alice-1", "aud": CLIENT, "exp": NOW + 300, "iat": NOW, "nonce": "our nonce"})
}

fn expected() -> Expectation<'static> {
    Expectation {
        nonce: Some("our nonce"),
        access_token: Some(ACCESS_TOKEN),
        issued_within: Some(600),
        ..Expectation::new(ISSUER, CLIENT, &Algorithm::ALL)
    }
}

fn keys() -> KeySet {
    KeySet::parse(key_set(&[rsa().jwk()]).as_bytes()).unwrap()
}

fn check(token: &str, expected: &Expectation<'_>) -> Result<Claims, TokenError> {
    verify(token.as_bytes(), &keys(), expected, NOW)
}

fn with(change: impl Fn(&mut Value)) -> Value {
    let mut claims = claims();
    change(&mut claims);
    claims
}

#[track_caller]
fn assert_refused(result: Result<Claims, TokenError>, code: &str, what: &str) {
    match result {
        Ok(_) => panic!("{what} was believed"),
        Err(error) => assert_eq!(error.code(), code, "{what}: {error}"),
    }
}

#[test]
fn an_honest_token_is_believed() {
    let claims = check(&rsa().token(&claims()), &expected()).unwrap();
    assert_eq!(
        (claims.subject.as_str(), claims.expires_at, claims.issued_at),
        ("alice-1", NOW + 300, NOW)
    );
    assert_eq!(claims.audience, [CLIENT]);
    assert_eq!(claims.raw["nonce"], "our nonce");
}

#[test]
fn every_algorithm_that_is_sound_works() {
    let keys = [
        SigningKey::p256("p256"),
        SigningKey::p384("p384"),
        SigningKey::p521("p521"),
        SigningKey::ed25519("ed"),
    ];
    let mut published: Vec<Value> = keys.iter().map(SigningKey::jwk).collect();
    let mut any_rsa = rsa().jwk();
    any_rsa.as_object_mut().unwrap().remove("alg");
    published.push(any_rsa);
    let set = KeySet::parse(key_set(&published).as_bytes()).unwrap();
    for key in &keys {
        let token = key.token(&claims());
        verify(token.as_bytes(), &set, &expected(), NOW)
            .unwrap_or_else(|error| panic!("{}: {error}", key.id()));
    }
    for algorithm in ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"] {
        let header = json!({"alg": algorithm, "kid": rsa().id()}).to_string();
        let token = rsa().token_with(&header, &claims().to_string());
        verify(token.as_bytes(), &set, &expected(), NOW)
            .unwrap_or_else(|error| panic!("{algorithm}: {error}"));
    }
}

#[test]
fn a_lie_in_the_claims_is_refused_by_its_own_reason() {
    let hash = |text: &str| {
        b64(&aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes()).as_ref()[..16])
    };
    type Lie = Box<dyn Fn(&mut Value)>;
    let set =
        |name: &'static str, value: Value| -> Lie { Box::new(move |claims| claims[name] = value.clone()) };
    let without = |name: &'static str| -> Lie {
        Box::new(move |claims| drop(claims.as_object_mut().unwrap().remove(name)))
    };
    let both = |one: Lie, two: Lie| -> Lie {
        Box::new(move |claims| {
            one(claims);
            two(claims);
        })
    };
    let cases: Vec<(Lie, &str)> = vec![
        (set("iss", "https://evil.example".into()), "wrong_issuer"),
        (set("iss", format!("{ISSUER}/").into()), "wrong_issuer"),
        (set("iss", "HTTPS://idp.example".into()), "wrong_issuer"),
        (set("iss", json!([ISSUER])), "claim_type"),
        (without("iss"), "claim_missing"),
        (set("aud", "other".into()), "wrong_audience"),
        (set("aud", json!([])), "wrong_audience"),
        (set("aud", "".into()), "wrong_audience"),
        (set("aud", json!([CLIENT, "other"])), "extra_audience"),
        (without("aud"), "claim_missing"),
        (set("azp", "other".into()), "wrong_azp"),
        (
            both(set("aud", json!([CLIENT, CLIENT])), without("azp")),
            "no_azp",
        ),
        (set("azp", json!(7)), "claim_type"),
        (without("sub"), "claim_missing"),
        (set("sub", "".into()), "claim_type"),
        (set("exp", (NOW - 61).into()), "expired"),
        (set("exp", (NOW - 60).into()), "expired"),
        (set("exp", "2000000000".into()), "claim_type"),
        (set("exp", (-1).into()), "claim_type"),
        (without("exp"), "claim_missing"),
        (set("nbf", (NOW + 61).into()), "not_yet_valid"),
        (set("nbf", "0".into()), "claim_type"),
        (set("iat", (NOW + 61).into()), "issued_in_future"),
        (set("iat", (NOW - 661).into()), "too_old"),
        (without("iat"), "claim_missing"),
        (set("nonce", "another".into()), "wrong_nonce"),
        (set("nonce", "our nonc".into()), "wrong_nonce"),
        (without("nonce"), "wrong_nonce"),
        (set("nonce", json!(1)), "claim_type"),
        (
            set("at_hash", hash("another access token").into()),
            "wrong_at_hash",
        ),
        (set("at_hash", "".into()), "wrong_at_hash"),
        (set("typ", "Bearer".into()), "wrong_type"),
        (set("typ", "Refresh".into()), "wrong_type"),
        (
            set(
                "events",
                json!({"http://schemas.openid.net/event/backchannel-logout": {}}),
            ),
            "wrong_type",
        ),
    ];
    for (lie, code) in cases {
        let claims = with(lie);
        assert_refused(
            check(&rsa().token(&claims), &expected()),
            code,
            &claims.to_string(),
        );
    }
}

#[test]
fn the_clocks_may_differ_by_a_minute_and_no_more() {
    for (name, at_the_limit) in [
        ("exp", NOW - 59),
        ("nbf", NOW + 60),
        ("iat", NOW + 60),
        ("iat", NOW - 660),
    ] {
        let claims = with(|claims| claims[name] = at_the_limit.into());
        check(&rsa().token(&claims), &expected())
            .unwrap_or_else(|error| panic!("{name} {at_the_limit}: {error}"));
    }
}

#[test]
fn what_is_honest_though_unusual_is_believed() {
    let hash =
        b64(&aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, ACCESS_TOKEN.as_bytes()).as_ref()[..16]);
    for claims in [
        with(|claims| claims["azp"] = CLIENT.into()),
        with(|claims| claims["aud"] = json!([CLIENT])),
        with(|claims| claims["at_hash"] = hash.clone().into()),
        with(|claims| claims["typ"] = "ID".into()),
        with(|claims| claims["email"] = Value::Null),
        with(|claims| claims["exp"] = json!(1_800_000_300.5)),
    ] {
        check(&rsa().token(&claims), &expected()).unwrap_or_else(|error| panic!("{claims}: {error}"));
    }
    let trusted = ["api".to_owned()];
    let several = with(|claims| {
        claims["aud"] = json!(["api", CLIENT]);
        claims["azp"] = CLIENT.into();
    });
    check(
        &rsa().token(&several),
        &Expectation {
            trusted_audiences: &trusted,
            ..expected()
        },
    )
    .unwrap();
}

#[test]
fn a_lie_in_the_header_is_refused_by_its_own_reason() {
    let jwk = rsa().jwk();
    let payload = claims().to_string();
    let header = |change: fn(&mut Value)| {
        let mut header = rsa().header();
        change(&mut header);
        header.to_string()
    };
    let cases: Vec<(String, &str)> = vec![
        (header(|header| header["alg"] = "none".into()), "alg_none"),
        (header(|header| header["alg"] = "None".into()), "alg_none"),
        (header(|header| header["alg"] = "HS256".into()), "alg_symmetric"),
        (header(|header| header["alg"] = "ES256K".into()), "alg_unknown"),
        (header(|header| header["alg"] = "ES256".into()), "alg_mismatch"),
        (header(|header| header["alg"] = "PS256".into()), "alg_mismatch"),
        (header(|header| header["kid"] = "rsa-9".into()), "unknown_key"),
        (
            header(|header| header["kid"] = "../../etc/passwd".into()),
            "unknown_key",
        ),
        (header(|header| header["kid"] = json!({})), "bad_header"),
        (
            header(|header| header["crit"] = json!(["b64"])),
            "critical_header",
        ),
        (header(|header| header["typ"] = "at+jwt".into()), "wrong_type"),
        (
            header(|header| header["typ"] = "application/at+jwt".into()),
            "wrong_type",
        ),
        (header(|header| header["typ"] = "dpop+jwt".into()), "wrong_type"),
        (header(|header| header["typ"] = "logout+jwt".into()), "wrong_type"),
        (
            "{\"alg\":\"RS256\",\"kid\":\"rsa-1\",\"kid\":\"rsa-1\"}".to_owned(),
            "duplicate_header",
        ),
    ];
    for (header, code) in cases {
        assert_refused(
            check(&rsa().token_with(&header, &payload), &expected()),
            code,
            &header,
        );
    }
    // A key of the liar's own, offered in the header, is not even looked at.
    let mut header = json!({"alg": "RS256", "kid": "rsa-1", "jku": "https://evil.example/keys"});
    header["jwk"] = other_rsa().jwk();
    assert_refused(
        check(
            &other_rsa().token_with(&header.to_string(), &payload),
            &expected(),
        ),
        "bad_signature",
        "a key in the header",
    );
    assert!(jwk.is_object());
}

#[test]
fn the_public_key_is_no_shared_secret() {
    use aws_lc_rs::hmac;
    let public = rsa().jwk()["n"].as_str().unwrap().to_owned();
    for name in ["HS256", "HS384", "HS512"] {
        let signed = format!(
            "{}.{}",
            b64(json!({"alg": name, "kid": "rsa-1"}).to_string()),
            b64(claims().to_string())
        );
        let tag = hmac::sign(
            &hmac::Key::new(hmac::HMAC_SHA256, public.as_bytes()),
            signed.as_bytes(),
        );
        assert_refused(
            check(&format!("{signed}.{}", b64(tag)), &expected()),
            "alg_symmetric",
            name,
        );
    }
}

#[test]
fn a_changed_token_is_refused() {
    let token = rsa().token(&claims());
    let (head, signature) = token.rsplit_once('.').unwrap();
    let (header, _) = head.split_once('.').unwrap();
    let richer = b64(with(|claims| claims["sub"] = "root".into()).to_string());
    let cases = [
        (format!("{header}.{richer}.{signature}"), "bad_signature"),
        (format!("{head}."), "bad_signature"),
        (format!("{head}.{}", b64([0; 256])), "bad_signature"),
        (format!("{head}.{}", b64([0xff; 256])), "bad_signature"),
        (format!("{head}.{}", b64([1; 9000])), "bad_signature"),
        (
            other_rsa().token_with(&rsa().header().to_string(), &claims().to_string()),
            "bad_signature",
        ),
        (format!("{token}.x"), "malformed"),
        (format!("{token}="), "malformed"),
        (format!("{header}.{richer}"), "malformed"),
        (format!("{token}.{token}").replacen('.', "", 1), "encrypted"),
        (rsa().token_with(&rsa().header().to_string(), "[]"), "bad_claims"),
        (
            rsa().token_with(&rsa().header().to_string(), "\u{0}"),
            "bad_claims",
        ),
        (
            rsa().token_with(
                &rsa().header().to_string(),
                &format!(
                    "{}{}",
                    &claims().to_string()[..claims().to_string().len() - 1],
                    ",\"sub\":\"root\"}"
                ),
            ),
            "duplicate_claim",
        ),
        ("x".repeat(70_000), "too_long"),
        (String::new(), "malformed"),
    ];
    for (token, code) in cases {
        assert_refused(check(&token, &expected()), code, &token[..token.len().min(60)]);
    }
    check(&format!("\n {token}\r\n"), &expected()).unwrap();
}

#[test]
fn keys_that_are_not_for_this_are_not_used() {
    let token = rsa().token(&claims());
    let change = |change: fn(&mut Value)| {
        let mut jwk = rsa().jwk();
        change(&mut jwk);
        jwk
    };
    let short = |jwk: &mut Value| jwk["n"] = b64([0xff; 128]).into();
    let cases: Vec<(Vec<Value>, &str)> = vec![
        (vec![], "unknown_key"),
        (vec![change(|jwk| jwk["use"] = "enc".into())], "unknown_key"),
        (
            vec![change(|jwk| jwk["key_ops"] = json!(["encrypt"]))],
            "unknown_key",
        ),
        (vec![change(|jwk| jwk["alg"] = "RSA-OAEP".into())], "unknown_key"),
        (vec![change(|jwk| jwk["alg"] = "RS512".into())], "alg_mismatch"),
        (vec![change(|jwk| jwk["kty"] = "oct".into())], "unknown_key"),
        (
            vec![json!({"kty": "oct", "kid": "rsa-1", "alg": "HS256", "k": "c2VjcmV0"})],
            "unknown_key",
        ),
        (
            vec![json!(7), json!({"kty": "RSA", "kid": "rsa-1"}), json!(null)],
            "unknown_key",
        ),
        (vec![rsa().jwk(), rsa().jwk()], "ambiguous_key"),
        (vec![change(short)], "weak_key"),
        (vec![change(|jwk| jwk["e"] = "AQ".into())], "weak_key"),
        (vec![change(|jwk| jwk["e"] = "AQAA".into())], "weak_key"),
        (
            vec![change(|jwk| jwk["n"] = b64([0xff; 2048]).into())],
            "weak_key",
        ),
    ];
    for (published, code) in cases {
        let set = KeySet::parse(key_set(&published).as_bytes()).unwrap();
        assert_refused(
            verify(token.as_bytes(), &set, &expected(), NOW),
            code,
            &key_set(&published),
        );
    }
    let fine = [
        change(|jwk| jwk["key_ops"] = json!(["verify"])),
        change(|jwk| drop(jwk.as_object_mut().unwrap().remove("use"))),
    ];
    for jwk in fine {
        let junk = json!({"kty": "future", "kid": "x"});
        let set = KeySet::parse(key_set(&[junk, jwk]).as_bytes()).unwrap();
        verify(token.as_bytes(), &set, &expected(), NOW).unwrap();
    }
}

#[test]
fn a_token_without_a_key_id_needs_a_provider_with_one_key() {
    let token = rsa().token_with(r#"{"alg":"RS256"}"#, &claims().to_string());
    let verify_with = |published: &[Value]| {
        let set = KeySet::parse(key_set(published).as_bytes()).unwrap();
        verify(token.as_bytes(), &set, &expected(), NOW)
    };
    verify_with(&[rsa().jwk(), SigningKey::p256("p").jwk()]).unwrap();
    assert_refused(
        verify_with(&[rsa().jwk(), other_rsa().jwk()]),
        "ambiguous_key",
        "two RSA keys",
    );
    assert_refused(
        verify_with(&[SigningKey::p256("p").jwk()]),
        "unknown_key",
        "no RSA key",
    );
}

#[test]
fn only_what_the_provider_lists_is_accepted() {
    let only_es256 = [Algorithm::ES256];
    let expected = Expectation {
        algorithms: &only_es256,
        ..expected()
    };
    assert_refused(
        check(&rsa().token(&claims()), &expected),
        "alg_not_offered",
        "RS256",
    );
}

#[test]
fn a_refreshed_token_is_for_the_same_person_and_login() {
    let previous = Previous {
        subject: "alice-1".into(),
        auth_time: Some(NOW - 5000),
        nonce: Some("our nonce".into()),
    };
    let expected = Expectation {
        nonce: None,
        issued_within: None,
        previous: Some(&previous),
        ..expected()
    };
    let login = |subject: &str, time: Value| {
        with(|claims| {
            claims["sub"] = subject.into();
            claims["auth_time"] = time.clone();
        })
    };
    check(&rsa().token(&login("alice-1", (NOW - 5000).into())), &expected).unwrap();
    check(&rsa().token(&claims()), &expected).unwrap();
    for (claims, code) in [
        (login("mallory", (NOW - 5000).into()), "identity_changed"),
        (login("alice-1", NOW.into()), "identity_changed"),
        (
            with(|claims| claims["nonce"] = "another".into()),
            "identity_changed",
        ),
    ] {
        assert_refused(check(&rsa().token(&claims), &expected), code, &claims.to_string());
    }
}

#[test]
fn a_login_that_must_be_recent_says_when_it_was() {
    let expected = Expectation {
        max_age: Some(100),
        ..expected()
    };
    let login = |time: u64| with(|claims| claims["auth_time"] = time.into());
    check(&rsa().token(&login(NOW - 160)), &expected).unwrap();
    assert_refused(
        check(&rsa().token(&login(NOW - 161)), &expected),
        "login_too_old",
        "161 s ago",
    );
    assert_refused(
        check(&rsa().token(&claims()), &expected),
        "claim_missing",
        "no auth_time",
    );
}

#[test]
fn a_key_set_is_bounded() {
    let key = SigningKey::ed25519("k").jwk();
    let hundred: Vec<Value> = (0..100)
        .map(|n| json!({"kty": "OKP", "crv": "Ed25519", "kid": n.to_string(), "x": key["x"]}))
        .collect();
    assert_eq!(KeySet::parse(key_set(&hundred).as_bytes()).unwrap().len(), 100);
    let more = [hundred, vec![key]].concat();
    assert!(
        KeySet::parse(key_set(&more).as_bytes())
            .unwrap_err()
            .to_string()
            .contains("101 keys")
    );
    for bad in ["{}", "[]", "{\"keys\":{}}", "{\"keys\":[],\"keys\":[]}", ""] {
        assert!(KeySet::parse(bad.as_bytes()).is_err(), "{bad}");
    }
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(2000))]

    /// Whatever single byte changes, it is another token, and nobody signed that one.
    #[test]
    fn no_changed_byte_is_believed(position in 0_usize..10_000, byte in proptest::prelude::any::<u8>()) {
        let token = SIGNED.as_bytes();
        let mut changed = token.to_vec();
        let position = position % token.len();
        changed[position] = byte;
        // White space at an end is forgiven, and leaves a shorter token: that one must be refused, too.
        if changed != token {
            proptest::prop_assert!(verify(&changed, &keys(), &expected(), NOW).is_err());
        }
    }
}

static SIGNED: std::sync::LazyLock<String> = std::sync::LazyLock::new(|| rsa().token(&claims()));
