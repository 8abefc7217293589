//! What a request's head has to be, whatever it asks for. What is doubtful is refused: two readers of one request, a proxy
//! and we, must not understand it differently.

use crate::answer::text;
use axum::response::Response;
use epithet_wire::limits::HTTP_HEADER_MAX;
use http::header::{AUTHORIZATION, HOST};
use http::request::Parts;
use http::{HeaderName, StatusCode, Version};

/// The bytes of a head as HTTP/1.1 writes it.
pub(crate) fn size(head: &Parts) -> usize {
    // `METHOD target HTTP/1.1`, and the empty line at the end.
    let target = head
        .uri
        .path_and_query()
        .map_or(1, |target| target.as_str().len());
    let first = head.method.as_str().len() + 1 + target + " HTTP/1.1\r\n".len();
    let fields = head.headers.iter();
    let fields: usize = fields
        .map(|(name, value)| name.as_str().len() + ": ".len() + value.len() + "\r\n".len())
        .sum();
    first + fields + "\r\n".len()
}

/// The refusal of a head that is too large or not clear.
pub(crate) fn refusal(head: &Parts, size: usize) -> Option<Response> {
    let count = |name: HeaderName| head.headers.get_all(name).iter().count();
    let hosts = count(HOST);
    let bad = |what: &'static str| Some(text(StatusCode::BAD_REQUEST, what));
    if size > HTTP_HEADER_MAX {
        let what = format!("the request's head is larger than {HTTP_HEADER_MAX} bytes");
        Some(text(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, what))
    } else if hosts > 1 || (hosts == 0 && head.version == Version::HTTP_11) {
        // RFC 9112 section 3.2.
        bad("a request has exactly one Host header")
    } else if count(AUTHORIZATION) > 1 {
        bad("a request has one Authorization header at most")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderValue, Request};

    fn head(version: Version, headers: &[(&'static str, &str)]) -> Parts {
        let mut request = Request::post("/a?b").version(version);
        for (name, value) in headers {
            request = request.header(*name, HeaderValue::from_str(value).unwrap());
        }
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn a_head_is_as_large_as_it_is_written() {
        let written = "POST /a?b HTTP/1.1\r\nhost: h\r\nx: yz\r\n\r\n";
        let head = head(Version::HTTP_11, &[("host", "h"), ("x", "yz")]);
        assert_eq!(size(&head), written.len());
    }

    #[test]
    fn what_two_readers_may_understand_differently_is_refused() {
        fn status(version: Version, headers: &[(&'static str, &str)]) -> Option<u16> {
            let head = head(version, headers);
            refusal(&head, size(&head)).map(|response| response.status().as_u16())
        }
        let (one, old, two) = (Version::HTTP_11, Version::HTTP_10, Version::HTTP_2);
        let (host, token) = (("host", "h"), ("authorization", "Bearer t"));
        assert_eq!(status(one, &[host, token]), None);
        assert_eq!(status(one, &[token]), Some(400));
        assert_eq!(status(old, &[token]), None);
        assert_eq!(status(two, &[token]), None);
        for version in [one, old, two] {
            assert_eq!(status(version, &[host, host]), Some(400));
            assert_eq!(status(version, &[host, token, token]), Some(400));
        }
        let room = HTTP_HEADER_MAX - size(&head(one, &[host, ("x", "")]));
        assert_eq!(status(one, &[host, ("x", &"a".repeat(room))]), None);
        assert_eq!(status(one, &[host, ("x", &"a".repeat(room + 1))]), Some(431));
    }
}
