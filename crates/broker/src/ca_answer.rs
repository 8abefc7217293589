//! What a CA's answer means: to the person whose certificate it is about, and to the CA's health.

use crate::ca_problem::{no_answer, not_a_ca, words};
use epithet_agent::Clock;
use epithet_wire::ca::CertificateResponse;
use epithet_wire::limits::HTTP_BODY_MAX;
use epithet_wire::trace::server_timing;
use jiff::fmt::rfc2822::DateTimeParser;
use reqwest::header::{CONTENT_TYPE, LOCATION, RETRY_AFTER};
use reqwest::{Response, StatusCode};
use std::time::Duration;
use url::Url;

/// How much of a CA's words is shown to a person.
const WORDS_SHOWN: usize = 500;

/// What a CA said, or why it said nothing. The text is the CA's own, made harmless.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum CaAnswer {
    /// 200 with a certificate line, not yet looked into.
    Certificate(String),
    /// 401: this token is not accepted.
    Unauthorized(String),
    /// 403: the person may not do this.
    Denied(String),
    /// 422: the host is none of this CA's.
    NotHandled(String),
    /// Another 4xx: our request is wrong.
    BadRequest(String),
    /// 408 and 429: it works, but does not serve this request now.
    Declined {
        problem: String,
        retry_after: Option<Duration>,
    },
    /// Unreachable, 5xx, or an answer that is none.
    Unavailable {
        problem: String,
        retry_after: Option<Duration>,
    },
}

impl CaAnswer {
    /// The answer as a trace names it.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Certificate(_) => "certificate",
            Self::Unauthorized(_) => "401, token not accepted",
            Self::Denied(_) => "403, denied",
            Self::NotHandled(_) => "422, not its host",
            Self::BadRequest(_) => "our request is wrong",
            Self::Declined { .. } => "not now",
            Self::Unavailable { .. } => "unavailable",
        }
    }
}

/// A CA's answer, and how long the policy server took for its part as far as the CA says (`Server-Timing: policy;dur=…`).
#[derive(Debug)]
pub(crate) struct Answered {
    pub(crate) answer: CaAnswer,
    pub(crate) policy: Option<Duration>,
}

impl From<CaAnswer> for Answered {
    fn from(answer: CaAnswer) -> Self {
        Self { answer, policy: None }
    }
}

/// What an answer's head says about whether a CA gave it.
pub(crate) struct Head {
    status: StatusCode,
    content_type: String,
    location: String,
}

impl Head {
    pub(crate) fn of(response: &Response) -> Self {
        let header = |name| {
            let value = response.headers().get(name);
            let text = value.and_then(|value| value.to_str().ok());
            text.unwrap_or_default().to_owned()
        };
        Self {
            status: response.status(),
            content_type: header(CONTENT_TYPE),
            location: header(LOCATION),
        }
    }

    pub(crate) fn not_a_ca(&self, body: &[u8]) -> Option<String> {
        not_a_ca(self.status, &self.content_type, &self.location, body)
    }
}

/// How long the CA wants to be left alone: seconds, or a date (RFC 9110 section 10.2.3).
fn retry_after(value: &str, now: u64) -> Option<Duration> {
    let value = value.trim();
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = DateTimeParser::new().parse_timestamp(value).ok()?.as_second();
    let seconds = u64::try_from(date).ok()?.saturating_sub(now);
    Some(Duration::from_secs(seconds))
}

/// What the CA says about the policy server's share of the time.
pub(crate) fn policy_time(response: &Response) -> Option<Duration> {
    let headers = response.headers().get_all("server-timing").iter();
    let mut metrics = headers.flat_map(|value| server_timing(value.to_str().unwrap_or_default()));
    let (_, milliseconds) = metrics.find(|(name, _)| name == "policy")?;
    Duration::try_from_secs_f64(milliseconds / 1000.0).ok()
}

