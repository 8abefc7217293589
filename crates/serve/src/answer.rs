//! Replies as both servers give them: errors and messages as plain text, everything else as JSON.

use axum::body::Body;
use axum::response::Response;
use http::header::{ALLOW, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, StatusCode};

/// A plain text reply. The text is for people; programs go by the status.
pub fn text(status: StatusCode, text: impl Into<Body>) -> Response {
    answer(status, HeaderValue::from_static("text/plain"), text.into())
}

/// A JSON reply with status 200, of text that is JSON already.
pub fn json(json: impl Into<Body>) -> Response {
    answer(
        StatusCode::OK,
        HeaderValue::from_static("application/json"),
        json.into(),
    )
}

/// 503: there is no room for another request now, and will be in a second.
pub(crate) fn busy() -> Response {
    let mut response = text(
        StatusCode::SERVICE_UNAVAILABLE,
        "too many bytes of requests are being read; try again in a moment",
    );
    response
        .headers_mut()
        .insert(RETRY_AFTER, HeaderValue::from_static("1"));
    response
}

/// 405 `Method not allowed`, naming the methods that are.
pub fn method_not_allowed(allowed: &'static str) -> Response {
    let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "Method not allowed");
    response
        .headers_mut()
        .insert(ALLOW, HeaderValue::from_static(allowed));
    response
}

fn answer(status: StatusCode, content_type: HeaderValue, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}
