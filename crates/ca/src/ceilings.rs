//! What a certificate of this CA may say at most, whatever policy wants.

use epithet_wire::limits::{CERTIFICATE_TTL_MAX, PRINCIPALS_MAX};
use epithet_wire::policy::CertParams;
use epithet_wire::{KeyId, NameError, Principal, RequestId};
use std::collections::BTreeSet;
use std::time::Duration;

/// The shortest rest of a token's life that a certificate is issued for; below, logging in again is better.
const REST_MIN: i64 = 10;

/// The CA's own limits.
#[derive(Debug, Clone)]
pub struct Ceilings {
    /// No certificate lives longer.
    pub max_ttl: Duration,
    /// Extensions that policy may order.
    pub extensions: BTreeSet<String>,
    /// Critical options that policy may order.
    pub critical_options: BTreeSet<String>,
}

impl Default for Ceilings {
    fn default() -> Self {
        let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Self {
            max_ttl: CERTIFICATE_TTL_MAX,
            extensions: set(&[
                "permit-pty",
                "permit-user-rc",
                "permit-agent-forwarding",
                "permit-port-forwarding",
                "permit-X11-forwarding",
                "no-touch-required",
            ]),
            critical_options: set(&["force-command", "source-address", "verify-required"]),
        }
    }
}

/// What policy said that this CA does not do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Excess {
    /// The identity cannot be a key id.
    #[error("policy's identity cannot be a key id: {0}")]
    Identity(NameError),
    /// A principal that no sshd would read as one name.
    #[error("policy's principal is refused: {0}")]
    Principal(NameError),
    /// None, too many, or one twice.
    #[error("policy names {0} principals; 1 to {PRINCIPALS_MAX} different ones are allowed")]
    Principals(usize),
    /// The user asked for is not among them.
    #[error("policy's principals do not contain the user asked for, {0}")]
    OtherUser(Principal),
    /// Zero or less.
    #[error("policy's expiration must be positive")]
    Expiration,
    /// An extension that is not on the list.
    #[error("policy orders the extension {0:?}, which this CA does not allow")]
    Extension(String),
    /// A critical option that is not on the list.
    #[error("policy orders the critical option {0:?}, which this CA does not allow")]
    CriticalOption(String),
    /// The token that paid ends at once. Not policy's fault: the person should log in again.
    #[error("the token ends in less than {REST_MIN} s")]
    TokenEnds,
}

/// What survived the check, with times.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WithinCeilings {
    pub(crate) key_id: KeyId,
    pub(crate) principals: Vec<Principal>,
    pub(crate) valid_before: u64,
}

