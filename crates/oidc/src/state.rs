//! What the plugin remembers between runs: in the broker's memory, never on disk.
//!
//! The outer members are those of Go's `oauth2.Token`, which the plugin of epithet 0.17 reads and writes; what
//! it does not know is under `epithet`. A state of another issuer or client is not used: a refresh token goes to
//! nobody but the provider that it came from.

use crate::claims::Claims;
use crate::document::Document;
use crate::flow::Flow;
use crate::id_token::Previous;
use crate::options::LoginOptions;
use crate::secret::Secret;
use crate::token_endpoint::TokenSet;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use zeroize::Zeroize;

/// The version of what is under `epithet`.
const VERSION: u32 = 1;
/// Go's zero time: the access token's end is not known.
const NO_EXPIRY: &str = "0001-01-01T00:00:00Z";

#[derive(Default, Serialize, Deserialize)]
struct Wire {
    #[serde(default)]
    access_token: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    token_type: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    refresh_token: String,
    #[serde(default)]
    expiry: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    epithet: Option<Memory>,
}

#[derive(Serialize, Deserialize)]
struct Memory {
    version: u32,
    issuer: String,
    client_id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    subject: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    auth_time: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    nonce: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    flow: Option<Flow>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    in_vain: Vec<Flow>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    discovery: Option<Document>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    keys: Option<Document>,
}

/// What an earlier run left.
#[derive(Debug, Default)]
pub(crate) struct Saved {
    pub(crate) refresh_token: Option<Secret>,
    pub(crate) access_token: Option<Secret>,
    pub(crate) previous: Option<Previous>,
    /// How the person logged in.
    pub(crate) flow: Option<Flow>,
    /// What was tried in vain before that, and has not worked since.
    pub(crate) in_vain: Vec<Flow>,
    pub(crate) discovery: Option<Document>,
    pub(crate) keys: Option<Document>,
}

/// What a successful run leaves.
pub(crate) struct Kept<'k> {
    pub(crate) tokens: &'k TokenSet,
    pub(crate) claims: Option<&'k Claims>,
    /// The nonce of the login, unless this was a refresh.
    pub(crate) nonce: Option<&'k str>,
    /// How the person logged in, unless this was a refresh.
    pub(crate) flow: Option<Flow>,
    pub(crate) in_vain: &'k [Flow],
    pub(crate) discovery: &'k Document,
    pub(crate) keys: Option<&'k Document>,
    pub(crate) now: u64,
}

impl Saved {
    /// Reads a state. What cannot be read, or belongs to another provider or client, is as good as none.
    pub(crate) fn read(state: &[u8], options: &LoginOptions) -> Self {
        let Ok(mut wire) = serde_json::from_slice::<Wire>(state) else {
            return Self::default();
        };
        let memory = wire.epithet.take();
        let is_foreign = memory.as_ref().is_some_and(|memory| {
            memory.issuer != options.issuer.as_str() || memory.client_id != options.client_id
        });
        if is_foreign {
            wire.wipe();
            return Self::default();
        }
        let secret = |text: &mut String| {
            Some(std::mem::take(text))
                .filter(|text| !text.is_empty())
                .map(Secret::new)
        };
        let saved = Self {
            refresh_token: secret(&mut wire.refresh_token),
            access_token: secret(&mut wire.access_token),
            ..Self::default()
        };
        let Some(memory) = memory else { return saved };
        let auth_time = memory.auth_time;
        Self {
            previous: memory.subject.map(|subject| Previous {
                subject,
                auth_time,
                nonce: memory.nonce,
            }),
            flow: memory.flow,
            in_vain: memory.in_vain,
            discovery: memory.discovery,
            keys: memory.keys,
            ..saved
        }
    }

    /// The state for the next run. A provider that sends no new refresh token means the old one to be kept.
    pub(crate) fn write(&self, options: &LoginOptions, kept: &Kept<'_>) -> Vec<u8> {
        let tokens = kept.tokens;
        let text = |secret: Option<&Secret>| {
            secret
                .map(|secret| secret.expose().to_owned())
                .unwrap_or_default()
        };
        let end = tokens
            .expires_in
            .and_then(|life| i64::try_from(kept.now.saturating_add(life)).ok());
        let previous = self.previous.as_ref();
        let mut wire = Wire {
            access_token: text(tokens.access_token.as_ref()),
            token_type: tokens.token_type.clone(),
            refresh_token: text(tokens.refresh_token.as_ref().or(self.refresh_token.as_ref())),
            expiry: end
                .and_then(|end| Timestamp::from_second(end).ok())
                .map_or_else(|| NO_EXPIRY.to_owned(), |end| end.to_string()),
            epithet: Some(Memory {
                version: VERSION,
                issuer: options.issuer.as_str().to_owned(),
                client_id: options.client_id.clone(),
                subject: kept
                    .claims
                    .map(|claims| &claims.subject)
                    .or(previous.map(|it| &it.subject))
                    .cloned(),
                auth_time: kept
                    .claims
                    .and_then(|claims| claims.auth_time)
                    .or(previous.and_then(|it| it.auth_time)),
                nonce: kept
                    .nonce
                    .map(str::to_owned)
                    .or_else(|| previous.and_then(|it| it.nonce.clone())),
                flow: kept.flow.or(self.flow),
                in_vain: kept.in_vain.to_vec(),
                discovery: Some(kept.discovery.clone()),
                keys: kept.keys.cloned(),
            }),
        };
        // Sized first, so that no smaller copy of it is left behind by growing.
        let room = wire.access_token.len() + wire.refresh_token.len() + 2 * documents_size(&wire) + 4096;
        let mut state = Vec::with_capacity(room);
        // Strings and numbers into memory: there is nothing that could fail.
        let _ = serde_json::to_writer(&mut state, &wire);
        wire.wipe();
        state
    }
}

