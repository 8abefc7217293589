//! What a provider answered, whole and within limits.

use crate::http::{FetchError, shown};
use epithet_wire::display::sanitize_line;
use reqwest::Response;
use reqwest::header::{self, HeaderMap};
use url::Url;

/// What came back, whole and within limits.
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) body: Vec<u8>,
    pub(crate) etag: Option<String>,
    /// For how many seconds the reply may be kept; 0 when it must not be.
    pub(crate) max_age: Option<u64>,
    content_type: Option<String>,
    pub(crate) location: Option<String>,
}

impl Reply {
    pub(crate) fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// Refuses what calls itself a page. JSON served as plain text or bytes is common for static documents.
    pub(crate) fn refuse_pages(&self, url: &Url) -> Result<(), FetchError> {
        match self.content_type.as_deref() {
            None => Ok(()),
            Some(found)
                if ["json", "text/plain", "octet-stream"]
                    .iter()
                    .any(|fine| found.contains(fine)) =>
            {
                Ok(())
            }
            Some(found) => Err(FetchError::ContentType {
                url: shown(url),
                found: sanitize_line(found, 80),
            }),
        }
    }

    /// Refuses what does not call itself JSON (RFC 6749 section 5.1 demands it of token replies).
    pub(crate) fn require_json(&self, url: &Url) -> Result<(), FetchError> {
        match self.content_type.as_deref() {
            Some(found) if found.contains("json") => Ok(()),
            found => Err(FetchError::ContentType {
                url: shown(url),
                found: sanitize_line(found.unwrap_or("no content type"), 80),
            }),
        }
    }
}

/// Takes from a response what is needed of it.
pub(crate) fn reply(response: &Response, body: Vec<u8>) -> Reply {
    let headers = response.headers();
    let text = |name| {
        headers
            .get(name)
            .and_then(|value: &header::HeaderValue| value.to_str().ok())
            .map(str::to_owned)
    };
    Reply {
        status: response.status().as_u16(),
        body,
        etag: text(header::ETAG).filter(|etag| etag.len() <= 256),
        max_age: max_age(headers),
        content_type: text(header::CONTENT_TYPE).map(|value| value.to_ascii_lowercase()),
        location: text(header::LOCATION),
    }
}

/// `Cache-Control: max-age`, less the time the reply already spent in caches (RFC 9111 section 5.2.2).
fn max_age(headers: &HeaderMap) -> Option<u64> {
    let control = headers
        .get(header::CACHE_CONTROL)?
        .to_str()
        .ok()?
        .to_ascii_lowercase();
    let mut directives = control.split(',').map(str::trim);
    if directives
        .clone()
        .any(|directive| directive == "no-store" || directive == "no-cache")
    {
        return Some(0);
    }
    let age = headers
        .get(header::AGE)
        .and_then(|age| age.to_str().ok()?.parse::<u64>().ok())
        .unwrap_or(0);
    let max_age = directives.find_map(|directive| directive.strip_prefix("max-age="))?;
    Some(max_age.trim_matches('"').parse::<u64>().ok()?.saturating_sub(age))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
            .collect()
    }

    #[test]
    fn a_reply_says_for_how_long_it_may_be_kept() {
        for (control, age, expected) in [
            (
                "public, max-age=19823, must-revalidate, no-transform",
                "0",
                Some(19_823),
            ),
            ("Max-Age=\"60\"", "10", Some(50)),
            ("max-age=60", "90", Some(0)),
            ("no-store, max-age=60", "0", Some(0)),
            ("private", "0", None),
            ("max-age=soon", "0", None),
        ] {
            assert_eq!(
                max_age(&headers(&[("cache-control", control), ("age", age)])),
                expected,
                "{control}"
            );
        }
        assert_eq!(max_age(&headers(&[])), None);
    }
}
