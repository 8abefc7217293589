//! Who tokens of a real provider are taken for, and what their claims open.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use epithet_devidp::{DevProvider, Settings};
use epithet_policy::{Document, Policy, Refusal};
use epithet_wire::policy::CertParams;
use epithet_wire::{ConnectionFields, Token};
use serde_json::{Value, json};
use std::sync::Arc;

fn provider() -> DevProvider {
    DevProvider::start(Settings::default()).unwrap()
}

fn now() -> u64 {
    epithet_oidc::clock::unix_now()
}

/// A policy with one issuer, whose entry has more keys.
fn policy(provider: &DevProvider, keys: &str, rules: &str) -> Policy {
    let issuer = provider.issuer();
    let text = format!("oidc: {{issuer: '{issuer}', client-id: epithet{keys}}}\n{rules}");
    Policy::new(
        &Document::from_yaml("policy.yaml", &text).unwrap(),
        Arc::default(),
    )
    .unwrap()
}

async fn decide(policy: &Policy, token: String, login: &str) -> Result<CertParams, Refusal> {
    let (user, host) = login.split_once('@').unwrap();
    let connection: ConnectionFields =
        serde_json::from_value(json!({"remoteHost": host, "remoteUser": user})).unwrap();
    let token = Token::new(token.into_bytes()).unwrap();
    policy
        .decide(&token, &connection)
        .await
        .map(|response| response.cert_params)
}

#[tokio::test]
async fn an_address_names_somebody_only_when_the_provider_says_so() {
    const RULES: &str =
        "users: {alice@example.com: [admin], s-1: [eng]}\nhosts: {h: {allow: {root: [admin], ops: [eng]}}}\n";
    let provider = provider();
    let (by_default, by_email, by_sub) = (
        policy(&provider, "", RULES),
        policy(&provider, ", identity-claim: email", RULES),
        policy(&provider, ", identity-claim: sub", RULES),
    );
    for (verified, counts) in [
        (json!(true), true),
        (json!("true"), true),
        (json!(false), false),
        (json!("false"), false),
        (json!("True"), false),
        (json!(1), false),
        (Value::Null, false),
    ] {
        let token = || {
            let claims = json!({"email": "alice@example.com", "email_verified": verified});
            provider.mint_id_token("s-1", &claims)
        };
        assert_eq!(
            decide(&by_default, token(), "root@h").await.is_ok(),
            counts,
            "{verified}"
        );
        // Nobody vouches, so it is the subject that asks.
        assert_eq!(
            decide(&by_default, token(), "ops@h").await.is_ok(),
            !counts,
            "{verified}"
        );
        let refused = decide(&by_email, token(), "root@h").await;
        assert_eq!(refused.is_ok(), counts, "{verified}");
        if let Err(refused) = refused {
            assert_eq!(refused.status, 403);
            assert!(refused.message.contains("email_verified"), "{}", refused.message);
        }
        assert!(decide(&by_sub, token(), "ops@h").await.is_ok(), "{verified}");
    }
}

