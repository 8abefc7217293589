//! What policy decided, and the CA's own limits that it has to keep.
//!
//! A policy server that was taken over must not be able to make the CA's key sign whatever it likes: a certificate for
//! a year, for everybody, for a host. So everything it says is checked again, against limits that only the CA's
//! operator sets.

use crate::principal_pattern::PrincipalPattern;
use epithet_ssh::SubjectPublicKey;
use epithet_wire::limits::{CERTIFICATE_TTL_MAX, KEY_ID_MAX, OPTION_VALUE_MAX, PRINCIPALS_MAX};
use epithet_wire::policy::{CertParams, Grounds, PolicyResponse};
use epithet_wire::{KeyId, NameError, Principal, RequestId, check_network};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// The extensions that policy may ask for unless configured.
pub const ALLOWED_EXTENSIONS: [&str; 6] = [
    "permit-pty",
    "permit-agent-forwarding",
    "permit-user-rc",
    "permit-port-forwarding",
    "permit-X11-forwarding",
    "no-touch-required",
];
/// The critical options that policy may ask for. An sshd refuses a certificate with one it does not know.
pub const ALLOWED_CRITICAL_OPTIONS: [&str; 3] = ["force-command", "source-address", "verify-required"];
/// A yes from policy. Only [`PolicySource`](crate::PolicySource) makes one, so nothing is issued without its asking.
#[derive(Debug)]
#[must_use]
pub struct Decision(CertParams);

impl Decision {
    pub(crate) fn new(response: PolicyResponse) -> Self {
        Self(response.cert_params)
    }

    /// Whom policy takes the person for and which rule said yes, as far as policy told; within an audit line's limits.
    pub(crate) fn grounds(&self) -> Grounds {
        let params = &self.0;
        let grounds = Grounds {
            identity: params.identity.clone(),
            groups: params.groups.clone(),
            rule: params.rule.clone(),
            groups_left_out: params.groups_left_out,
            login: params.login.clone(),
        };
        grounds.within_limits()
    }

    /// The certificate's life as policy wants it, in seconds.
    pub(crate) fn ttl(&self) -> u64 {
        self.0.expiration().map_or(0, |life| life.as_secs())
    }
}

/// The CA's own limits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ceilings {
    /// The longest life of a certificate (`--max-ttl`); policy that asks for more gets this.
    pub max_ttl: Duration,
    /// The extensions that a certificate may have (`--allow-extension`).
    pub extensions: BTreeSet<String>,
    /// What policy may add to the user who was asked for (`--allow-principal`); nothing unless configured.
    pub principals: Vec<PrincipalPattern>,
    /// Whether the request's id follows the identity in the key id, as ` req=0123456789abcdef`, so that it stands in
    /// sshd's log too. Off unless set: hosts with an `AuthorizedPrincipalsCommand` may compare the key id.
    pub request_in_key_id: bool,
}

impl Default for Ceilings {
    fn default() -> Self {
        Self {
            max_ttl: CERTIFICATE_TTL_MAX,
            extensions: ALLOWED_EXTENSIONS.iter().map(|name| (*name).to_owned()).collect(),
            principals: Vec::new(),
            request_in_key_id: false,
        }
    }
}

/// Why a decision does not become a certificate. But for [`Self::TokenExpired`] and [`Self::NotFido`] these are the policy server's mistakes,
/// or an attack on it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecisionError {
    /// The token ended before the certificate began.
    #[error("the token has expired")]
    TokenExpired,
    /// The identity cannot be a key id.
    #[error("policy named an identity that cannot be a key id: {0}")]
    Identity(NameError),
    /// No principal, which older sshd take for everybody (CVE-2024-7594), or far too many.
    #[error("policy named {0} principals; 1 to {PRINCIPALS_MAX} are allowed")]
    PrincipalCount(usize),
    /// A principal that is no user name.
    #[error("policy named a principal that is none: {0}")]
    Principal(NameError),
    /// One twice.
    #[error("policy named a principal twice")]
    DuplicatePrincipal,
    /// Principals for somebody else's login.
    #[error("policy named principals without the user who was asked for")]
    NotTheUser,
    /// One beside the user that this CA was not told to expect.
    #[error("policy added the principal {0}, which this CA does not allow (--allow-principal)")]
    PrincipalNotAllowed(Principal),
    /// No life, or a negative one.
    #[error("policy gave the certificate no time to live")]
    NoLifetime,
    /// Not on the list.
    #[error("policy asked for the extension {0:?}, which this CA does not allow (--allow-extension)")]
    Extension(String),
    /// Not on the list.
    #[error("policy asked for the critical option {0:?}, which this CA does not know")]
    CriticalOption(String),
    /// An option that sshd keeps for FIDO keys alone, and lets pass for all others: the certificate would promise what
    /// nobody asks for (`PROTOCOL.u2f`).
    #[error(
        "policy wants a PIN or a fingerprint with each login (verify-required), which only a key in a FIDO token can prove; this one is {0}"
    )]
    NotFido(&'static str),
    /// An option with a value it cannot have.
    #[error("policy gave the option {0:?} a value that it cannot have")]
    OptionValue(String),
}

