//! From a token's claims to the person the rules know.
//!
//! A provider that does not vouch for an address lets people claim anybody's, so `email` names a person only with
//! `email_verified`; epithet 0.19 believed it always. A provider that never sends `email_verified` (Entra ID does
//! not) needs `oidc.identity-claim`.
//!
//! What is there and cannot be read is never taken for absent: a group that went missing could be the one that a
//! rule denies.

use crate::decision::{Login, Person};
use epithet_oidc::Claims;
use epithet_wire::KeyId;
use serde_json::{Map, Value};

/// How a provider names people and their groups.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClaimNames {
    /// The claim that is a person's identity. `None`: `email` if the provider vouches for it, else `sub`.
    pub identity: Option<String>,
    /// The claim that lists a person's groups, if any; dots lead into objects (`realm_access.roles`).
    pub groups: Option<String>,
    /// What stands before every identity.
    pub identity_prefix: Prefix,
    /// What stands before every group.
    pub groups_prefix: Prefix,
}

/// What stands before the names of one issuer, so that they are told from those of another.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Prefix {
    own: String,
    /// Longer ones of other issuers: a name that begins with one of them is theirs to give.
    others: Vec<String>,
}

impl Prefix {
    /// The prefix of one issuer, among those of all.
    pub fn new(own: &str, all: &[&str]) -> Self {
        let others = all.iter().filter(|other| other.len() > own.len());
        Self {
            own: own.to_owned(),
            others: others.map(|other| (*other).to_owned()).collect(),
        }
    }

    fn name(&self, text: &str) -> Result<String, String> {
        let name = format!("{}{text}", self.own);
        match self.others.iter().find(|other| name.starts_with(other.as_str())) {
            None => Ok(name),
            Some(other) => Err(format!(
                "the name {name:?} begins with {other:?}, which another issuer's do"
            )),
        }
    }
}

impl ClaimNames {
    /// The person a token is about.
    ///
    /// # Errors
    /// In words, when the token does not say what must be known of a person.
    pub fn person(&self, claims: &Claims) -> Result<Person, String> {
        let identity = match self.identity.as_deref() {
            None => Some(claims.verified_email().unwrap_or(&claims.subject)),
            Some("email") => claims.verified_email(),
            Some("sub") => Some(claims.subject.as_str()),
            Some(claim) => claim_at(&claims.raw, claim).and_then(Value::as_str),
        };
        let identity = identity
            .filter(|identity| !identity.is_empty())
            .ok_or_else(|| self.missing())?;
        let identity = self.identity_prefix.name(identity)?;
        check_identity(&identity)?;
        let groups = match self.groups.as_deref() {
            Some(claim) => groups_at(&claims.raw, claim)?,
            None => Vec::new(),
        };
        let groups = groups.iter().map(|group| self.groups_prefix.name(group));
        Ok(Person {
            identity,
            groups: groups.collect::<Result<_, _>>()?,
            login: Login {
                acr: claims.acr.clone(),
                amr: claims.amr.clone(),
                at: claims.auth_time,
            },
            unverified_email: match self.identity {
                None => claims.email.clone().filter(|_| claims.verified_email().is_none()),
                Some(_) => None,
            },
        })
    }

    fn missing(&self) -> String {
        match self.identity.as_deref() {
            Some("email") => {
                "the token has no email that its provider vouches for (email_verified)".to_owned()
            }
            Some(claim) => format!("the token has no claim {claim:?}, by which this server knows people"),
            None => "the token names nobody".to_owned(),
        }
    }
}

/// An identity becomes the certificate's key id, so the CA would refuse any other.
pub(crate) fn check_identity(identity: &str) -> Result<(), String> {
    KeyId::parse(identity)
        .map(|_| ())
        .map_err(|error| format!("the identity {identity:?} cannot be the name of a certificate: {error}"))
}

/// A claim by its whole name (some have dots in them), else by its path, each step by the longest name that is there.
pub(crate) fn claim_at<'c>(claims: &'c Map<String, Value>, path: &str) -> Option<&'c Value> {
    if let Some(value) = claims.get(path) {
        return Some(value);
    }
    path.rmatch_indices('.').find_map(|(dot, _)| {
        let inner = claims.get(&path[..dot])?.as_object()?;
        claim_at(inner, &path[dot + 1..])
    })
}