#[tokio::test]
async fn groups_open_what_they_are_given_wherever_the_provider_puts_them() {
    const RULES: &str = "groups: {'My Team': [team], /staff: [staff]}\nhosts: {h: {allow: {root: [team]}, deny: {root: [staff]}}}\n";
    let provider = provider();
    for (claim, claims) in [
        ("groups", json!({"groups": ["other", "My Team"]})),
        ("groups", json!({"groups": "My Team"})),
        (
            "realm_access.roles",
            json!({"realm_access": {"roles": ["My Team"]}}),
        ),
        (
            "resource_access.ssh.ca.roles",
            json!({"resource_access": {"ssh.ca": {"roles": ["My Team"]}}}),
        ),
        (
            "https://example.com/groups",
            json!({"https://example.com/groups": ["My Team"]}),
        ),
    ] {
        let policy = policy(&provider, &format!(", groups-claim: '{claim}'"), RULES);
        let allowed = decide(&policy, provider.mint_id_token("eve", &claims), "root@h")
            .await
            .unwrap();
        assert_eq!(allowed.groups, ["My Team"], "only those that the rules know");
        assert_eq!(allowed.rule.as_deref(), Some("h"));
        let nobody = decide(&policy, provider.mint_id_token("eve", &json!({})), "root@h")
            .await
            .unwrap_err();
        assert_eq!(
            nobody.message,
            "User eve@example.com not in users list, and the token lists no groups"
        );
    }
    let policy = policy(&provider, ", groups-claim: groups", RULES);
    let token = provider.mint_id_token("eve", &json!({"groups": ["/staff", "My Team", "x"]}));
    let refused = decide(&policy, token, "root@h").await.unwrap_err();
    let grounds = refused.grounds.unwrap();
    assert_eq!(
        (grounds.identity.as_str(), grounds.rule.as_deref()),
        ("eve@example.com", Some("h"))
    );
    assert_eq!(grounds.groups, ["/staff", "My Team"]);
    // Groups that the provider left out, or that are none, could be the one that is denied.
    for claims in [
        json!({"_claim_names": {"groups": "src1"}, "_claim_sources": {"src1": {"endpoint": "https://graph"}}}),
        json!({"hasgroups": true}),
        json!({"hasgroups": true, "groups": null}),
        json!({"groups": {"My Team": true}}),
        json!({"groups": ["My Team", 7]}),
    ] {
        let refused = decide(&policy, provider.mint_id_token("eve", &claims), "root@h")
            .await
            .unwrap_err();
        assert_eq!(refused.status, 403, "{claims}");
        assert!(refused.message.contains("groups"), "{}", refused.message);
    }
}

#[tokio::test]
async fn groups_in_an_object_that_the_provider_left_out_are_a_loud_no() {
    const RULES: &str = "groups: {team: [team]}\nhosts: {h: {allow: {root: [team]}}}\n";
    let provider = provider();
    let policy = policy(&provider, ", groups-claim: realm_access.roles", RULES);
    for (claims, expected) in [
        (json!({"realm_access": {"roles": ["team"]}}), None),
        (
            json!({"_claim_names": {"realm_access": "src1"}}),
            Some("the provider left out \"realm_access.roles\""),
        ),
        (
            json!({"_claim_names": {"realm_access.roles": "src1"}}),
            Some("the provider left out \"realm_access.roles\""),
        ),
        (
            json!({"realm_access": {"roles": {"team": 1}}}),
            Some("is no list of groups"),
        ),
        (
            json!({"realm_access": {"other": ["team"]}}),
            Some("and the token lists no groups"),
        ),
        (
            json!({"realm_access": {"roles": ["staff"]}}),
            Some("and in no group that has tags"),
        ),
    ] {
        let decided = decide(&policy, provider.mint_id_token("eve", &claims), "root@h").await;
        match (decided, expected) {
            (Ok(_), None) => {}
            (Err(refused), Some(words)) => {
                assert_eq!(refused.status, 403, "{claims}");
                assert!(refused.message.contains(words), "{claims}: {}", refused.message);
            }
            (decided, _) => panic!("{claims}: {decided:?}"),
        }
    }
}

#[tokio::test]
async fn whoever_is_known_by_something_else_than_their_address_is_told_why() {
    let provider = provider();
    let policy = policy(
        &provider,
        "",
        "users: {alice@example.com: [admin]}\nhosts: {h: {allow: {root: [admin]}}}\n",
    );
    let claims = json!({"email": "alice@example.com", "email_verified": false});
    let refused = decide(&policy, provider.mint_id_token("s-1", &claims), "root@h")
        .await
        .unwrap_err();
    assert_eq!(
        refused.message,
        "User s-1 not in users list; the provider does not vouch for alice@example.com (email_verified), so it does not count"
    );
}