fn documents_size(wire: &Wire) -> usize {
    let memory = wire.epithet.as_ref();
    let documents = memory.map(|memory| [memory.discovery.as_ref(), memory.keys.as_ref()]);
    documents
        .into_iter()
        .flatten()
        .flatten()
        .map(|document| document.body.len())
        .sum()
}

impl Wire {
    fn wipe(&mut self) {
        self.access_token.zeroize();
        self.refresh_token.zeroize();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::issuer::Issuer;
    use std::sync::Arc;

    fn options(issuer: &str, client_id: &str) -> LoginOptions {
        LoginOptions::new(Arc::default(), Issuer::parse(issuer).unwrap(), client_id)
    }

    fn tokens(refresh: Option<&str>) -> TokenSet {
        TokenSet {
            access_token: Some(Secret::new("at".into())),
            token_type: "Bearer".into(),
            id_token: None,
            refresh_token: refresh.map(|text| Secret::new(text.into())),
            expires_in: Some(60),
        }
    }

    fn document() -> Document {
        Document {
            body: "{\"a\":1}".into(),
            etag: None,
            fetched_at: 1,
            fresh_until: 2,
        }
    }

    fn write(saved: &Saved, tokens: &TokenSet) -> Vec<u8> {
        let discovery = document();
        let kept = Kept {
            tokens,
            claims: None,
            nonce: None,
            flow: Some(Flow::Device),
            in_vain: &[Flow::Browser],
            discovery: &discovery,
            keys: None,
            now: 1_786_000_000,
        };
        saved.write(&options("https://i.example", "c"), &kept)
    }

    #[test]
    fn a_state_of_epithet_0_17_is_taken_over() {
        let state = br#"{"access_token":"a","token_type":"Bearer","refresh_token":"r","expiry":"2026-08-13T18:30:00.123456789+02:00","expires_in":3599}"#;
        let saved = Saved::read(state, &options("https://i.example", "c"));
        assert_eq!(saved.refresh_token.unwrap().expose(), "r");
        assert!(saved.previous.is_none());
    }

    #[test]
    fn our_state_has_the_members_that_epithet_0_17_reads() {
        let state: serde_json::Value =
            serde_json::from_slice(&write(&Saved::default(), &tokens(Some("r")))).unwrap();
        assert_eq!(
            (
                &state["access_token"],
                &state["token_type"],
                &state["refresh_token"]
            ),
            (&"at".into(), &"Bearer".into(), &"r".into())
        );
        assert_eq!(state["expiry"], "2026-08-06T07:07:40Z");
        assert_eq!(
            (&state["epithet"]["version"], &state["epithet"]["flow"]),
            (&1.into(), &"device".into())
        );
    }

    #[test]
    fn the_refresh_token_is_replaced_when_rotated_and_kept_when_not() {
        let options = options("https://i.example", "c");
        let first = Saved::read(&write(&Saved::default(), &tokens(Some("r1"))), &options);
        let kept = Saved::read(&write(&first, &tokens(None)), &options);
        assert_eq!(kept.refresh_token.as_ref().unwrap().expose(), "r1");
        let rotated = Saved::read(&write(&kept, &tokens(Some("r2"))), &options);
        assert_eq!(rotated.refresh_token.unwrap().expose(), "r2");
        assert_eq!(
            (rotated.flow, rotated.in_vain),
            (Some(Flow::Device), vec![Flow::Browser])
        );
        assert_eq!(rotated.discovery, Some(document()));
    }

    #[test]
    fn another_providers_or_clients_state_is_not_used() {
        let state = write(&Saved::default(), &tokens(Some("r")));
        for (issuer, client_id) in [("https://other.example", "c"), ("https://i.example", "d")] {
            let saved = Saved::read(&state, &options(issuer, client_id));
            assert!(
                saved.refresh_token.is_none() && saved.discovery.is_none(),
                "{issuer} {client_id}"
            );
        }
        for unreadable in [&b""[..], b"null", b"[]", b"\xff", b"{\"refresh_token\":7}"] {
            assert!(
                Saved::read(unreadable, &options("https://i.example", "c"))
                    .refresh_token
                    .is_none()
            );
        }
    }
}
