//! A fact sheet about a provider: what it can do, which flags to use for it, and what will not work.

use crate::clock;
use crate::http::Http;
use crate::issuer::Issuer;
use crate::jws::Algorithm;
use crate::key_cache::Snapshot;
use crate::provider::ProviderError;
use serde_json::Value;
use std::fmt;

/// What a provider says it can do, judged for a login with Epithet. `Display` prints it as a sheet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FactSheet {
    /// The provider.
    pub issuer: String,
    /// Name and value of each fact, in the order to show them.
    pub facts: Vec<(&'static str, String)>,
    /// Flags of `epithet auth oidc` to use with it.
    pub flags: Vec<String>,
    /// What will not work.
    pub refusals: Vec<String>,
    /// What works only with care.
    pub notes: Vec<String>,
}

/// Fetches discovery document and keys, and judges them.
///
/// # Errors
/// The provider cannot be used at all; the error says why.
pub async fn probe(http: &Http, issuer: &Issuer) -> Result<FactSheet, ProviderError> {
    let snapshot = Snapshot::fetch(http, issuer, (None, None), clock::unix_now()).await?;
    Ok(judge(&snapshot))
}

fn judge(snapshot: &Snapshot) -> FactSheet {
    let provider = &snapshot.provider;
    let issuer = provider.issuer.as_str();
    let mut sheet = FactSheet {
        issuer: issuer.to_owned(),
        flags: vec![format!("--issuer {}", quoted(issuer))],
        ..FactSheet::default()
    };
    refuse(snapshot, &mut sheet.refusals);
    let lists = |list: &[String], one: &str| list.iter().any(|known| known == one);
    let known = |url: Option<&url::Url>| url.map_or_else(|| "no".to_owned(), |url| format!("yes, {url}"));
    let or_silent = |list: &[String]| match list.is_empty() {
        true => "(it does not say)".to_owned(),
        false => list.join(" "),
    };
    let renewal = if lists(&provider.scopes_supported, "offline_access") {
        "with the scope offline_access, which is added by itself"
    } else if issuer == GOOGLE {
        "with access_type=offline and prompt=consent, which are added by themselves"
    } else if lists(&provider.grant_types_supported, "refresh_token") {
        "yes, without a special scope"
    } else {
        sheet
            .notes
            .push("it does not say that it renews sessions: each login may need the browser".to_owned());
        "(it does not say)"
    };
    let methods = &provider.token_endpoint_auth_methods_supported;
    if !methods.is_empty() && !lists(methods, "none") {
        sheet.notes.push(
            "it does not list public clients (\"none\"): if it refuses yours, give --client-secret-file"
                .to_owned(),
        );
    }
    quirks(&mut sheet);
    sheet.facts = facts(snapshot, renewal, known, or_silent);
    sheet
}

/// What will not work, whatever one does.
fn refuse(snapshot: &Snapshot, refusals: &mut Vec<String>) {
    let provider = &snapshot.provider;
    let challenges = &provider.code_challenge_methods_supported;
    let claims: [(bool, &str); 7] = [
        (
            provider.authorization_endpoint.is_none() && provider.device_authorization_endpoint.is_none(),
            "any login of a person: it only signs tokens (a CI system, a workload issuer)",
        ),
        (
            provider.token_endpoint.is_none(),
            "any flow: there is no token endpoint",
        ),
        (
            !challenges.is_empty() && !challenges.iter().any(|method| method == "S256"),
            "PKCE: it does not list S256, and Epithet uses nothing else",
        ),
        (
            provider.device_authorization_endpoint.is_none(),
            "device codes (--flow device): over ssh the address is pasted, or the port forwarded with ssh -L",
        ),
        (
            provider.revocation_endpoint.is_none(),
            "revocation: epithet logout forgets the tokens, which end by themselves at the provider",
        ),
        (
            provider.algorithms.is_empty(),
            "verification: none of its signature algorithms is accepted (RS, PS, ES 256 to 512, EdDSA)",
        ),
        (
            snapshot.keys.is_empty(),
            "verification: its key set has no usable signing key",
        ),
    ];
    let refused = claims.into_iter().filter(|(is, _)| *is);
    refusals.extend(refused.map(|(_, what)| what.to_owned()));
}

fn facts(
    snapshot: &Snapshot,
    renewal: &str,
    known: impl Fn(Option<&url::Url>) -> String,
    or_silent: impl Fn(&[String]) -> String,
) -> Vec<(&'static str, String)> {
    let provider = &snapshot.provider;
    let challenges = &provider.code_challenge_methods_supported;
    let algorithms: Vec<&str> = provider.algorithms.iter().copied().map(Algorithm::name).collect();
    let key_ids: Vec<&str> = snapshot.keys.key_ids().collect();
    let version = provider.raw.get("claims_supported").and_then(Value::as_array);
    let claims: Vec<&str> = version.into_iter().flatten().filter_map(Value::as_str).collect();
    let facts = vec![
        ("browser", known(provider.authorization_endpoint.as_ref())),
        (
            "device code",
            known(provider.device_authorization_endpoint.as_ref()),
        ),
        ("revocation", known(provider.revocation_endpoint.as_ref())),
        ("renewal", renewal.to_owned()),
        ("scopes", or_silent(&provider.scopes_supported)),
        (
            "claims",
            if claims.is_empty() {
                "(it does not say)".to_owned()
            } else {
                claims.join(" ")
            },
        ),
        ("PKCE", or_silent(challenges)),
        (
            "names itself (RFC 9207)",
            if provider.sends_issuer { "yes" } else { "no" }.to_owned(),
        ),
        (
            "client authentication",
            or_silent(&provider.token_endpoint_auth_methods_supported),
        ),
        ("signs with", algorithms.join(" ")),
        ("keys", format!("{} ({})", snapshot.keys.len(), key_ids.join(" "))),
    ];
    facts
        .into_iter()
        .map(|(name, fact)| (name, epithet_wire::display::sanitize_line(&fact, 600)))
        .collect()
}