/// The same subject of two issuers is two people, however they are named.
#[tokio::test]
async fn issuers_that_share_a_subject_share_no_person() {
    let (one, other) = (provider(), provider());
    let rules = |second: &str, users: &str| {
        format!(
            "oidc:\n  - {{issuer: '{}', client-id: epithet, groups-claim: groups}}\n  - {{issuer: '{}', client-id: epithet, {second}}}\n\
             users: {{{users}}}\nhosts: {{h: {{allow: {{root: [t]}}}}}}\n",
            one.issuer(),
            other.issuer()
        )
    };
    // What the second issuer's entry says, who is in `users`, and who of the two gets in with the same claims.
    let vouched = json!({"email": "a@example.com", "email_verified": true, "sub": "s", "upn": "s"});
    let unvouched = json!({"email": "a@example.com", "email_verified": false, "sub": "s", "upn": "s"});
    for (second, users, claims, first_gets_in, second_gets_in) in [
        ("identity-prefix: 'b:'", "s: [t]", &unvouched, true, false),
        ("identity-prefix: 'b:'", "'b:s': [t]", &unvouched, false, true),
        (
            "identity-prefix: 'b:'",
            "a@example.com: [t]",
            &vouched,
            true,
            false,
        ),
        (
            "identity-prefix: 'b:'",
            "a@example.com: [t]",
            &unvouched,
            false,
            false,
        ),
        (
            "identity-prefix: 'b:'",
            "'b:a@example.com': [t]",
            &vouched,
            false,
            true,
        ),
        (
            "identity-prefix: 'b:', identity-claim: upn",
            "s: [t]",
            &vouched,
            false,
            false,
        ),
        (
            "identity-prefix: 'b:', identity-claim: upn",
            "'b:s': [t]",
            &vouched,
            false,
            true,
        ),
        (
            "identity-prefix: 'b:', identity-claim: email",
            "'b:a@example.com': [t]",
            &unvouched,
            false,
            false,
        ),
        // Said in so many words: whom the second one names are the same people.
        ("identity-prefix: ''", "s: [t]", &unvouched, true, true),
    ] {
        let text = rules(second, users);
        let policy = Policy::new(&Document::from_yaml("p", &text).unwrap(), Arc::default()).unwrap();
        for (issuer, gets_in) in [(&one, first_gets_in), (&other, second_gets_in)] {
            let decided = decide(&policy, issuer.mint_id_token("s", claims), "root@h").await;
            assert_eq!(decided.is_ok(), gets_in, "{second} {users} {claims}: {decided:?}");
        }
    }
}

#[tokio::test]
async fn a_rule_may_ask_how_somebody_logged_in() {
    const RULES: &str = "
users: {alice@example.com: [admin]}
defaults: {allow: {root: [admin]}}
hosts:
  '*': {}
  vault: {require: {acr: phr, amr: [hwk, otp], max-age: 15m}}
";
    let provider = provider();
    let policy = policy(&provider, "", RULES);
    let strong = json!({"acr": "phr", "amr": ["pwd", "otp"], "auth_time": now() - 60});
    let with = |claim: &str, value: Value| {
        let mut claims = strong.clone();
        claims[claim] = value;
        provider.mint_id_token("alice", &claims)
    };
    assert!(
        decide(&policy, with("x", Value::Null), "root@vault")
            .await
            .is_ok()
    );
    for (claim, value, why) in [
        ("acr", json!("pwd"), "it takes a login with acr phr; log in again"),
        ("acr", Value::Null, "acr phr"),
        ("amr", json!(["pwd"]), "amr hwk or otp"),
        ("auth_time", json!(now() - 1000), "of the last 15m"),
        ("auth_time", Value::Null, "of the last 15m"),
    ] {
        let refused = decide(&policy, with(claim, value.clone()), "root@vault")
            .await
            .unwrap_err();
        assert_eq!(refused.status, 403);
        assert!(
            refused.message.contains(why),
            "{claim} {value}: {}",
            refused.message
        );
        let grounds = refused.grounds.unwrap();
        assert_eq!(grounds.rule.as_deref(), Some("vault"));
        // For the audit log, from which it can be asked later.
        let login = grounds.login.unwrap();
        assert_eq!(
            (login.acr.is_some(), login.age.is_some()),
            (
                claim != "acr" || !value.is_null(),
                claim != "auth_time" || !value.is_null()
            )
        );
        assert!(
            decide(&policy, with(claim, value), "root@elsewhere")
                .await
                .is_ok()
        );
    }
}