/// Reads a CA's answer by its status.
pub(crate) async fn answer(response: Response, ca: &Url, clock: &Clock) -> CaAnswer {
    let status = response.status();
    let retry_after = (response.headers().get(RETRY_AFTER))
        .and_then(|value| retry_after(value.to_str().ok()?, clock.now().unix));
    let head = Head::of(&response);
    let body = match read_body(response, ca).await {
        Ok(body) => body,
        Err(problem) => return CaAnswer::Unavailable { problem, retry_after },
    };
    if let Some(problem) = head.not_a_ca(&body) {
        return unavailable(problem);
    }
    let words = words(&head.content_type, &body, WORDS_SHOWN);
    match status {
        StatusCode::OK => match epithet_wire::read_document::<CertificateResponse>(&body) {
            Ok(response) => CaAnswer::Certificate(response.certificate),
            Err(_) => unavailable(
                "it is not a CA: it answered 200 without a certificate; is the CA's URL right?".to_owned(),
            ),
        },
        StatusCode::UNAUTHORIZED => CaAnswer::Unauthorized(words),
        StatusCode::FORBIDDEN => CaAnswer::Denied(words),
        StatusCode::UNPROCESSABLE_ENTITY => CaAnswer::NotHandled(words),
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => CaAnswer::Declined {
            problem: format!("it answered {status}: {words}"),
            retry_after,
        },
        status if status.is_client_error() => CaAnswer::BadRequest(format!("{status}: {words}")),
        status => CaAnswer::Unavailable {
            problem: format!("it answered {status}: {words}"),
            retry_after,
        },
    }
}

pub(crate) fn unavailable(problem: String) -> CaAnswer {
    CaAnswer::Unavailable {
        problem,
        retry_after: None,
    }
}

/// Reads a body of at most [`HTTP_BODY_MAX`] bytes.
pub(crate) async fn read_body(mut response: Response, ca: &Url) -> Result<Vec<u8>, String> {
    let mut body = Vec::new();
    loop {
        let chunk = match response.chunk().await {
            Ok(Some(chunk)) => chunk,
            Ok(None) => return Ok(body),
            Err(error) => return Err(no_answer(&error, ca).await),
        };
        if body.len() + chunk.len() > HTTP_BODY_MAX {
            return Err(format!("its answer is larger than {HTTP_BODY_MAX} bytes"));
        }
        body.extend_from_slice(&chunk);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ca_says_in_seconds_or_by_date_how_long_it_wants_to_be_left_alone() {
        let now = 784_111_777; // Sun, 06 Nov 1994 08:49:37 GMT
        for (value, seconds) in [
            ("30", Some(30)),
            (" 0 ", Some(0)),
            ("Sun, 06 Nov 1994 08:50:07 GMT", Some(30)),
            ("Sun, 06 Nov 1994 08:49:07 GMT", Some(0)),
            ("soon", None),
            ("", None),
            ("-1", None),
        ] {
            assert_eq!(
                retry_after(value, now),
                seconds.map(Duration::from_secs),
                "{value}"
            );
        }
    }

    #[tokio::test]
    async fn each_status_means_one_thing() {
        let clock = Clock::movable();
        let url: Url = "https://ca.example".parse().unwrap();
        let read = async |status: u16, retry: &str| {
            let mut response = http::Response::builder()
                .status(status)
                .header(CONTENT_TYPE, "text/plain");
            if !retry.is_empty() {
                response = response.header(RETRY_AFTER, retry);
            }
            answer(response.body("why").unwrap().into(), &url, &clock).await
        };
        let why = || "why".to_owned();
        assert_eq!(read(401, "").await, CaAnswer::Unauthorized(why()));
        assert_eq!(read(403, "").await, CaAnswer::Denied(why()));
        assert_eq!(read(422, "").await, CaAnswer::NotHandled(why()));
        for status in [400, 404, 405, 409, 410, 413, 415, 418, 451, 499] {
            let answer = read(status, "30").await;
            assert!(matches!(answer, CaAnswer::BadRequest(_)), "{status}: {answer:?}");
        }
        for (status, retry, wish) in [(408, "", None), (429, "", None), (429, "30", Some(30))] {
            match read(status, retry).await {
                CaAnswer::Declined { retry_after, .. } => {
                    assert_eq!(retry_after, wish.map(Duration::from_secs), "{status}");
                }
                answer => panic!("{status}: {answer:?}"),
            }
        }
        for (status, retry, wish) in [
            (500, "", None),
            (502, "", None),
            (503, "7", Some(7)),
            (504, "", None),
        ] {
            match read(status, retry).await {
                CaAnswer::Unavailable { retry_after, .. } => {
                    assert_eq!(retry_after, wish.map(Duration::from_secs), "{status}");
                }
                answer => panic!("{status}: {answer:?}"),
            }
        }
    }
}
