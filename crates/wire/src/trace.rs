//! What the broker remembers of the last connections: which phase began when, and how long it took.
//!
//! Nothing secret: names, times, and notes for a person. `epithet trace last` draws it; the request id is the one in the
//! CA's audit line and at the end of the key id that sshd logs.

use crate::connection::null_as_default;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// One connection from ssh's question to the signature.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Trace {
    /// The request's name in every log. A connection that found an agent waiting has the name of that agent's request.
    pub request_id: String,
    /// The host.
    pub host: String,
    /// The user.
    pub user: String,
    /// The port.
    pub port: u16,
    /// How it ended: `certificate`, `agent was there`, `under way`, or why there is no certificate.
    pub outcome: String,
    /// When ssh asked.
    pub started_at: Option<Timestamp>,
    /// In the order in which they began. They overlap: the certificate comes while ssh shakes hands.
    #[serde(deserialize_with = "null_as_default")]
    pub phases: Vec<Phase>,
}

/// One step of a connection.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Phase {
    /// `match`, `gate`, `login`, `key`, `ca`, `policy`, `list` or `sign`.
    pub name: String,
    /// Milliseconds after [`Trace::started_at`].
    pub start_ms: f64,
    /// Milliseconds.
    pub duration_ms: f64,
    /// What else there is to say, such as which CA.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// Reads the durations of a `Server-Timing` header (W3C Server Timing): `policy;dur=12.5, sign;dur=0.3;desc="x"`.
///
/// Metrics without a sensible duration are left out; names are as sent.
pub fn server_timing(header: &str) -> Vec<(String, f64)> {
    let metric = |text: &str| {
        let mut parts = text.split(';').map(str::trim);
        let name = parts.next().filter(|name| !name.is_empty())?;
        let duration = parts.find_map(|parameter| {
            let (key, value) = parameter.split_once('=')?;
            let is_duration = key.trim().eq_ignore_ascii_case("dur");
            is_duration.then(|| value.trim().trim_matches('"').parse::<f64>().ok())?
        })?;
        (duration.is_finite() && duration >= 0.0).then(|| (name.to_owned(), duration))
    };
    header.split(',').filter_map(metric).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_has_the_names_that_were_agreed() {
        let trace = Trace {
            request_id: "r1".into(),
            host: "web".into(),
            user: "root".into(),
            port: 22,
            outcome: "certificate".into(),
            started_at: Some(Timestamp::from_second(1).unwrap()),
            phases: vec![Phase {
                name: "ca".into(),
                start_ms: 0.5,
                duration_ms: 20.25,
                note: None,
            }],
        };
        let line = r#"{"requestId":"r1","host":"web","user":"root","port":22,"outcome":"certificate","startedAt":"1970-01-01T00:00:01Z","phases":[{"name":"ca","startMs":0.5,"durationMs":20.25}]}"#;
        assert_eq!(serde_json::to_string(&trace).unwrap(), line);
        assert_eq!(serde_json::from_str::<Trace>(line).unwrap(), trace);
    }

    #[test]
    fn the_durations_of_a_server_timing_header_are_read_and_nonsense_is_not() {
        assert_eq!(
            server_timing(r#"cache;desc="x", policy;dur=12.5 , sign;desc=y;dur="0.3""#),
            [("policy".to_owned(), 12.5), ("sign".to_owned(), 0.3)]
        );
        for nonsense in [
            "",
            ",;,",
            "policy",
            "policy;dur=",
            "policy;dur=-1",
            "policy;dur=NaN",
            ";dur=3",
        ] {
            assert!(server_timing(nonsense).is_empty(), "{nonsense}");
        }
    }
}
