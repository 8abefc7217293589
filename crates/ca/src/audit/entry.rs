//! What a line of the audit log says.

use epithet_wire::policy::{Grounds, LoginFacts};
use jiff::Timestamp;
use serde::Serialize;
use std::collections::BTreeMap;

/// What a line says. Fields that do not apply are left out.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Entry<'a> {
    /// RFC 3339, UTC.
    pub(crate) time: String,
    #[serde(skip_serializing_if = "str::is_empty")]
    pub(crate) request_id: &'a str,
    /// What the client called the request, when another certificate has that name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) client_request_id: Option<&'a str>,
    /// `issued` or `refused`.
    pub(crate) decision: &'static str,
    /// The HTTP status of the answer.
    pub(crate) status: u16,
    /// Why it was refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<&'a str>,
    /// How many requests the line is about, when it is about more than one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) count: Option<u64>,
    /// The client's address as the socket says.
    pub(crate) client: String,
    pub(crate) host: &'a str,
    pub(crate) user: &'a str,
    pub(crate) port: u32,
    #[serde(skip_serializing_if = "str::is_empty")]
    pub(crate) jump: &'a str,
    /// The fingerprint of the key to be certified.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) key: Option<String>,
    /// The fingerprint of the CA key.
    pub(crate) ca: &'a str,
    #[serde(flatten)]
    pub(crate) grounds: Option<GroundsEntry<'a>>,
    #[serde(flatten)]
    pub(crate) certificate: Option<CertificateEntry<'a>>,
}

/// What a line says about the person, as far as policy told.
#[derive(Debug, Serialize)]
pub(crate) struct GroundsEntry<'a> {
    /// Who policy says it is; the key id begins with it.
    identity: &'a str,
    /// Those of their groups that the rules know.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    groups: &'a [String],
    /// How many more of these there are than fit.
    #[serde(skip_serializing_if = "Option::is_none")]
    groups_left_out: Option<u32>,
    /// How they logged in; left out when that is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    login: Option<&'a LoginFacts>,
    /// The rule that allowed or refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<&'a str>,
}

impl<'a> GroundsEntry<'a> {
    pub(crate) fn of(grounds: &'a Grounds) -> Self {
        Self {
            identity: &grounds.identity,
            groups: &grounds.groups,
            groups_left_out: Some(grounds.groups_left_out).filter(|number| *number > 0),
            login: grounds.login.as_ref(),
            rule: grounds.rule.as_deref(),
        }
    }
}

/// What a line says about a certificate.
#[derive(Debug, Serialize)]
pub(crate) struct CertificateEntry<'a> {
    /// As text: few programs read a number of 64 bits exactly.
    pub(crate) serial: String,
    pub(crate) key_id: &'a str,
    pub(crate) principals: Vec<&'a str>,
    pub(crate) valid_after: String,
    pub(crate) valid_before: String,
    /// The life that policy asked for, in seconds; the token's end and the CA's own limit may have cut it.
    pub(crate) ttl: u64,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) critical_options: BTreeMap<&'a str, &'a str>,
    pub(crate) extensions: BTreeMap<&'a str, &'a str>,
    /// The fingerprint of the whole certificate.
    pub(crate) certificate: String,
}

/// Now, as a line says it.
pub(crate) fn timestamp() -> String {
    Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string()
}