/// A word for a shell.
fn quoted(word: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b":/._-~%".contains(&byte);
    match word.bytes().all(is_plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

const GOOGLE: &str = "https://accounts.google.com";

/// What is known about providers that people meet and that no document of theirs says: a part of the issuer, flags, notes.
const QUIRKS: [(&str, &str, &[&str]); 8] = [
    (
        "//accounts.google.com",
        "--client-id ID.apps.googleusercontent.com --client-secret-file FILE",
        &[
            "a \"Desktop app\" client needs its secret, although it is not secret",
            "device codes need a client of the type \"TVs and Limited Input devices\"",
        ],
    ),
    (
        "//login.microsoftonline.com",
        "--client-id ID --redirect-host localhost --redirect-path ''",
        &[
            "register http://localhost as \"Mobile and desktop applications\" and give no secret",
            "device codes are often forbidden by Conditional Access (AADSTS53003)",
        ],
    ),
    (".okta.com", "--client-id ID --port 8401,8402,8403", &[OKTA]),
    (
        ".oktapreview.com",
        "--client-id ID --port 8401,8402,8403",
        &[OKTA],
    ),
    (
        ".auth0.com",
        "--client-id ID --port 8401,8402,8403",
        &["localhost is refused in production: register each of http://127.0.0.1:PORT/callback"],
    ),
    (
        "//cognito-idp.",
        "--client-id ID --redirect-host localhost --port 8401,8402,8403",
        &["redirect addresses are compared with their port: register each of http://localhost:PORT/callback"],
    ),
    (
        "/realms/",
        "--client-id ID",
        &["Keycloak: device codes are off for each client until they are switched on there"],
    ),
    (
        "gitlab",
        "--client-id ID --port 8401",
        &["redirect addresses are compared with their port: register http://127.0.0.1:8401/callback"],
    ),
];
const OKTA: &str =
    "redirect addresses are compared with their port: register each of http://127.0.0.1:PORT/callback";

fn quirks(sheet: &mut FactSheet) {
    match QUIRKS.iter().find(|(part, ..)| sheet.issuer.contains(part)) {
        Some((_, flags, notes)) => {
            sheet.flags.push((*flags).to_owned());
            sheet.notes.extend(notes.iter().map(|note| (*note).to_owned()));
        }
        None => sheet.flags.push("--client-id ID".to_owned()),
    }
}

impl fmt::Display for FactSheet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n", self.issuer)?;
        for (name, fact) in &self.facts {
            writeln!(f, "  {name:<24} {fact}")?;
        }
        writeln!(f, "\nUse: epithet auth oidc {}", self.flags.join(" "))?;
        for what in &self.refusals {
            writeln!(f, "Will not work: {what}")?;
        }
        for note in &self.notes {
            writeln!(f, "Note: {note}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_document_says_is_known_by_the_issuer() {
        for (issuer, flag) in [
            ("https://accounts.google.com", "--client-secret-file"),
            ("https://login.microsoftonline.com/t/v2.0", "--redirect-path ''"),
            ("https://example.okta.com/oauth2/default", "--port"),
            ("https://example.eu.auth0.com/", "--port"),
            (
                "https://cognito-idp.eu-west-1.amazonaws.com/x",
                "--redirect-host localhost",
            ),
            ("https://keycloak.example.com/realms/main", "--client-id ID"),
            ("https://gitlab.example.com", "--port 8401"),
        ] {
            let mut sheet = FactSheet {
                issuer: issuer.to_owned(),
                ..FactSheet::default()
            };
            quirks(&mut sheet);
            assert!(sheet.flags.join(" ").contains(flag), "{issuer}");
            assert!(!sheet.notes.is_empty(), "{issuer}");
        }
        let mut other = FactSheet {
            issuer: "https://notokta.community/accounts.google.com".to_owned(),
            ..FactSheet::default()
        };
        quirks(&mut other);
        assert_eq!(
            (other.flags.join(" ").as_str(), other.notes.len()),
            ("--client-id ID", 0)
        );
    }

    #[test]
    fn the_command_can_be_pasted_into_a_shell() {
        assert_eq!(
            quoted("https://idp.example/realms/a-b_c"),
            "https://idp.example/realms/a-b_c"
        );
        assert_eq!(quoted("https://idp.example/$(id)"), "'https://idp.example/$(id)'");
        assert_eq!(
            quoted("https://idp.example/it's"),
            r"'https://idp.example/it'\''s'"
        );
    }
}