impl Ceilings {
    /// Checks every word of a decision at `now` (seconds since 1970) for `user`, and clamps its life.
    pub(crate) fn check(
        &self,
        params: &CertParams,
        user: &Principal,
        request_id: &RequestId,
        now: i64,
    ) -> Result<WithinCeilings, Excess> {
        KeyId::parse(&params.identity).map_err(Excess::Identity)?;
        let key_id =
            KeyId::parse(&format!("{} request={request_id}", params.identity)).map_err(Excess::Identity)?;
        let principals: Vec<_> = params
            .principals
            .iter()
            .map(|text| Principal::parse(text))
            .collect::<Result<_, _>>()
            .map_err(Excess::Principal)?;
        let different: BTreeSet<_> = principals.iter().collect();
        if different.len() != principals.len() || !(1..=PRINCIPALS_MAX).contains(&principals.len()) {
            return Err(Excess::Principals(principals.len()));
        }
        if !principals.contains(user) {
            return Err(Excess::OtherUser(user.clone()));
        }
        if let Some(name) = params
            .extensions
            .keys()
            .find(|name| !self.extensions.contains(*name))
        {
            return Err(Excess::Extension(name.clone()));
        }
        if let Some(name) = params
            .critical_options
            .keys()
            .find(|name| !self.critical_options.contains(*name))
        {
            return Err(Excess::CriticalOption(name.clone()));
        }
        let ttl = params.expiration().ok_or(Excess::Expiration)?.min(self.max_ttl);
        let ttl = i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX).max(1);
        let end = now.saturating_add(ttl);
        let end = match params.not_after {
            Some(not_after) if not_after.as_second() < now + REST_MIN => return Err(Excess::TokenEnds),
            Some(not_after) => end.min(not_after.as_second()),
            None => end,
        };
        let valid_before = u64::try_from(end).map_err(|_| Excess::Expiration)?;
        Ok(WithinCeilings {
            key_id,
            principals,
            valid_before,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::Timestamp;

    const NOW: i64 = 1_800_000_000;

    fn params() -> CertParams {
        CertParams {
            identity: "alice@example.com".into(),
            principals: vec!["root".into()],
            expiration_ns: 300_000_000_000,
            extensions: [("permit-pty".to_owned(), String::new())].into(),
            ..CertParams::default()
        }
    }

    fn check(params: &CertParams) -> Result<WithinCeilings, Excess> {
        let (user, id) = (Principal::parse("root").unwrap(), RequestId::from_random([1; 8]));
        Ceilings::default().check(params, &user, &id, NOW)
    }

    #[test]
    fn a_plain_yes_passes_with_its_life() {
        let within = check(&params()).unwrap();
        assert_eq!(within.valid_before, 1_800_000_300);
        assert_eq!(
            within.key_id.as_str(),
            "alice@example.com request=0101010101010101"
        );
    }

    #[test]
    fn a_life_is_never_longer_than_the_ceiling_nor_the_token() {
        let life = |seconds: i64| CertParams {
            expiration_ns: seconds.saturating_mul(1_000_000_000),
            ..params()
        };
        for (asked, given) in [
            (599, 599),
            (600, 600),
            (601, 600),
            (315_360_000, 600),
            (i64::MAX, 600),
        ] {
            assert_eq!(
                check(&life(asked)).unwrap().valid_before,
                1_800_000_000 + given,
                "{asked}"
            );
        }
        for none in [0, -1, i64::MIN] {
            assert_eq!(check(&life(none)), Err(Excess::Expiration));
        }
        let until = |second: i64| CertParams {
            not_after: Some(Timestamp::from_second(NOW + second).unwrap()),
            ..params()
        };
        assert_eq!(check(&until(120)).unwrap().valid_before, 1_800_000_120);
        assert_eq!(check(&until(10)).unwrap().valid_before, 1_800_000_010);
        assert_eq!(check(&until(9)), Err(Excess::TokenEnds));
        assert_eq!(check(&until(-5)), Err(Excess::TokenEnds));
    }

    #[test]
    fn a_compromised_policy_server_gets_nothing_extra() {
        let principals = |names: &[&str]| CertParams {
            principals: names.iter().map(|name| (*name).to_owned()).collect(),
            ..params()
        };
        let many: Vec<_> = (0..1000).map(|n| format!("u{n}")).collect();
        let many: Vec<_> = many.iter().map(String::as_str).collect();
        for names in [
            &[][..],
            &[""],
            &["*"],
            &["a,b"],
            &["root\n"],
            &["root", "root"],
            &["alice"],
            &many,
        ] {
            assert!(check(&principals(names)).is_err(), "{names:?}");
        }
        assert!(check(&principals(&["root", "alice"])).is_ok());
        let option = |name: &str| CertParams {
            critical_options: [(name.to_owned(), "x".to_owned())].into(),
            ..params()
        };
        assert!(check(&option("source-address")).is_ok());
        assert!(matches!(
            check(&option("host-role")),
            Err(Excess::CriticalOption(_))
        ));
        let extension = CertParams {
            extensions: [("login@evil".to_owned(), String::new())].into(),
            ..params()
        };
        assert!(matches!(check(&extension), Err(Excess::Extension(_))));
        for identity in ["", "a\nb", "\u{e4}", &"i".repeat(513)] {
            assert!(matches!(
                check(&CertParams {
                    identity: identity.into(),
                    ..params()
                }),
                Err(Excess::Identity(_))
            ));
        }
    }
}
