//! What a verified ID token says (OpenID Connect Core 1.0 section 2).

use crate::id_token::TokenError;
use serde_json::{Map, Value};

/// Largest time that a double can hold exactly; a date beyond it is no date.
const TIME_MAX: u64 = 1 << 53;
/// Longest subject (OpenID Connect Core 1.0 section 2).
const SUBJECT_MAX: usize = 255;

/// The claims of an ID token whose signature, issuer, audience and times have been checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Claims {
    /// Who says so (`iss`).
    pub issuer: String,
    /// Who it is (`sub`): stable and unique within the issuer, at most 255 ASCII characters, case-sensitive.
    pub subject: String,
    /// The address, if there is one. It names nobody by itself: see [`Claims::verified_email`].
    pub email: Option<String>,
    /// Whether the provider vouches for the address: `true`, or `"true"` as some providers write it.
    pub email_verified: bool,
    /// For whom the token was made (`aud`).
    pub audience: Vec<String>,
    /// When it ends, in seconds since 1970 (`exp`).
    pub expires_at: u64,
    /// When it was made, in seconds since 1970 (`iat`).
    pub issued_at: u64,
    /// When the person last logged in, in seconds since 1970 (`auth_time`).
    pub auth_time: Option<u64>,
    /// How strongly the person logged in (`acr`).
    pub acr: Option<String>,
    /// By what means the person logged in (`amr`).
    pub amr: Vec<String>,
    /// Every claim, those above too.
    pub raw: Map<String, Value>,
}

impl Claims {
    /// The address when the provider vouches for it, the only case in which it may stand for a person.
    pub fn verified_email(&self) -> Option<&str> {
        self.email.as_deref().filter(|_| self.email_verified)
    }

    /// Reads the claims; a claim of the wrong type is an error, never "absent" (CVE-2026-25537).
    pub(crate) fn read(raw: Map<String, Value>) -> Result<Self, TokenError> {
        let subject = required_text(&raw, "sub")?;
        if subject.is_empty() || subject.len() > SUBJECT_MAX || !subject.is_ascii() {
            return Err(TokenError::ClaimType {
                claim: "sub",
                expected: "1 to 255 ASCII characters",
            });
        }
        Ok(Self {
            issuer: required_text(&raw, "iss")?.to_owned(),
            subject: subject.to_owned(),
            email: optional_text(&raw, "email")?
                .filter(|email| !email.is_empty())
                .map(str::to_owned),
            email_verified: match raw.get("email_verified") {
                Some(Value::Bool(verified)) => *verified,
                Some(Value::String(text)) => text == "true",
                _ => false,
            },
            audience: audience(&raw)?,
            expires_at: time(&raw, "exp")?.ok_or(TokenError::ClaimMissing("exp"))?,
            issued_at: time(&raw, "iat")?.ok_or(TokenError::ClaimMissing("iat"))?,
            auth_time: time(&raw, "auth_time")?,
            acr: optional_text(&raw, "acr")?.map(str::to_owned),
            amr: match raw.get("amr") {
                Some(Value::Array(means)) => means
                    .iter()
                    .filter_map(|one| one.as_str().map(str::to_owned))
                    .collect(),
                // Entra and others have sent the bare word.
                Some(Value::String(means)) => vec![means.clone()],
                _ => Vec::new(),
            },
            raw,
        })
    }
}

fn required_text<'c>(raw: &'c Map<String, Value>, claim: &'static str) -> Result<&'c str, TokenError> {
    match raw.get(claim) {
        Some(Value::String(text)) => Ok(text),
        Some(_) => Err(TokenError::ClaimType {
            claim,
            expected: "a string",
        }),
        None => Err(TokenError::ClaimMissing(claim)),
    }
}

/// A string claim that may be missing, or null as some providers write it.
pub(crate) fn optional_text<'c>(
    raw: &'c Map<String, Value>,
    claim: &'static str,
) -> Result<Option<&'c str>, TokenError> {
    match raw.get(claim) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(TokenError::ClaimType {
            claim,
            expected: "a string",
        }),
    }
}