/// A decision within the limits, ready to be signed. Times are Unix seconds.
#[derive(Debug)]
pub(crate) struct Checked {
    pub(crate) key_id: KeyId,
    pub(crate) principals: Vec<Principal>,
    pub(crate) valid_before: u64,
    pub(crate) critical_options: BTreeMap<String, String>,
    pub(crate) extensions: BTreeMap<String, String>,
}

impl Checked {
    /// Whether a certificate for this key would mean what was decided.
    ///
    /// # Errors
    /// [`DecisionError::NotFido`].
    pub(crate) fn suits(&self, subject: &SubjectPublicKey) -> Result<(), DecisionError> {
        if self.critical_options.contains_key("verify-required") && !subject.is_fido() {
            return Err(DecisionError::NotFido(subject.algorithm()));
        }
        Ok(())
    }
}

impl Ceilings {
    /// Checks everything policy said for a login as `user`.
    pub(crate) fn check(
        &self,
        decision: Decision,
        user: &str,
        request_id: &RequestId,
        now: u64,
    ) -> Result<Checked, DecisionError> {
        let params = decision.0;
        let key_id = self
            .key_id(&params.identity, request_id)
            .map_err(DecisionError::Identity)?;
        let principals = principals(&params.principals, user)?;
        let allowed = |name: &Principal| self.principals.iter().any(|pattern| pattern.matches(name));
        let added = |name: &&Principal| name.as_str() != user;
        if let Some(wrong) = principals.iter().filter(added).find(|name| !allowed(name)) {
            return Err(DecisionError::PrincipalNotAllowed(wrong.clone()));
        }
        let valid_before = self.valid_before(&params, now)?;
        check_options(&params.critical_options, |name| {
            ALLOWED_CRITICAL_OPTIONS.contains(&name)
        })
        .map_err(|wrong| wrong.unwrap_or_else(DecisionError::CriticalOption))?;
        check_options(&params.extensions, |name| self.extensions.contains(name))
            .map_err(|wrong| wrong.unwrap_or_else(DecisionError::Extension))?;
        Ok(Checked {
            key_id,
            principals,
            valid_before,
            critical_options: params.critical_options,
            extensions: params.extensions,
        })
    }

    fn key_id(&self, identity: &str, request_id: &RequestId) -> Result<KeyId, NameError> {
        let identity = KeyId::parse(identity)?;
        if !self.request_in_key_id {
            return Ok(identity);
        }
        let suffix = format!(" req={request_id}");
        let kept = identity.as_str().len().min(KEY_ID_MAX - suffix.len());
        KeyId::parse(&format!("{}{suffix}", &identity.as_str()[..kept]))
    }

    /// The first of: what policy asked for, the end of the token, and the CA's own ceiling.
    fn valid_before(&self, params: &CertParams, now: u64) -> Result<u64, DecisionError> {
        let life = params
            .expiration()
            .map_or(0, |life| life.as_secs())
            .min(self.max_ttl.as_secs());
        if life == 0 {
            return Err(DecisionError::NoLifetime);
        }
        let end = now.saturating_add(life);
        let token_end = params
            .not_after
            .map(|end| u64::try_from(end.as_second()).unwrap_or(0));
        match token_end {
            Some(token_end) if token_end <= now => Err(DecisionError::TokenExpired),
            Some(token_end) => Ok(end.min(token_end)),
            None => Ok(end),
        }
    }
}