#[tokio::test]
async fn no_issuer_can_give_names_that_belong_to_another() {
    let (people, machines) = (provider(), provider());
    let text = format!(
        "oidc:\n  - {{issuer: '{}', client-id: epithet, identity-claim: sub, groups-claim: groups}}\n  \
         - {{issuer: '{}', client-id: epithet, identity-claim: sub, groups-claim: groups, identity-prefix: 'ci:'}}\n\
         users: {{alice: [admin], 'ci:build': [deploy]}}\ngroups: {{sre: [admin], 'ci:sre': [deploy]}}\n\
         hosts: {{h: {{allow: {{root: [admin], deploy: [deploy]}}}}}}\n",
        people.issuer(),
        machines.issuer()
    );
    let policy = Policy::new(&Document::from_yaml("p", &text).unwrap(), Arc::default()).unwrap();
    for (issuer, subject, groups, login, allowed) in [
        (&people, "alice", json!([]), "root@h", true),
        (&machines, "alice", json!([]), "root@h", false),
        (&machines, "build", json!([]), "deploy@h", true),
        (&people, "build", json!([]), "deploy@h", false),
        (&people, "ci:build", json!([]), "deploy@h", false),
        (&people, "bob", json!(["sre"]), "root@h", true),
        (&machines, "bob", json!(["sre"]), "root@h", false),
        (&machines, "bob", json!(["sre"]), "deploy@h", true),
        (&people, "bob", json!(["ci:sre"]), "deploy@h", false),
    ] {
        let token = issuer.mint_id_token(subject, &json!({"sub": subject, "groups": groups}));
        let decided = decide(&policy, token, login).await;
        assert_eq!(
            decided.is_ok(),
            allowed,
            "{subject} {groups} {login}: {decided:?}"
        );
    }
    for (entries, expected) in [
        (
            "{issuer: 'https://b', client-id: c}",
            "https://b needs identity-prefix",
        ),
        (
            "{issuer: 'https://b', client-id: c, identity-prefix: 'x:'}, {issuer: 'https://c', client-id: c, identity-prefix: 'x:'}",
            "two issuers have the identity-prefix \"x:\"",
        ),
        (
            "{issuer: 'https://b', client-id: c, identity-prefix: 'x:', groups-prefix: g}, \
             {issuer: 'https://c', client-id: c, identity-prefix: 'y:', groups-prefix: g}",
            "two issuers have the groups-prefix \"g\"",
        ),
        (
            "{issuer: 'https://b', client-id: c, identity-prefix: \"\u{e4}:\"}",
            "oidc.identity-prefix",
        ),
    ] {
        let text = format!("oidc: [{{issuer: 'https://a', client-id: c}}, {entries}]\n");
        let error = Policy::new(&Document::from_yaml("p", &text).unwrap(), Arc::default()).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    }
}

#[tokio::test]
async fn principals_are_added_to_the_user_who_was_asked_for() {
    const RULES: &str = "
users: {alice@example.com: [admin]}
defaults: {allow: {root: [admin], deploy: [admin]}}
hosts:
  '*.example.com': {principals: {root: [prod-root], deploy: ['{user}@{host}']}}
  'fe80::1': {principals: ['x@{host}']}
";
    let provider = provider();
    let policy = policy(&provider, "", RULES);
    let token = || provider.mint_id_token("alice", &json!({}));
    for (login, expected) in [
        ("root@web.example.com", &["root", "prod-root"][..]),
        ("deploy@WEB.example.com", &["deploy", "deploy@web.example.com"]),
    ] {
        assert_eq!(
            decide(&policy, token(), login).await.unwrap().principals,
            expected
        );
    }
    let refused = decide(&policy, token(), "root@fe80::1").await.unwrap_err();
    assert!(
        refused.message.contains("cannot be made for this host"),
        "{}",
        refused.message
    );
}
