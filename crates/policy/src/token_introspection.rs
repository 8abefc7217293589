//! `token: introspection`: the provider is asked about each token (RFC 7662), and its answer kept for a moment.

use crate::decision::{Login, Person};
use crate::document::IntrospectionSection;
use crate::person::{check_identity, claim_at, groups_at};
use crate::policy::PolicyError;
use crate::token_check::{Bearer, TokenRefusal};
use crate::verdict_cache::VerdictCache;
use epithet_oidc::{Http, Introspection, IntrospectionError, Secret};
use epithet_wire::limits::OIDC_LEEWAY;
use serde_json::{Map, Value};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// How long an answer is used again unless configured.
const KEEP: Duration = Duration::from_secs(60);
/// How long the provider may take; a CA waits no longer for its policy server.
const DEADLINE: Duration = Duration::from_secs(5);
/// A client's secret: far more than any provider gives out.
const SECRET_MAX: u64 = 16 * 1024;

/// See the module.
#[derive(Debug)]
pub(crate) struct TokenIntrospection {
    introspection: Introspection,
    identity_claim: String,
    groups_claim: Option<String>,
    audience: Option<String>,
    issuer: Option<String>,
    max_age: Option<Duration>,
    cache: VerdictCache,
}

impl TokenIntrospection {
    pub(crate) fn new(section: &IntrospectionSection, http: &Arc<Http>) -> Result<Self, PolicyError> {
        let wrong = |problem: String| PolicyError::Token(format!("introspection.{problem}"));
        let required = |value: &Option<String>, key: &str| {
            value
                .clone()
                .filter(|value| !value.trim().is_empty())
                .ok_or_else(|| wrong(format!("{key} is required")))
        };
        let secret = match (&section.client_secret, &section.client_secret_file) {
            (Some(secret), None) => secret.clone(),
            (None, Some(file)) => secret_in(file)
                .map_err(|problem| wrong(format!("client-secret-file {}: {problem}", file.display())))?,
            (None, None) => return Err(wrong("client-secret-file is required".to_owned())),
            (Some(_), Some(_)) => {
                return Err(wrong(
                    "client-secret and client-secret-file exclude each other; keep the file".to_owned(),
                ));
            }
        };
        if secret.is_empty() {
            return Err(wrong("client-secret is empty".to_owned()));
        }
        if section.max_age.is_some_and(|span| span.0.as_secs() == 0) {
            return Err(wrong("max-age must be at least 1s, or left out".to_owned()));
        }
        let url = required(&section.url, "url")?;
        let client_id = required(&section.client_id, "client-id")?;
        let introspection = Introspection::new(Arc::clone(http), &url, &client_id, &Secret::new(secret))
            .map_err(|problem| wrong(format!("url: {problem}")))?;
        Ok(Self {
            introspection,
            identity_claim: section.identity_claim.clone().unwrap_or_else(|| "sub".to_owned()),
            groups_claim: section.groups_claim.clone(),
            audience: section.audience.clone(),
            issuer: section.issuer.clone(),
            max_age: section.max_age.map(|span| span.0),
            cache: VerdictCache::new(section.cache.map_or(KEEP, |span| span.0)),
        })
    }

    pub(crate) async fn holder(&self, token: &[u8], now: u64) -> Result<Bearer, TokenRefusal> {
        if let Some(answer) = self.cache.get(token, now) {
            return answer;
        }
        let asked = tokio::time::timeout(DEADLINE, self.introspection.ask(token)).await;
        let asked = asked.unwrap_or_else(|_| {
            let problem = format!("no answer within {} s", DEADLINE.as_secs());
            Err(IntrospectionError::Unavailable(problem))
        });
        let answer = match asked {
            Ok(claims) => self.read(&claims, now),
            Err(error @ IntrospectionError::Unavailable(_)) => {
                tracing::error!(%error, "tokens cannot be checked");
                Err(TokenRefusal::Unavailable(
                    "the identity provider is not available to the policy server; try again".to_owned(),
                ))
            }
            Err(error) => Err(TokenRefusal::Invalid(error.to_string())),
        };
        self.cache.put(token, &answer, now);
        answer
    }