fn principals(names: &[String], user: &str) -> Result<Vec<Principal>, DecisionError> {
    if names.is_empty() || names.len() > PRINCIPALS_MAX {
        return Err(DecisionError::PrincipalCount(names.len()));
    }
    let principals: Vec<Principal> = names
        .iter()
        .map(|name| Principal::parse(name))
        .collect::<Result<_, _>>()
        .map_err(DecisionError::Principal)?;
    let distinct: BTreeSet<_> = principals.iter().collect();
    if distinct.len() != principals.len() {
        return Err(DecisionError::DuplicatePrincipal);
    }
    if principals.iter().all(|principal| principal.as_str() != user) {
        return Err(DecisionError::NotTheUser);
    }
    Ok(principals)
}

/// Looks for an option that is not allowed (`Err(Err(name))`) or has a wrong value.
fn check_options(
    options: &BTreeMap<String, String>,
    allowed: impl Fn(&str) -> bool,
) -> Result<(), Result<DecisionError, String>> {
    for (name, value) in options {
        let shown = || epithet_wire::display::sanitize_line(name, 64);
        if !allowed(name) {
            return Err(Err(shown()));
        }
        let is_right = match name.as_str() {
            "force-command" => !value.trim().is_empty() && !value.contains(char::is_control),
            "source-address" => value.split(',').all(|network| check_network(network).is_ok()),
            // Every other option this CA knows is a flag; one with a domain of its own may have a value.
            name => value.is_empty() || name.contains('@') && !value.contains(char::is_control),
        };
        if !is_right || value.len() > OPTION_VALUE_MAX {
            return Err(Ok(DecisionError::OptionValue(shown())));
        }
    }
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use jiff::Timestamp;

    const NOW: u64 = 1_767_225_600;

    pub(crate) fn good() -> CertParams {
        CertParams {
            identity: "alice@example.com".into(),
            principals: vec!["root".into()],
            expiration_ns: 300_000_000_000,
            extensions: [("permit-pty".to_owned(), String::new())].into(),
            ..CertParams::default()
        }
    }

    fn check(params: CertParams) -> Result<Checked, DecisionError> {
        let decision = Decision::new(PolicyResponse { cert_params: params });
        Ceilings::default().check(decision, "root", &RequestId::from_random([1; 8]), NOW)
    }

    fn life(expiration_ns: i64, not_after: Option<u64>) -> Result<u64, DecisionError> {
        let not_after = not_after.map(|end| Timestamp::from_second(end.cast_signed()).unwrap());
        check(CertParams {
            expiration_ns,
            not_after,
            ..good()
        })
        .map(|checked| checked.valid_before - NOW)
    }

    #[test]
    fn a_certificate_ends_with_the_first_of_three_ends() {
        const S: i64 = 1_000_000_000;
        for (expiration, not_after, expected) in [
            (300 * S, None, Ok(300)),
            (600 * S, None, Ok(600)),
            (601 * S, None, Ok(600)),
            (315_360_000 * S, None, Ok(600)),
            (i64::MAX, None, Ok(600)),
            (300 * S, Some(NOW + 100), Ok(100)),
            (300 * S, Some(NOW + 900), Ok(300)),
            (300 * S, Some(NOW + 1), Ok(1)),
            (300 * S, Some(NOW), Err(DecisionError::TokenExpired)),
            (300 * S, Some(NOW - 1), Err(DecisionError::TokenExpired)),
            (300 * S, Some(0), Err(DecisionError::TokenExpired)),
            (0, None, Err(DecisionError::NoLifetime)),
            (-1, None, Err(DecisionError::NoLifetime)),
            (i64::MIN, None, Err(DecisionError::NoLifetime)),
            (S - 1, None, Err(DecisionError::NoLifetime)),
        ] {
            assert_eq!(
                life(expiration, not_after),
                expected,
                "{expiration} {not_after:?}"
            );
        }
    }

    #[test]
    fn principals_are_names_and_the_user_is_among_them() {
        let many = |count: usize| -> Vec<String> {
            std::iter::once("root".to_owned())
                .chain((1..count).map(|n| format!("u{n}")))
                .collect()
        };
        let adding = |principals: Vec<String>, allowed: &[&str]| {
            let ceilings = Ceilings {
                principals: allowed.iter().map(|text| text.parse().unwrap()).collect(),
                ..Ceilings::default()
            };
            let decision = Decision::new(PolicyResponse {
                cert_params: CertParams { principals, ..good() },
            });
            let id = RequestId::from_random([1; 8]);
            ceilings
                .check(decision, "root", &id, NOW)
                .map(|checked| checked.principals.len())
        };
        assert_eq!(adding(many(1), &[]), Ok(1));
        assert_eq!(adding(many(16), &["u*"]), Ok(16));
        assert_eq!(adding(many(16), &["u1", "u?", "u1?"]), Ok(16));
        let group = || vec!["root".to_owned(), "prod-root".to_owned()];
        assert_eq!(adding(group(), &["prod-*"]), Ok(2));
        for allowed in [&[][..], &["stage-*"], &["PROD-*"], &["prod-"], &["prod-roo"]] {
            let error = adding(group(), allowed).unwrap_err();
            assert!(matches!(error, DecisionError::PrincipalNotAllowed(_)), "{error}");
        }
        // What may be added is not enough: the user has to be there.
        assert_eq!(
            adding(vec!["prod-root".into()], &["prod-*"]),
            Err(DecisionError::NotTheUser)
        );
        for (principals, expected) in [
            (vec![], "named 0 principals"),
            (many(17), "named 17 principals"),
            (many(1000), "named 1000 principals"),
            (vec![String::new()], "is empty"),
            (vec!["*".into()], "must begin with"),
            (vec!["root,admin".into()], "must begin with"),
            (vec!["root\nadmin".into()], "must begin with"),
            (vec!["ro\"ot".into()], "must begin with"),
            (vec!["r\u{f6}\u{f6}t".into()], "must begin with"),
            (vec!["u".repeat(129)], "129 bytes"),
            (vec!["root".into(), "root".into()], "twice"),
            (vec!["admin".into()], "without the user"),
            (vec!["Root".into()], "without the user"),
        ] {
            let error = check(CertParams { principals, ..good() })
                .unwrap_err()
                .to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn identities_are_one_printable_line() {
        for (identity, fine) in [
            ("alice".to_owned(), true),
            ("a".repeat(512), true),
            ("a".repeat(513), false),
            (String::new(), false),
            ("a\nb".to_owned(), false),
            ("\u{e4}lice".to_owned(), false),
        ] {
            assert_eq!(
                check(CertParams {
                    identity: identity.clone(),
                    ..good()
                })
                .is_ok(),
                fine,
                "{identity}"
            );
        }
        let with_request = Ceilings {
            request_in_key_id: true,
            ..Ceilings::default()
        };
        for identity in ["alice".to_owned(), "a".repeat(512)] {
            let key_id = with_request
                .key_id(&identity, &RequestId::from_random([1; 8]))
                .unwrap();
            assert!(key_id.as_str().ends_with(" req=0101010101010101") && key_id.as_str().starts_with('a'));
        }
    }

    #[test]
    fn only_known_options_with_values_they_can_have_are_signed() {
        let one = |name: &str, value: &str| BTreeMap::from([(name.to_owned(), value.to_owned())]);
        for (name, value, fine) in [
            ("force-command", "/bin/true", true),
            ("force-command", "", false),
            ("force-command", "a\nb", false),
            ("source-address", "10.0.0.0/8,2001:db8::/32,192.0.2.1", true),
            ("source-address", "10.0.0.0/33", false),
            // sshd refuses everybody for these.
            ("source-address", "127.0.0.1/8", false),
            ("source-address", "127.0.0.0/+8", false),
            ("source-address", "127.0.0.1,10.0.0.1/8", false),
            ("source-address", "::ffff:127.0.0.1", false),
            ("force-command", "  ", false),
            ("source-address", "*", false),
            ("source-address", "", false),
            ("verify-required", "", true),
            ("verify-required", "no", false),
            ("permit-pty", "", false),
            ("unknown@example.com", "", false),
            ("", "", false),
        ] {
            let result = check(CertParams {
                critical_options: one(name, value),
                ..good()
            });
            assert_eq!(result.is_ok(), fine, "{name}={value}: {result:?}");
        }
        for name in ALLOWED_EXTENSIONS {
            assert!(
                check(CertParams {
                    extensions: one(name, ""),
                    ..good()
                })
                .is_ok()
            );
            assert!(
                check(CertParams {
                    extensions: one(name, "x"),
                    ..good()
                })
                .is_err()
            );
        }
        for name in [
            "force-command",
            "permit-everything",
            "Permit-Pty",
            "",
            "permit-pty\n",
        ] {
            let error = check(CertParams {
                extensions: one(name, ""),
                ..good()
            })
            .unwrap_err();
            assert!(matches!(error, DecisionError::Extension(_)), "{error}");
        }
        assert!(
            check(CertParams {
                extensions: BTreeMap::new(),
                ..good()
            })
            .is_ok()
        );
    }
}
