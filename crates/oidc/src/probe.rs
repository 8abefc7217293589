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
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FactSheet {
    /// The provider.
    pub issuer: String,
    /// Name and value of each fact, in the order to show them.
    pub facts: Vec<(&'static str, String)>,
    /// Flags of `epithet auth oidc` to use with it.
    pub flags: Vec<String>,
    /// What will not work, or only with care.
    pub warnings: Vec<String>,
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
    let mut flags = vec![format!("--issuer {issuer}")];
    let mut warnings = Vec::new();
    let lists = |list: &[String], one: &str| list.iter().any(|known| known == one);
    let known = |url: Option<&url::Url>| url.map_or_else(|| "no".to_owned(), |url| format!("yes, {url}"));
    let or_silent = |list: &[String]| {
        if list.is_empty() {
            "(it does not say)".to_owned()
        } else {
            list.join(" ")
        }
    };

    if provider.authorization_endpoint.is_none() && provider.device_authorization_endpoint.is_none() {
        warnings
            .push("nobody can log in here: it only signs tokens (a CI system, a workload issuer)".to_owned());
    }
    if provider.token_endpoint.is_none() {
        warnings.push("there is no token endpoint: no flow of Epithet works".to_owned());
    }
    let challenges = &provider.code_challenge_methods_supported;
    if !challenges.is_empty() && !lists(challenges, "S256") {
        warnings.push("it does not list S256 for PKCE; Epithet uses nothing else".to_owned());
    }
    if provider.device_authorization_endpoint.is_none() {
        warnings.push(
            "no device codes: over ssh the address has to be pasted, or the port forwarded with ssh -L"
                .to_owned(),
        );
    }
    if provider.revocation_endpoint.is_none() {
        warnings.push("tokens cannot be revoked: epithet logout only forgets them".to_owned());
    }
    if provider.algorithms.is_empty() {
        warnings
            .push("none of its signature algorithms is accepted (RS, PS, ES 256 to 512, EdDSA)".to_owned());
    }
    if snapshot.keys.is_empty() {
        warnings.push("its key set has no usable signing key: no token can be verified".to_owned());
    }
    let renewal = if lists(&provider.scopes_supported, "offline_access") {
        "with the scope offline_access, which is added by itself"
    } else if issuer == "https://accounts.google.com" {
        "with access_type=offline and prompt=consent, which are added by themselves"
    } else if lists(&provider.grant_types_supported, "refresh_token") {
        "yes, without a special scope"
    } else {
        warnings.push("it does not say that it renews sessions: each login may need the browser".to_owned());
        "(it does not say)"
    };
    quirks(issuer, &mut flags, &mut warnings);

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
    let facts = facts
        .into_iter()
        .map(|(name, fact)| (name, epithet_wire::display::sanitize_line(&fact, 600)))
        .collect();
    FactSheet {
        issuer: issuer.to_owned(),
        facts,
        flags,
        warnings,
    }
}

/// What is known about providers that people meet and that no document of theirs says.
fn quirks(issuer: &str, flags: &mut Vec<String>, warnings: &mut Vec<String>) {
    let is = |part: &str| issuer.contains(part);
    if is("accounts.google.com") {
        flags.push("--client-id ID.apps.googleusercontent.com --client-secret-file FILE".to_owned());
        warnings.push("a \"Desktop app\" client needs its secret, although it is not secret".to_owned());
    } else if is("login.microsoftonline.com") {
        flags.push("--client-id ID --redirect-host localhost --redirect-path ''".to_owned());
        warnings.push("register http://localhost as \"Mobile and desktop\" and give no secret".to_owned());
        warnings.push("device codes are often forbidden by Conditional Access".to_owned());
    } else if is(".okta.com") || is(".oktapreview.com") {
        flags.push("--client-id ID --port 8401,8402".to_owned());
        warnings.push("redirect addresses are compared with their port: register each of http://127.0.0.1:PORT/callback".to_owned());
    } else if is(".auth0.com") {
        flags.push("--client-id ID --port 8401,8402".to_owned());
        warnings
            .push("localhost is refused in production: register http://127.0.0.1:PORT/callback".to_owned());
    } else if is("cognito-idp.") {
        flags.push("--client-id ID --port 8401,8402".to_owned());
    } else {
        flags.push("--client-id ID".to_owned());
    }
}

impl fmt::Display for FactSheet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n", self.issuer)?;
        for (name, fact) in &self.facts {
            writeln!(f, "  {name:<24} {fact}")?;
        }
        writeln!(f, "\nUse: epithet auth oidc {}", self.flags.join(" "))?;
        for warning in &self.warnings {
            writeln!(f, "Note: {warning}")?;
        }
        Ok(())
    }
}