    /// What the provider's answer amounts to at `now`.
    fn read(&self, claims: &Map<String, Value>, now: u64) -> Result<Bearer, TokenRefusal> {
        let invalid = |problem: String| Err(TokenRefusal::Invalid(problem));
        let ends = claims.get("exp").filter(|exp| !exp.is_null());
        let expires_at = match (ends, self.max_age) {
            (Some(exp), _) => match seconds(exp) {
                Some(exp) if exp > now => exp,
                Some(_) => return invalid("the token has ended".to_owned()),
                None => return invalid("the provider's exp is not a time".to_owned()),
            },
            (None, Some(max_age)) => now + max_age.as_secs(),
            (None, None) => {
                tracing::error!(
                    "the provider does not say when tokens end; set policy.introspection.max-age"
                );
                return Err(TokenRefusal::Insufficient(
                    "the provider does not say when the token ends (the policy server's introspection.max-age \
                     would)"
                        .to_owned(),
                ));
            }
        };
        if claims
            .get("nbf")
            .and_then(seconds)
            .is_some_and(|nbf| nbf > now + OIDC_LEEWAY.as_secs())
        {
            return invalid("the token is not valid yet".to_owned());
        }
        if let Some(issuer) = &self.issuer
            && claims.get("iss").and_then(Value::as_str) != Some(issuer)
        {
            return invalid(format!("the token is not of the issuer {issuer}"));
        }
        let is_for = |audience: &str| match claims.get("aud") {
            Some(Value::Array(several)) => several.iter().any(|one| one == audience),
            one => one.is_some_and(|one| one == audience),
        };
        if let Some(audience) = &self.audience
            && !is_for(audience)
        {
            return invalid(format!("the token is not for {audience}"));
        }
        Ok(Bearer {
            person: self.person(claims).map_err(TokenRefusal::Insufficient)?,
            expires_at: Some(expires_at),
        })
    }

    /// Who the provider says it is.
    fn person(&self, claims: &Map<String, Value>) -> Result<Person, String> {
        let text = |claim: &str| claim_at(claims, claim).and_then(Value::as_str);
        let is_vouched_for = self.identity_claim != "email"
            || claims
                .get("email_verified")
                .is_some_and(|verified| *verified == true || verified == "true");
        let identity = text(&self.identity_claim).filter(|identity| is_vouched_for && !identity.is_empty());
        let Some(identity) = identity else {
            let verified = match is_vouched_for {
                true => "",
                false => " and email_verified",
            };
            return Err(format!(
                "the provider does not say {:?}{verified}, by which this server knows people",
                self.identity_claim
            ));
        };
        check_identity(identity)?;
        Ok(Person {
            identity: identity.to_owned(),
            groups: match self.groups_claim.as_deref() {
                Some(claim) => groups_at(claims, claim)?,
                None => Vec::new(),
            },
            login: Login {
                acr: text("acr").map(str::to_owned),
                amr: groups_at(claims, "amr").unwrap_or_default(),
                at: claims.get("auth_time").and_then(seconds),
            },
            unverified_email: None,
        })
    }
}

/// A time in seconds since 1970; some providers write them with a fraction.
fn seconds(time: &Value) -> Option<u64> {
    // A float that is negative or too large becomes the nearest number there is, which is what it means.
    time.as_u64().or_else(|| time.as_f64().map(|time| time as u64))
}