/// The groups in a claim: a list of names, or one. Without the claim there are none.
///
/// # Errors
/// In words, when the provider left them out (Entra ID beyond 200 groups), or they are no names.
pub(crate) fn groups_at(claims: &Map<String, Value>, claim: &str) -> Result<Vec<String>, String> {
    // A path leads into a claim, and that one may be elsewhere as a whole.
    let mut outer = claim.match_indices('.').map(|(dot, _)| &claim[..dot]);
    let is_elsewhere = claims.get("_claim_names").is_some_and(|names| {
        names.get(claim).is_some()
            || outer.any(|outer| names.get(outer).is_some() && claim_at(claims, claim).is_none())
    });
    let is_hinted = claim == "groups"
        && claims.get(claim).is_none_or(Value::is_null)
        && claims
            .get("hasgroups")
            .is_some_and(|has| *has == true || has == "true");
    if is_elsewhere || is_hinted {
        tracing::error!(
            claim,
            "a login is refused: the provider left out the groups, because there are too many"
        );
        return Err(format!(
            "the provider left out {claim:?} because the person is in too many groups; have it send only those that \
             are assigned to this application, or app roles"
        ));
    }
    match claim_at(claims, claim) {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::String(one)) => Ok(vec![one.clone()]),
        Some(Value::Array(several)) => several
            .iter()
            .map(|one| one.as_str().map(str::to_owned))
            .collect::<Option<_>>()
            .ok_or_else(|| format!("the claim {claim:?} lists something that is no name of a group")),
        Some(_) => Err(format!("the claim {claim:?} is no list of groups")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn claims(extra: Value) -> Claims {
        let Value::Object(raw) = extra else {
            panic!("an object")
        };
        Claims {
            issuer: "https://i".into(),
            subject: "s1".into(),
            email: raw.get("email").and_then(Value::as_str).map(str::to_owned),
            email_verified: raw
                .get("email_verified")
                .is_some_and(|v| *v == true || *v == "true"),
            audience: vec!["c".into()],
            expires_at: 2,
            issued_at: 1,
            auth_time: None,
            acr: None,
            amr: vec![],
            raw,
        }
    }

    fn identity(claim: Option<&str>, token: Value) -> Option<String> {
        let names = ClaimNames {
            identity: claim.map(str::to_owned),
            ..ClaimNames::default()
        };
        names.person(&claims(token)).map(|person| person.identity).ok()
    }

    #[test]
    fn an_address_names_a_person_only_when_the_provider_vouches_for_it() {
        let verified = json!({"email": "a@b", "email_verified": true, "upn": "a@corp", "n": 1, "e": ""});
        let claimed = json!({"email": "a@b"});
        for (claim, token, expected) in [
            (None, &verified, Some("a@b")),
            (None, &claimed, Some("s1")),
            (Some("email"), &verified, Some("a@b")),
            (Some("email"), &claimed, None),
            (Some("sub"), &verified, Some("s1")),
            (Some("upn"), &verified, Some("a@corp")),
            (Some("upn"), &claimed, None),
            (Some("n"), &verified, None),
            (Some("e"), &verified, None),
        ] {
            assert_eq!(
                identity(claim, token.clone()).as_deref(),
                expected,
                "{claim:?} {token}"
            );
        }
    }

    /// What a real verifier makes of `email_verified` is in `tests/identities.rs`.
    #[test]
    fn an_identity_that_no_certificate_can_carry_is_refused_here() {
        for (name, fine) in [
            ("a".repeat(512), true),
            ("a".repeat(513), false),
            ("J\u{f6}rg".to_owned(), false),
            ("a\nb".to_owned(), false),
            ("a b".to_owned(), true),
        ] {
            assert_eq!(
                identity(Some("n"), json!({ "n": name })).is_some(),
                fine,
                "{name}"
            );
        }
    }

    #[test]
    fn groups_are_found_where_the_provider_puts_them_and_what_is_no_list_is_refused() {
        let token = json!({
            "groups": ["a b", "/b/c", "A"], "one": "c", "realm_access": {"roles": ["d"]}, "https://x.y/roles": ["e"],
            "resource_access": {"my.app": {"roles": ["f"]}, "my": {"app": {"other": ["g"]}}, "x": {"roles": ["h"]}},
            "mixed": ["a", 7], "map": {"a": true}, "number": 7, "none": null, "empty": []
        });
        for (claim, expected) in [
            ("groups", Ok(&["a b", "/b/c", "A"][..])),
            ("one", Ok(&["c"])),
            ("realm_access.roles", Ok(&["d"])),
            ("https://x.y/roles", Ok(&["e"])),
            ("resource_access.x.roles", Ok(&["h"])),
            ("resource_access.my.app.roles", Ok(&["f"])),
            ("resource_access.my.app.other", Ok(&["g"])),
            ("none", Ok(&[])),
            ("empty", Ok(&[])),
            ("none.at.all", Ok(&[])),
            ("one.two", Ok(&[])),
            (".", Ok(&[])),
            ("", Ok(&[])),
            ("mixed", Err("no name of a group")),
            ("map", Err("no list of groups")),
            ("number", Err("no list of groups")),
            ("realm_access", Err("no list of groups")),
        ] {
            let names = ClaimNames {
                groups: Some(claim.into()),
                ..ClaimNames::default()
            };
            match (names.person(&claims(token.clone())), expected) {
                (Ok(person), Ok(expected)) => assert_eq!(person.groups, expected, "{claim}"),
                (Err(found), Err(words)) => assert!(found.contains(words), "{claim}: {found}"),
                (found, _) => panic!("{claim}: {found:?}"),
            }
        }
    }

    #[test]
    fn groups_that_the_provider_left_out_are_a_loud_no() {
        for (claim, token, refused) in [
            (
                "groups",
                json!({"_claim_names": {"groups": "src1"}, "_claim_sources": {"src1": {}}}),
                true,
            ),
            (
                "groups",
                json!({"_claim_names": {"groups": "src1"}, "groups": ["a"]}),
                true,
            ),
            ("groups", json!({"hasgroups": true}), true),
            ("groups", json!({"hasgroups": "true"}), true),
            ("groups", json!({"hasgroups": false}), false),
            ("groups", json!({"hasgroups": true, "groups": ["a"]}), false),
            ("groups", json!({"hasgroups": true, "groups": null}), true),
            ("groups", json!({"hasgroups": true, "groups": []}), false),
            (
                "realm_access.roles",
                json!({"_claim_names": {"realm_access": "src1"}}),
                true,
            ),
            (
                "realm_access.roles",
                json!({"_claim_names": {"realm_access.roles": "src1"}}),
                true,
            ),
            (
                "realm_access.roles",
                json!({"_claim_names": {"realm_access": "src1"}, "realm_access": {"roles": ["a"]}}),
                false,
            ),
            (
                "https://x.y/groups",
                json!({"_claim_names": {"https://x": "src1"}}),
                true,
            ),
            ("groups", json!({"_claim_names": {"address": "src1"}}), false),
            ("groups", json!({"_claim_names": "groups"}), false),
            (
                "roles",
                json!({"_claim_names": {"groups": "src1"}, "hasgroups": true}),
                false,
            ),
        ] {
            let token = claims(token);
            let groups = groups_at(&token.raw, claim);
            assert_eq!(groups.is_err(), refused, "{claim} {:?}", token.raw);
            if let Err(why) = groups {
                assert!(why.contains("too many groups"), "{why}");
            }
        }
    }

    #[test]
    fn no_issuer_can_give_names_that_are_anothers() {
        let all = ["", "gh:", "gh:corp:"];
        for (own, name, expected) in [
            ("", "alice", Some("alice")),
            ("", "gh:alice", None),
            ("", "gh", Some("gh")),
            ("gh:", "alice", Some("gh:alice")),
            ("gh:", "corp:alice", None),
            ("gh:corp:", "alice", Some("gh:corp:alice")),
            ("gh:corp:", "gh:", Some("gh:corp:gh:")),
        ] {
            let names = ClaimNames {
                identity: Some("n".into()),
                groups: Some("n".into()),
                identity_prefix: Prefix::new(own, &all),
                groups_prefix: Prefix::default(),
            };
            let person = names.person(&claims(json!({ "n": name })));
            assert_eq!(
                person.ok().map(|person| person.identity).as_deref(),
                expected,
                "{own}{name}"
            );
            let names = ClaimNames {
                groups_prefix: names.identity_prefix,
                identity_prefix: Prefix::default(),
                ..names
            };
            let person = names.person(&claims(json!({ "n": name })));
            assert_eq!(
                person.ok().map(|person| person.groups.join("")).as_deref(),
                expected,
                "{own}{name}"
            );
        }
    }
}