/// A NumericDate (RFC 7519 section 2): seconds, possibly with a fraction, which is dropped.
pub(crate) fn time(raw: &Map<String, Value>, claim: &'static str) -> Result<Option<u64>, TokenError> {
    let Some(value) = raw.get(claim) else {
        return Ok(None);
    };
    let whole = value.as_u64().or_else(|| {
        let seconds = value.as_f64()?.floor();
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "checked to be within 0..=2^53"
        )]
        (0.0..=9_007_199_254_740_992.0)
            .contains(&seconds)
            .then_some(seconds as u64)
    });
    match whole {
        Some(seconds) if seconds <= TIME_MAX => Ok(Some(seconds)),
        _ => Err(TokenError::ClaimType {
            claim,
            expected: "a time in seconds since 1970",
        }),
    }
}

fn audience(raw: &Map<String, Value>) -> Result<Vec<String>, TokenError> {
    const WRONG: TokenError = TokenError::ClaimType {
        claim: "aud",
        expected: "a string or a list of strings",
    };
    match raw.get("aud") {
        None => Err(TokenError::ClaimMissing("aud")),
        Some(Value::String(one)) => Ok(vec![one.clone()]),
        Some(Value::Array(several)) => several
            .iter()
            .map(|one| one.as_str().map(str::to_owned).ok_or(WRONG))
            .collect(),
        Some(_) => Err(WRONG),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(changes: &Value) -> Result<Claims, TokenError> {
        let mut claims = json!({"iss": "https://i", "sub": "s", "aud": "c", "exp": 2000, "iat": 1000});
        for (name, value) in changes.as_object().unwrap() {
            claims[name] = value.clone();
        }
        Claims::read(claims.as_object().unwrap().clone())
    }

    #[test]
    fn an_address_counts_only_when_the_provider_vouches_for_it() {
        for (verified, counts) in [
            (json!(true), true),
            (json!("true"), true),
            (json!(false), false),
            (json!("True"), false),
            (json!(1), false),
            (json!(null), false),
        ] {
            let claims = read(&json!({"email": "a@b", "email_verified": verified})).unwrap();
            assert_eq!(claims.verified_email().is_some(), counts, "{verified}");
        }
        assert_eq!(read(&json!({"email": "a@b"})).unwrap().verified_email(), None);
        assert_eq!(
            read(&json!({"email": "", "email_verified": true}))
                .unwrap()
                .verified_email(),
            None
        );
    }

    #[test]
    fn times_are_numbers_within_reason() {
        assert_eq!(read(&json!({"exp": 2000.9})).unwrap().expires_at, 2000);
        assert_eq!(
            read(&json!({"exp": 9_007_199_254_740_992_u64}))
                .unwrap()
                .expires_at,
            TIME_MAX
        );
        for bad in [
            json!("2000"),
            json!(-1),
            json!(-0.5),
            json!(9_007_199_254_740_993_u64),
            json!(1e300),
            json!(null),
            json!([1]),
        ] {
            let error = read(&json!({"exp": bad})).unwrap_err();
            assert!(
                matches!(error, TokenError::ClaimType { claim: "exp", .. }),
                "{bad}: {error}"
            );
        }
    }

    #[test]
    fn a_claim_of_the_wrong_type_is_an_error_and_not_absent() {
        for (claim, bad) in [
            ("iss", json!(["https://i"])),
            ("iss", json!(null)),
            ("sub", json!(7)),
            ("sub", json!("")),
            ("sub", json!("ü")),
            ("sub", json!("x".repeat(256))),
            ("aud", json!(7)),
            ("aud", json!(["c", 7])),
            ("aud", json!(null)),
            ("iat", json!("1000")),
            ("auth_time", json!("1000")),
            ("email", json!(7)),
            ("acr", json!(0)),
        ] {
            let error = read(&json!({ claim: bad })).unwrap_err();
            assert!(
                matches!(error, TokenError::ClaimType { claim: found, .. } if found == claim),
                "{claim}: {error}"
            );
        }
        assert_eq!(
            read(&json!({"sub": "x".repeat(255), "email": null}))
                .unwrap()
                .subject
                .len(),
            255
        );
    }
}