/// The secret in a file that is not for everybody.
fn secret_in(file: &Path) -> Result<String, String> {
    let mut opened = std::fs::File::open(file).map_err(|error| error.to_string())?;
    let metadata = opened.metadata().map_err(|error| error.to_string())?;
    if metadata.mode() & 0o007 != 0 {
        return Err(format!(
            "everybody on this machine can read it; run: chmod o= {}",
            file.display()
        ));
    }
    let mut text = String::new();
    opened
        .by_ref()
        .take(SECRET_MAX)
        .read_to_string(&mut text)
        .map_err(|error| error.to_string())?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn reader(more: &str) -> TokenIntrospection {
        let section = format!("{{url: 'https://i.example.com/x', client-id: us, client-secret: s{more}}}");
        let section: IntrospectionSection = serde_saphyr::from_str(&section).unwrap();
        TokenIntrospection::new(&section, &Arc::new(Http::default())).unwrap()
    }

    #[test]
    fn an_active_token_still_has_to_be_ours_now_and_somebodys() {
        const NOW: u64 = 1000;
        let plain = reader("");
        let strict =
            reader(", audience: us, issuer: 'https://i', identity-claim: user.name, groups-claim: roles");
        let lasting = reader(", max-age: 30s");
        let mail = reader(", identity-claim: email, groups-claim: groups");
        let full = json!({"sub": "s", "exp": 2000, "aud": ["x", "us"], "iss": "https://i", "user": {"name": "alice"}});
        let changed = |key: &str, value: Value| {
            let mut claims = full.clone();
            claims[key] = value;
            claims
        };
        for (reader, claims, expected) in [
            (&plain, full.clone(), Ok(("s", 2000))),
            (&plain, changed("exp", json!(1000.9)), Err("the token has ended")),
            (&plain, changed("exp", json!(1001.5)), Ok(("s", 1001))),
            (&plain, changed("exp", json!(-1)), Err("the token has ended")),
            (&plain, changed("exp", json!("2000")), Err("exp is not a time")),
            (&plain, changed("exp", Value::Null), Err("introspection.max-age")),
            (&plain, changed("nbf", json!(1061)), Err("not valid yet")),
            (&plain, changed("nbf", json!(1060)), Ok(("s", 2000))),
            (&plain, changed("sub", json!("")), Err("does not say \"sub\"")),
            (&plain, changed("sub", json!(7)), Err("does not say \"sub\"")),
            (&lasting, changed("exp", Value::Null), Ok(("s", 1030))),
            (&lasting, full.clone(), Ok(("s", 2000))),
            (
                &mail,
                full.clone(),
                Err("does not say \"email\" and email_verified"),
            ),
            (&mail, changed("email", json!("a@b")), Err("email_verified")),
            (
                &mail,
                json!({"exp": 2000, "email": "a@b", "email_verified": false}),
                Err("email_verified"),
            ),
            (
                &mail,
                json!({"exp": 2000, "email": "a@b", "email_verified": 1}),
                Err("email_verified"),
            ),
            (
                &mail,
                json!({"exp": 2000, "email": "a@b", "email_verified": true}),
                Ok(("a@b", 2000)),
            ),
            (
                &mail,
                json!({"exp": 2000, "email": "a@b", "email_verified": "true"}),
                Ok(("a@b", 2000)),
            ),
            (
                &mail,
                json!({"exp": 2000, "email": "a@b", "email_verified": true, "groups": {"a": 1}}),
                Err("no list of groups"),
            ),
            (
                &plain,
                changed("sub", json!("a\u{f6}")),
                Err("cannot be the name of a certificate"),
            ),
            (&strict, full.clone(), Ok(("alice", 2000))),
            (&strict, changed("aud", json!("us")), Ok(("alice", 2000))),
            (&strict, changed("aud", json!("usual")), Err("not for us")),
            (&strict, changed("aud", Value::Null), Err("not for us")),
            (
                &strict,
                changed("iss", json!("https://j")),
                Err("not of the issuer https://i"),
            ),
            (
                &strict,
                changed("iss", Value::Null),
                Err("not of the issuer https://i"),
            ),
            (
                &strict,
                changed("user", json!({})),
                Err("does not say \"user.name\""),
            ),
        ] {
            let read = reader.read(claims.as_object().unwrap(), NOW);
            match (read, expected) {
                (Ok(bearer), Ok((identity, end))) => {
                    assert_eq!(bearer.person.identity, identity, "{claims}");
                    assert_eq!(bearer.expires_at, Some(end), "{claims}");
                }
                (Err(TokenRefusal::Invalid(why) | TokenRefusal::Insufficient(why)), Err(words)) => {
                    assert!(why.contains(words), "{claims}: {why}");
                }
                (read, _) => panic!("{claims}: {read:?}"),
            }
        }
        let grouped = strict.read(changed("roles", json!(["a", "b"])).as_object().unwrap(), NOW);
        assert_eq!(grouped.unwrap().person.groups, ["a", "b"]);
    }

    #[test]
    fn a_secret_is_its_files_first_line_and_for_few_to_read() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("secret");
        std::fs::write(&file, "s&cret\r\n").unwrap();
        let mode = |mode| std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
        mode(0o640);
        assert_eq!(secret_in(&file).unwrap(), "s&cret");
        mode(0o644);
        assert!(secret_in(&file).unwrap_err().contains("chmod o="));
        assert!(secret_in(&folder.path().join("none")).is_err());
    }
}
